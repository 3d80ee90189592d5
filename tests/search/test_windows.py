"""The search on windows, against least squares on exact solutions, and whatever the units."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import least_squares

from ipbasis import Basis, Problem, estimate, train

POWERS = [-12, -5, 4, 12]


def growth(t: float = 1, u: float = 1, r: float = 1, log: bool = True) -> Problem:
    """Logistic growth, in any units of time, field and rate; the equation holds the rate in its own unit."""
    factor = 1 / (t * r)
    return Problem(
        name="growth",
        coordinates={"t": [0, 10 * t]},
        fields=["u"],
        parameters={
            "r": [0.5 * r, 2 * r],
            "K": {"range": [1 * u, 100 * u], "scale": "log"} if log else [1 * u, 100 * u],
        },
        constants={"c": factor},
        equations=["u_t - c*r*u*(1 - u/K)"],
        initial={"u": [0.1 * u, 1 * u]},
    )


def exact(p: np.ndarray, times: np.ndarray) -> np.ndarray:
    r, k, start = p
    return k / (1 + (k / start - 1) * np.exp(-r * times))


TRUTH = np.array([[1.0, 20.0, 0.5], [0.7, 3.0, 0.2], [1.8, 70.0, 0.9], [0.6, 40.0, 0.3]])


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    parts = []
    for query, p in enumerate(TRUTH):
        times = np.sort(rng.uniform(0, 10, 40))
        values = exact(p, times)
        noisy = values + 0.03 * values.max() * rng.normal(size=40)
        parts.append(pd.DataFrame({"query": query, "t": times, "u": noisy}))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def basis() -> Basis:
    return train(growth())


@pytest.fixture(scope="module")
def found(basis, table):
    return estimate(basis, table)


def test_estimates_and_error_bars_are_those_of_exact_least_squares(found, table):
    for query, p in enumerate(TRUTH):
        own = table[table["query"] == query]
        # the logarithm of K is searched
        fit = least_squares(
            lambda q, own=own: exact([q[0], np.exp(q[1]), q[2]], own["t"].to_numpy()) - own["u"],
            [p[0], np.log(p[1]), p[2]],
            xtol=1e-14,
            ftol=1e-14,
        )
        variance = 2 * fit.cost / (len(own) - 3)
        std = np.sqrt(np.diag(np.linalg.inv(fit.jac.T @ fit.jac)) * variance)
        row = found.table.iloc[query]
        assert row["status"] == "ok"
        assert row["r"] == pytest.approx(fit.x[0], abs=0.1 * std[0])
        assert np.log(row["K"]) == pytest.approx(fit.x[1], abs=0.1 * std[1])
        assert row["r_std"] == pytest.approx(std[0], rel=0.02)
        assert row["K_std"] == pytest.approx(std[1] * row["K"], rel=0.02)
        assert row["noise_std"] == pytest.approx(np.sqrt(variance), rel=0.01)


def test_an_interval_of_a_logarithm_is_one_of_ratios(found):
    row = found.table.iloc[0]
    assert row["K"] ** 2 == pytest.approx(row["K_low"] * row["K_high"], rel=1e-9)


def test_fitted_solutions_and_their_errors(found, table):
    times = np.linspace(0, 10, 30)
    values, std = found.solution(times)[:, :, 0], found.solution_std(times)[:, :, 0]
    truth = np.stack([exact(p, times) for p in TRUTH])
    assert (np.abs(values - truth) < 5 * std + 1e-9).all()
    covariance = found.readout_covariance[0, 0]
    functions = found.basis.functions(times) * found.basis.record.units.field_scales[0]
    assert np.allclose(np.sqrt(np.einsum("nk,kl,nl->n", functions, covariance, functions)), std[0], rtol=1e-6)


@pytest.mark.parametrize("kind", ["t", "u", "r"])
@pytest.mark.parametrize("power", POWERS)
def test_units_change_results_by_rounding_only(found, table, kind, power):
    factor = 10.0**power
    scaled = table.assign(t=table["t"] * (factor if kind == "t" else 1), u=table["u"] * (factor if kind == "u" else 1))
    again = estimate(train(growth(**{kind: factor})), scaled)
    own = found.table
    rate, size = (factor if kind == "r" else 1), (factor if kind == "u" else 1)
    assert again.table["status"].tolist() == own["status"].tolist()
    for name, by in (("r", rate), ("K", size), ("noise", size)):
        std = own[f"{name}_std"].to_numpy() * by
        if name != "noise":
            assert (np.abs(again.table[name] - own[name] * by) < 1e-3 * std).all()
        assert np.allclose(again.table[f"{name}_std"], std, rtol=1e-3)


def test_given_values_and_noise(basis, table):
    known = estimate(basis, table.assign(K=TRUTH[table["query"], 1]), noise_std=0.5).table
    assert known["K"].tolist() == pytest.approx(TRUTH[:, 1].tolist())
    assert known["K_std"].tolist() == [0] * 4
    assert (np.abs(known["r"] - TRUTH[:, 0]) < 5 * known["r_std"]).all()
    first = estimate(basis, table.assign(initial_u=TRUTH[table["query"], 2])).table
    assert (first["r_std"] < estimate(basis, table).table["r_std"]).all()


def test_lognormal_noise_and_outliers(basis):
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, 10, 60))
    values = exact(TRUTH[0], times)
    shares = pd.DataFrame({"query": 0, "t": times, "u": values * np.exp(0.1 * rng.normal(size=60))})
    row = estimate(basis, shares, noise="lognormal").table.iloc[0]
    assert row["status"] == "ok"
    assert row["noise_std"] == pytest.approx(0.1, rel=0.3)
    wild = values + 0.1 * rng.normal(size=60)
    wild[[10, 30]] += 8
    spoiled = pd.DataFrame({"query": 0, "t": times, "u": wild})
    assert estimate(basis, spoiled).table["status"].tolist() == ["poor_fit"]
    row = estimate(basis, spoiled, loss="huber").table.iloc[0]
    assert row["status"] == "ok"
    assert abs(row["K"] - 20) < 5 * row["K_std"]


def test_what_the_data_leave_open_is_told(basis):
    times = np.linspace(0, 1, 20)
    early = exact(TRUTH[3], times) + 0.02 * np.random.default_rng(0).normal(size=20)
    row = estimate(basis, pd.DataFrame({"query": 0, "t": times, "u": early})).table.iloc[0]
    assert row["status"] == "not_identifiable"
    assert "K" in row["message"]


def test_estimates_keep_to_the_widened_range_and_say_so(basis):
    """Growth twice as fast as the range allows."""
    times = np.linspace(0, 10, 40)
    fast = exact([5.0, 20.0, 0.5], times) + 0.05 * np.random.default_rng(0).normal(size=40)
    row = estimate(basis, pd.DataFrame({"query": 0, "t": times, "u": fast})).table.iloc[0]
    assert row["r"] == pytest.approx(2.75)
    assert row["status"] == "out_of_range"


def test_of_two_equal_optima_the_one_in_the_trained_range_is_meant():
    """Rates of two decays can be exchanged; the ranges tell which is which."""
    decays = Problem(
        name="decays",
        coordinates={"t": [0, 5]},
        fields=["u"],
        parameters={"a": [0.2, 1], "b": [1, 5]},
        equations=["u_tt + (a + b)*u_t + a*b*u"],
        initial={"u": [0.5, 3], "u_t": [-10, 0]},
    )
    rng, times = np.random.default_rng(1), np.linspace(0, 5, 80)
    rows = []
    for query in range(10):
        a, b = rng.uniform([0.4, 2], [0.8, 4])
        rows.append(pd.DataFrame({"query": query, "t": times, "u": np.exp(-a * times) + np.exp(-b * times), "a0": a}))
    table = pd.concat(rows, ignore_index=True)
    table["u"] += 0.01 * rng.normal(size=len(table))
    found = estimate(train(decays), table.drop(columns="a0")).table
    assert (found["status"] == "ok").mean() >= 0.8
    own = found[found["status"] == "ok"]
    truth = table.groupby("query")["a0"].first().loc[own["query"]].to_numpy()
    assert (np.abs(own["a"] - truth) < 5 * own["a_std"]).all()


def test_hidden_fields_are_found():
    """Infected alone are observed."""
    rng = np.random.default_rng(7)
    sir = Problem(
        name="sir",
        coordinates={"t": [0, 60]},
        fields=["s", "i"],
        parameters={"beta": [0.2, 1], "gamma": [0.05, 0.2]},
        equations=["s_t + beta*s*i", "i_t - beta*s*i + gamma*i"],
        initial={"s": "0.99", "i": "0.01"},
    )
    from ipbasis.reference.ode import integrate

    tasks, times = sir.sample_tasks(20, rng), np.linspace(0, 60, 50)
    values = integrate(sir, tasks, times)[:, :, 1]
    noisy = values + 0.02 * values.max(1, keepdims=True) * rng.normal(size=values.shape)
    table = pd.DataFrame({"query": np.repeat(np.arange(20), 50), "t": np.tile(times, 20), "i": noisy.ravel()})
    found = estimate(train(sir), table.assign(s=np.nan)).table
    assert (found["status"] == "ok").mean() >= 0.9
    error = (found[["beta", "gamma"]].to_numpy() - tasks.parameters) / found[["beta_std", "gamma_std"]].to_numpy()
    assert np.sqrt(np.mean(error[found["status"] == "ok"] ** 2)) == pytest.approx(1, abs=0.4)
