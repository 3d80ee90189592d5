"""Re-simulation: agrees with a good fit, tells a bad one, and one query that cannot be integrated harms no other."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from simulated import simulated

from ipbasis import InputError, estimate
from ipbasis.estimates.resimulate import Resimulation, fitted_initial_values, resimulate, with_resimulation
from ipbasis.observations.long_form import check_observations
from ipbasis.problem.declaration import Tasks
from ipbasis.search.noise import Errors, Estimated
from ipbasis.search.solver import GaussNewton


def solved(basis, table):
    """The fit of the only batch."""
    (batch,) = check_observations(table, basis.problem).batches(1000)
    return GaussNewton().prepare(basis.problem, basis, Errors(), torch.device("cpu")).solve(batch, Estimated())


def shifted(fit, parameters):
    return replace(fit, solution=replace(fit.solution, parameters=parameters))


@pytest.mark.parametrize("layout", ["equispaced", "own"])
def test_a_good_fit_is_confirmed(basis, oscillator, layout):
    table, _, _ = simulated(oscillator, 40, 60, noise=2, layout=layout)
    found, plain = estimate(basis, table, resimulate=True).table, estimate(basis, table).table
    assert list(found) == [*plain.columns[:-2], "resimulation_rms", "status", "message"]
    # rounding differs from run to run, and flat valleys make something of it
    determined = plain["status"] == "ok"
    pd.testing.assert_frame_equal(found.drop(columns="resimulation_rms")[determined], plain[determined], rtol=1e-3)
    assert (found["status"] == plain["status"]).all()
    # the noise is the misfit over 55 degrees of freedom, the other its mean over 60 values
    expected = (plain["noise_std"] * np.sqrt(55 / 60)).to_numpy()
    assert found["resimulation_rms"].to_numpy() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("noise", [0, 1e-3])
def test_clean_data_raise_no_alarm(basis, oscillator, lotka_volterra_basis, noise):
    for one in (basis, lotka_volterra_basis):
        table, _, _ = simulated(one.problem, 60, 60, noise=noise)
        found, plain = estimate(one, table, resimulate=True).table, estimate(one, table).table
        assert (found["status"] == plain["status"]).all()
    table, _, _ = simulated(oscillator, 60, 60, noise=0)
    assert estimate(basis, table, resimulate=True).table["resimulation_rms"].max() < 1e-6


def test_errors_of_the_cells_are_the_unit(basis, oscillator):
    table, _, std = simulated(oscillator, 40, 60, noise=2)
    table["u_std"] = std[table["query"]]
    found = estimate(basis, table, resimulate=True).table
    assert found["resimulation_rms"].mean() == pytest.approx(1, abs=0.1)


def test_initial_values_are_those_of_the_fit(basis, oscillator):
    table, tasks, _ = simulated(oscillator, 5, 60, noise=0)
    solution = solved(basis, table).solution
    assert fitted_initial_values(basis, solution.readouts) == pytest.approx(tasks.initial, abs=1e-6)


def test_estimates_that_do_not_belong_to_the_data_are_told(basis, oscillator):
    table, _, _ = simulated(oscillator, 10, 60, noise=1)
    fit = solved(basis, table)
    good = resimulate(basis, fit)
    bad = resimulate(basis, shifted(fit, fit.solution.parameters + 0.5 * (torch.arange(10) % 2)[:, None]))
    assert (good.excess < 1).all()
    assert (bad.excess[1::2] > 1).all()
    assert bad.excess[::2] == pytest.approx(good.excess[::2], rel=1e-6)
    statuses = ["ok"] * 9 + ["out_of_range"]
    judged = with_resimulation(pd.DataFrame({"status": statuses, "message": [""] * 10}), bad)
    assert judged["status"].tolist() == ["ok", "poor_fit"] * 4 + ["ok", "out_of_range"]
    told = judged["message"].str.contains("re-simulation contradicts the fit")
    assert told.tolist() == [False, True] * 4 + [False] * 2


def test_a_query_that_cannot_be_integrated_leaves_the_others_alone(lotka_volterra_basis):
    problem = lotka_volterra_basis.problem
    table, _, _ = simulated(problem, 12, 60, noise=1)
    fit = solved(lotka_volterra_basis, table)
    good = resimulate(lotka_volterra_basis, fit)
    wild = fit.solution.parameters.clone()
    wild[4] = torch.tensor([1e3, -1e3, 1e3, 1e3])
    wild[9] = torch.nan
    found = resimulate(lotka_volterra_basis, shifted(fit, wild))
    lost = np.isin(np.arange(12), [4, 9])
    assert np.isnan(found.rms[lost]).all()
    assert np.isfinite(good.rms).sum() >= 11
    assert found.rms[~lost] == pytest.approx(good.rms[~lost], rel=1e-6, nan_ok=True)


def test_what_cannot_be_integrated_is_told():
    tasks = Tasks(np.array([[1.0], [1.0], [np.nan]]), np.zeros((3, 0)))
    found = Resimulation(tasks, np.array([np.nan, np.nan, np.nan]), np.full(3, np.nan))
    table = pd.DataFrame({"status": ["ok", "poor_fit", "failed"], "message": ["", "why", "no finite estimate"]})
    judged = with_resimulation(table, found)
    assert judged["status"].tolist() == ["poor_fit", "poor_fit", "failed"]
    note = "the equations cannot be integrated with these estimates"
    assert judged["message"].tolist() == [note, f"why; {note}", "no finite estimate"]


def test_formulas_of_unknown_terms_are_integrated(lotka_volterra_basis, lotka_volterra):
    basis = lotka_volterra_basis.for_problem(lotka_volterra)
    table, _, std = simulated(lotka_volterra, 8, 60, noise=1, known=["alpha", "gamma"])
    found = estimate(basis, table, resimulate=True).table
    good = (found["status"] == "ok").to_numpy()
    assert good.sum() >= 4
    assert (found["resimulation_rms"].to_numpy() / std)[good] == pytest.approx(1, abs=0.35)
    for options, reason in [
        ({"solver": "free_form", "resimulate": True}, "resimulate needs a reference solver"),
        ({"polish": True}, "polish is for problems without unknown terms"),
        ({"profile": True}, "profile is for the solver 'gauss_newton'"),
    ]:
        with pytest.raises(InputError, match=reason):
            estimate(basis, table, **options)
