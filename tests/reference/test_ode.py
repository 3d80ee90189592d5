"""The integrated reference against the closed form."""

import numpy as np
import pytest
from conftest import closed_form

from ipbasis.errors import InputError
from ipbasis.problem.declaration import Problem
from ipbasis.problem.natural_units import natural_units
from ipbasis.problem.units import rescaled
from ipbasis.reference.ode import first_order_system, integrate


def test_agrees_with_the_closed_form_to_1e_10(oscillator):
    tasks = oscillator.sample_tasks(200, np.random.default_rng(3))
    tasks.parameters[:, 1] = np.maximum(tasks.parameters[:, 1], 0.05)  # the closed form divides by a2
    times = np.linspace(0, 3, 61)
    exact = closed_form(tasks.parameters, tasks.initial, times)
    error = np.abs(integrate(oscillator, tasks, times)[..., 0] - exact).max(axis=1)
    assert (error <= 1e-10 * np.maximum(np.abs(exact).max(axis=1), 1)).all()


def test_one_task_alone_and_among_others_agree(lotka_volterra):
    tasks = lotka_volterra.sample_tasks(30, np.random.default_rng(4))
    times = np.array([9.0, 1.0, 5.0])
    together = integrate(lotka_volterra, tasks, times)
    alone = integrate(lotka_volterra, tasks[7:8], times)
    assert np.abs(together[7] - alone[0]).max() < 1e-9


def test_error_falls_with_the_tolerance(lotka_volterra):
    tasks = lotka_volterra.sample_tasks(1, np.random.default_rng(5))
    times = np.linspace(0, 10, 50)
    fine = integrate(lotka_volterra, tasks, times, 1e-12)
    errors = [np.abs(integrate(lotka_volterra, tasks, times, tol) - fine).max() for tol in (1e-3, 1e-6, 1e-9)]
    assert errors[1] < errors[0] / 10
    assert errors[2] < errors[1] / 10


def test_times_are_returned_in_the_order_given(oscillator):
    tasks = oscillator.sample_tasks(2, np.random.default_rng(6))
    times = np.array([2.0, 0.0, 2.0, 1.0])
    values = integrate(oscillator, tasks, times)
    assert np.allclose(values[:, 1, 0], tasks.initial[:, 0])
    assert np.array_equal(values[:, 0], values[:, 2])


def test_refuses_what_it_cannot_integrate(quantum_oscillator):
    tasks = quantum_oscillator.sample_tasks(1, np.random.default_rng(0))
    with pytest.raises(InputError, match="only an ODE"):
        integrate(quantum_oscillator, tasks, np.array([1.0]))
    two_ends = Problem(
        name="p", coordinates={"t": [0, 1]}, fields=["u"], parameters={"a": [0, 1]}, equations=["u_tt + a*u"],
        initial={"u": [0, 1]}, boundary=[{"at": {"t": 1}, "equations": ["u"]}],
    )  # fmt: skip
    with pytest.raises(InputError, match="initial conditions alone"):
        integrate(two_ends, two_ends.sample_tasks(1, np.random.default_rng(0)), np.array([1.0]))


def test_initial_values_that_depend_on_parameters():
    """u'' = -w² u with u(0) = a/w and u'(0) = b² is a/w cos(w t) + b²/w sin(w t)."""
    problem = Problem(
        name="p",
        coordinates={"t": [1, 4]},
        fields=["u"],
        parameters={"a": [1, 2], "b": [0.5, 2], "w": [1, 3]},
        constants={"two": 2},
        equations=["u_tt + w**2*u"],
        initial={"u": "a*t/w", "u_t": "b**two"},  # at the start t is one
    )
    tasks, times = problem.sample_tasks(6, np.random.default_rng(0)), np.linspace(1, 4, 30)
    a, b, w = tasks.parameters.T[..., None]
    exact = a / w * np.cos(w * (times - 1)) + b**2 / w * np.sin(w * (times - 1))
    assert np.abs(integrate(problem, tasks, times)[..., 0] - exact).max() < 1e-8


def test_pieces_in_time_are_integrated_apart():
    """u' = -k u + where(t < 2, 1, 0) - 3 heaviside(t - 3): exponentials in each piece, exact to the tolerance."""
    problem = Problem(
        name="p",
        coordinates={"t": [0, 5]},
        fields=["u"],
        parameters={"k": [0.5, 2]},
        equations=["u_t + k*u - where(t < 2, 1, 0) + 3*heaviside(t - 3)"],
        initial={"u": "2"},
    )
    assert first_order_system(problem).jumps == (2, 3)
    tasks, times = problem.sample_tasks(4, np.random.default_rng(0)), np.array([0, 0.7, 2, 2.5, 3, 3.1, 5, 1])
    found = integrate(problem, tasks, times)[..., 0]
    (k,) = tasks.parameters.T[..., None]

    def step(at):
        """Response to a unit force from a time on."""
        return np.where(times > at, (1 - np.exp(-k * np.clip(times - at, 0, None))) / k, 0)

    exact = 2 * np.exp(-k * times) + step(0) - step(2) - 3 * step(3)
    assert np.abs(found - exact).max() < 1e-9


def test_pieces_that_depend_on_parameters_and_fields():
    """u' = min(u, c): exponential up to c, linear from then on."""
    problem = Problem(
        name="p",
        coordinates={"t": [0, 3]},
        fields=["u"],
        parameters={"c": [2, 4]},
        equations=["u_t - min(u, c)"],
        initial={"u": "1"},
    )
    tasks, times = problem.sample_tasks(4, np.random.default_rng(0)), np.linspace(0, 3, 20)
    (c,) = tasks.parameters.T[..., None]
    exact = np.where(times < np.log(c), np.exp(np.minimum(times, np.log(c))), c * (1 + times - np.log(c)))
    assert np.abs(integrate(problem, tasks, times)[..., 0] - exact).max() < 1e-6


def test_pieces_in_other_units():
    """The jump is found where rounding of the units has moved it."""
    problem = Problem(
        name="p",
        coordinates={"t": [10, 40]},
        fields=["u"],
        parameters={"k": [0.05, 0.2]},
        equations=["u_t + k*u - where(t <= 20, 1, -1)"],
        initial={"u": "2"},
    )
    other = rescaled(problem, natural_units(problem, {"u": 7.0}))
    tasks, times = problem.sample_tasks(4, np.random.default_rng(0)), np.linspace(10, 40, 13)
    units = natural_units(problem, {"u": 7.0})
    found = 7 * integrate(other, units.tasks_to(problem, tasks), units.points_to(times[:, None])[:, 0])
    # the tolerance of a step, for solutions of size 10, a few times over
    assert np.abs(found - integrate(problem, tasks, times)).max() < 5e-9
