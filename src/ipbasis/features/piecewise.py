"""Piecewise polynomials: products of orthonormal Legendre polynomials on the cells of a grid."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import prod
from typing import Literal

import numpy as np
import torch
from pydantic import NonNegativeInt, model_validator
from torch import Tensor

from ipbasis.features.interface import Features
from ipbasis.features.quadrature import Quadrature, gauss
from ipbasis.problem.declaration import Declared
from ipbasis.problem.equations import MultiIndex


class PiecewiseSettings(Declared):
    """A grid of cells over the domain, and polynomials on them.

    Args:
        breakpoints: ends of the cells along each coordinate, increasing; the first and the last are the domain's.
        degrees: highest degree along each coordinate.
    """

    kind: Literal["piecewise"] = "piecewise"
    breakpoints: tuple[tuple[float, ...], ...]
    degrees: tuple[NonNegativeInt, ...]

    @model_validator(mode="after")
    def _check(self) -> "PiecewiseSettings":
        if len(self.breakpoints) != len(self.degrees):
            raise ValueError(f"{len(self.breakpoints)} lists of breakpoints, but {len(self.degrees)} degrees")
        for ends in self.breakpoints:
            if len(ends) < 2 or any(low >= high for low, high in pairwise(ends)):
                raise ValueError(f"breakpoints {list(ends)}: at least two of them, increasing")
        return self

    @property
    def cells(self) -> tuple[int, ...]:
        """Number of cells along each coordinate."""
        return tuple(len(ends) - 1 for ends in self.breakpoints)

    @property
    def words(self) -> str:
        """For a reader."""
        return f"polynomials of degree {' x '.join(map(str, self.degrees))} on {' x '.join(map(str, self.cells))} cells"


class Piecewise(Features):
    """Products of Legendre polynomials of each coordinate on one cell, zero on the others.

    The mean of the product of two of them over the domain is 1 for the same and 0 for others: combinations with
    orthonormal columns are orthonormal functions, and lose no digits. They are numbered by cell, then by the degree
    along each coordinate, the last coordinate fastest. A breakpoint belongs to the cell above it, the upper end of the
    domain to the last cell; outside of the domain the polynomials of the outermost cells go on.

    Args:
        settings: cells and degrees.
    """

    def __init__(self, settings: PiecewiseSettings):
        super().__init__()
        self.settings = settings
        ends = [torch.tensor(own, dtype=torch.float64) for own in settings.breakpoints]
        self.register_buffer("domain", torch.stack([own[[0, -1]] for own in ends]), persistent=False)
        for axis, own in enumerate(ends):
            self.register_buffer(f"ends{axis}", own, persistent=False)

    @property
    def local_count(self) -> int:
        """Number L of features on each cell."""
        return prod(degree + 1 for degree in self.settings.degrees)

    @property
    def feature_count(self) -> int:
        """Number of features, L on each of the cells."""
        return prod(self.settings.cells) * self.local_count

    def local(self, points: Tensor, indices: Iterable[MultiIndex] = ((),)) -> tuple[Tensor, dict[MultiIndex, Tensor]]:
        """The features that are not zero.

        Args:
            points: (n, d) coordinates in the problem's own units.
            indices: which derivatives, of any order; the value is always among the results.

        Returns:
            the number of each point's cell (n,), and for each derivative (n, L) the features on it.
        """
        indices = {(), *indices}
        cell = torch.zeros(len(points), dtype=torch.long, device=points.device)
        values = {index: points.new_ones(len(points), 1, dtype=self.dtype) for index in indices}
        for axis, (cells, degree) in enumerate(zip(self.settings.cells, self.settings.degrees, strict=True)):
            ends, along = getattr(self, f"ends{axis}"), points[:, axis].to(self.dtype).contiguous()
            own = torch.searchsorted(ends[1:-1].contiguous(), along, right=True)
            cell = cell * cells + own
            half = (ends[own + 1] - ends[own]) / 2
            orders = max(index.count(axis) for index in indices)
            polynomials = legendre((along - ends[own]) / half - 1, degree, orders)
            size = ((ends[-1] - ends[0]) / (2 * half)).sqrt()
            for index in indices:
                order = index.count(axis)
                factor = polynomials[order] * (size / half**order)[:, None]
                values[index] = (values[index][:, :, None] * factor[:, None]).flatten(1)
        return cell, values

    def forward(self, points: Tensor, indices: Iterable[MultiIndex] = ((),)) -> dict[MultiIndex, Tensor]:
        """For each derivative, and the value, all features (n, H), most of them zero."""
        cell, values = self.local(points, indices)
        rows = torch.arange(len(points), device=points.device)
        dense = {}
        for index, own in values.items():
            by_cell = own.new_zeros(len(points), self.feature_count // self.local_count, self.local_count)
            by_cell[rows, cell] = own
            dense[index] = by_cell.flatten(1)
        return dense

    def combined(self, points: Tensor, indices: Iterable[MultiIndex], transform: Tensor) -> dict[MultiIndex, Tensor]:
        """As of any features, the work of each point that of its own cell alone."""
        cell, local = self.local(points, indices)
        order = cell.argsort(stable=True)
        numbers, counts = cell[order].unique_consecutive(return_counts=True)
        by_cell = transform.unflatten(0, (-1, self.local_count))
        values = {index: transform.new_empty(len(points), transform.shape[1]) for index in local}
        for number, rows in zip(numbers.tolist(), order.split(counts.tolist()), strict=True):
            for index, own in local.items():
                values[index][rows] = own[rows] @ by_cell[number]
        return values


def cell_rules(grid: PiecewiseSettings, counts: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Points and weights of sum 1 along each coordinate: Gauss's rule on every cell.

    Along the first coordinate, time, a cell counts by its length twice over: what a residual does to a solution is its
    size times how long it lasts, and where cells are short, as where a jump is smoothed, it may be large.

    Args:
        grid: the cells.
        counts: points of a cell along each coordinate.
    """
    rules = []
    for axis, (ends, count) in enumerate(zip(map(np.array, grid.breakpoints), counts, strict=True)):
        nodes, shares = gauss(count)
        lengths = np.diff(ends)
        points = ends[:-1, None] + lengths[:, None] * (nodes + 1) / 2
        weights = np.outer(lengths ** (2 if axis == 0 else 1), shares).ravel()
        rules.append((points.ravel(), weights / weights.sum()))
    return rules


def cell_quadrature(grid: PiecewiseSettings, counts: Sequence[int]) -> Quadrature:
    """The product of `cell_rules`."""
    points, weights = (
        torch.cartesian_prod(*map(torch.as_tensor, part)) for part in zip(*cell_rules(grid, counts), strict=True)
    )
    return Quadrature(points.reshape(-1, len(grid.degrees)), weights.reshape(-1, len(grid.degrees)).prod(1))


def differentiated(grid: PiecewiseSettings, readouts: Tensor, axis: int) -> Tensor:
    """(m, H) readouts of the derivatives of m functions along a coordinate, exact as the features hold them.

    Args:
        grid: of the features.
        readouts: (m, H).
        axis: number of the coordinate.
    """
    shape = (*grid.cells, *(degree + 1 for degree in grid.degrees))
    ends = torch.tensor(grid.breakpoints[axis], dtype=torch.float64)
    nodes, weights = map(torch.as_tensor, gauss(grid.degrees[axis] + 1))
    value, slope = legendre(nodes, grid.degrees[axis], 1)
    along = (value.T * weights) @ slope
    tensor = readouts.unflatten(1, shape).movedim((1 + axis, 1 + len(grid.cells) + axis), (-2, -1))
    moved = (tensor @ along.T) * (2 / (ends[1:] - ends[:-1]))[:, None]
    return moved.movedim((-2, -1), (1 + axis, 1 + len(grid.cells) + axis)).flatten(1)


def legendre(unit: Tensor, degree: int, orders: int) -> list[Tensor]:
    """Legendre polynomials, orthonormal in the mean over [-1, 1], and their derivatives.

    Args:
        unit: (n,) places in [-1, 1]; beyond it the polynomials go on.
        degree: highest degree.
        orders: highest derivative.

    Returns:
        for each order of the derivative (n, degree + 1).
    """
    derivatives = []
    for order in range(orders + 1):
        one = torch.ones_like(unit)
        columns = [one if order == 0 else 0 * one]
        for j in range(degree):
            before = columns[j - 1] if j else 0 * one
            if order == 0:
                columns.append(((2 * j + 1) * unit * columns[j] - j * before) / (j + 1))
            else:  # of P'_(j+1) = P'_(j-1) + (2 j + 1) P_j, differentiated
                columns.append(before + (2 * j + 1) * derivatives[-1][:, j])
        derivatives.append(torch.stack(columns, dim=1))
    sizes = (2 * torch.arange(degree + 1, dtype=unit.dtype, device=unit.device) + 1).sqrt()
    return [values * sizes for values in derivatives]
