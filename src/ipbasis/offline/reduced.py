"""The forward problem in the span of few functions: how well they solve tasks that they were not made of."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ipbasis.features.interface import Combined
from ipbasis.features.piecewise import Piecewise, PiecewiseSettings, cell_rules
from ipbasis.offline.artefact import Basis
from ipbasis.offline.box import box_of, in_time
from ipbasis.offline.collocation import Box, Place
from ipbasis.offline.modes import Modes
from ipbasis.problem.declaration import Problem


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
        box = box_of(problem, functions, cell_rules(modes.grid, points_of(modes.grid)), faded, whole=True)
        return cls(
            modes, box, Place(torch.as_tensor(problem.domain), torch.ones(len(problem.fields), dtype=torch.float64))
        )

    def solve(self, parameters: Tensor, guess: Tensor) -> ReducedSolution:
        """The readouts (F, K) of the smallest residual, from a guess.

        Args:
            parameters: what a box takes, see `box_of`.
            guess: (F, K) to begin with.

        Raises:
            NoSolutionError: if Newton's method does not converge.
        """
        readouts = self.box.solve(parameters, self.place, [], guess).readouts
        inside = self.box.parts[0]
        residual, _ = inside.evaluate(readouts, parameters, self.place)
        size = (readouts.norm(dim=1) * self.place.sizes).norm()
        return ReducedSolution(readouts, ((residual * inside.root).norm() / size).item())


def points_of(grid: PiecewiseSettings) -> tuple[int, ...]:
    """Points of a cell along each coordinate that do for the residuals of few functions.

    Half as many as there are polynomials: the functions are far fewer than points.
    """
    return tuple(degree // 2 + (1 if cells > 1 else 8) for cells, degree in zip(grid.cells, grid.degrees, strict=True))


def reduced_of(basis: Basis) -> Reduced:
    """The forward problem in the span of a basis, as it was solved in its training.

    Args:
        basis: of piecewise polynomials, in its own units.
    """
    problem, grid = basis.problem, basis.record.features
    breakpoints = [
        tuple((2 * (np.array(ends) - low) / (high - low) - 1).tolist())
        for ends, (low, high) in zip(grid.breakpoints, problem.domain, strict=True)
    ]
    unit = PiecewiseSettings(breakpoints=tuple(breakpoints), degrees=grid.degrees)
    modes = Modes(unit, basis.transform, basis.transform.new_zeros(basis.record.functions + 1))
    return Reduced.of(problem, modes, in_time(problem))
