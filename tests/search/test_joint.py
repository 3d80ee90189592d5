"""Nonlinear equations: parameters without a guess, at the statistical limit, whatever else is in the batch."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from simulated import cramer_rao, simulated

from ipbasis import estimate
from ipbasis.observations.long_form import check_observations
from ipbasis.search import joint
from ipbasis.search.assemble import assemble
from ipbasis.search.reduce import reduce_physics
from ipbasis.search.settings import GaussNewtonSettings
from ipbasis.search.smoothing import smooth
from ipbasis.search.solver import GaussNewton
from ipbasis.search.weights import Weights

NAMES = ["alpha", "beta", "gamma", "delta"]
TIMES = np.linspace(0, 10, 100)


simulated = partial(simulated, initial={"x": [0.1, 2.1], "y": [0.1, 2.1]})


def test_clean_data_give_the_parameters(lotka_volterra_basis):
    table, tasks, _ = simulated(lotka_volterra_basis.problem, 40)
    found = estimate(lotka_volterra_basis, table).table
    assert np.abs(found[NAMES].to_numpy() - tasks.parameters).max() < 1e-3
    assert (found["status"] == "ok").mean() > 0.9


def test_errors_reach_the_cramer_rao_bound_without_a_guess(lotka_volterra_basis):
    """5 % noise: the median of |error| over bound is 0.674 for normal errors; its standard error is 0.04 here."""
    table, tasks, std = simulated(lotka_volterra_basis.problem, 120, noise=5)
    found = estimate(lotka_volterra_basis, table).table
    bound = cramer_rao(lotka_volterra_basis.problem, tasks, np.linspace(0, 10, 100), std)
    errors = np.abs(found[NAMES].to_numpy() - tasks.parameters)
    assert np.median(errors / bound) == pytest.approx(0.674, abs=0.1)
    assert (errors < 6 * bound).all(axis=1).mean() > 0.97
    bars = found[[f"{n}_std" for n in NAMES]].to_numpy()
    assert np.median(bars / bound) == pytest.approx(1, abs=0.1)
    inside = [
        (found[f"{n}_low"] <= tasks.parameters[:, i]) & (tasks.parameters[:, i] <= found[f"{n}_high"])
        for i, n in enumerate(NAMES)
    ]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.04)
    assert np.median(found["noise_std"] / std) == pytest.approx(1, abs=0.05)


def test_a_query_does_not_depend_on_its_neighbours(lotka_volterra_basis):
    """But for rounding errors: each takes its own steps, of matrices that few and many queries form differently."""
    table, _, _ = simulated(lotka_volterra_basis.problem, 8, noise=2)
    together = estimate(lotka_volterra_basis, table).table
    alone = pd.concat([estimate(lotka_volterra_basis, part).table for _, part in table.groupby("query")])
    bars = together[[f"{name}_std" for name in NAMES]].to_numpy()
    moved = np.abs(alone[NAMES].to_numpy() - together[NAMES].to_numpy()) / bars
    assert moved.max() < 1e-6  # 1e-12 as a rule


def test_the_tolerance_acts(lotka_volterra_basis):
    """Looser: fewer steps, and estimates within its root in error bars, besides what noise and level leave open."""
    table, _, _ = simulated(lotka_volterra_basis.problem, 30, noise=2)
    tolerances = (1.0, 1e-1, 1e-2, None, 1e-4, 1e-8)
    found = {t: estimate(lotka_volterra_basis, table, GaussNewton(tolerance=t)).table for t in tolerances}
    assert found[None].equals(found[1e-2])
    steps = [found[t]["iterations"].sum() for t in tolerances if t is not None]
    assert steps == sorted(steps)
    assert steps[0] < steps[2] < steps[-1]
    exact, bars = found[1e-8][NAMES].to_numpy(), found[1e-8][[f"{name}_std" for name in NAMES]].to_numpy()
    moved = [np.abs((found[t][NAMES].to_numpy() - exact) / bars).max() for t in (1.0, 1e-1, 1e-2, 1e-4)]
    assert all(shift < t**0.5 + 0.15 for shift, t in zip(moved, (1.0, 1e-1, 1e-2, 1e-4), strict=True))
    assert moved[0] > 2 * moved[3]


def test_known_parameters_are_held(lotka_volterra_basis):
    table, tasks, _ = simulated(lotka_volterra_basis.problem, 8, noise=5)
    free = estimate(lotka_volterra_basis, table).table
    held = estimate(lotka_volterra_basis, table.assign(alpha=tasks.parameters[table["query"], 0])).table
    assert held["alpha"].to_numpy() == pytest.approx(tasks.parameters[:, 0])
    assert (held["alpha_std"] == 0).all()
    assert (held["beta_std"] < free["beta_std"]).all()


def test_own_times_and_missing_cells(lotka_volterra_basis):
    table, tasks, _ = simulated(lotka_volterra_basis.problem, 6)
    table = table[(table["query"] != 2) | (table["t"] < 8)].copy()
    table.loc[table.index[::7], "y"] = np.nan
    found = estimate(lotka_volterra_basis, table).table
    assert np.abs(found[NAMES].to_numpy() - tasks.parameters).max() < 1e-3


@pytest.fixture
def assembled(lotka_volterra_basis):
    """The problem of a batch by the equations, and the tasks."""
    table, tasks, _ = simulated(lotka_volterra_basis.problem, 5, noise=1)
    (batch,) = check_observations(table, lotka_volterra_basis.problem).batches(10)
    return partial(assemble, lotka_volterra_basis, batch=batch, std=None), tasks


@pytest.fixture
def online(assembled, lotka_volterra_basis):
    of, tasks = assembled
    return of(reduce_physics(lotka_volterra_basis)), tasks


@pytest.fixture
def anywhere(online):
    """Linearised at random unknowns, a random direction, and how to linearise further along it."""
    problem, tasks = online
    generator = torch.Generator().manual_seed(0)
    width = problem.size
    unknowns = torch.randn(5, width, generator=generator, dtype=torch.float64)
    parameters = torch.as_tensor(tasks.parameters)
    direction = torch.randn(5, width + 4, generator=generator, dtype=torch.float64)

    def linearised(size):
        step = size * direction
        return joint._linearise(problem, unknowns + step[:, :width], parameters + step[:, width:])

    return problem, direction, linearised


def test_gradients_agree_with_differences(anywhere):
    problem, direction, linearised = anywhere
    problem.priors.std[1] = 0.3
    step, ones = 1e-6, torch.ones(5, dtype=torch.float64)
    state, ahead, behind = linearised(0), linearised(step), linearised(-step)
    for weights in (Weights(3 * ones, 0 * ones), Weights(0 * ones, 2 * ones), Weights(0 * ones, 0 * ones)):
        expected = (ahead.objective(weights) - behind.objective(weights)) / (2 * step)
        gradient = state.gradient(problem, weights)
        assert expected.abs().min() > 0
        assert (2 * gradient * direction).sum(1).numpy() == pytest.approx(expected.numpy(), rel=1e-5)


def test_a_small_step_needs_no_new_linearisation(anywhere):
    """The data are quadratic; what Gauss and Newton leave out of the physics is of second order."""
    problem, direction, linearised = anywhere
    state, errors = linearised(0), []
    for size in (1e-2, 5e-3):
        moved, there = state.moved(problem, size * direction), linearised(size)
        assert moved.data.numpy() == pytest.approx(there.data.numpy(), rel=1e-9)
        assert moved.misfit.numpy() == pytest.approx(there.misfit.numpy(), abs=1e-8)
        errors.append((moved.physics - there.physics).abs().sum().item())
    assert errors[1] == pytest.approx(errors[0] / 4, rel=0.2)


def test_the_first_functions_are_the_first_unknowns(online, assembled, lotka_volterra_basis):
    """Values, equation and data of the leading functions are those of all where the other unknowns are zero."""
    problem, tasks = online
    few, parameters = assembled[0](problem.physics.leading), torch.as_tensor(tasks.parameters)
    assert few.physics.accuracy.residual > problem.physics.accuracy.residual
    functions = few.physics.energy.shape[0]
    generator = torch.Generator().manual_seed(0)
    unknowns = torch.randn(5, few.size, generator=generator, dtype=torch.float64)
    wide = problem.physics.widened(unknowns)
    readouts, all_readouts = unknowns @ few.physics.combinations.T, wide @ problem.physics.combinations.T
    by_field = all_readouts.unflatten(1, (2, -1))
    assert torch.allclose(by_field[..., :functions].flatten(1), readouts, rtol=1e-10)
    assert not by_field[..., functions:].any()
    assert torch.allclose(few.data_normal, few.data_root.mT @ few.data_root, atol=1e-10)
    states = joint._linearise(few, unknowns, parameters), joint._linearise(problem, wide, parameters)
    misfits = [state.data + part.data_rest.sum(1) for state, part in zip(states, (few, problem), strict=True)]
    assert misfits[0].numpy() == pytest.approx(misfits[1].numpy(), rel=1e-9)
    small = lotka_volterra_basis.leading(functions)
    assert small.functions(np.linspace(0, 10, 7)).shape == (7, functions)
    assert small.record.quadrature_points < lotka_volterra_basis.record.quadrature_points


def test_noise_of_each_cell_is_told_from_the_error_of_the_basis_in_any_unit(lotka_volterra_basis):
    """The same noise given as one number and by cell, beside values of any size."""
    table, _, std = simulated(lotka_volterra_basis.problem, 1, noise=5)
    as_number = estimate(lotka_volterra_basis, table, noise_std=float(std[0])).table
    by_cell = estimate(lotka_volterra_basis, table.assign(x_std=std[0], y_std=std[0])).table
    assert by_cell[NAMES].to_numpy() == pytest.approx(as_number[NAMES].to_numpy(), rel=1e-3)
    (batch,) = check_observations(table, lotka_volterra_basis.problem).batches(1)
    physics, noise = reduce_physics(lotka_volterra_basis), torch.full(batch.values.shape, std[0], dtype=torch.float64)
    plain, cells = (assemble(lotka_volterra_basis, physics, batch, given) for given in (None, noise))
    assert (joint._Limits.of(cells, physics).std * std[0]).item() == pytest.approx(
        joint._Limits.of(plain, physics).std.item()
    )


def test_few_functions_serve_where_their_residual_does_not_matter(lotka_volterra_basis, monkeypatch):
    """Beside much noise some queries end with few functions, a small part of an error bar from where all lead."""
    table, _, _ = simulated(lotka_volterra_basis.problem, 30, noise=20)
    given = []

    def counting(online, *rest, **options):
        given.append((online.size, len(online)))
        return fit(online, *rest, **options)

    fit = joint._fit
    monkeypatch.setattr(joint, "_fit", counting)
    found = estimate(lotka_volterra_basis, table).table
    counts = dict(reversed(given))
    assert counts[max(counts)] < 30
    record = lotka_volterra_basis.record.model_copy(update={"leading": {}})
    alone = estimate(replace(lotka_volterra_basis, record=record), table).table
    names = list(lotka_volterra_basis.problem.parameters)
    moved = (found[names] - alone[names]).to_numpy() / alone[[f"{name}_std" for name in names]].to_numpy()
    assert np.median(np.abs(moved)) < 0.1


def test_doubtful_ends_are_searched_again_and_the_evidence_chooses(online):
    """The outcome spoiled by hand: replaced where the estimate depends on the level and the evidence is worse."""
    problem, _ = online
    settings, rows = GaussNewtonSettings(), torch.arange(5)
    covariances = torch.zeros(5, 2, *problem.data_normal.shape[2:], dtype=torch.float64)
    good = joint._fit(problem, *joint._first(problem, None), settings, False, covariances, rows)
    expected, far = covariances.clone(), torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    worse = torch.tensor([0.0, 100.0, -100.0, 100.0, 100.0], dtype=torch.float64)
    end = replace(good.end, parameters=good.end.parameters + far[:, None], depends=far)
    covariances *= 1 + far[:, None, None, None]
    spoiled = replace(good, end=end, evidence=good.evidence + worse)
    found = joint._with_second_try(problem, spoiled, settings, None, covariances, rows)
    replaced = [False, True, False, True, False]
    moved = (found.end.parameters - good.end.parameters).abs().amax(1)
    assert (moved < 1e-3).tolist() == [True, True, False, True, True]
    assert (found.iterations > good.iterations).tolist() == replaced
    assert torch.allclose(covariances[[0, 1, 3, 4]], expected[[0, 1, 3, 4]], rtol=1e-3)
    assert torch.equal(covariances[2], 2 * expected[2])


@pytest.mark.parametrize("queries", [3, 40])
@pytest.mark.parametrize("fields", [2, 3])
def test_normal_matrices_are_those_of_the_derivative(online, epidemic, queries, fields):
    """For few queries formed one by one, for many by products that all share; also where two fields never meet."""
    physics = online[0].physics
    if fields == 3:
        physics = replace(physics, system=epidemic.system, combinations=torch.block_diag(*[physics.energy] * 3))
        assert any(not block.pairs and not block.same.any() for block in physics._blocks.values())
    generator = torch.Generator().manual_seed(0)
    jets, points, width = len(physics.system.jets), len(physics.root), physics.combinations.shape[1]
    by_jet = torch.randn(queries, fields, jets, points, generator=generator, dtype=torch.float64)
    assert physics._blocks is not None
    for i, partials in enumerate(physics.system.partials()[0]):
        for j, slope in enumerate(partials):
            if slope.is_number:
                by_jet[:, i, j] = float(slope) * physics.root
    unknowns = torch.randn(queries, width, generator=generator, dtype=torch.float64)
    rows = physics.applied(by_jet, unknowns)
    normal = torch.full((queries, width, width), torch.nan, dtype=torch.float64)
    physics.normal(by_jet, normal)
    normal = normal.tril() + normal.tril(-1).mT
    expected = physics.adjoint(by_jet, rows[:, :, None]).squeeze(1)
    assert torch.allclose((normal @ unknowns[..., None]).squeeze(2), expected, rtol=1e-10)
    squares = (unknowns * expected).sum(1)
    assert squares.numpy() == pytest.approx(rows.square().sum((1, 2)).numpy())


def test_what_depends_on_the_level_moves_with_it(online):
    """Raise the weight of the equation by far: what should not move does not, and bars and estimates do otherwise.

    A move counts along its own direction: along a narrow valley it is small beside the bar of each parameter.
    """
    problem, tasks = online
    width = problem.size
    smoothed = smooth(problem, None)
    start = joint._linearise(problem, smoothed.mean, torch.as_tensor(tasks.parameters))
    noise = 1 / smoothed.noise_std
    predicted, moved = [], []
    for level in (1e-1, 1e-2, 1e-3):
        found = []
        state = start
        for factor in (1, 100):
            weights = Weights(noise, width**0.5 * factor / (level * problem.amplitude))
            end, _, _, settled = joint._search(problem, state, weights, GaussNewtonSettings())
            assert settled.all()
            found.append(end)
            state = joint._linearise(problem, end.unknowns, end.parameters)
        loose, strict = found
        bars, after = (end.covariance.diagonal(dim1=1, dim2=2).sqrt() for end in found)
        shift = strict.parameters - loose.parameters
        length = (shift * torch.linalg.solve(loose.covariance, shift)).sum(1).sqrt()
        assert (length >= (shift.abs() / bars).amax(1)).all()
        predicted.append(loose.depends)
        moved.append(torch.maximum(length, (after / bars).log().abs().amax(1)))
    predicted, moved = torch.cat(predicted), torch.cat(moved)
    assert (moved[predicted < 0.03] < 0.1).all()
    assert (predicted < 0.03).any()
    assert (moved[predicted > 0.2] > 0.1).all()
    assert (predicted > 0.2).any()


def test_dependence_on_the_level_counts_moves_along_narrow_valleys(online):
    """A little more weight of the equation moves the estimates by its part of what is predicted, all together."""
    problem, tasks = online
    smoothed, factor = smooth(problem, None), 1.05
    state = joint._linearise(problem, smoothed.mean, torch.as_tensor(tasks.parameters))
    found = []
    for more in (1, factor):
        weights = Weights(1 / smoothed.noise_std, problem.size**0.5 * more / (0.005 * problem.amplitude))
        end, _, _, settled = joint._search(problem, state, weights, GaussNewtonSettings(iterations=60, tolerance=1e-12))
        assert settled.all()
        found.append(end)
        state = joint._linearise(problem, end.unknowns, end.parameters)
    bars = found[0].covariance.diagonal(dim1=1, dim2=2).sqrt()
    shift = (found[1].parameters - found[0].parameters) / (1 - factor**-2)
    length = (shift * torch.linalg.solve(found[0].covariance, shift)).sum(1).sqrt()
    assert (length > 1.5 * (shift / bars).abs().amax(1)).any()
    assert (length < 1.15 * found[0].depends).all()


def test_pruning_is_backward_elimination_of_the_quadratic_form():
    """Against solving the least-squares problem anew without each column."""
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((60, 5)) @ np.diag([1, 10, 0.1, 1, 1])
    target = matrix[:, 1] * 0.3 + 2 * matrix[:, 3] + 0.5 * rng.standard_normal(60)
    found = np.linalg.lstsq(matrix, target, rcond=None)[0]
    covariance = 0.25 * np.linalg.inv(matrix.T @ matrix)
    dropped = joint._prune(
        torch.tensor(found[None]),
        torch.tensor(covariance[None]),
        torch.ones(1, 5, dtype=torch.bool),
        torch.tensor([np.log(60.0)]),
    )[0]
    assert dropped.tolist() == [True, False, True, False, True]


def test_a_fixed_physics_weight_is_an_override(lotka_volterra_basis):
    table, tasks, _ = simulated(lotka_volterra_basis.problem, 6, noise=5)
    loose = estimate(lotka_volterra_basis, table, GaussNewton(physics_weight=1e-3)).table
    usual = estimate(lotka_volterra_basis, table).table
    error = [np.abs(t[NAMES].to_numpy() - tasks.parameters).mean() for t in (loose, usual)]
    assert error[0] > 1.2 * error[1]
