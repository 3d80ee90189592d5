"""The published online recipe: its gradient, and that it does what it is for."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import untrained
from simulated import simulated

from ipbasis import InputError, estimate
from ipbasis.features.quadrature import equispaced
from ipbasis.observations.long_form import Batch
from ipbasis.observations.simulate import long_table
from ipbasis.problem.declaration import Problem
from ipbasis.published.adam import (
    AdamReadouts,
    AdamSettings,
    QuadraticForms,
    condition_rows,
    quadratic_forms,
    residual_rows,
)
from ipbasis.published.misfit import reduce_misfit
from ipbasis.published.solvers import PublishedAdam


def test_gradient_agrees_with_autograd(oscillator):
    """One step of plain gradients, by hand and by autograd of the loss as published."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    forms = QuadraticForms(oscillator.system, draw(7, 5), draw(4, 7), draw(4, 6, 6))
    settings = AdamSettings(steps=1, learning_rate=1e-3, drop_after=None, physics_weight=0.3, collocation_points=6)
    search = AdamReadouts(oscillator.system, torch.tensor([0.4, 0.7, -0.2]), 4, 5, settings, torch.float64)
    search.readouts += draw(4, 5)
    readouts = search.readouts.clone().requires_grad_()
    parameters = search.parameters.clone().requires_grad_()
    thetas = {"a1": parameters[:, 0], "a2": parameters[:, 1], "a3": parameters[:, 2], "1": torch.ones(4)}
    augmented = torch.cat([readouts, torch.ones(4, 1, dtype=torch.float64)], dim=1)
    residual = sum(
        thetas[str(t)][:, None] * (augmented @ forms.factor[q].T) for q, t in enumerate(oscillator.system.affine.thetas)
    )
    misfit = readouts @ forms.data.T - forms.targets
    loss = 0.3 * residual.square().sum(1) + misfit.square().sum(1)
    loss.mean().backward()
    assert search.step(forms, 0).numpy() == pytest.approx(loss.detach().numpy())
    assert search.readouts.grad.numpy() == pytest.approx(readouts.grad.numpy())
    assert search.parameters.grad.numpy() == pytest.approx(parameters.grad.numpy())


@pytest.fixture
def clean(oscillator):
    return simulated(oscillator, 30)[:2]


def test_more_steps_lower_the_loss_and_the_error_of_the_fit(basis, clean):
    table, _ = clean
    short, long = (
        estimate(basis, table, PublishedAdam(steps=steps, drop_after=steps - steps // 5)) for steps in (50, 2000)
    )
    assert long.table["objective"].mean() < short.table["objective"].mean() / 100
    assert long.table["noise_std"].median() < short.table["noise_std"].median() / 10
    assert long.table["a1_std"].isna().all()
    assert (long.table["iterations"] == 2000).all()


def test_known_parameters_are_held(basis, clean):
    table, tasks = clean
    table["a2"] = tasks.parameters[table["query"], 1]
    found = estimate(basis, table, PublishedAdam(steps=50)).table
    assert found["a2"].to_numpy() == pytest.approx(tasks.parameters[:, 1])


def test_given_noise_is_refused(basis, clean):
    with pytest.raises(InputError, match="no error bars"):
        estimate(basis, clean[0], PublishedAdam(steps=1), noise_std=0.1)


def own_batch(problem, counts, seed=0, known=None):
    """Random values at points of their own; the padding holds what must not matter."""
    rng = np.random.default_rng(seed)
    shape = (len(counts), max(counts))
    points = problem.domain[:, 0] + np.ptp(problem.domain, axis=1) * rng.random((*shape, len(problem.domain)))
    observed = np.broadcast_to((np.arange(shape[1]) < np.array(counts)[:, None])[..., None], (*shape, 2)).copy()
    values = np.where(observed, rng.standard_normal((*shape, len(problem.fields))), 0.0)
    known = np.full((len(counts), len(problem.parameters)), np.nan) if known is None else known
    return Batch(np.arange(len(counts)), points, values, observed, None, known, np.full((len(counts), 2), np.nan))


def features(basis, points, readouts):
    """(n, F) fields of one query."""
    return (torch.as_tensor(basis.functions(points)) @ readouts.view(-1, basis.record.functions).T).detach()


def published_loss(basis, batch, settings, query, readouts, parameters):
    """The loss of one query straight from its definition: means over points, nothing reduced."""
    problem = basis.problem
    width = basis.record.functions

    def fields(points, index=()):
        features = basis.function_map(torch.as_tensor(points), (index,))[index]
        return features @ readouts.view(-1, width).T

    jets = problem.system.jets
    points = equispaced(problem.domain, settings.collocation_points, torch.float64)
    values = [fields(points, jet.index)[:, jet.field] for jet in jets]
    residuals = problem.system.compiled(problem.system.residuals)(points.unbind(1), values, parameters)
    loss = settings.physics_weight * sum(r.square().mean() for r in residuals)
    observed = torch.as_tensor(batch.observed[query])
    difference = fields(batch.points[query]) - torch.as_tensor(batch.values[query])
    loss = loss + difference[observed].square().mean()
    grid = [torch.linspace(low, high, settings.condition_points, dtype=torch.float64) for low, high in problem.domain]
    start = torch.cartesian_prod(torch.zeros(1, dtype=torch.float64), grid[1])
    exact = torch.exp(-2 * (start[:, 1:] + 2) ** 2) * torch.stack(
        [torch.cos(start[:, 1] / 10), torch.sin(start[:, 1] / 10)], dim=1
    )
    exact = exact * (2 / np.pi**0.5) ** 0.5
    loss = loss + settings.condition_weight * (fields(start) - exact).square().mean()
    for end in (-5.0, 5.0):
        wall = torch.cartesian_prod(grid[0], torch.tensor([end], dtype=torch.float64))
        loss = loss + settings.condition_weight * fields(wall).square().mean()
    return loss


QUANTUM = PublishedAdam(
    steps=1,
    physics_weight=0.015,
    collocation_points=900,
    condition_weight=0.01,
    condition_points=30,
    averaged_queries=1,
)


@pytest.mark.parametrize("layout", ["own", "common", "fields_apart"])
def test_forms_give_the_published_loss_and_its_gradient(quantum_oscillator, layout):
    """Residual, conditions and data, from 5 to 200 points in one batch, against their definition and autograd."""
    basis = untrained(quantum_oscillator, width=12, depth=3)
    batch = own_batch(quantum_oscillator, [200, 5, 30] if layout != "common" else [40, 40, 40])
    if layout == "common":
        batch.points[:] = batch.points[:1]
    if layout == "fields_apart":
        batch.observed[0, :50, 0] = False
        batch.observed[2, ::2, 1] = False
        batch.values[~batch.observed] = 0
    misfit = reduce_misfit(basis, batch)
    assert misfit.shared == (layout == "common")
    forms, rest = quadratic_forms(basis, misfit, QUANTUM)
    search = AdamReadouts(forms.system, torch.tensor([1.7]), 3, 26, QUANTUM, torch.float64)
    search.readouts += torch.randn(3, 26, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    readouts, parameters = search.readouts.clone().requires_grad_(), search.parameters.clone().requires_grad_()
    expected = torch.stack([published_loss(basis, batch, QUANTUM, i, readouts[i], parameters[i]) for i in range(3)])
    expected.sum().backward()
    expected = expected.detach().numpy()
    assert (search.step(forms, 0) + rest).numpy() == pytest.approx(expected, rel=1e-10)
    assert search.readouts.grad.numpy() == pytest.approx(readouts.grad.numpy(), rel=1e-8, abs=1e-10)
    assert search.parameters.grad.numpy() == pytest.approx(parameters.grad.numpy(), rel=1e-8)
    seen = [
        (features(basis, batch.points[i], readouts[i]) - torch.as_tensor(batch.values[i]))[batch.observed[i]]
        .square()
        .mean()
        .item()
        for i in range(3)
    ]
    assert misfit(readouts.detach()).numpy() == pytest.approx(seen, rel=1e-10)


def test_rows_that_the_number_type_cannot_hold_are_left_out(quantum_oscillator):
    """A grid of points takes as many rows as its rank in the trunk's number type; the loss stays the same."""
    basis = untrained(quantum_oscillator, width=30, depth=3)
    rows = residual_rows(basis, QUANTUM)
    assert rows.shape[1] <= 2 * 63
    fewer = residual_rows(untrained(quantum_oscillator, width=30, depth=3, dtype="float32"), QUANTUM)
    assert fewer.shape[1] < rows.shape[1]
    draw = torch.randn(63, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    losses = [(part[0] @ draw + 3 * part[1] @ draw).square().sum().item() for part in (rows, fewer)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_no_conditions_where_the_problem_has_none_that_are_fixed(basis):
    rows, target = condition_rows(basis, AdamSettings(condition_weight=1.0))
    assert len(rows) == len(target) == 0


def test_a_query_is_solved_alone_as_in_a_batch(quantum_oscillator):
    """Padding rows and the other queries leave no trace."""
    basis = untrained(quantum_oscillator, width=12, depth=3)
    batch = own_batch(quantum_oscillator, [200, 5, 30])
    settings = QUANTUM.model_copy(update={"steps": 200, "learning_rate": 5e-3})
    table = long_table(quantum_oscillator, batch.points, batch.values)[batch.observed[..., 0].ravel()]
    together = estimate(basis, table, settings)
    for query in range(3):
        alone = estimate(basis, table[table["query"] == query], settings)
        row = together.table.iloc[[query]].reset_index(drop=True)
        assert alone.table["k"][0] == pytest.approx(row["k"][0], rel=1e-6)
        assert alone.table["objective"][0] == pytest.approx(row["objective"][0], rel=1e-6)
        assert alone.readouts[0] == pytest.approx(together.readouts[query], rel=1e-5, abs=1e-6)


def test_fixed_initial_values_make_up_for_observations():
    """u' = -k u, u(0) = 1, seen once at a point of its own: only with u(0) is the rate determined."""
    decay = Problem(
        name="decay",
        coordinates={"t": [0, 1]},
        fields=["u"],
        parameters={"k": [0, 2]},
        equations=["u_t + k*u"],
        initial={"u": "1"},
    )
    basis = untrained(decay, width=4, depth=1)
    rates = np.array([0.4, 1.7])
    table = pd.DataFrame({"query": [0, 1], "t": [0.9, 0.7]})
    table["u"] = np.exp(-rates * table["t"])
    settings = PublishedAdam(steps=1500, drop_after=1000, physics_weight=1.0)
    without, given = (
        np.abs(estimate(basis, table, settings.model_copy(update={"condition_weight": weight})).table["k"] - rates)
        for weight in (0.0, 1.0)
    )
    assert given.max() < 0.05  # four features fit the solution to a few percent
    assert without.min() > 0.3


def test_the_rate_drops_by_the_given_factor(oscillator):
    forms = QuadraticForms(
        oscillator.system, torch.eye(5)[:1], torch.ones(1, 1), torch.zeros(len(oscillator.system.affine.thetas), 1, 6)
    )
    settings = AdamSettings(learning_rate=0.1, drop_after=1, drop_factor=2)
    search = AdamReadouts(oscillator.system, torch.zeros(3), 1, 5, settings, torch.float32)
    positions = [0.0]
    for number in range(2):
        search.step(forms, number)
        positions.append(search.readouts[0, 0].item())
    # Adam's steps are the learning rate as long as the gradient hardly changes
    assert np.diff(positions) == pytest.approx([0.1, 0.05], rel=0.02)
