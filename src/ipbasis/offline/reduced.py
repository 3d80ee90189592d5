"""The forward problem in the span of few functions: how well they solve tasks that they were not made of."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ipbasis.features.interface import Features
from ipbasis.features.piecewise import Piecewise, PiecewiseSettings
from ipbasis.features.quadrature import gauss
from ipbasis.offline.box import Rule, box_of
from ipbasis.offline.collocation import Box, NoSolutionError, Place
from ipbasis.offline.modes import Modes
from ipbasis.problem.declaration import Problem
from ipbasis.problem.equations import MultiIndex


# Values of the initial conditions of a task, jet by jet, at points (n, d) of the start of the domain
Targets = Callable[[Tensor], Sequence[Tensor]]


class Compressed(Features):
    """Combinations of piecewise polynomials.

    Args:
        modes: the combinations.
    """

    def __init__(self, modes: Modes):
        super().__init__()
        self.polynomials, self.transform = Piecewise(modes.grid), modes.transform
        self.domain = self.polynomials.domain

    @property
    def feature_count(self) -> int:
        """Number K of combinations."""
        return self.transform.shape[1]

    def forward(self, points: Tensor, indices: Iterable[MultiIndex] = ((),)) -> dict[MultiIndex, Tensor]:
        """For each derivative (n, K)."""
        return self.polynomials.combined(points, indices, self.transform)


@dataclass(frozen=True)
class ReducedSolution:
    """A task solved in the span of few functions.

    Args:
        readouts: (F, K).
        residual: root mean square of the residual relative to that of the solution.
    """

    readouts: Tensor
    residual: float


@dataclass(frozen=True)
class Reduced:
    """The forward problem in the span of few functions.

    Args:
        modes: the functions.
        box: equations and conditions, at fewer points than a slab has: there are fewer functions.
        place: the whole domain.
    """

    modes: Modes
    box: Box
    place: Place

    def solve(self, parameters: Tensor, targets: Targets, guess: Tensor) -> ReducedSolution:
        """The readouts (F, K) of the smallest residual, from a guess.

        Raises:
            NoSolutionError: if Newton's method does not converge.
        """
        start = self.box.start
        values = [] if start is None else targets(start.points)
        readouts = self.box.solve(parameters, self.place, values, guess).readouts
        inside = self.box.parts[0]
        residual, _ = inside.evaluate(readouts, parameters, self.place)
        size = (readouts.norm(dim=1) * self.place.sizes).norm()
        return ReducedSolution(readouts, ((residual * inside.root).norm() / size).item())


def rules_of(grid: PiecewiseSettings) -> list[Rule]:
    """Points of a grid of cells at which residuals of few functions are taken.

    A cell counts by its length in time twice over, see `modes_of`.
    """
    ends = np.array(grid.breakpoints[0])
    lengths = np.diff(ends)
    nodes, shares = gauss(grid.degrees[0] // 2 + 1 if len(lengths) > 1 else _fewer(grid.degrees[0]))
    along = (ends[:-1, None] + lengths[:, None] * (nodes + 1) / 2).ravel()
    weights = np.outer(lengths**2, shares).ravel()
    return [(along, weights / weights.sum()), *(gauss(_fewer(degree)) for degree in grid.degrees[1:])]


def _fewer(degree: int) -> int:
    return degree // 2 + 8
