"""Where conditions determine the solution: what the basis leaves of the equation is not held against the data."""

from functools import partial

import numpy as np
import pytest
import torch
from simulated import cramer_rao, simulated

from ipbasis import Problem, estimate
from ipbasis.features.quadrature import gauss_legendre
from ipbasis.features.trunk import Trunk, TrunkSettings
from ipbasis.observations.long_form import check_observations
from ipbasis.offline.build import build_basis
from ipbasis.offline.settings import BuildSettings, CompressionSettings, ForwardSettings
from ipbasis.reference.solutions import solutions
from ipbasis.search.assemble import assemble
from ipbasis.search.own_term import own_term
from ipbasis.search.reduce import reduce_physics
from ipbasis.search.weights import weights_for

SIZE = TrunkSettings(width=40, depth=3, dtype="float64", first_layer_scale=2)
FORWARD = ForwardSettings(condition_weight=100, condition_points=31, rank_tolerance=1e-10)


@pytest.fixture(scope="module")
def diffusion() -> Problem:
    """u_t = k u_xx + s u, a bump that decays between walls."""
    return Problem(
        name="diffusion",
        coordinates={"t": [0, 1], "x": [0, 1]},
        fields=["u"],
        parameters={"k": [0.02, 0.2], "s": [-1, 1]},
        equations=["u_t - k*u_xx - s*u"],
        initial={"u": "16*x**2*(1 - x)**2"},
        boundary=[{"at": {"x": 0}, "equations": ["u"]}, {"at": {"x": 1}, "equations": ["u"]}],
    )


@pytest.fixture(scope="module")
def coarse(diffusion):
    """A basis of few functions: its own residual is large, and differs from one k to the next."""
    trunk = Trunk(diffusion.domain, SIZE, torch.Generator().manual_seed(0)).requires_grad_(False)
    tasks = diffusion.sample_tasks(20, np.random.default_rng(5))
    truth = solutions(diffusion, tasks, gauss_legendre(diffusion.domain, 30).points.numpy()[None])
    compression = CompressionSettings(tasks=100, tolerance=1e-3, seed=1)
    settings = BuildSettings(trunk=SIZE, forward=FORWARD, compression=compression, quadrature_points=30)
    return build_basis(diffusion, trunk, settings, tasks, truth)


simulated = partial(simulated, points=200, layout="common", seed=1)


@pytest.fixture
def online(coarse, diffusion):
    table, tasks, _ = simulated(diffusion, 6, std=0.05)
    (batch,) = check_observations(table, diffusion).batches(10)
    problem = assemble(coarse, reduce_physics(coarse), batch, None)
    weights = weights_for(problem, torch.full((6,), 0.05).double(), coarse.record.accuracy, None)
    return problem, weights, torch.as_tensor(tasks.parameters) * 1.02


def test_conditions_determine_the_solution(coarse, basis):
    assert reduce_physics(coarse).determined
    assert not reduce_physics(basis).determined


def test_gradient_of_what_is_taken_off_agrees_with_differences(online, coarse):
    problem, weights, parameters = online
    own = own_term(problem, parameters, weights, coarse.record.accuracy)
    assert (own.objective > 0).all()
    for column, step in ((0, 1e-5), (1, 1e-4)):
        shift = torch.zeros(2, dtype=torch.float64)
        shift[column] = step
        ahead, behind = (
            own_term(problem, parameters + s * shift, weights, coarse.record.accuracy).objective for s in (1, -1)
        )
        differences = (ahead - behind) / (2 * step)
        size = differences.abs().max().item()
        assert 2 * own.gradient[:, column].numpy() == pytest.approx(differences.numpy(), rel=2e-2, abs=1e-3 * size)


def test_no_more_is_taken_off_than_twice_the_worst_in_validation(online, coarse):
    problem, weights, parameters = online
    worst = coarse.record.accuracy.worst_residual / 2
    accuracy = coarse.record.accuracy.model_copy(update={"worst_residual": worst})
    far = own_term(problem, parameters + 30, weights, accuracy)
    most = (2 * worst * problem.amplitude * weights.physics).square()
    assert far.objective.numpy() == pytest.approx(most.numpy())
    assert far.gradient.abs().max() == 0


def test_estimates_reach_the_cramer_rao_bound_on_a_coarse_basis(coarse, diffusion):
    """10 % noise, 150 queries: median of |error| over bound is 0.674 for normal errors, its standard error 0.06."""
    table, tasks, std = simulated(diffusion, 150, std=0.1)
    found = estimate(coarse, table).table
    points = table.loc[table["query"] == 0, ["t", "x"]].to_numpy()[None]
    bound = cramer_rao(diffusion, tasks, points, std)
    errors = np.abs(found[["k", "s"]].to_numpy() - tasks.parameters)
    assert np.median(errors / bound, axis=0) == pytest.approx([0.674, 0.674], abs=0.2)
    assert not found["status"].isin(["poor_fit", "failed"]).any()


def test_noise_larger_than_the_signal_is_no_poor_fit(coarse, diffusion):
    table, _, _ = simulated(diffusion, 20, points=2000, std=0.8)
    found = estimate(coarse, table).table
    assert (found["noise_std"] > 0.7).all()
    assert not found["status"].isin(["poor_fit", "failed"]).any()


def test_pure_noise_is_told(coarse, diffusion):
    table, _, _ = simulated(diffusion, 20, std=0.5)
    table["u"] = np.random.default_rng(0).standard_normal(len(table))
    found = estimate(coarse, table).table
    assert not (found["status"] == "ok").any()
