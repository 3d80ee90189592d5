"""Noise by field, noise proportional to the fields, outliers: at the limit of each, with intervals that cover."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from simulated import cramer_rao

from ipbasis import Basis, InputError, estimate
from ipbasis.observations.simulate import long_table
from ipbasis.problem.declaration import Tasks
from ipbasis.published.solvers import PublishedAdam
from ipbasis.reference.solutions import solutions
from ipbasis.search.noise import Errors
from ipbasis.search.residuals import Residuals, _unequal

OSCILLATOR = ["a1", "a2", "a3"]
PREDATORS = ["alpha", "beta", "gamma", "delta"]
TIMES = np.linspace(0, 10, 60)[None, :, None]


@pytest.fixture(scope="module")
def best() -> Basis:
    """The basis of Lotka-Volterra that comes with the repository."""
    return Basis.load(Path(__file__).parents[2] / "models" / "lotka_volterra" / "best")


def exact_solutions(problem, count, times=TIMES, initial=None):
    """Random tasks, their exact solutions (queries, n, F), and a generator for the noise."""
    tasks = problem.with_ranges(initial=initial).sample_tasks(count, np.random.default_rng([0, 1]))
    return tasks, solutions(problem, tasks, times), np.random.default_rng([0, 2])


def populations(best, count, times=TIMES):
    return exact_solutions(best.problem, count, times, {"x": [0.3, 2], "y": [0.3, 2]})


def ratios(table, tasks, names, bound):
    """(queries, P) errors in units of the smallest possible standard error."""
    return (table[names].to_numpy() - tasks.parameters) / bound


def coverage(table, tasks, names, rows=slice(None)):
    """Share of the 95 % intervals that hold the true value."""
    low, high = (table[[f"{name}_{end}" for name in names]].to_numpy() for end in ("low", "high"))
    return ((low <= tasks.parameters) & (tasks.parameters <= high))[rows].mean()


NORMAL_MEDIAN = 0.674  # of the modulus of standard normal errors


def test_each_field_has_noise_of_its_own(best):
    """x with 0.01, y with 0.5: errors at the bound of those, and a fraction of those with one noise for both."""
    tasks, exact, rng = populations(best, 24)
    std = np.array([0.01, 0.5])
    table = long_table(best.problem, TIMES, exact + std * rng.standard_normal(exact.shape))
    found = estimate(best, table).table
    bound = cramer_rao(best.problem, tasks, TIMES, std[None, None])
    errors = np.abs(ratios(found, tasks, PREDATORS, bound))
    assert np.median(errors) == pytest.approx(NORMAL_MEDIAN, abs=0.15)
    assert coverage(found, tasks, PREDATORS) == pytest.approx(0.95, abs=0.05)
    assert found["x_noise_std"].median() == pytest.approx(0.01, rel=0.1)
    assert found["y_noise_std"].median() == pytest.approx(0.5, rel=0.1)
    assert found["noise_std"].median() == pytest.approx(np.sqrt((std**2).mean()), rel=0.1)
    assert not found["status"].isin(["poor_fit", "failed"]).any()
    common = estimate(best, table, noise_std=float(np.sqrt((std**2).mean()))).table
    assert np.median(np.abs(ratios(common, tasks, PREDATORS, bound))) > 3 * np.median(errors)


def test_given_noise_by_field_equals_noise_by_cell(best):
    _, exact, rng = populations(best, 10)
    std = np.array([0.02, 0.3])
    table = long_table(best.problem, TIMES, exact + std * rng.standard_normal(exact.shape))
    by_field = estimate(best, table, noise_std={"x": 0.02, "y": 0.3}).table
    by_cell = estimate(best, table.assign(x_std=0.02, y_std=0.3)).table
    pd.testing.assert_frame_equal(by_field, by_cell)
    assert by_field["x_noise_std"].to_numpy() == pytest.approx(0.02)
    assert by_field["y_noise_std"].to_numpy() == pytest.approx(0.3)


def test_equal_noise_is_estimated_as_one(best):
    """At a test of 5 %: nearly all queries keep one noise for both fields."""
    _, exact, rng = populations(best, 30)
    found = estimate(best, long_table(best.problem, TIMES, exact + 0.1 * rng.standard_normal(exact.shape))).table
    assert (found["x_noise_std"] == found["y_noise_std"]).mean() > 0.8
    assert found["noise_std"].median() == pytest.approx(0.1, rel=0.1)


def test_few_observations_do_not_hide_the_noise(best):
    """15 points and 64 functions: a fit could follow every observation, and leave no noise to estimate."""
    times = np.linspace(0, 10, 15)[None, :, None]
    tasks, exact, rng = populations(best, 20, times)
    found = estimate(best, long_table(best.problem, times, exact + 0.05 * rng.standard_normal(exact.shape))).table
    assert (found["status"] == "ok").mean() > 0.7
    assert found["noise_std"].median() == pytest.approx(0.05, rel=0.15)
    errors = ratios(found, tasks, PREDATORS, cramer_rao(best.problem, tasks, times, np.full((1, 1, 2), 0.05)))
    assert np.median(np.abs(errors)) == pytest.approx(NORMAL_MEDIAN, abs=0.2)


def test_a_field_that_nobody_saw(best):
    """y is found from x, where beta is known: otherwise its scale could be anything."""
    tasks, exact, rng = populations(best, 6)
    table = long_table(best.problem, TIMES, exact + 0.01 * rng.standard_normal(exact.shape)).drop(columns="y")
    table = table.assign(beta=tasks.parameters[table["query"], 1])
    for options in ({}, {"noise_std": {"x": 0.01}, "loss": "huber"}):
        found = estimate(best, table, **options).table
        errors = (found[PREDATORS].to_numpy() - tasks.parameters) / found[[f"{p}_std" for p in PREDATORS]]
        assert np.median(np.abs(errors.drop(columns="beta_std"))) < 1.2
        assert found["y_noise_std"].isna().all()
        assert found["x_noise_std"].to_numpy() == pytest.approx(found["noise_std"].to_numpy())
        assert found["x_noise_std"].median() == pytest.approx(0.01, rel=0.15)


def test_lognormal_noise_reaches_the_bound_of_its_logarithm(best):
    """10 %: no bias, errors as small as those of log y can be, and intervals that cover."""
    tasks, exact, rng = populations(best, 40)
    table = long_table(best.problem, TIMES, exact * np.exp(0.1 * rng.standard_normal(exact.shape)))
    found = estimate(best, table, noise="lognormal").table
    errors = ratios(found, tasks, PREDATORS, cramer_rao(best.problem, tasks, TIMES, 0.1 * exact))
    assert np.median(np.abs(errors)) == pytest.approx(NORMAL_MEDIAN, abs=0.12)
    assert np.abs(np.median(errors, axis=0)).max() < 0.5  # the standard error of the median is 0.2
    assert coverage(found, tasks, PREDATORS) == pytest.approx(0.95, abs=0.07)  # four correlated ones of 40 queries
    assert found["noise_std"].median() == pytest.approx(0.1, rel=0.05)
    assert (found["status"] == "ok").mean() > 0.9


@pytest.mark.parametrize("given", [True, False])
def test_lognormal_noise_of_linear_equations(basis, oscillator, given):
    """10 % on oscillators that stay above zero, a3 known: without it few of them tell their parameters."""
    times = np.linspace(0, 3, 60)[None, :, None]
    tasks, exact, rng = exact_solutions(oscillator, 600, times, {"u": [1, 5], "u_t": [0, 5]})
    kept = (exact > 0.2).all(axis=(1, 2))
    tasks, exact = Tasks(tasks.parameters[kept], tasks.initial[kept]), exact[kept]
    table = long_table(oscillator, times, exact * np.exp(0.1 * rng.standard_normal(exact.shape)))
    table["a3"] = tasks.parameters[table["query"], 2]
    found = estimate(basis, table, noise="lognormal", noise_std=0.1 if given else None).table
    bound = cramer_rao(oscillator, tasks, times, 0.1 * exact, known=[2])
    rows = (bound < 0.3).all(axis=1)
    assert rows.sum() > 100
    errors = ((found[OSCILLATOR].to_numpy() - tasks.parameters)[:, :2] / bound)[rows]
    assert np.median(np.abs(errors)) == pytest.approx(NORMAL_MEDIAN, abs=0.1)
    assert np.abs(np.median(errors, axis=0)).max() < 0.35  # the standard error of the median is 0.1
    assert 0.9 <= coverage(found, Tasks(tasks.parameters[:, :2], tasks.initial), OSCILLATOR[:2], rows) <= 0.99
    assert np.median(found["noise_std"]) == pytest.approx(0.1, rel=0.05)
    assert not found["status"][rows].isin(["poor_fit", "failed"]).any()


def oscillations(oscillator, count=200, number=60):
    times = np.linspace(0, 3, number)[None, :, None]
    tasks, exact, rng = exact_solutions(oscillator, count, times)
    return times, tasks, exact, 0.02 * rng.standard_normal(exact.shape), rng


@pytest.mark.parametrize("given", [True, False])
def test_huber_stands_outliers(basis, oscillator, given):
    """5 % of the observations are 20 standard deviations off."""
    times, tasks, exact, noise, rng = oscillations(oscillator)
    wild = rng.random(exact.shape) < 0.05
    spoilt = np.where(wild, 0.4 * rng.choice([-1, 1], exact.shape), noise)
    std = 0.02 if given else None
    clean = estimate(basis, long_table(oscillator, times, exact + noise), noise_std=std).table
    table = long_table(oscillator, times, exact + spoilt)
    robust = estimate(basis, table, loss="huber", noise_std=std).table
    squares = estimate(basis, table, noise_std=std).table
    bound = cramer_rao(oscillator, tasks, times, np.full((1, 1, 1), 0.02))
    rows = (bound < 0.3).all(axis=1)
    size = {
        name: np.median(np.abs(ratios(found, tasks, OSCILLATOR, bound))[rows])
        for name, found in (("clean", clean), ("robust", robust), ("squares", squares))
    }
    assert size["robust"] < 1.3 * size["clean"]
    assert size["squares"] > 2.5 * size["clean"]
    assert 0.9 <= coverage(robust, tasks, OSCILLATOR, rows) <= 0.99
    assert not robust["status"].isin(["poor_fit", "failed"]).any()
    if not given:  # proposal 2 counts what is left of the outliers
        assert robust["noise_std"].median() == pytest.approx(0.0215, rel=0.08)
        assert squares["noise_std"].median() > 0.06


def test_huber_costs_little_without_outliers(basis, oscillator):
    """Its efficiency at normal errors is 95 %: errors and error bars 1.026 times those of squares."""
    times, tasks, exact, noise, _ = oscillations(oscillator)
    table = long_table(oscillator, times, exact + noise)
    squares, robust = estimate(basis, table).table, estimate(basis, table, loss="huber").table
    bound = cramer_rao(oscillator, tasks, times, np.full((1, 1, 1), 0.02))
    rows = (bound < 0.3).all(axis=1)
    errors = [np.sqrt(np.mean(ratios(t, tasks, OSCILLATOR, bound)[rows] ** 2)) for t in (squares, robust)]
    assert errors[1] / errors[0] == pytest.approx(1.026, abs=0.05)
    assert np.median(robust["a1_std"] / squares["a1_std"]) == pytest.approx(1.026, abs=0.03)
    assert robust["noise_std"].median() == pytest.approx(0.02, rel=0.05)
    assert coverage(robust, tasks, OSCILLATOR, rows) == pytest.approx(0.95, abs=0.04)


def test_huber_of_nonlinear_equations_with_missing_cells_and_points_of_their_own(best):
    """Every third y is missing, queries differ in number and place of their points, one x in 20 is wild."""
    tasks, exact, rng = populations(best, 24)
    values = exact + np.array([0.02, 0.1]) * rng.standard_normal(exact.shape)
    values[..., 0] += np.where(rng.random(values.shape[:2]) < 0.05, 1.0, 0.0)
    table = long_table(best.problem, TIMES, values)
    table.loc[::3, "y"] = np.nan
    kept = table[rng.random(len(table)) < 0.5 + 0.5 * (table["query"] % 2)]
    found = estimate(best, kept, loss="huber").table
    assert found["query"].tolist() == list(range(24))
    bound = np.stack([cramer_rao(best.problem, tasks[i : i + 1], TIMES, _cells(kept, i))[0] for i in range(len(tasks))])
    errors = np.abs(ratios(found, tasks, PREDATORS, bound))
    assert np.median(errors) < 1.3 * NORMAL_MEDIAN
    assert coverage(found, tasks, PREDATORS) == pytest.approx(0.95, abs=0.05)
    assert found["y_noise_std"].median() == pytest.approx(0.1, rel=0.1)


def _cells(kept, query):
    """(1, n, F) standard deviations of the cells of a query, infinite where there is none."""
    own = kept[kept["query"] == query]
    std = np.full((1, TIMES.shape[1], 2), np.inf)
    places = np.searchsorted(TIMES[0, :, 0], own["t"].to_numpy() - 1e-9)
    std[0, places] = np.where(own[["x", "y"]].notna(), [0.02, 0.1], np.inf)
    return std


def test_a_query_does_not_depend_on_its_neighbours(basis, oscillator):
    times, _, exact, noise, _ = oscillations(oscillator, 12)
    noise[:, 7] *= 30
    table = long_table(oscillator, times, exact + noise)
    together = estimate(basis, table, loss="huber").table.iloc[3]
    alone = estimate(basis, table[table["query"] == 3], loss="huber").table.iloc[0]
    for name in OSCILLATOR:
        assert alone[name] == pytest.approx(together[name], abs=0.01 * together[f"{name}_std"])


@pytest.mark.parametrize("loss", ["squares", "huber"])
def test_data_of_another_equation_are_told(basis, oscillator, loss):
    """A driving force far above the noise, taken for outliers or not: no query may be called ok."""
    times, _, exact, noise, _ = oscillations(oscillator, 20)
    values = exact + noise / 10 + 0.5 * np.sin(9 * times)
    found = estimate(basis, long_table(oscillator, times, values), loss=loss).table
    assert not (found["status"] == "ok").any()


def test_rows_at_the_same_point_count_twice(basis, oscillator):
    """Two observations of noise σ at each point tell as much as one of noise σ/√2."""
    times, _, exact, noise, _ = oscillations(oscillator, 5)
    table = long_table(oscillator, times, exact + noise)
    once = estimate(basis, table, noise_std=0.02 / np.sqrt(2)).table
    twice = estimate(basis, pd.concat([table, table]), noise_std=0.02).table
    columns = [name + end for name in OSCILLATOR for end in ("", "_std")]
    assert twice[columns].to_numpy() == pytest.approx(once[columns].to_numpy(), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("loss", ["squares", "huber"])
def test_the_noise_of_normal_residuals_is_found(loss):
    """With a floor of the basis below it, and observations in units of their own."""
    generator = torch.Generator().manual_seed(0)
    unit = torch.rand(50, 400, 1, dtype=torch.float64, generator=generator) + 0.5
    std = (0.3**2 * unit.square() + 0.1**2).sqrt()
    residual = std * torch.randn(50, 400, 1, dtype=torch.float64, generator=generator)
    count = torch.full((50, 1), 400.0, dtype=torch.float64)
    floor = torch.full((50, 1, 1), 0.01, dtype=torch.float64)
    found = Residuals(Errors(loss=loss), residual, unit.square(), floor, count, count).variance().sqrt()
    assert found.mean().item() == pytest.approx(0.3, rel=0.01)


def test_equal_variances_are_told_apart_as_often_as_the_test_allows():
    """5 % false alarms; a ratio of 4 is always seen with 100 observations; too few observations tell nothing."""
    rng = np.random.default_rng(0)
    counts = torch.full((2000, 2), 40.0, dtype=torch.float64)
    variances = torch.tensor(rng.chisquare(36, (2000, 2)) / 36)
    freedom = counts - 4
    assert _unequal(variances, freedom, counts).double().mean().item() == pytest.approx(0.05, abs=0.015)
    apart = variances * torch.tensor([1.0, 9.0])
    assert _unequal(apart, freedom, counts).double().mean() > 0.99
    assert not _unequal(apart, freedom / 8, counts / 8).any()
    assert not _unequal(apart, freedom, counts * torch.tensor([1.0, 0.0])).any()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"noise": "poisson"}, "noise 'poisson' is not known; there are gaussian, lognormal"),
        ({"loss": "absolute"}, "loss 'absolute' is not known; there are squares, huber"),
        ({"loss": "huber", "solver": PublishedAdam()}, "'adam' does not know the loss 'huber'"),
        ({"noise_std": {"u": 0.0}}, "noise_std of u 0: a standard deviation must be above zero"),
        ({"noise_std": {"v": 0.1}}, "'v' is not a field of damped_oscillator; it has u"),
        ({"noise_std": {}}, "the field 'u' has observations, but no standard deviation"),
        ({"noise": "lognormal"}, "query 1: u = -1, but lognormal noise leaves values above zero"),
    ],
)
def test_bad_input_is_told(basis, oscillator, options, reason):
    table = pd.DataFrame({"query": [0, 1], "t": [0.0, 1.0], "u": [1.0, -1.0]})
    with pytest.raises(InputError, match=reason):
        estimate(basis, table, **options)


def test_lognormal_standard_errors_by_cell_are_relative(best):
    _, exact, rng = populations(best, 5)
    table = long_table(best.problem, TIMES, exact * np.exp(0.05 * rng.standard_normal(exact.shape)))
    by_number = estimate(best, table, noise_std=0.05, noise="lognormal").table
    by_cell = estimate(best, table.assign(x_std=0.05, y_std=0.05), noise="lognormal").table
    pd.testing.assert_frame_equal(by_number, by_cell)
