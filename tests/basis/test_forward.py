"""Forward problem, compression and accuracy."""

import numpy as np
import pytest
import torch
from conftest import COMPRESSION, FORWARD, TRUNK
from hypothesis import given, settings
from hypothesis import strategies as st

from ipbasis.basis.accuracy import measure_accuracy
from ipbasis.basis.compression import CompressionSettings, compress
from ipbasis.basis.forward import ForwardProblem
from ipbasis.basis.network import Trunk
from ipbasis.basis.operators import Operators, conditions, residual_factor, theta
from ipbasis.basis.quadrature import gauss_legendre, stratified
from ipbasis.errors import InputError
from ipbasis.reference.ode import integrate


def test_forward_solutions_agree_with_the_reference(basis, oscillator):
    tasks = oscillator.sample_tasks(40, np.random.default_rng(11))
    solver = ForwardProblem(oscillator, FORWARD, torch.float64)
    evaluated = solver.evaluate(basis.feature_map, basis.quadrature.points)
    solved = solver.solve(evaluated, basis.quadrature, tasks)
    times = np.linspace(0, 3, 50)
    values = np.einsum("nk,tfk->tnf", basis.features(times), solved.readouts.numpy())
    exact = integrate(oscillator, tasks, times)
    assert np.abs(values - exact).max() < 1e-7
    assert solved.condition_mse.max() < 1e-16


def test_nothing_beats_the_least_squares_readouts(basis, oscillator):
    """The loss at the solution is a minimum: every disturbance of the readouts raises it."""
    tasks = oscillator.sample_tasks(5, np.random.default_rng(12))
    solver = ForwardProblem(oscillator, FORWARD, torch.float64)
    quadrature = stratified(oscillator.domain, 200, np.random.default_rng(0), torch.float64)
    evaluated = solver.evaluate(basis.feature_map, quadrature.points)
    readouts = solver.solve(evaluated, quadrature, tasks).readouts
    best = solver.losses(evaluated, quadrature.points, tasks, readouts)["loss"]
    generator = torch.Generator().manual_seed(0)
    for size in (1e-3, 1e-1):
        disturbed = readouts + size * torch.randn(readouts.shape, generator=generator, dtype=torch.float64)
        assert (solver.losses(evaluated, quadrature.points, tasks, disturbed)["loss"] > best).all()


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000), tolerance=st.sampled_from([1e-3, 1e-6, 1e-9]))
def test_compressed_functions_are_orthonormal(oscillator, seed, tolerance):
    trunk = Trunk(oscillator.domain, TRUNK, torch.Generator().manual_seed(seed))
    quadrature = gauss_legendre(oscillator.domain, 200)
    before = [p.clone() for p in trunk.parameters()]
    with torch.no_grad():
        transform = compress(
            oscillator, trunk, quadrature, FORWARD, CompressionSettings(tasks=60, tolerance=tolerance, seed=0)
        )
        values = trunk(quadrature.points)[()] @ transform
    gram = (values * quadrature.weights[:, None]).T @ values
    # the functions are combinations with large coefficients: rounding errors of the features are magnified
    assert torch.allclose(gram, torch.eye(len(gram), dtype=torch.float64), atol=1e-4)
    assert torch.allclose(gram[:6, :6], torch.eye(6, dtype=torch.float64), atol=1e-9)
    assert all(torch.equal(a, b) for a, b in zip(before, trunk.parameters(), strict=True))


def test_smaller_tolerance_keeps_more_functions(oscillator):
    trunk = Trunk(oscillator.domain, TRUNK, torch.Generator().manual_seed(0))
    quadrature = gauss_legendre(oscillator.domain, 200)
    counts = [
        compress(oscillator, trunk, quadrature, FORWARD, COMPRESSION.model_copy(update={"tolerance": t})).shape[1]
        for t in (1e-2, 1e-5, 1e-8)
    ]
    assert counts[0] < counts[1] < counts[2] <= 41


def test_accuracy_without_reference_has_no_solution_error(basis, oscillator):
    tasks = oscillator.sample_tasks(5, np.random.default_rng(1))
    accuracy = measure_accuracy(oscillator, basis.feature_map, basis.quadrature, FORWARD, tasks, None)
    assert accuracy.solution is None
    assert 0 < accuracy.residual < 1e-6


def test_basis_spans_the_solutions(basis):
    assert basis.record.accuracy.solution < 1e-9
    assert basis.record.functions < 20


def test_residual_factor_equals_the_mean_over_points(quantum_oscillator):
    """The triangular root gives the same mean squared residual as the points themselves."""
    trunk = Trunk(quantum_oscillator.domain, TRUNK, torch.Generator().manual_seed(0)).requires_grad_(False)
    quadrature = gauss_legendre(quantum_oscillator.domain, 12)
    features = trunk(quadrature.points, quantum_oscillator.system.indices)
    factor = residual_factor(quantum_oscillator, features, quadrature)
    generator = torch.Generator().manual_seed(1)
    readouts = torch.randn((3, 2, trunk.features), generator=generator, dtype=torch.float64)
    parameters = 5 * torch.rand((3, 1), generator=generator, dtype=torch.float64)
    jets = [features[j.index] @ readouts[:, j.field].T for j in quantum_oscillator.system.jets]
    coordinates = [axis[:, None] for axis in quadrature.points.unbind(1)]
    residuals = quantum_oscillator.system.compiled(quantum_oscillator.system.residuals)(
        coordinates, jets, parameters.unbind(1)
    )
    expected = sum((r.square() * quadrature.weights[:, None]).sum(0) for r in residuals)
    values, _ = theta(quantum_oscillator.system, parameters)
    augmented = torch.cat([readouts.flatten(1), torch.ones(3, 1, dtype=torch.float64)], dim=1)
    found = torch.einsum("tq,qmk,tk->tm", values, factor, augmented).square().sum(1)
    assert torch.allclose(found, expected, rtol=1e-10)


def test_conditions_of_a_partial_differential_equation(quantum_oscillator):
    """Rows times readouts are the field at the initial line and at both ends, scaled to a mean."""
    trunk = Trunk(quantum_oscillator.domain, TRUNK, torch.Generator().manual_seed(0)).requires_grad_(False)
    given_conditions = conditions(quantum_oscillator, 11, torch.float64)
    rows = given_conditions.rows(trunk(given_conditions.points, given_conditions.indices))
    assert rows.shape == (6 * 11, 2 * trunk.features)
    readouts = torch.randn(2, trunk.features, dtype=torch.float64)
    line = torch.stack([torch.zeros(11), torch.linspace(-5, 5, 11)], dim=1).double()
    expected = trunk(line)[()] @ readouts[0] / 11**0.5
    assert torch.allclose((rows @ readouts.flatten())[:11], expected)
    x = line[:, 1]
    start = (2 / np.pi**0.5) ** 0.5 * torch.exp(-2 * (x + 2) ** 2) * torch.cos(x / 10)
    assert torch.allclose(given_conditions.fixed[:11], start / 11**0.5)
    assert given_conditions.fixed[22:].abs().max() == 0


def test_operators_hold_coefficients_that_depend_on_the_coordinates(quantum_oscillator):
    points = torch.tensor([[0.1, 2.0], [0.2, -3.0]], dtype=torch.float64)
    ones = {index: torch.ones(2, 1, dtype=torch.float64) for index in quantum_oscillator.system.indices}
    rows = Operators(quantum_oscillator.system, points, 2).rows(ones)
    position = [str(t) for t in quantum_oscillator.system.affine.thetas].index("k")
    assert torch.allclose(rows[position, 0, :, 1], -(points[:, 1] ** 2) / 2)
    assert torch.allclose(rows[position, 1, :, 0], points[:, 1] ** 2 / 2)


def test_equations_without_affine_split_are_refused(lotka_volterra):
    with pytest.raises(InputError, match="affine split"):
        ForwardProblem(lotka_volterra, FORWARD, torch.float64)


@pytest.mark.parametrize("degree", [3, 7])
def test_quadrature_is_exact_for_polynomials(degree):
    domain = np.array([[0.0, 2.0], [-1.0, 3.0]])
    quadrature = gauss_legendre(domain, 4)
    t, x = quadrature.points.T
    found = (quadrature.weights * t**degree * x).sum()
    assert found == pytest.approx(2**degree / (degree + 1) * 1.0, rel=1e-12)
    assert quadrature.weights.sum() == pytest.approx(1)
