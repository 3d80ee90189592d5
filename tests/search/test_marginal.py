"""The likelihood with the slack of the solution marginalised: its closed form, and fits of parts of the domain."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import closed_form
from simulated import simulated

from ipbasis import estimate
from ipbasis.observations.long_form import check_observations
from ipbasis.observations.simulate import long_table
from ipbasis.offline.artefact import Basis
from ipbasis.search.assemble import assemble
from ipbasis.search.elimination import Rows
from ipbasis.search.marginal import marginal
from ipbasis.search.reduce import reduce_physics
from ipbasis.search.weights import weights_for

NAMES = ["a1", "a2", "a3"]
WHOLE, FIRST, MIDDLE, LAST = (0, 3), (0, 0.3), (1.2, 1.8), (2.7, 3)


@pytest.fixture(scope="module")
def best() -> Basis:
    """Of 14 functions, which hold few solutions outside the trained ranges."""
    return Basis.load(Path(__file__).parents[2] / "models/damped_oscillator/best")


def table_of(problem, count, points, noise, part=WHOLE, known=False, unit=1.0):
    """Observations of a part of the domain, exact but for noise relative to their root mean square, and the tasks."""
    rng = np.random.default_rng(1)
    tasks, times = problem.sample_tasks(count, rng), np.linspace(*part, points)
    values = closed_form(tasks.parameters, tasks.initial, times)
    std = noise * np.sqrt((values**2).mean(1, keepdims=True))
    disturbed = unit * (values + std * rng.standard_normal(values.shape))
    table = long_table(problem, times[None, :, None], disturbed[..., None])
    if known:
        given = unit * tasks.initial[table["query"]]
        table = table.assign(initial_u=given[:, 0], initial_u_t=given[:, 1])
    return table, tasks


def online_of(basis, table, noise):
    """The online problem of a table with its weights for a noise of this size in the unit of the field."""
    (batch,) = check_observations(table, basis.problem).batches(100)
    online = assemble(basis, reduce_physics(basis), batch, None)
    std = torch.full((len(online),), noise, dtype=torch.float64)
    return online, weights_for(online, std, basis.record.accuracy, None)


@pytest.mark.parametrize("known", [False, True])
def test_the_information_is_that_of_the_data_about_the_manifold(best, known):
    """Jᵀ (1 + D M⁻¹ Dᵀ)⁻¹ J by matrices written out; at a noise beside which the slack counts."""
    table, tasks = table_of(best.problem, 3, 30, 0.0, known=known)
    online, weights = online_of(best, table, 1e-7)
    parameters = torch.as_tensor(tasks.parameters)
    found = marginal(online, parameters, weights)
    rows = Rows(online.with_initial_held(), online.physics.thetas(parameters), weights)
    columns = rows.apply(torch.eye(online.size, dtype=torch.float64).expand(3, -1, -1)).mT
    data, physics = columns[:, : rows.sizes[0]], columns[:, rows.sizes[0] :]
    normal = physics.mT @ physics
    initial = torch.linalg.solve(normal, -rows.adjoint(rows.initial_slope()).mT) * online.initial.isnan()[:, None]
    slope = -torch.linalg.solve(normal, rows.adjoint(rows.slope(parameters, found.coordinates)).mT)
    seen = data @ torch.cat([slope, initial], dim=2)
    spread = torch.eye(rows.sizes[0], dtype=torch.float64) + data @ torch.linalg.solve(normal, data.mT)
    information = seen.mT @ torch.linalg.solve(spread, seen)
    kept = 3 if known else 5
    expected = torch.linalg.inv(information[:, :kept, :kept])[:, :3, :3]
    torch.testing.assert_close(found.covariance, expected, rtol=1e-3, atol=0)
    hard = torch.linalg.inv((seen.mT @ seen)[:, :kept, :kept])[:, :3, :3]
    assert ((found.covariance - hard).diagonal(dim1=1, dim2=2) > 0).all()


def test_gradient_agrees_with_differences(best):
    """Steps are those of the objective: where one is predicted to gain, differences of the objective agree."""
    table, tasks = table_of(best.problem, 4, 40, 0.01)
    online, weights = online_of(best, table, 0.02)
    parameters = torch.as_tensor(tasks.parameters)
    found = marginal(online, parameters, weights)
    step = 1e-3 * found.step
    ahead, behind = (marginal(online, parameters + sign * step, weights).objective for sign in (1, -1))
    # along the step of Gauss and Newton the objective falls by twice what it gains, to first order
    assert (ahead - behind).numpy() == pytest.approx(-4e-3 * found.gain.numpy(), rel=1e-3)


@pytest.mark.parametrize(
    ("points", "noise", "part", "known", "least"),
    [
        (50, 1e-4, FIRST, False, 0),
        (50, 1e-4, LAST, False, 0),
        (50, 1e-4, MIDDLE, False, 20),
        (300, 1e-3, LAST, True, 60),
        (50, 0.03, WHOLE, False, 60),
        (11, 0.01, WHOLE, False, 60),
    ],
)
def test_intervals_hold_on_any_part_of_the_domain(best, points, noise, part, known, least):
    """Of 95 % intervals of estimates called ok, at least 90 % hold the truth: three standard errors of such a test."""
    table, tasks = table_of(best.problem, 150, points, noise, part, known)
    found = estimate(best, table).table
    ok = (found["status"] == "ok").to_numpy()
    assert ok.sum() >= least
    assert (found["status"] == "poor_fit").mean() <= 0.02
    low, high, truth = found[[f"{n}_low" for n in NAMES]], found[[f"{n}_high" for n in NAMES]], tasks.parameters
    held = ((low.to_numpy() <= truth) & (truth <= high.to_numpy()))[ok]
    assert (~held).sum() <= 1 + 0.1 * held.size
    off = np.abs(found[NAMES].to_numpy() - truth) / (high.to_numpy() - low.to_numpy())
    assert not (off[ok] > 4 / (2 * 1.96)).any()


@pytest.mark.parametrize("unit", [1e-9, 1e-12])
@pytest.mark.parametrize("options", [{}, {"loss": "huber"}])
def test_small_fields_are_estimated_alike(best, unit, options):
    """A source that is no part of the equations stays zero, whatever the unit of the field."""
    table, _ = table_of(best.problem, 20, 100, 0.03)
    small, _ = table_of(best.problem, 20, 100, 0.03, unit=unit)
    found, other = estimate(best, table, **options).table, estimate(best, small, **options).table
    ok = found["status"] == "ok"
    assert ok.sum() > 5
    for name in ("a1", "a2"):
        assert (((other[name] - found[name]).abs() / found[f"{name}_std"])[ok] < 1e-3).all()
        assert other[f"{name}_std"][ok].to_numpy() == pytest.approx(found[f"{name}_std"][ok].to_numpy(), rel=1e-3)


def test_few_clean_observations_are_enough(best):
    """Errors of the basis follow them all, and leave no noise to estimate."""
    table, tasks = table_of(best.problem, 20, 11, 0.0)
    found = estimate(best, table).table
    assert (found["status"] == "ok").all()
    assert found[NAMES].to_numpy() == pytest.approx(tasks.parameters, abs=1e-4)


def test_one_degree_of_freedom_tells_no_noise(best):
    """And is no reason to suspect the equation."""
    table, _ = table_of(best.problem, 100, 6, 1e-3)
    found = estimate(best, table).table
    assert (found["status"] == "not_identifiable").all()
    assert found["message"].str.contains("noise_std").mean() > 0.9
    given, *_ = simulated(best.problem, 30, points=6, std=1e-3)
    assert (estimate(best, given, noise_std=1e-3).table["status"] == "ok").mean() > 0.8
