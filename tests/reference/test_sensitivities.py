"""Sensitivities of reference solutions."""

import numpy as np
import pytest

from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.reference.sensitivities import linearised_solutions, sensitivities


@pytest.fixture(scope="module")
def decay() -> Problem:
    """u' + a u = 0 with the solution u₀ exp(-a t)."""
    return Problem(
        name="decay",
        coordinates={"t": [0, 2]},
        fields=["u"],
        parameters={"a": [0.5, 1.5]},
        equations=["u_t + a*u"],
        initial={"u": [1, 3]},
    )


def test_sensitivities_are_the_derivatives_of_the_solution(decay):
    tasks, times = Tasks(np.array([[0.7], [1.2]]), np.array([[2.0], [1.5]])), np.linspace(0, 2, 5)
    a, start = tasks.parameters, tasks.initial
    exact = np.stack([-times * start * np.exp(-a * times), np.exp(-a * times)], axis=-1)
    found = sensitivities(decay, tasks, times[None, :, None])
    assert found.shape == (2, 5, 1, 2)
    assert found[:, :, 0] == pytest.approx(exact, abs=1e-5)  # differences of second order with a step of 1e-3


def test_chosen_columns_of_tasks_with_points_of_their_own(decay):
    tasks, rng = Tasks(np.array([[0.7], [1.2]]), np.array([[2.0], [1.5]])), np.random.default_rng(0)
    points = 2 * rng.random((2, 6, 1))
    values, slopes = linearised_solutions(decay, tasks, points, 1e-4, columns=np.array([False, True]))
    shape = np.exp(-tasks.parameters * points[..., 0])
    assert values[..., 0] == pytest.approx(tasks.initial * shape, abs=1e-9)
    assert slopes.shape == (2, 6, 1, 1)
    assert slopes[..., 0, 0] == pytest.approx(shape, abs=1e-6)


def test_steps_on_a_logarithmic_scale_follow_the_value():
    """Over six powers of ten a step of the range would be larger than most values."""
    wide = Problem(
        name="decay",
        coordinates={"t": [0, 1]},
        fields=["u"],
        parameters={"a": {"range": [1e-4, 1e2], "scale": "log"}},
        equations=["u_t + a*u"],
        initial={"u": {"range": [1e-3, 1e3], "scale": "log"}},
    )
    tasks, times = Tasks(np.array([[1e-3], [20.0]]), np.array([[500.0], [0.01]])), np.linspace(0, 1, 4)
    found = sensitivities(wide, tasks, times[None, :, None])[:, :, 0]
    shape = np.exp(-tasks.parameters * times)
    exact = np.stack([-times * tasks.initial * shape, shape], axis=-1)
    assert found == pytest.approx(exact, rel=2e-4, abs=1e-8)  # (1e-3 log 1e6)^2 / 6, times powers of a t


def test_sensitivities_of_partial_equations_by_parameters_in_their_conditions():
    """Heat conduction from b sin(x) + c between walls at c: u = c + b exp(-D t) sin(x)."""
    heat = Problem(
        name="heat",
        coordinates={"t": [0, 1], "x": [0, float(np.pi)]},
        fields=["u"],
        parameters={"D": [0.5, 2], "b": [1, 2], "c": [-1, 1]},
        equations=["u_t - D*u_xx"],
        initial={"u": "c + b*sin(x)"},
        boundary=[{"at": {"x": wall}, "equations": ["u - c"]} for wall in (0, float(np.pi))],
    )
    points = np.random.default_rng(0).random((1, 20, 2)) * [1, np.pi]
    t, x = points[0].T
    found = sensitivities(heat, Tasks(np.array([[1.2, 1.5, 0.3]]), np.zeros((1, 0))), points)[0, :, 0]
    wave = np.exp(-1.2 * t) * np.sin(x)
    assert found == pytest.approx(np.stack([-1.5 * t * wave, wave, np.ones(20)], axis=1), abs=1e-6)
