"""Scales, grading and number of untrained features, chosen by the errors of tasks whose solutions are known.

Residuals are no measure: at the points that features are fitted at they are small however wrong the solution is between
them. Solutions at the corners of the ranges, in polynomials, tell the error itself.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from torch import Tensor

from ipbasis.features.interface import Features
from ipbasis.features.piecewise import PiecewiseSettings, differentiated
from ipbasis.features.untrained import Spread
from ipbasis.offline.collocation import NoSolutionError
from ipbasis.offline.measured import Tried
from ipbasis.offline.pilot import Told
from ipbasis.offline.trajectory import common_grid
from ipbasis.offline.whole import Whole
from ipbasis.problem.declaration import Problem

_FIRST, _MOST = {1: 60, 2: 300, 3: 400}, {1: 1000, 2: 2400, 3: 2400}  # features, by the number of coordinates
_RATIOS, _GRADED, _STEEPER = (2.25, 1.5), 2.0, 1.4  # steps of scales and grading, and of scales as the number doubles
_BETTER = 0.8  # how much smaller an error must become for the search to go on
_HARDEST = 3  # of the tasks, which are looked at

# Features of a spread, a number of them
Family = Callable[[Spread, int], Features]


@dataclass(frozen=True)
class Tuned:
    """Features that were chosen.

    Args:
        spread: how they vary.
        width: how many.
        error: the largest relative error of the tasks that were looked at.
    """

    spread: Spread
    width: int
    error: float = np.inf


@dataclass(frozen=True, eq=False)
class Tuning:
    """What features are judged by.

    Args:
        problem: the problem, in natural units.
        known: tasks and their solutions.
        family: kind of features.
        in_time: whether the first coordinate is time, so that a grading may help.
        until: when the time is over, of `time.monotonic`.
        hardest: numbers of the tasks that are looked at, see `focused`.
    """

    problem: Problem
    known: Tried
    family: Family
    in_time: bool
    until: float
    hardest: np.ndarray = field(default_factory=lambda: np.arange(0))

    @cached_property
    def grid(self) -> PiecewiseSettings:
        """On which the solutions are polynomials."""
        return common_grid(self.known.solutions)

    @cached_property
    def true(self) -> Tensor:
        """(S, F, H) readouts of the solutions."""
        return self.known.on(self.grid)

    def whole(self, features: Tuned) -> Whole:
        """The forward problem in the span of features."""
        return Whole.of(self.problem, self.family(features.spread, features.width), features.spread, self.grid)

    def errors(self, features: Tuned, tasks: np.ndarray) -> np.ndarray:
        """Relative errors of tasks by their numbers, solved in the span; infinite where no solution is found."""
        whole, found = self.whole(features), np.full(len(tasks), np.inf)
        for place, number in enumerate(tasks):
            try:
                solved = whole.readouts(self.known.unknowns[number], self.known.solutions[number])
            except NoSolutionError:
                continue
            found[place] = (solved - self.true[number]).norm() / self.true[number].norm()
        return found

    def measured(self, features: Tuned) -> Tuned:
        """With their error."""
        return replace(features, error=float(self.errors(features, self.hardest).max()))

    def first(self) -> Tuned:
        """Features whose scales are the slopes of the solutions over their sizes."""
        axes = len(self.problem.coordinates)
        readouts = self.true.flatten(0, 1)
        slopes = [(differentiated(self.grid, readouts, axis).norm() / readouts.norm()).item() for axis in range(axes)]
        return Tuned(Spread(tuple(max(slope, 1.0) for slope in slopes)), _FIRST[axes])

    def focused(self, features: Tuned, count: int = _HARDEST) -> "Tuning":
        """Judged by so many tasks of the largest errors, those left out whose solution is zero."""
        tasks = self.true.flatten(1).norm(dim=1).nonzero()[:, 0].numpy()
        return replace(self, hardest=tasks[np.argsort(-self.errors(features, tasks), kind="stable")[:count]])

    def searched(self, features: Tuned) -> Tuned:
        """The best spread of as many features: steps along one coordinate at a time, as long as they help."""
        best = self.measured(features)
        for ratio in _RATIOS:
            while True:
                before = best.error
                for spread in _neighbours(best.spread, ratio, self.in_time):
                    best = self._better(best, replace(best, spread=spread))
                if not best.error < _BETTER * before:
                    break
        return best

    def grown(self, best: Tuned, aim: float, told: Told) -> Tuned:
        """As many more features as bring the error to an aim, or as there is time for."""
        width, most = best.width, _MOST[len(self.problem.coordinates)]
        while best.error > aim and width < most:
            began, width = time.monotonic(), min(2 * width, most)
            more = self.measured(replace(best, width=width))
            taken = time.monotonic() - began
            for axis in range(len(more.spread.scales)):
                # twice the features take eight times as long
                if time.monotonic() + (1 + 8) * taken < self.until:
                    more = self._better(more, replace(more, spread=_along(more.spread, axis, _STEEPER)))
            told(f"{width} features, error of the worst of {len(self.hardest)} tasks {more.error:.1e}")
            best = more if more.error < best.error else best
            if time.monotonic() + 8 * taken > self.until:
                break
        return best

    def _better(self, best: Tuned, other: Tuned) -> Tuned:
        """The better of both; the first where there is no time."""
        if time.monotonic() > self.until:
            return best
        other = self.measured(other)
        return other if other.error < best.error else best


def _neighbours(spread: Spread, ratio: float, in_time: bool) -> Iterator[Spread]:
    """Spreads that differ along one coordinate, or in the grading."""
    for axis in range(len(spread.scales)):
        yield from (_along(spread, axis, factor) for factor in (ratio, 1 / ratio))
    if in_time:
        yield replace(spread, grading=spread.grading + _GRADED)
        if spread.grading:
            yield replace(spread, grading=spread.grading - _GRADED)


def _along(spread: Spread, axis: int, factor: float) -> Spread:
    """With another scale along a coordinate."""
    scales = list(spread.scales)
    scales[axis] *= factor
    return replace(spread, scales=tuple(scales))
