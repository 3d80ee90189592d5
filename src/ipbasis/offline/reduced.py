"""The forward problem in the span of few functions: how well they solve tasks that they were not made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ipbasis.features.interface import Combined
from ipbasis.features.piecewise import Piecewise, PiecewiseSettings, cell_rules
from ipbasis.offline.box import box_of
from ipbasis.offline.collocation import Box, Place
from ipbasis.offline.modes import Modes
from ipbasis.problem.declaration import Problem

# Values of the initial conditions of a task, jet by jet, at points (n, d) of the start of the domain
Targets = Callable[[Tensor], Sequence[Tensor]]


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

    @classmethod
    def of(cls, problem: Problem, modes: Modes, faded: bool) -> "Reduced":
        """A problem in the span of modes, its fields of size one; for `faded` see `box_of`."""
        functions = Combined(Piecewise(modes.grid), modes.transform)
        box = box_of(problem, functions, cell_rules(modes.grid, points_of(modes.grid)), faded)
        return cls(
            modes, box, Place(torch.as_tensor(problem.domain), torch.ones(len(problem.fields), dtype=torch.float64))
        )

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


def points_of(grid: PiecewiseSettings) -> tuple[int, ...]:
    """Points of a cell along each coordinate that do for the residuals of few functions.

    Half as many as there are polynomials: the functions are far fewer than points.
    """
    return tuple(degree // 2 + (1 if cells > 1 else 8) for cells, degree in zip(grid.cells, grid.degrees, strict=True))
