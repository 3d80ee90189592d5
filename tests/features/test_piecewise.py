"""Piecewise polynomials: orthonormal, exact derivatives, and combined cell by cell."""

import numpy as np
import pytest
import torch

from ipbasis import InputError
from ipbasis.features.interface import rounding_error
from ipbasis.features.piecewise import Piecewise, PiecewiseSettings, legendre

SETTINGS = PiecewiseSettings(breakpoints=((0, 1, 1.5, 3), (-5, 2, 5)), degrees=(3, 4))


@pytest.fixture
def features():
    return Piecewise(SETTINGS)


@pytest.fixture
def points():
    return torch.as_tensor(np.random.default_rng(0).uniform([0, -5], [3, 5], (200, 2)))


def grid(ends, count):
    """Nodes of Gauss's rule on each cell, and weights of sum 1."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    low, high = np.array(ends[:-1])[:, None], np.array(ends[1:])[:, None]
    return (low + (high - low) * (nodes + 1) / 2).ravel(), ((high - low) * weights).ravel() / 2 / (ends[-1] - ends[0])


def test_orthonormal_in_the_mean_over_the_domain(features):
    axes, weights = zip(*(grid(ends, 6) for ends in SETTINGS.breakpoints), strict=True)
    points = torch.cartesian_prod(*map(torch.as_tensor, axes))
    root = torch.as_tensor(np.multiply.outer(*weights).ravel()).sqrt()[:, None]
    values = features(points)[()] * root
    assert features.feature_count == 3 * 2 * 4 * 5 == values.shape[1]
    assert torch.allclose(values.T @ values, torch.eye(120, dtype=torch.float64), atol=1e-13)


@pytest.mark.parametrize("order", range(5))
def test_derivatives_of_legendre_polynomials(order):
    unit = torch.linspace(-1.1, 1.1, 30, dtype=torch.float64)
    found = legendre(unit, 7, order)[order].numpy()
    for degree in range(8):
        exact = np.polynomial.Legendre.basis(degree).deriv(order)(unit.numpy()) * (2 * degree + 1) ** 0.5
        assert found[:, degree] == pytest.approx(exact, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("index", [(), (0,), (1, 1), (0, 1), (0, 0, 1), (1, 1, 1, 1)])
def test_a_polynomial_and_its_derivatives_are_exact(features, points, index):
    def values(points, index=()):
        t, x = np.polynomial.Polynomial([1, -2, 0.5, 1]), np.polynomial.Polynomial([0.3, 1, -1, 0.2, 0.1])
        product = t.deriv(index.count(0))(points[:, 0].numpy()) * x.deriv(index.count(1))(points[:, 1].numpy())
        return torch.as_tensor(product)

    axes, weights = zip(*(grid(ends, 6) for ends in SETTINGS.breakpoints), strict=True)
    nodes = torch.cartesian_prod(*map(torch.as_tensor, axes))
    shares = torch.as_tensor(np.multiply.outer(*weights).ravel())
    readouts = (features(nodes)[()] * shares[:, None]).T @ values(nodes)
    found = features(points, (index,))[index] @ readouts
    assert found.numpy() == pytest.approx(values(points, index).numpy(), rel=1e-10, abs=1e-9)


def test_combined_by_cell_as_without_cells(features, points):
    transform = torch.randn(features.feature_count, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = features.combined(points, ((0, 1),), transform)
    dense = features(points, ((0, 1),))
    for index in ((), (0, 1)):
        assert torch.allclose(found[index], dense[index] @ transform, rtol=1e-12, atol=1e-12)


def test_ends_of_cells_and_the_outside(features):
    """A breakpoint belongs to the cell above, the upper end to the last one, and the outside to the outermost."""
    points = torch.tensor([[0, -5], [1, 0], [3, 5], [3.1, -6]], dtype=torch.float64)
    cell, values = features.local(points)
    assert cell.tolist() == [0, 2, 5, 4]
    unit_t, unit_x = (3.1 - 1.5) / 0.75 - 1, (-6 + 5) / 3.5 - 1
    size = (3 / 1.5 * 10 / 7) ** 0.5
    t, x = (legendre(torch.tensor([u], dtype=torch.float64), n, 0)[0] for u, n in ((unit_t, 3), (unit_x, 4)))
    assert torch.allclose(values[()][3], size * (t[0, :, None] * x[0]).flatten())


def test_orthonormal_columns_lose_no_digits(features, points):
    generator = torch.Generator().manual_seed(0)
    transform, _ = torch.linalg.qr(torch.randn(120, 5, generator=generator, dtype=torch.float64))
    assert rounding_error(features, transform, points) < 1e-14
    assert rounding_error(features, None, points) < 1e-15


def test_cancelling_terms_lose_digits(basis):
    """A trunk's compressed functions: the error of the sum in float64 against the sum in extended precision."""
    points = torch.linspace(0, 3, 300, dtype=torch.float64)[:, None]
    raw = basis.features(points)[()]
    exact = raw.numpy().astype(np.longdouble) @ basis.transform.numpy().astype(np.longdouble)
    errors = np.abs(basis.functions(points) - exact).max(axis=0) / np.abs(exact).max(axis=0)
    told = rounding_error(basis.features, basis.transform, points)
    assert 1e-11 < errors.max() < 10 * told < 1000 * errors.max()


@pytest.mark.parametrize(
    "wrong",
    [
        {"breakpoints": ((0, 1),), "degrees": (2, 2)},
        {"breakpoints": ((0,),), "degrees": (2,)},
        {"breakpoints": ((0, 0),), "degrees": (2,)},
        {"breakpoints": ((0, 1),), "degrees": (-1,)},
    ],
)
def test_faulty_settings_are_refused(wrong):
    with pytest.raises(InputError):
        PiecewiseSettings(**wrong)
