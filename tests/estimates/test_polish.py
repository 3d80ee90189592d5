"""Polish: the maximum-likelihood estimate and its error bars, inside the trained range and outside."""

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
from simulated import simulated

from ipbasis import InputError, estimate
from ipbasis.problem.declaration import Tasks
from ipbasis.reference.solutions import solutions

NAMES = ["a1", "a2", "a3"]
TIMES = np.linspace(0, 3, 40)


def direct(problem, values, task, times=TIMES, weight=1.0):
    """`scipy.optimize.least_squares` on one query from its true task: unknowns, covariance at unit noise, cost."""

    def residual(z):
        count = len(problem.parameters)
        one = Tasks(z[None, :count], z[None, count:])
        return ((solutions(problem, one, times[None, :, None])[0] - values) * weight).ravel()

    start = np.hstack([task.parameters[0], task.initial[0]])
    found = scipy.optimize.least_squares(residual, start, jac="3-point", xtol=1e-12, ftol=1e-12, gtol=1e-12)
    return found.x, np.linalg.inv(found.jac.T @ found.jac), 2 * found.cost


def test_it_ends_at_the_maximum_likelihood_estimate_with_its_errors(basis, oscillator):
    """Against a search by SciPy from the truth; noise estimated with 40 - 5 degrees of freedom."""
    table, tasks, _ = simulated(oscillator, 5, 40, std=0.01)
    found = estimate(basis, table, polish=True)
    for i, row in found.table.iterrows():
        values = table.loc[table["query"] == i, ["u"]].to_numpy()
        unknowns, covariance, cost = direct(oscillator, values, tasks[i : i + 1])
        std = np.sqrt(cost / 35 * covariance.diagonal())[:3]
        assert np.abs((row[NAMES].to_numpy(dtype=float) - unknowns[:3]) / std).max() < 0.02
        assert row[[f"{n}_std" for n in NAMES]].to_numpy(dtype=float) == pytest.approx(std, rel=1e-3)
        assert row["noise_std"] == pytest.approx(np.sqrt(cost / 35), rel=1e-4)
        assert row["resimulation_rms"] == pytest.approx(np.sqrt(cost / 40), rel=1e-4)
        correlation = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
        assert found.correlation[i, 0, 1] == pytest.approx(correlation, rel=1e-3)


@pytest.mark.parametrize("name", ["basis", "lotka_volterra_basis"])
def test_an_estimated_noise_is_that_of_the_polished_misfit(name, request):
    """With one field as with two: the mean square misfit over the degrees of freedom that it left."""
    basis = request.getfixturevalue(name)
    problem = basis.problem
    table, _, _ = simulated(problem, 6, 60, noise=1)
    found = estimate(basis, table, polish=True).table
    count = 60 * len(problem.fields)
    expected = found["resimulation_rms"] * np.sqrt(count / (count - len(problem.unknown_ranges)))
    polished = found["resimulation_rms"].notna() & (found["status"] == "ok")
    assert polished.sum() >= 4
    assert found["noise_std"][polished].to_numpy() == pytest.approx(expected[polished].to_numpy(), rel=1e-6)


@pytest.mark.parametrize("name", ["basis", "lotka_volterra_basis"])
def test_a_given_noise_is_held(name, request):
    basis = request.getfixturevalue(name)
    table, _, _ = simulated(basis.problem, 2, 40, noise=3)
    found = estimate(basis, table, polish=True, noise_std=0.0321).table
    assert found["noise_std"].to_numpy() == pytest.approx(0.0321)
    columns = table.assign(**{f"{field}_std": 0.0321 for field in basis.problem.fields})
    by_cell = estimate(basis, columns, polish=True).table
    both = [f"{parameter}_std" for parameter in basis.problem.parameters]
    assert by_cell[both].to_numpy() == pytest.approx(found[both].to_numpy(), rel=1e-4)


def test_outside_the_trained_range_it_covers_and_is_ok(basis, oscillator):
    """150 queries at twice the trained parameters: all of them out of range before; coverage known to 2 %."""
    far = oscillator.with_ranges(parameters={"a1": [2.5, 3], "a2": [2.5, 3]})
    table, tasks, _ = simulated(far, 150, 40, std=0.01)
    plain, found = estimate(basis, table).table, estimate(basis, table, polish=True).table
    polished = found["status"] == "ok"
    assert (plain["status"] == "out_of_range").mean() > 0.6
    assert (polished | (found["status"] == "not_identifiable")).all()
    assert polished.mean() > 0.9
    for i, name in enumerate(NAMES):
        inside = (found[f"{name}_low"] < tasks.parameters[:, i]) & (tasks.parameters[:, i] < found[f"{name}_high"])
        assert inside.mean() == pytest.approx(0.95, abs=0.05)


def test_clean_data_give_the_parameters(lotka_volterra_basis):
    """Where the basis is good to 1e-3 only, and 30 % outside its ranges."""
    ranges = dict.fromkeys(lotka_volterra_basis.problem.parameters, (1.5, 1.8))
    far = lotka_volterra_basis.problem.with_ranges(parameters=ranges, initial={"x": [0.5, 1.5], "y": [0.5, 1.5]})
    table, tasks, _ = simulated(far, 10, 60)
    found = estimate(lotka_volterra_basis, table, polish=True).table
    good = found["status"] == "ok"
    assert good.sum() >= 8
    error = np.abs(found[list(ranges)].to_numpy() - tasks.parameters)[good]
    assert error.max() < 1e-5


def test_given_noise_and_known_parameters(basis, oscillator):
    table, tasks, _ = simulated(oscillator, 6, 40, std=0.1)
    table["a3"] = tasks.parameters[table["query"], 2]
    table.loc[table["query"] == 0, "a3"] = np.nan
    by_number = estimate(basis, table, polish=True, noise_std=0.1).table
    by_cell = estimate(basis, table.assign(u_std=0.1), polish=True).table
    assert by_number.loc[1:, "a3"].to_numpy() == pytest.approx(tasks.parameters[1:, 2])
    assert (by_number.loc[1:, "a3_std"] == 0).all()
    assert by_number.loc[0, "a3_std"] > 0
    assert (by_number["noise_std"] == 0.1).all()
    columns = [n + s for n in NAMES for s in ("", "_std", "_low", "_high")]
    assert by_cell[columns].to_numpy() == pytest.approx(by_number[columns].to_numpy(), rel=1e-4, abs=1e-6)
    assert by_cell["resimulation_rms"].to_numpy() == pytest.approx(by_number["resimulation_rms"].to_numpy() / 0.1)
    assert by_number["objective"].to_numpy() == pytest.approx(40 * by_cell["resimulation_rms"].to_numpy() ** 2)
    width = (by_number["a1_high"] - by_number["a1_low"]) / by_number["a1_std"]
    assert width.to_numpy() == pytest.approx(2 * 1.96, rel=1e-3)


def test_queries_are_polished_each_for_itself(basis, oscillator, monkeypatch):
    """Own points, missing values, and groups of a few queries: the same as one query alone."""
    rng = np.random.default_rng(0)
    table, _, _ = simulated(oscillator, 5, 40, std=0.1)
    table = table[rng.random(len(table)) < 0.7]
    whole = estimate(basis, table, polish=True).table
    alone = pd.concat([estimate(basis, part, polish=True).table for _, part in table.groupby("query")])
    columns = [n + s for n in NAMES for s in ("", "_std")]
    assert whole[columns].to_numpy() == pytest.approx(alone[columns].to_numpy(), rel=1e-4, abs=1e-5)
    monkeypatch.setattr("ipbasis.estimates.polish._NUMBERS_AT_ONCE", 1000)
    grouped = estimate(basis, table, polish=True).table
    assert grouped[columns].to_numpy() == pytest.approx(whole[columns].to_numpy(), rel=1e-4, abs=1e-5)


def test_without_success_the_estimate_of_the_basis_stays(basis, oscillator):
    """Too few values to determine anything beside queries that are polished."""
    table, _, _ = simulated(oscillator, 4, 40, std=0.005)
    table = table[(table["query"] != 2) | (table["t"] < TIMES[3])]
    plain, found = estimate(basis, table, resimulate=True).table, estimate(basis, table, polish=True).table
    assert found.loc[2, "status"] == "not_identifiable"
    assert (found.loc[[0, 1, 3], "status"] == "ok").all()
    # the error bars are those of the reference, even where there was nothing to gain
    assert (found.loc[[0, 1, 3], "a1_std"] != plain.loc[[0, 1, 3], "a1_std"]).all()
    assert list(found) == list(plain)
    assert (found.dtypes == plain.dtypes).all()


def test_data_of_another_equation_are_told(basis, oscillator):
    table, _, _ = simulated(oscillator, 10, 40, std=0.01)
    found = estimate(basis, table.assign(u=table["u"] + 0.5 * np.sin(9 * table["t"])), polish=True).table
    assert not (found["status"] == "ok").any()


def test_polish_and_profile_exclude_each_other(basis, oscillator):
    table, _, _ = simulated(oscillator, 1, 40, std=0.1)
    with pytest.raises(InputError, match="exclude each other"):
        estimate(basis, table, polish=True, profile=True)
