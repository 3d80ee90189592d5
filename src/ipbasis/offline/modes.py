"""The functions that solutions are best combined of: POD in the readouts of piecewise polynomials."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ipbasis.features.piecewise import PiecewiseSettings, differentiated
from ipbasis.problem.equations import MultiIndex


@dataclass(frozen=True)
class Modes:
    """Orthonormal functions, best first.

    Args:
        grid: of the piecewise polynomials that they are combined of.
        transform: (H, K).
        lost: (K + 1,) share of the solutions, in the norm of `modes_of`, that the first functions leave.
    """

    grid: PiecewiseSettings
    transform: Tensor
    lost: Tensor

    @property
    def count(self) -> int:
        """Number K of functions."""
        return self.transform.shape[1]

    def first(self, count: int) -> "Modes":
        """The first of them alone."""
        return Modes(self.grid, self.transform[:, :count], self.lost[: count + 1])


def modes_of(grid: PiecewiseSettings, solutions: Tensor, indices: tuple[MultiIndex, ...], smallest: float) -> Modes:
    """POD of solutions, each of size 1, in a norm of the value and of every derivative in the equation.

    What is dropped is then small in the residual too. Derivatives are taken along coordinates of length 2 and count on
    a cell by its length in time: what a residual does to a solution is its size times how long it lasts, and where
    cells are short, as next to a corner that does not fit, it may be large.

    Args:
        grid: of piecewise polynomials on [-1, 1] along each coordinate.
        solutions: (S, F, H) readouts.
        indices: derivatives in the equation.
        smallest: share of the solutions below which functions are dropped.
    """
    count, fields, _ = solutions.shape
    flat = solutions.flatten(0, 1)
    ends = torch.tensor(grid.breakpoints[0], dtype=torch.float64)
    lengths = (ends[1:] - ends[:-1]) / (ends[1:] - ends[:-1]).max()
    weights = lengths.sqrt().repeat_interleave(flat.shape[1] // len(lengths))
    blocks = [flat]
    for index in indices:
        if index:
            derivative = flat
            for axis in index:
                derivative = differentiated(grid, derivative, axis)
            blocks.append(derivative * weights)
    _, triangular = torch.linalg.qr(torch.cat(blocks, dim=1).T, mode="r")
    sizes = triangular.unflatten(1, (count, fields)).square().sum((0, 2)).sqrt().repeat_interleave(fields)
    sizes = torch.where(sizes > 0, sizes, torch.ones_like(sizes))  # a solution may be zero
    _, strengths, right = torch.linalg.svd(triangular / sizes, full_matrices=False)
    squares = torch.cat([strengths.square().flip(0).cumsum(0).flip(0), strengths.new_zeros(1)])
    lost = (squares / squares[0]).sqrt()
    kept = int((lost[:-1] > max(smallest, 1e-12)).sum())
    transform = (right[:kept] / sizes / strengths[:kept, None]) @ flat
    # made orthonormal in value, each to those before it
    orthonormal, upper = torch.linalg.qr(transform.T)
    return Modes(grid, orthonormal * upper.diagonal().sign(), lost[: kept + 1])
