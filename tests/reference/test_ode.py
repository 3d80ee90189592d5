"""The integrated reference against the closed form."""

import numpy as np
import pytest
from conftest import closed_form

from ipbasis.errors import InputError
from ipbasis.problem.declaration import Problem
from ipbasis.reference.ode import integrate


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
    assert errors[1] < errors[0] / 50
    assert errors[2] < errors[1] / 50


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
