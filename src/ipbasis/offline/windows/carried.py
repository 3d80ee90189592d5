"""Solutions on the windows of one grid carried to those of another."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ipbasis.offline.windows.grid import Grid
from ipbasis.offline.windows.newton import State
from ipbasis.problem.declaration import Problem


@dataclass(frozen=True)
class Carried:
    """Takes fields from one grid to another.

    Args:
        source, target: the grids.
        edges: (W' + 1,) windows of the source that the edges of the target lie in.
        states: (W' + 1, S, C) states there, by the unknowns of that window.
        points: (W' Q',) windows of the source that the Gauss points of the target lie in.
        values: (W' Q', F, C) fields there.
    """

    source: Grid
    target: Grid
    edges: Tensor
    states: Tensor
    points: Tensor
    values: Tensor

    @classmethod
    def between(cls, source: Grid, target: Grid) -> "Carried":
        """From a grid to another one of the same problem."""
        fields = [(field, 0) for field in range(len(source.orders))]
        states = [(field, k) for field, order in enumerate(source.orders) for k in range(order)]
        return cls(source, target, *_rows(source, target.edges, states), *_rows(source, target.times.ravel(), fields))

    def __call__(self, state: State) -> State:
        """Bubbles and states on the other grid."""
        unknowns = self.source.unknowns(state.bubbles, state.states)
        states = torch.einsum("esc,bec->bes", self.states, unknowns[:, self.edges])
        values = torch.einsum("nfc,bnc->bfn", self.values, unknowns[:, self.points])
        values = values.unflatten(2, self.target.times.shape)
        return State(self.target.interpolant(states, values), states, state.parameters)


def _rows(grid: Grid, at: np.ndarray | Tensor, wanted: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Windows (n,) that coordinates lie in, and derivatives of fields there by the unknowns of those (n, m, C)."""
    at = np.asarray(at)
    windows, width = grid.window_of(at), grid.coefficients.shape[2]
    rows = np.zeros((len(at), len(wanted), width))
    for window in np.unique(windows):
        own = windows == window
        for column, (field, derivative) in enumerate(wanted):
            rows[own, column] = grid.values(at[own], int(window), field, derivative)
    return torch.as_tensor(windows), torch.as_tensor(rows)


def fine_enough(
    problem: Problem,
    edges: np.ndarray,
    points: int,
    tolerance: float,
    most: int,
    solutions: Callable[[Grid], State],
    told: Callable[[str], None] = lambda text: None,
) -> Grid:
    """Windows, halved where the polynomials of any solution still change by more than a tolerance with their degree.

    Args:
        problem: with one coordinate.
        edges: to begin with.
        points: of a window.
        tolerance: relative.
        most: windows.
        solutions: gives them on a grid.
        told: receives what is being done, in words.
    """
    while True:
        grid = Grid(problem, edges, points)
        wide = _too_wide(grid, solutions(grid), tolerance)
        told(f"{grid.windows} windows, {wide.sum()} too wide")
        if not wide.any() or grid.windows + wide.sum() > most:
            return grid
        edges = np.sort(np.concatenate([edges, (edges[:-1] + edges[1:])[wide] / 2]))


def _too_wide(grid: Grid, state: State, tolerance: float) -> np.ndarray:
    """(W,) whether a window is too wide for any solution."""
    unknowns = grid.unknowns(state.bubbles, state.states)
    size = grid.field_values(unknowns).square().mean((2, 3)).sqrt()
    usual = size.square().mean(0).sqrt()
    # a field that is nothing but rounding beside the others is not resolved
    least = torch.maximum(1e-4 * usual, torch.finfo(size.dtype).eps * usual.amax())
    change = grid.tail(unknowns) / torch.maximum(size, least)[..., None].clamp_min(1e-300)
    return (change.amax((0, 1)) > tolerance).numpy()
