"""Bases without training: polynomials and the best functions for given solutions."""

import numpy as np
import pytest
import torch

from ipbasis.baselines.bases import lowest_degrees, proper_orthogonal
from ipbasis.evaluation.metrics import approximation_errors
from ipbasis.features.chebyshev import ChebyshevFeatures
from ipbasis.offline.accuracy import measure_accuracy
from ipbasis.offline.settings import ForwardSettings
from ipbasis.reference.solutions import solutions

DOMAIN = np.array([[0.0, 3.0], [-5.0, 5.0]])


@pytest.fixture(scope="module")
def features():
    return ChebyshevFeatures(DOMAIN, 12)


@pytest.fixture(scope="module")
def points():
    return torch.as_tensor(np.random.default_rng(0).uniform(*DOMAIN.T, (50, 2)))


@pytest.fixture(scope="module")
def exact(oscillator):
    """Polynomials that resolve solutions of the oscillator, and those solutions on their grid."""
    resolved = ChebyshevFeatures(oscillator.domain, 30)
    grid = resolved.quadrature().points.numpy()[None]
    return resolved, solutions(oscillator, oscillator.sample_tasks(300, np.random.default_rng(0)), grid)


def test_features_are_products_of_chebyshev_polynomials_by_total_degree(features, points):
    unit = (2 * (points.numpy() - DOMAIN[:, 0]) / (DOMAIN[:, 1] - DOMAIN[:, 0]) - 1).T
    values = features(points)[()].numpy()
    assert values.shape == (50, features.feature_count) == (50, 144)
    # T_n(x) = cos(n arccos x)
    along = [[np.cos(degree * np.arccos(axis)) for degree in range(4)] for axis in unit]
    for first, total in ((0, 0), (1, 1), (3, 2), (6, 3)):
        found = values[:, first : first + total + 1]
        for i in range(total + 1):
            product = along[0][i] * along[1][total - i]
            assert np.abs(found - product[:, None]).max(axis=0).min() < 1e-12


@pytest.mark.parametrize("index", [(0,), (1,), (0, 0), (0, 1), (1, 1), (1, 1, 1)])
def test_derivatives_are_those_of_the_function(features, points, index):
    """A polynomial of low degree is represented exactly, in the problem's own units."""

    def derivative(t, x):
        return {
            (0,): 3 * t**2 * x**4,
            (1,): 4 * t**3 * x**3 - 1,
            (0, 0): 6 * t * x**4,
            (0, 1): 12 * t**2 * x**3,
            (1, 1): 12 * t**3 * x**2,
            (1, 1, 1): 24 * t**3 * x,
        }[index]

    t, x = features.quadrature().points.numpy().T
    coefficients = features.interpolated((t**3 * x**4 - x)[:, None])
    found = features(points, (index,))[index].numpy() @ coefficients[:, 0]
    expected = derivative(*points.numpy().T)
    assert found == pytest.approx(expected, abs=1e-9 * np.abs(expected).max())


def test_values_on_the_grid_determine_every_combination(features):
    rng = np.random.default_rng(1)
    coefficients = rng.normal(size=(features.feature_count, 3))
    values = features(features.quadrature().points)[()].numpy() @ coefficients
    assert features.interpolated(values) == pytest.approx(coefficients, abs=1e-9)


def test_polynomials_are_orthonormal_and_each_holds_those_of_lower_degree(exact):
    resolved, _ = exact
    transform = lowest_degrees(resolved, 6)
    quadrature = resolved.quadrature()
    values = (resolved(quadrature.points)[()] @ transform).numpy()
    weights = quadrature.weights.numpy()
    assert values.T @ (weights[:, None] * values) == pytest.approx(np.eye(6), abs=1e-12)
    powers = quadrature.points.numpy() ** np.arange(6)
    for degree in range(6):
        errors = approximation_errors(values, weights, powers[:, degree][None, :, None])
        assert errors[degree] < 1e-12
        assert degree == 0 or errors[degree - 1] > 1e-3


def test_pod_is_the_best_basis_of_every_size_for_the_solutions_it_is_of(exact, basis):
    """Eckart & Young: no other functions leave a smaller mean square error."""
    resolved, seen = exact
    quadrature = resolved.quadrature()
    weights, values = quadrature.weights.numpy(), resolved(quadrature.points)[()].numpy()
    modes = values @ proper_orthogonal(resolved, seen, 8).numpy()
    assert modes.T @ (weights[:, None] * modes) == pytest.approx(np.eye(8), abs=1e-10)
    best = approximation_errors(modes, weights, seen)
    polynomials = values @ lowest_degrees(resolved, 8).numpy()
    untrained = basis.function_map(quadrature.points)[()].numpy()[:, :8]
    for other in (polynomials, untrained):
        assert (best < approximation_errors(other, weights, seen)).all()
    # each solution counts by its shape
    sized = seen * np.linspace(0.1, 10, len(seen))[:, None, None]
    again = approximation_errors(values @ proper_orthogonal(resolved, sized, 8).numpy(), weights, seen)
    assert again == pytest.approx(best, rel=1e-6)


def test_pod_of_few_solutions_has_no_functions_of_rounding_errors(exact):
    resolved, seen = exact
    assert proper_orthogonal(resolved, seen[[0, 1, 2, 3, 2, 1]], 30).shape == (resolved.feature_count, 4)


def test_pod_solves_the_equation_for_unseen_tasks(oscillator, exact):
    """Its derivatives hold too: the forward problem in its span has the exact solutions."""
    resolved, seen = exact
    transform, quadrature = proper_orthogonal(resolved, seen, 10), resolved.quadrature()

    def functions(points, indices):
        return {index: values @ transform for index, values in resolved(points, indices).items()}

    tasks = oscillator.sample_tasks(30, np.random.default_rng(9))
    truth = solutions(oscillator, tasks, quadrature.points.numpy()[None])
    forward = ForwardSettings(condition_weight=100, condition_points=1, rank_tolerance=1e-12)
    accuracy = measure_accuracy(oscillator, functions, quadrature, forward, tasks, truth)
    assert accuracy.solution < 1e-6
    assert accuracy.residual < 1e-4
