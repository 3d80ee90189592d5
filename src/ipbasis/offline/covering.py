"""The choice of tasks: those that the functions of the others serve worst, until unseen ones are served as well."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ipbasis.offline.collocation import NoSolutionError
from ipbasis.offline.marching import TooLongError
from ipbasis.offline.measured import Errors, Span, Tried
from ipbasis.offline.pilot import Pilot, solve_task
from ipbasis.offline.trajectory import Trajectory
from ipbasis.offline.whole import Whole
from ipbasis.problem.declaration import Problem

Told = Callable[[str], None]

_POOL, _BATCH, _UNSEEN = 128, 4, 12  # candidates, of them solved at once, and tasks to measure the result on
_COVERED, _MEASURED, _LONGEST = 0.6, 0.85, 0.1  # shares of the time: to add tasks, to measure, and for one task
_ROUGH = 1e-2  # share of the highest polynomials in a solution from which Newton's method starts in other features
_DROPPED = 0.02  # functions of less than this share of the accuracy in the solutions are dropped at once


@dataclass(frozen=True)
class Clock:
    """The time that is given.

    Args:
        seconds: in all.
        began: of `time.monotonic`.
    """

    seconds: float
    began: float = field(default_factory=time.monotonic)

    def left(self, share: float = 1.0) -> float:
        """Seconds until a share of the time is over."""
        return self.began + share * self.seconds - time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began


@dataclass
class Training:
    """A training: what is known at any time, so that it may be cut off.

    Args:
        accuracy: relative error that is asked for.
        clock: the time.
        told: receives what is being done, in words.
        pilot: how tasks are solved.
        tried: solved tasks, of which the functions are made.
        failed: number of tasks without a solution.
        late: number of tasks that took too long.
        unseen: further solved tasks; those that were solved last before they were added where there was no time.
        interrupted: whether it was cut off before its time.
        whole: features in whose span tasks are solved, but for those that tell the errors; None for polynomials.
        described: the features, for the record.
    """

    accuracy: float
    clock: Clock
    told: Told
    pilot: Pilot
    tried: Tried
    failed: int = 0
    late: int = 0
    unseen: Tried | None = None
    interrupted: bool = False
    whole: Whole | None = None
    described: dict[str, Any] = field(default_factory=lambda: {"features": "chebyshev"})

    @property
    def problem(self) -> Problem:
        """In natural units."""
        return self.pilot.marcher.problem

    def solve(self, tasks: np.ndarray, until: float, exact: bool = False) -> Tried:
        """Those of tasks (T, U) that have a solution, until a share of the time is over.

        Args:
            tasks: to solve.
            until: the share.
            exact: whether in polynomials, whatever the features are.
        """
        solved = Tried.none(self.problem)
        for unknowns in tasks:
            seconds = min(self.clock.left(until), _LONGEST * self.clock.seconds)
            if seconds <= 0:
                break
            try:
                solved = solved.with_one(unknowns, self._solution(unknowns, seconds, exact))
            except NoSolutionError:
                self.failed += 1
            except TooLongError:
                self.late += 1
        return solved

    def _solution(self, unknowns: np.ndarray, seconds: float, exact: bool) -> Trajectory:
        pilot, like = self.pilot, self.tried.solutions[self.tried.nearest(self.problem, unknowns)]
        if exact or self.whole is None:
            return solve_task(pilot.marcher, unknowns, pilot.fineness, like, seconds)
        rough = replace(pilot.fineness, tolerance=max(_ROUGH, pilot.fineness.tolerance))
        start = like if self.whole.box.linear else solve_task(pilot.marcher, unknowns, rough, like, seconds)
        return self.whole.solve(unknowns, start)

    def span(self, others: Tried) -> Span:
        """All functions of the solved tasks, for other solved tasks too."""
        pilot, smallest = self.pilot, _DROPPED * self.accuracy
        return Span.of(pilot.marcher, pilot.fineness, self.tried, others.solutions, smallest)

    def worst(self, errors: Errors) -> float:
        """The largest error that counts: of solutions, or of approximations where a solution is itself one."""
        return errors.worst(solved=self.pilot.marcher.in_time or not self.problem.has_time)

    def cover(self, margin: float) -> None:
        """Add tasks, those first that the functions of the others serve worst, until all are served.

        Args:
            margin: share of the accuracy that tasks are to reach.
        """
        pool = self.problem.ranges.sobol(_POOL, 1)
        while self.clock.left(_COVERED) > 0:
            span = self.span(Tried.none(self.problem))
            residual = span.errors(pool).residual
            batch = self.solve(_worst(self.problem, pool, residual, self.tried), _COVERED)
            if not len(batch):
                return
            errors = self.span(batch).errors(batch.unknowns, batch.solutions)
            self.tried, self.unseen = self.tried.and_(batch), None
            worst = self.worst(errors)
            self.told(
                f"{len(self.tried)} tasks, {span.modes.count} functions, error of the worst of {len(batch)} {worst:.1e}"
            )
            if max(worst, np.median(errors.solution / errors.residual) * residual.max()) <= margin * self.accuracy:
                return

    def measure(self, seed: int) -> bool:
        """Solve unseen tasks; whether they are served as well as is asked for, or no time is left."""
        if self.unseen is not None:
            self.tried = self.tried.and_(
                self.unseen if self.whole is None else self.solve(self.unseen.unknowns, _COVERED)
            )
        tasks = self.problem.ranges.drawn(_UNSEEN, np.random.default_rng(seed))
        unseen = self.solve(tasks, _MEASURED, exact=True)
        if not len(unseen):
            return True
        self.unseen = unseen
        worst = self.worst(self.span(unseen).errors(unseen.unknowns, unseen.solutions))
        self.told(f"error of the worst of {len(unseen)} unseen tasks {worst:.1e}")
        return worst <= self.accuracy or self.clock.left(_COVERED) <= 0


def _worst(problem: Problem, pool: np.ndarray, residual: np.ndarray, tried: Tried) -> np.ndarray:
    """(B, U) candidates of the largest residual, none close to another or to a solved task."""
    ranges = problem.ranges
    shares, taken = ranges.shares(pool), ranges.shares(tried.unknowns)
    left, chosen = np.where(np.isfinite(residual), residual, 1e300), []
    # the functions of a task serve its neighbours, as far as candidates, or solved tasks, are apart
    near, apart = (count ** (-1 / shares.shape[1]) for count in (len(pool), len(tried)))
    left = left * np.minimum(_distances(shares, taken).min(1) / near, 1)
    for _ in range(_BATCH):
        chosen.append(int(left.argmax()))
        left = left * np.minimum(_distances(shares, shares[chosen[-1:]])[:, 0] / apart, 1)
    return pool[chosen]


def _distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(n, m) between places (n, U) and (m, U)."""
    return np.sqrt(np.square(one[:, None] - other[None]).sum(2))
