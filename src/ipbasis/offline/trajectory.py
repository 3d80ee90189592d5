"""Solutions kept slab by slab along the first coordinate, and the grid on whose cells many of them are polynomials."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ipbasis.features.piecewise import PiecewiseSettings, legendre
from ipbasis.features.quadrature import gauss


@dataclass(frozen=True)
class Slab:
    """A solution on part of the first coordinate, in one polynomial.

    The slab is ``[number, number + 1]`` in units of the whole length over ``2**level``.

    Args:
        level: how often the length is halved.
        number: of the slab among those of its level.
        readouts: (F, degree + 1 along each coordinate) of Legendre polynomials, see `Piecewise` on the slab alone.
        tail: size of the highest polynomials in each direction, as a share of the solution's size.
    """

    level: int
    number: int
    readouts: Tensor
    tail: float

    @property
    def ends(self) -> tuple[float, float]:
        """Where it lies, as shares of the first coordinate."""
        return self.number * 0.5**self.level, (self.number + 1) * 0.5**self.level

    @property
    def degrees(self) -> tuple[int, ...]:
        """Along each coordinate."""
        return tuple(count - 1 for count in self.readouts.shape[1:])


@dataclass(frozen=True)
class Trajectory:
    """The solution of one task.

    Args:
        slabs: from the low end of the first coordinate to its high end.
    """

    slabs: tuple[Slab, ...]

    def sizes(self) -> np.ndarray:
        """(F,) root mean square of each field."""
        squares = [slab.readouts.flatten(1).square().sum(1) * 0.5**slab.level for slab in self.slabs]
        return torch.stack(squares).sum(0).sqrt().numpy()

    def on(self, grid: PiecewiseSettings) -> Tensor:
        """(F, H) its readouts on a grid of cells, see `common_grid`: of them it is a combination."""
        shares = _shares(grid)
        inner = [slab.ends[1] for slab in self.slabs[:-1]]
        middles = (shares[1:] + shares[:-1]) / 2
        own = torch.searchsorted(torch.tensor(inner, dtype=torch.float64), middles).tolist()
        cells = [
            self._cell(self.slabs[s], low, high, grid) for s, low, high in zip(own, shares, shares[1:], strict=False)
        ]
        return torch.stack(cells, dim=1).flatten(1)

    @staticmethod
    def _cell(slab: Slab, low: Tensor, high: Tensor, grid: PiecewiseSettings) -> Tensor:
        first, last = slab.ends
        part = (torch.stack([low, high]) - first) / (last - first) * 2 - 1
        along = _restricted(slab.degrees[0], grid.degrees[0], tuple(part.tolist()))
        found = torch.tensordot(along, slab.readouts, ([1], [1])).movedim(0, 1)
        # the mean over the slab was one for each polynomial, now it is the mean over the domain
        found = found * (high - low) ** 0.5
        wider = [d - own for d, own in zip(grid.degrees[1:], slab.degrees[1:], strict=True)]
        padding = [entry for more in reversed(wider) for entry in (0, more)]
        return torch.nn.functional.pad(found, padding)


def common_grid(trajectories: Iterable[Trajectory]) -> PiecewiseSettings:
    """The coarsest grid on [-1, 1] along each coordinate on which all of them are combinations of the features."""
    slabs = [slab for trajectory in trajectories for slab in trajectory.slabs]
    shares = sorted({end for slab in slabs for end in slab.ends})
    degrees = tuple(max(degrees) for degrees in zip(*(slab.degrees for slab in slabs), strict=True))
    first = tuple(2 * share - 1 for share in shares)
    return PiecewiseSettings(breakpoints=(first, *((-1.0, 1.0),) * (len(degrees) - 1)), degrees=degrees)


def _shares(grid: PiecewiseSettings) -> Tensor:
    """Ends of the cells along the first coordinate as shares of it."""
    return (torch.tensor(grid.breakpoints[0], dtype=torch.float64) + 1) / 2


def _restricted(degree: int, most: int, part: tuple[float, float]) -> Tensor:
    """(most + 1, degree + 1) readouts of each polynomial on a part of [-1, 1], in polynomials of that part."""
    nodes, weights = map(torch.as_tensor, gauss(max(degree, most) + 1))
    low, high = part
    there = legendre(low + (high - low) * (nodes + 1) / 2, degree, 0)[0]
    here = legendre(nodes, most, 0)[0]
    return here.T @ (weights[:, None] * there)
