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
