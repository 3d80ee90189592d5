"""The forward problem on the whole domain at once, in the span of any features."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ipbasis.features.interface import Combined, Features
from ipbasis.features.piecewise import Piecewise, PiecewiseSettings
from ipbasis.features.quadrature import gauss
from ipbasis.features.untrained import Spread
from ipbasis.offline.box import box_of
from ipbasis.offline.collocation import Box, Place
from ipbasis.offline.evaluated import energy_coordinates
from ipbasis.offline.marching import initial_values
from ipbasis.offline.trajectory import Slab, Trajectory, common_grid
from ipbasis.problem.declaration import Problem

_POINTS = 2.5  # per feature: 1.5 cost up to 20 times in the error of 17 equations, more gain little
_RANK = 1e-13  # share of the largest direction of the features; 1e-10 costs 2 to 470 times in the error


@dataclass(frozen=True, eq=False)
class Whole:
    """Solves tasks of a problem in the span of features.

    Solutions are handed on as polynomials, which lose no digits: the readouts of wide features cancel.

    Args:
        problem: the problem.
        box: equations and conditions, for combinations of the features that are orthonormal in value and derivatives.
        grid: of the polynomials.
        on_grid: (r, H) the combinations in these.
    """

    problem: Problem
    box: Box
    grid: PiecewiseSettings
    on_grid: Tensor

    @classmethod
    def of(cls, problem: Problem, features: Features, spread: Spread, grid: PiecewiseSettings) -> "Whole":
        """A problem in the span of features.

        Args:
            problem: the problem.
            features: on [-1, 1] along each coordinate.
            spread: of the points at which equations and conditions are taken.
            grid: of polynomials that resolve the solutions, its cells along the first coordinate dyadic.
        """
        rules = spread.rules(int(_POINTS * features.feature_count))
        points = torch.cartesian_prod(*(torch.as_tensor(nodes) for nodes, _ in rules)).reshape(-1, len(rules))
        values = {index: own / len(points) ** 0.5 for index, own in features(points, problem.system.indices).items()}
        energy = energy_coordinates(values, features.domain.numpy(), _RANK)
        combined = Combined(features, energy)
        return cls(problem, box_of(problem, combined, rules, faded=False), grid, _on_grid(combined, grid))

    def solve(self, unknowns: np.ndarray, start: Trajectory) -> Trajectory:
        """The solution of a task, see `readouts`."""
        return _trajectory(self.readouts(unknowns, start), self.grid)

    def readouts(self, unknowns: np.ndarray, start: Trajectory) -> Tensor:
        """(F, H) the solution of a task given by its unknowns (U,), in the polynomials.

        Args:
            unknowns: parameters and free initial values.
            start: a rough solution, from which Newton's method starts where the problem is not linear: on the whole
                domain, it would find another one from constant fields, or none.

        Raises:
            NoSolutionError: if Newton's method does not converge.
        """
        task = self.problem.tasks(unknowns[None])
        parameters, initial = torch.as_tensor(task.parameters[0]), torch.as_tensor(task.initial[0])
        place = Place(torch.as_tensor(self.problem.domain), parameters.new_ones(len(self.problem.fields)))
        targets = []
        if self.box.start is not None:
            targets = initial_values(self.problem, place, self.box.start.points, parameters, initial)
        arguments = torch.cat([parameters, initial, parameters.new_zeros(1)])  # nothing is faded
        guess = self._projected(start)
        return self.box.solve(arguments, place, targets, guess).readouts @ self.on_grid

    def _projected(self, start: Trajectory) -> Tensor:
        """(F, r) of what is nearest to a solution in value and derivatives; zero where a start is not needed."""
        if self.box.linear:
            return torch.zeros(len(self.problem.fields), len(self.on_grid), dtype=torch.float64)
        inside, grid = self.box.parts[0], common_grid([start])
        indices = self.problem.system.indices
        given = Piecewise(grid).combined(inside.points, indices, start.on(grid).T)
        return sum(given[index].T @ inside.values[index] for index in indices) / len(inside.points)


def _on_grid(features: Features, grid: PiecewiseSettings) -> Tensor:
    """(r, H) the best approximation of each feature by polynomials on a grid."""
    counts = [degree + 1 for degree in grid.degrees]
    rules = [gauss(count) for count in counts]
    nodes, weights = (
        torch.cartesian_prod(*map(torch.as_tensor, part)).reshape(-1, len(counts)) for part in zip(*rules, strict=True)
    )
    cell = Piecewise(PiecewiseSettings(breakpoints=((-1, 1),) * len(counts), degrees=grid.degrees))
    projection = cell(nodes)[()] * weights.prod(1)[:, None]
    found = []
    for low, high in pairwise(grid.breakpoints[0]):
        points = nodes.clone()
        points[:, 0] = low + (high - low) * (nodes[:, 0] + 1) / 2
        found.append(features(points)[()].T @ projection * ((high - low) / 2) ** 0.5)
    return torch.cat(found, dim=1)


def _trajectory(readouts: Tensor, grid: PiecewiseSettings) -> Trajectory:
    """Readouts (F, H) on a grid whose cells along the first coordinate are dyadic, cell by cell."""
    ends = (np.array(grid.breakpoints[0]) + 1) / 2
    by_cell = readouts.unflatten(1, (len(ends) - 1, *(degree + 1 for degree in grid.degrees)))
    slabs = []
    for number, (low, high) in enumerate(pairwise(ends)):
        level = round(-np.log2(high - low))
        slabs.append(Slab(level, round(low * 2**level), by_cell[:, number] * 2 ** (level / 2), 0.0))
    return Trajectory(tuple(slabs))
