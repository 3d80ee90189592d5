"""Solutions carried from one grid to another are the same fields, and windows are halved where solutions ask for it."""

import numpy as np
import pytest
import torch

from ipbasis import Problem
from ipbasis.offline.windows.carried import Carried, fine_enough
from ipbasis.offline.windows.grid import Grid
from ipbasis.offline.windows.newton import State

PARAMETERS = torch.tensor([[1.0], [3.0]], dtype=torch.float64)


@pytest.fixture(scope="module")
def problem() -> Problem:
    """Fields of second and first order."""
    return Problem(
        name="two_orders",
        coordinates={"t": [1, 3]},
        fields=["u", "v"],
        parameters={"k": [1, 4]},
        equations=["u_tt + k*u", "v_t + k*v"],
        initial={"u": "1", "u_t": "0", "v": "1"},
    )


def state(grid: Grid) -> State:
    """cos k t and its slope, and exp(-k t) beside them."""
    k = PARAMETERS.numpy()

    def fields(at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.cos(k * at), -k * np.sin(k * at), np.exp(-k * at)

    states = torch.tensor(np.stack(fields(grid.edges[None]), axis=2))
    cosine, _, decay = fields(grid.times.numpy().ravel()[None])
    values = torch.tensor(np.stack([cosine, decay], axis=1)).unflatten(2, grid.times.shape)
    return State(grid.interpolant(states, values), states, PARAMETERS)


def test_fields_are_the_same_on_the_other_grid_and_back(problem):
    fine, rough = Grid(problem, np.linspace(1, 3, 9), 10), Grid(problem, np.array([1, 1.7, 3]), 14)
    begin = state(fine)
    there = Carried.between(fine, rough)(begin)
    expected = state(rough)
    torch.testing.assert_close(there.states, expected.states, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(there.bubbles, expected.bubbles, rtol=1e-9, atol=1e-9)
    back = Carried.between(rough, fine)(there)
    torch.testing.assert_close(back.states, begin.states, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(back.bubbles, begin.bubbles, rtol=1e-9, atol=1e-9)


def test_windows_are_halved_up_to_the_tolerance_and_no_further(problem):
    def chosen(tolerance: float, most: int = 100) -> Grid:
        edges = np.array([1.0, 3.0])
        return fine_enough(problem, edges, 6, tolerance, most, state)

    rough, fine = chosen(1e-2), chosen(1e-6)
    assert rough.windows < fine.windows
    assert chosen(1e-6, most=3).windows <= 3
    for grid, tolerance in ((rough, 1e-2), (fine, 1e-6)):
        own = state(grid)
        tail = grid.tail(grid.unknowns(own.bubbles, own.states))
        size = grid.field_values(grid.unknowns(own.bubbles, own.states)).square().mean((2, 3)).sqrt()
        assert (tail <= tolerance * size[..., None]).all()
        halved = Grid(problem, grid.edges[::2], 6) if grid.windows % 2 == 0 else grid
        wide = state(halved)
        before = halved.tail(halved.unknowns(wide.bubbles, wide.states))
        assert halved is grid or (before > tolerance * size[..., None]).any()
