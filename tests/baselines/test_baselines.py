"""The baselines do what they are compared for."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from ipbasis.baselines.fit import BaselineQuery, Snapshot, Stopwatch, best_so_far
from ipbasis.baselines.least_squares import LeastSquaresSettings, _Model, fit_least_squares
from ipbasis.features.trunk import TrunkSettings
from ipbasis.problem.declaration import Problem, Tasks, problem_directory
from ipbasis.published.pinn import Pinn, PinnMisfit, PinnSettings, PinnTerms, fit_pinn
from ipbasis.reference.ode import integrate
from ipbasis.reference.solutions import solutions

LEAST_SQUARES = LeastSquaresSettings(starts=3, tolerance=1e-10, seed=0)
PINN = PinnSettings(
    steps=300, learning_rate=5e-3, lbfgs_steps=0, physics_weight=0.1, collocation_points=30, record_every=100, seed=0
)


def clean(problem, times):
    """A query without noise and its task."""
    tasks = problem.sample_tasks(1, np.random.default_rng(8))
    values = integrate(problem, tasks, times)[0]
    return BaselineQuery(times[:, None], values, np.full(len(problem.parameters), np.nan)), tasks


def quantum_query(problem, k, count):
    low, high = problem.domain.T
    points = np.random.default_rng(4).uniform(low, high, (count, 2))
    values = solutions(problem, Tasks(np.array([[k]]), np.zeros((1, 0))), points[None])[0]
    return BaselineQuery(points, values, np.array([np.nan]))


@pytest.fixture(scope="module")
def four_parameters():
    return Problem.from_yaml(problem_directory() / "lotka_volterra.yaml")


def test_least_squares_is_exact_on_clean_data(oscillator):
    query, tasks = clean(oscillator, np.linspace(0, 3, 40))
    found = fit_least_squares(oscillator, query, LEAST_SQUARES)
    assert found.parameters == pytest.approx(tasks.parameters[0], abs=1e-5)
    assert found.effort > 10
    assert found.terms.shape == (40, 0)


def test_least_squares_fits_several_fields(four_parameters):
    query, tasks = clean(four_parameters, np.linspace(0, 5, 40))
    found = fit_least_squares(four_parameters, query, LEAST_SQUARES)
    assert found.parameters == pytest.approx(tasks.parameters[0], abs=1e-5)


def test_least_squares_holds_what_is_known_and_gives_the_terms(lotka_volterra):
    query, tasks = clean(lotka_volterra, np.linspace(0, 5, 40))
    alpha, beta, gamma, delta = tasks.parameters[0]
    found = fit_least_squares(
        lotka_volterra, replace(query, known=np.array([alpha, np.nan, gamma, np.nan])), LEAST_SQUARES
    )
    assert found.parameters[[0, 2]].tolist() == [alpha, gamma]
    assert found.parameters == pytest.approx(tasks.parameters[0], abs=1e-5)
    product = query.values.prod(axis=1)
    np.testing.assert_allclose(found.terms, np.stack([beta * product, delta * product], axis=1), atol=1e-5)


def test_least_squares_on_a_partial_differential_equation(quantum_oscillator):
    query = quantum_query(quantum_oscillator, 8 / 3, 20)
    found = fit_least_squares(quantum_oscillator, query, LEAST_SQUARES.model_copy(update={"starts": 1}))
    assert found.parameters == pytest.approx([8 / 3], abs=1e-6)


def test_least_squares_without_one_field_and_some_cells_in_any_order(lotka_volterra):
    query, tasks = clean(lotka_volterra, np.linspace(0, 5, 40))
    known = np.where([True, True, True, False], tasks.parameters[0], np.nan)  # x alone cannot tell beta
    values = query.values.copy()
    values[:, 1] = np.nan
    values[::7, 0] = np.nan
    order = np.random.default_rng(0).permutation(40)
    found = fit_least_squares(lotka_volterra, BaselineQuery(query.points[order], values[order], known), LEAST_SQUARES)
    assert found.loss < 1e-12
    assert found.parameters == pytest.approx(tasks.parameters[0], abs=1e-5)


def test_least_squares_starts_where_there_is_a_solution(four_parameters):
    """From the first observation as it is, a number of predators below zero, all solutions go to infinity."""
    query, tasks = clean(four_parameters, np.linspace(0, 10, 60))
    query.values[0, 1] = -0.9
    found = fit_least_squares(four_parameters, query, LEAST_SQUARES)
    assert np.isfinite(found.loss)
    assert np.abs(found.parameters - tasks.parameters[0]).max() < 0.5


def test_least_squares_starts_where_it_is_told(four_parameters):
    """From the truth it needs little; far beyond the ranges, no bound draws the start back."""
    query, tasks = clean(four_parameters, np.linspace(0, 5, 40))
    near = fit_least_squares(four_parameters, query, LEAST_SQUARES, tasks)
    assert near.parameters == pytest.approx(tasks.parameters[0], abs=1e-7)
    assert near.effort < fit_least_squares(four_parameters, query, LEAST_SQUARES).effort / 3
    model = _Model(four_parameters, query, 1e-9)
    start = model.unknowns(Tasks(4 * tasks.parameters, tasks.initial))
    assert model.tasks(start[None]).parameters == pytest.approx(4 * tasks.parameters)
    assert ((model.bounds[0] < start) & (start < model.bounds[1])).all()


def test_least_squares_where_no_start_has_a_solution_fails_without_a_crash():
    """The solution 5 / (1 - 5 a t) goes to infinity within the domain for every a that is searched."""
    exploding = Problem(
        name="exploding",
        coordinates={"t": [0, 2]},
        fields=["u"],
        parameters={"a": [1, 2]},
        equations=["u_t - a*u**2"],
        initial={"u": "5"},
    )
    query = BaselineQuery(np.array([[0.0], [2.0]]), np.array([[5.0], [9.0]]), np.array([np.nan]))
    found = fit_least_squares(exploding, query, LEAST_SQUARES)
    assert np.isnan(found.parameters).all()
    assert np.isnan(found.loss)


def test_pinn_approaches_the_parameters(oscillator):
    query, tasks = clean(oscillator, np.linspace(0, 3, 60))
    trunk = TrunkSettings(width=20, depth=2, dtype="float64")
    found = fit_pinn(oscillator, trunk, query, PINN.model_copy(update={"lbfgs_steps": 200}))
    short = fit_pinn(oscillator, trunk, query, PINN)
    assert found.loss < 1e-4
    assert found.loss < short.loss / 10
    assert np.abs(found.parameters - tasks.parameters[0])[:2].max() < 0.1
    assert [row.step for row in short.history] == [0, 100, 200, 300]
    assert [row.step for row in found.history] == [0, 100, 200, 300, 400, 500]
    assert [row.seconds for row in found.history] == sorted(row.seconds for row in found.history)
    assert found.effort == 500
    best = min(found.history, key=lambda row: row.loss)
    assert found.parameters.tolist() == best.parameters.tolist()


def test_pinn_holds_known_parameters_and_learns_unknown_terms(lotka_volterra):
    query, tasks = clean(lotka_volterra, np.linspace(0, 10, 60))
    alpha, beta, gamma, delta = tasks.parameters[0]
    trunk = TrunkSettings(width=20, depth=2, dtype="float64")
    settings = PINN.model_copy(update={"lbfgs_steps": 200})
    found = fit_pinn(lotka_volterra, trunk, replace(query, known=np.array([alpha, np.nan, gamma, np.nan])), settings)
    assert found.parameters[[0, 2]].tolist() == [alpha, gamma]
    assert np.isnan(found.parameters[[1, 3]]).all()  # the equations as solved do not contain them
    product = query.values.prod(axis=1)
    true = np.stack([beta * product, delta * product], axis=1)
    errors = [np.abs(snapshot.terms - true).mean() for snapshot in found.history]
    assert errors[-1] < 0.3 * errors[0]
    assert found.terms.shape == (60, 2)


def fitted(pinn, solution, points):
    """The network with the readout that comes closest to a solution at some points."""
    with torch.no_grad():
        features = pinn.trunk(torch.as_tensor(points))[()]
        pinn.readout[:] = torch.linalg.lstsq(features, torch.as_tensor(solution), driver="gelsd").solution.T
    return pinn


def test_every_part_of_the_loss_vanishes_on_the_exact_solution(lotka_volterra):
    """The network is fitted to the exact solution, the term network replaced by the true terms."""
    times = np.linspace(0, 10, 200)
    query, tasks = clean(lotka_volterra, times)
    query = replace(query, known=tasks.parameters[0])
    trunk = TrunkSettings(width=100, depth=2, dtype="float64", first_layer_scale=5)
    pinn = fitted(Pinn(lotka_volterra, trunk, PINN, query.known), query.values, query.points)
    _, beta, _, delta = tasks.parameters[0]
    inner = torch.as_tensor(times[20:-20, None])
    assert pinn.residual(inner).item() > 1e-2

    pinn.terms.forward = lambda fields: fields.prod(1, keepdim=True) * torch.tensor([beta, delta])

    assert pinn.residual(inner).item() < 1e-8
    assert PinnMisfit(lotka_volterra, query, PINN, torch.float64)(pinn).item() < 1e-10


def test_initial_and_boundary_conditions_are_part_of_the_loss(quantum_oscillator):
    trunk = TrunkSettings(width=5, depth=2, dtype="float64")
    settings = PINN.model_copy(update={"condition_weight": 0.5, "condition_points": 41})
    pinn = Pinn(quantum_oscillator, trunk, settings, np.array([np.nan]))
    with torch.no_grad():
        pinn.readout.zero_()
        pinn.readout[:, -1] = torch.tensor([0.3, -0.2], dtype=torch.float64)  # a constant solution
    query = BaselineQuery(
        np.array([[0.5, 0.0], [1.0, 1.0]]), np.array([[0.3, np.nan], [0.3, -0.2]]), np.array([np.nan])
    )
    x = np.linspace(-5, 5, 41)
    psi = np.sqrt(2 / np.sqrt(np.pi)) * np.exp(-2 * (x + 2) ** 2 + 0.1j * x)
    initial = np.mean((0.3 - psi.real) ** 2) + np.mean((-0.2 - psi.imag) ** 2)
    boundary = 2 * (0.3**2 + 0.2**2)
    found = PinnMisfit(quantum_oscillator, query, settings, torch.float64)(pinn)
    assert found.item() == pytest.approx(0.5 * (initial + boundary), rel=1e-12)


def test_initial_values_that_differ_from_task_to_task_are_not_told(oscillator):
    query, _ = clean(oscillator, np.linspace(0, 3, 10))
    pinn = Pinn(oscillator, TrunkSettings(width=5, depth=2, dtype="float64"), PINN, query.known)
    losses = {
        weight: PinnMisfit(oscillator, query, PINN.model_copy(update={"condition_weight": weight}), torch.float64)(pinn)
        for weight in (0.0, 1.0)
    }
    assert losses[0.0].item() == losses[1.0].item() > 0


def test_pinn_on_drawn_points_lowers_the_loss_and_moves_the_parameter(quantum_oscillator):
    query = quantum_query(quantum_oscillator, 1.0, 50)
    settings = PINN.model_copy(
        update={"collocation_points": 100, "points_per_step": 20, "condition_points": 10, "steps": 100}
    )
    found = fit_pinn(quantum_oscillator, TrunkSettings(width=10, depth=2, dtype="float32"), query, settings)
    assert found.loss < found.history[0].loss
    assert found.history[0].parameters == pytest.approx([2.5])
    assert found.parameters != pytest.approx([2.5])


def test_the_residual_joins_later_where_asked_for(oscillator):
    """Until then the parameters stay where they started."""
    query, _ = clean(oscillator, np.linspace(0, 3, 20))
    settings = PINN.model_copy(update={"steps": 20, "physics_after": 10, "record_every": 5})
    found = fit_pinn(oscillator, TrunkSettings(width=5, depth=2, dtype="float64"), query, settings)
    middle = oscillator.parameter_ranges.mean(1).tolist()
    assert [row.parameters.tolist() == middle for row in found.history] == [True, True, True, False, False]


def test_terms_of_different_fields_have_networks_of_their_own():
    problem = Problem(
        name="pair",
        coordinates={"t": [0, 1]},
        fields=["x", "y"],
        parameters={"a": [0, 1]},
        equations=["x_t - f + a", "y_t - g - h"],
        initial={"x": [0, 1], "y": [0, 1]},
        unknown_terms={
            "f": {"of": ["y"], "truth": "y"},
            "g": {"of": ["x"], "truth": "x"},
            "h": {"of": ["y"], "truth": "y"},
        },
    )
    networks = PinnTerms(problem, 4, 2, torch.float64)
    fields = torch.tensor([[1.0, 2.0], [5.0, 2.0], [1.0, 7.0]], dtype=torch.float64)
    f, g, h = networks(fields).T
    assert f[0] == f[1] != f[2]
    assert h[0] == h[1] != h[2]
    assert g[0] == g[2] != g[1]
    assert f[0] != h[0]


def test_the_state_with_the_smallest_loss_is_kept():
    losses = [np.nan, 3.0, 5.0, 1.0, np.nan, 2.0]
    history = [Snapshot(10 * i, float(i), loss, np.array([i]), np.empty((0, 0))) for i, loss in enumerate(losses)]
    kept = best_so_far(history)
    assert [row.step for row in kept] == [0, 10, 20, 30, 40, 50]
    assert [row.seconds for row in kept] == [0, 1, 2, 3, 4, 5]
    assert [row.parameters.item() for row in kept] == [0, 1, 1, 3, 3, 3]
    assert [row.loss for row in kept[1:]] == [3, 3, 1, 1, 1]


def test_a_pause_does_not_count():
    clock = Stopwatch()
    with clock.paused():
        time.sleep(0.05)
    assert clock.seconds < 0.05
