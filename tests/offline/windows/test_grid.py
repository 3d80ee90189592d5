"""Windows: their unknowns stand for smooth polynomials, and the equations in them are those that are declared."""

import numpy as np
import pytest
import torch

from ipbasis import Problem
from ipbasis.features.piecewise import Piecewise, PiecewiseSettings
from ipbasis.offline.windows.grid import Grid, grid_of


@pytest.fixture(scope="module")
def beam() -> Problem:
    """Of fourth order in one field and first in the other."""
    return Problem(
        name="beam",
        coordinates={"x": [1, 3]},
        fields=["u", "v"],
        parameters={"k": [1, 2]},
        equations=["u_xxxx + k*u - v", "v_x + x*v"],
        boundary=[
            {"at": {"x": 1}, "equations": ["u", "u_x - k", "v - 1"]},
            {"at": {"x": 3}, "equations": ["u", "u_xx"]},
        ],
    )


@pytest.fixture(scope="module")
def grid(beam) -> Grid:
    return Grid(beam, np.array([1.0, 1.3, 2.5, 3.0]), 6)


@pytest.fixture(scope="module")
def unknowns(grid) -> torch.Tensor:
    rng = np.random.default_rng(0)
    bubbles, states = rng.normal(size=(2, 3, grid.bubbles)), rng.normal(size=(2, 4, grid.states))
    return grid.unknowns(torch.tensor(bubbles), torch.tensor(states))


def test_orders_count_the_unknowns(grid):
    assert grid.orders == (4, 1)
    assert grid.states == 5
    # as many equations as unknowns that are the window's own, one end counted
    assert grid.bubbles + grid.states == 2 * grid.points


def test_states_are_values_and_derivatives_at_the_edges(grid, unknowns):
    for window, edge in ((0, 1), (1, 1), (1, 2), (2, 2)):
        at = grid.edges[[edge]]
        for number in range(4):
            value = grid.values(at, window, 0, number) @ unknowns[0, window].numpy()
            state = unknowns[0, window, grid.bubbles + number + (grid.states if edge > window else 0)]
            assert value[0] == pytest.approx(float(state), rel=1e-6)


def test_readouts_are_those_of_piecewise_polynomials(grid, unknowns):
    piecewise = Piecewise(PiecewiseSettings(breakpoints=(tuple(grid.edges),), degrees=(grid.degree,)))
    points = torch.linspace(1.0, 3.0, 40, dtype=torch.float64)
    values = piecewise(points[:, None], ((), (0, 0)))
    readouts = grid.readouts(unknowns[..., None])[..., 0]
    windows = grid.window_of(points.numpy())
    for index in ((), (0, 0)):
        for field in range(2):
            own = [
                grid.values(at[None], w, field, len(index))[0] @ unknowns[1, w].numpy()
                for at, w in zip(points.numpy(), windows, strict=True)
            ]
            assert np.allclose((values[index] @ readouts[1, field]).numpy(), own, rtol=1e-9, atol=1e-9)


def test_split_is_the_inverse_of_readouts(grid, unknowns):
    bubbles, states = grid.split(grid.readouts(unknowns[..., None])[..., 0])
    assert torch.allclose(grid.unknowns(bubbles, states), unknowns, atol=1e-10)


def test_equations_are_those_declared(grid, unknowns):
    residual, by_jet, by_parameter = grid.equations(unknowns, torch.tensor([[1.5], [2.0]], dtype=torch.float64))
    window, number = 1, 3
    at = grid.times[window, [number]].numpy()
    u, v = (grid.values(at, window, field, 0)[0] @ unknowns[1, window].numpy() for field in (0, 1))
    fourth = grid.values(at, window, 0, 4)[0] @ unknowns[1, window].numpy()
    slope = grid.values(at, window, 1, 1)[0] @ unknowns[1, window].numpy()
    assert residual[1, window, number].tolist() == pytest.approx([fourth + 2 * u - v, slope + at[0] * v])
    assert by_parameter[1, window, number, :, 0].tolist() == pytest.approx([u, 0])
    assert by_jet.shape[-2:] == (2, len(grid.problem.system.jets))


def test_interpolant_takes_the_values_it_is_given(grid, unknowns):
    bubbles = unknowns[..., : grid.bubbles]
    states = torch.cat([unknowns[..., grid.bubbles : grid.bubbles + 5], unknowns[:, -1:, grid.bubbles + 5 :]], dim=1)
    found = grid.interpolant(states, grid.field_values(unknowns))
    assert torch.allclose(found, bubbles, atol=1e-8)


def test_grid_comes_back_from_its_settings(grid, beam):
    settings = PiecewiseSettings(breakpoints=(tuple(grid.edges),), degrees=(grid.degree,))
    again = grid_of(beam, settings)
    assert again.points == grid.points
    assert again.edges.tolist() == grid.edges.tolist()
