"""The unknown terms have their true values along exact solutions."""

import numpy as np
import pytest

from ipbasis.errors import InputError
from ipbasis.problem.declaration import Problem
from ipbasis.reference.ode import integrate
from ipbasis.reference.terms import term_values, true_terms


def test_terms_along_the_exact_trajectory(lotka_volterra):
    tasks = lotka_volterra.sample_tasks(3, np.random.default_rng(1))
    times = np.linspace(0, 10, 7)
    x, y = integrate(lotka_volterra, tasks, times).transpose(2, 0, 1)
    _, beta, _, delta = tasks.parameters.T[..., None]

    found = true_terms(lotka_volterra, tasks, times[None, :, None])

    np.testing.assert_allclose(found, np.stack([beta * x * y, delta * x * y], axis=-1), atol=1e-8)


def test_terms_on_a_grid_shared_by_all_tasks(lotka_volterra):
    parameters = np.array([[1, 0.5, 1, 2], [1, 1, 1, 1]])
    grid = np.array([[[1, 2], [3, 4], [0, 5]]])
    expected = [[[1, 4], [6, 24], [0, 0]], [[2, 2], [12, 12], [0, 0]]]
    np.testing.assert_allclose(term_values(lotka_volterra, parameters, grid), expected)


def test_a_problem_without_unknown_terms_has_none(oscillator):
    assert term_values(oscillator, np.ones((2, 3)), np.ones((1, 5, 1))).shape == (2, 5, 0)


def with_term(problem, **term):
    declared = problem.model_dump()
    declared["unknown_terms"]["f"] |= term
    return Problem(**declared)


def test_a_term_without_a_true_form_is_refused(lotka_volterra):
    declared = {**lotka_volterra.model_dump(), "parameters": {"alpha": (0, 1), "gamma": (0, 1)}}
    declared["unknown_terms"] = {"f": {"of": ["x", "y"]}, "g": {"of": ["x", "y"]}}
    with pytest.raises(InputError, match="'f' has no true form"):
        term_values(Problem(**declared), np.ones((1, 2)), np.ones((1, 1, 2)))


@pytest.mark.parametrize("truth", ["beta*x*y + t", "beta*x*y_t"])
def test_a_true_form_must_be_a_function_of_its_fields(lotka_volterra, truth):
    with pytest.raises(InputError, match=r"unknown_terms\.f: truth: .* is not among \['x', 'y'\]"):
        term_values(with_term(lotka_volterra, truth=truth), np.ones((1, 4)), np.ones((1, 1, 2)))
