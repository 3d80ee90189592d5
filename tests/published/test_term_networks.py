"""Unknown terms as networks: the gradient, what the recipe finds, and that queries do not touch each other."""

import numpy as np
import pytest
import torch
from conftest import untrained

from ipbasis.features.quadrature import equispaced
from ipbasis.observations.long_form import Batch
from ipbasis.problem.declaration import Problem
from ipbasis.published.misfit import reduce_misfit
from ipbasis.published.stacked_networks import StackedNetworks
from ipbasis.published.term_networks import TermNetworkSettings, _Search, fit_term_networks


@pytest.fixture(scope="module")
def coupled() -> Problem:
    """Terms of different fields, one in both equations and one in a product; one parameter only in the truth."""
    return Problem(
        name="coupled",
        coordinates={"t": [0, 2]},
        fields=["x", "y"],
        parameters={"a": [0, 2], "b": [0, 2], "c": [0, 1]},
        equations=["x_t - a*x + t*f", "y_t + b*y**2 - x*g + f"],
        initial={"x": [0, 2], "y": [0, 2]},
        unknown_terms={"g": {"of": ["y"], "truth": "c*y"}, "f": {"of": ["y", "x"], "truth": "x*y"}},
    )


@pytest.fixture(scope="module")
def growth() -> Problem:
    """u' = r u - f(u), the limit to growth unknown: f = u²."""
    return Problem(
        name="growth",
        coordinates={"t": [0, 3]},
        fields=["u"],
        parameters={"r": [0.5, 1.5]},
        equations=["u_t - r*u + f"],
        initial={"u": [0.1, 0.5]},
        unknown_terms={"f": {"of": ["u"], "truth": "u**2"}},
    )


def logistic(rates, starts, points):
    """(B, n, 1) solution of u' = r u - u²."""
    grown = np.exp(rates[:, None] * points)
    return (rates[:, None] * starts[:, None] * grown / (rates[:, None] + starts[:, None] * (grown - 1)))[..., None]


def growth_batch(queries=4, count=40, known=True):
    rng = np.random.default_rng(3)
    rates, starts = rng.uniform(0.5, 1.5, queries), rng.uniform(0.1, 0.5, queries)
    points = np.broadcast_to(np.linspace(0, 3, count), (queries, count))
    values = logistic(rates, starts, points)
    given = rates[:, None] if known else np.full((queries, 1), np.nan)
    observed, initial = np.ones_like(values, dtype=bool), np.full((queries, 1), np.nan)
    batch = Batch(np.arange(queries), points[..., None].copy(), values, observed, None, given, initial)
    return batch, rates


def coupled_batch(counts, seed=0):
    rng = np.random.default_rng(seed)
    shape = (len(counts), max(counts))
    observed = np.broadcast_to((np.arange(shape[1]) < np.array(counts)[:, None])[..., None], (*shape, 2)).copy()
    values = np.where(observed, rng.random((*shape, 2)) + 0.5, 0.0)
    known = np.full((len(counts), 3), np.nan)
    known[0, 0], known[1, 1] = 0.7, 1.3
    initial = np.full((len(counts), 2), np.nan)
    return Batch(np.arange(len(counts)), 2 * rng.random((*shape, 1)), values, observed, None, known, initial)


def by_linear(network, query, inputs):
    """One query's network, layer by layer: inputs (n, in) -> (n, out)."""
    for layer, weight in enumerate(network.weights):
        inputs = inputs @ weight[query, :, :-1].T + weight[query, :, -1]
        if layer < len(network.weights) - 1:
            inputs = torch.tanh(inputs)
    return inputs


def published_loss(basis, batch, settings, search, query):
    """The loss of one query of `coupled` straight from its definition."""
    readouts, parameters = search.readouts[query], search.parameters[query]
    points = equispaced(basis.problem.domain, settings.collocation_points, torch.float64)
    features = basis.function_map(points, ((), (0,)))
    x, y = readouts @ features[()].T
    x_t, y_t = readouts @ features[(0,)].T
    by_inputs = dict(zip(search.groups, search.networks, strict=True))
    g = by_linear(by_inputs[(1,)], query, y[:, None])[:, 0]
    f = by_linear(by_inputs[(1, 0)], query, torch.stack([y, x], dim=1))[:, 0]
    a, b, _ = parameters
    residuals = [x_t - a * x + points[:, 0] * f, y_t + b * y**2 - x * g + f]
    loss = settings.physics_weight * sum(r.square().mean() for r in residuals)
    observed = torch.as_tensor(batch.observed[query])
    fields = basis.function_map(torch.as_tensor(batch.points[query]))[()] @ readouts.T
    return loss + (fields - torch.as_tensor(batch.values[query]))[observed].square().mean()


def test_gradient_agrees_with_autograd(coupled):
    basis, batch = untrained(coupled, width=9, depth=2), coupled_batch([30, 4, 12])
    settings = TermNetworkSettings(physics_weight=0.3, collocation_points=25, hidden=(5, 4))
    misfit = reduce_misfit(basis, batch)
    search = _Search(basis, misfit, torch.as_tensor(batch.known), settings)
    generator = torch.Generator().manual_seed(4)
    for variable in search.variables:
        if variable is not search.parameters:
            variable += 0.5 * torch.randn(variable.shape, generator=generator, dtype=torch.float64)
    loss = search.evaluate() + misfit.rest
    found = [variable.grad for variable in search.variables]
    for variable in search.variables:
        variable.grad = None
        variable.requires_grad_()
    expected = torch.stack([published_loss(basis, batch, settings, search, query) for query in range(3)])
    expected.sum().backward()
    assert loss.numpy() == pytest.approx(expected.detach().numpy(), rel=1e-10)
    held = torch.as_tensor(batch.known).isfinite()
    assert held.sum() == 2
    for variable, gradient in zip(search.variables, found, strict=True):
        by_autograd = variable.grad
        if variable is search.parameters:
            assert (by_autograd[held] != 0).all()
            by_autograd = by_autograd.masked_fill(held, 0)
        assert gradient.abs().max() > 0
        assert gradient.numpy() == pytest.approx(by_autograd.numpy(), rel=1e-8, abs=1e-12)


def test_finds_the_term_along_the_trajectories(growth):
    basis, (batch, rates) = untrained(growth, width=10, depth=2), growth_batch()
    found = fit_term_networks(basis, batch, TermNetworkSettings(steps=2500, learning_rate=1e-2, hidden=(10, 10)))
    terms = found.terms(torch.as_tensor(batch.values))
    assert terms.shape == (4, 40, 1)
    error = (terms[..., 0] - torch.as_tensor(batch.values[..., 0]) ** 2).abs().mean()
    assert error < 0.02  # of terms between 0 and 1
    assert found.parameters[:, 0].numpy() == pytest.approx(rates)
    assert found.misfit.max() < 1e-4
    grid = torch.linspace(0.2, 0.6, 5, dtype=torch.float64)[None, :, None]
    assert found.terms(grid).shape == (4, 5, 1)


def test_searches_parameters_where_no_term_is_unknown():
    logistic_equation = Problem(
        name="logistic",
        coordinates={"t": [0, 3]},
        fields=["u"],
        parameters={"r": [0.5, 1.5]},
        equations=["u_t - r*u + u**2"],
        initial={"u": [0.1, 0.5]},
    )
    batch, rates = growth_batch(known=False)
    basis = untrained(logistic_equation, width=10, depth=2)
    found = fit_term_networks(basis, batch, TermNetworkSettings(steps=2500, learning_rate=1e-2, physics_weight=1.0))
    assert found.parameters[:, 0].numpy() == pytest.approx(rates, abs=0.03)
    assert found.terms(torch.as_tensor(batch.values)).shape == (4, 40, 0)


def test_a_query_is_solved_alone_as_in_a_batch(coupled):
    """Padding rows and the other queries leave no trace."""
    basis, batch = untrained(coupled, width=6, depth=2), coupled_batch([30, 4, 12])
    settings = TermNetworkSettings(steps=100, collocation_points=20, hidden=(5,))
    together = fit_term_networks(basis, batch, settings)
    fields = torch.rand(3, 7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    for query in range(3):
        count = batch.observed[query, :, 0].sum()
        parts = (part[query : query + 1, :count] for part in (batch.points, batch.values, batch.observed))
        alone = fit_term_networks(
            basis,
            Batch(batch.queries[:1], *parts, None, batch.known[query : query + 1], batch.initial[query : query + 1]),
            settings,
        )
        for name in ("parameters", "readouts", "loss", "misfit"):
            expected = getattr(together, name)[query].numpy()
            assert getattr(alone, name)[0].numpy() == pytest.approx(expected, rel=1e-6, abs=1e-9, nan_ok=True)
        expected = together.terms(fields)[query].numpy()
        assert alone.terms(fields[query : query + 1])[0].numpy() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_known_parameters_are_held_and_absent_ones_not_reported(coupled):
    basis, batch = untrained(coupled, width=6, depth=2), coupled_batch([10, 10, 10])
    batch.known[1, 2] = 0.25
    parameters = fit_term_networks(basis, batch, TermNetworkSettings(steps=30, hidden=(5,))).parameters.numpy()
    assert parameters[0, 0] == pytest.approx(0.7)
    assert parameters[1, 1] == pytest.approx(1.3)
    assert (parameters[[0, 1, 2, 2], [1, 0, 0, 1]] != 1).all()  # moved from the middle of the range
    assert parameters[1, 2] == 0.25
    assert np.isnan(parameters[[0, 2], 2]).all()


def test_the_best_step_is_kept(growth):
    """At a rate far too high the loss jumps about; what is returned has the lowest loss that was seen."""
    basis, (batch, _) = untrained(growth, width=6, depth=2), growth_batch()
    settings = TermNetworkSettings(steps=60, learning_rate=0.5, hidden=(5,))
    search = _Search(basis, reduce_misfit(basis, batch), torch.as_tensor(batch.known), settings)
    losses = []
    for _ in range(settings.steps):
        losses.append(search.evaluate())
        search.step()
    losses = torch.stack(losses)
    assert (losses[-1] > losses.min(0).values).any()
    found = fit_term_networks(basis, batch, settings)
    assert found.loss.numpy() == pytest.approx((losses.min(0).values + reduce_misfit(basis, batch).rest).numpy())
    for variable, kept in zip(
        search.variables, [found.readouts, found.parameters, *found.networks[0].weights], strict=True
    ):
        variable.copy_(kept)
    assert search.evaluate().numpy() == pytest.approx(losses.min(0).values.numpy())


def test_terms_come_in_the_order_of_the_problem(coupled):
    """The term g depends on y alone, f on (y, x); both may be asked at one set of points for all queries."""
    basis, batch = untrained(coupled, width=6, depth=2), coupled_batch([10, 10, 10])
    found = fit_term_networks(basis, batch, TermNetworkSettings(steps=5, hidden=(5,)))
    fields = torch.rand(1, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    terms = found.terms(fields)
    moved = found.terms(fields + torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert terms.shape == (3, 4, 2)
    assert torch.equal(terms[..., 0], moved[..., 0])
    assert (terms[..., 1] != moved[..., 1]).all()
    expected = by_linear(found.networks[1], 2, fields[0][:, [1, 0]])[:, 0]
    assert terms[2, :, 1].numpy() == pytest.approx(expected.numpy())


def test_networks_start_as_linear_layers_do():
    networks = StackedNetworks.start([4, 50, 2], 3, torch.Generator().manual_seed(0), torch.float32)
    assert [tuple(weight.shape) for weight in networks.weights] == [(3, 50, 5), (3, 2, 51)]
    assert torch.equal(networks.weights[0][0], networks.weights[0][2])
    assert 0.45 < networks.weights[0].abs().max() <= 0.5
    assert networks.weights[1].abs().max() <= 50**-0.5
