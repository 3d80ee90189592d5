"""Smooth fits by evidence: the noise is found, error bars hold, and little data are not over-interpreted."""

import numpy as np
import pytest
import torch
from simulated import observed

from ipbasis.observations.long_form import check_observations
from ipbasis.reference.solutions import solutions
from ipbasis.search.assemble import assemble
from ipbasis.search.reduce import reduce_physics
from ipbasis.search.smoothing import propagate, smooth

TIMES = np.linspace(0, 10, 100)


@pytest.fixture(scope="module")
def tasks(lotka_volterra_basis):
    return lotka_volterra_basis.problem.sample_tasks(40, np.random.default_rng(11))


def fitted(basis, tasks, noise, times=TIMES, given=False):
    table, _ = observed(basis.problem, tasks, times, std=noise)
    (batch,) = check_observations(table, basis.problem).batches(1000)
    online = assemble(basis, reduce_physics(basis), batch, None)
    smoothed = smooth(online, torch.full((len(tasks),), noise) if given else None)
    return online, smoothed


@pytest.mark.parametrize("given", [False, True])
def test_noise_and_error_bars(lotka_volterra_basis, tasks, given):
    """Errors over error bars have root mean square 1 within 20 %: the prior is not the truth's own distribution."""
    online, smoothed = fitted(lotka_volterra_basis, tasks, 0.05, given=given)
    assert smoothed.noise_std.median().item() == pytest.approx(0.05, rel=0.1)
    physics = online.physics.at(lotka_volterra_basis, torch.tensor(TIMES)[:, None])
    width = smoothed.spread.shape[2]
    values = torch.einsum("nr,bfr->bnf", physics.functions[()], smoothed.mean.unflatten(1, (2, width)))
    jets = physics.system.jets
    by_jet = torch.zeros(len(tasks), 2, len(jets), len(TIMES), dtype=torch.float64)
    for field in range(2):
        number = next(j for j, jet in enumerate(jets) if jet.field == field and jet.index == ())
        by_jet[:, field, number] = 1
    std = propagate(smoothed.jet_covariance(physics), by_jet).sqrt().transpose(1, 2)
    error = values - torch.as_tensor(solutions(lotka_volterra_basis.problem, tasks, TIMES[None, :, None]))
    assert (error / std).square().mean().sqrt().item() == pytest.approx(1, abs=0.2)
    assert error.square().mean().sqrt() < 0.04  # below the noise


def test_clean_data_are_followed(lotka_volterra_basis, tasks):
    _, smoothed = fitted(lotka_volterra_basis, tasks, 0.0)
    assert smoothed.noise_std.median() < 1e-5


def test_few_observations_give_finite_fits_with_wide_bars(lotka_volterra_basis, tasks):
    _, few = fitted(lotka_volterra_basis, tasks, 0.01, times=np.linspace(0, 10, 5))
    _, many = fitted(lotka_volterra_basis, tasks, 0.01)
    assert torch.isfinite(few.mean).all()
    assert few.spread.square().sum() > 3 * many.spread.square().sum()


def test_an_unseen_field_keeps_a_wide_prior(lotka_volterra_basis, tasks):
    basis = lotka_volterra_basis
    table, _ = observed(basis.problem, tasks)
    (batch,) = check_observations(table.assign(y=np.nan), basis.problem).batches(1000)
    smoothed = smooth(assemble(basis, reduce_physics(basis), batch, None), None)
    width = smoothed.spread.shape[2]
    assert torch.isfinite(smoothed.spread).all()
    assert smoothed.mean[:, width:].abs().max() == 0
    assert (smoothed.spread[:, 1].amin(1) > 0.1).all()
