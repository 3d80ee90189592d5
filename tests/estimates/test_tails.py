"""Error bars that say too little of what the data leave open."""

import numpy as np
import pandas as pd
import pytest

from ipbasis import Problem, estimate, train


@pytest.fixture(scope="module")
def growth():
    """A culture that may be seen only when it no longer grows."""
    problem = Problem(
        name="growth",
        coordinates={"t": [0, 24]},
        fields=["n"],
        parameters={"r": [0.4, 1.6], "K": {"range": [0.5, 5], "scale": "log"}},
        equations=["n_t - r*n*(1 - n/K)"],
        initial={"n": {"range": [0.01, 0.1], "scale": "log"}},
    )
    return train(problem)


def data(start: float, noise: float, r=0.8, capacity=2.0, first=0.03) -> pd.DataFrame:
    """Forty observations of each of thirty cultures from a time on."""
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(start, 24, (30, 40)), axis=1)
    values = capacity / (1 + (capacity / first - 1) * np.exp(-r * times))
    values = values + noise * rng.standard_normal(values.shape)
    return pd.DataFrame({"query": np.repeat(np.arange(30), 40), "t": times.ravel(), "n": values.ravel()})


def test_a_rate_that_is_open_upwards_is_not_ok(growth):
    seen = data(9, 0.3).assign(initial_n=0.03)
    table, profile = estimate(growth, seen).table, estimate(growth, seen, profile=True).table
    further = (profile["r_high"] - table["r"]) / table["r_std"]
    assert (further > 8).sum() > 5
    assert not (further[table["status"] == "ok"] > 8).any()
    told = table["message"] == "the data leave r open to one side"
    assert told.sum() > 5
    assert (table.loc[told, "status"] == "not_identifiable").all()


def test_an_estimate_of_which_the_likelihood_is_as_its_error_bars_say_stays_ok(growth):
    table = estimate(growth, data(0, 0.02)).table
    assert (table["status"] == "ok").all()


def test_an_interval_that_ends_within_the_range_is_that_of_the_profile(growth):
    seen = data(7, 0.1).assign(initial_n=0.03)
    table, profile = estimate(growth, seen).table, estimate(growth, seen, profile=True).table
    told = table["message"].str.contains("more open to one side: intervals of the profile")
    assert told.any()
    assert (table.loc[told, "status"] == "ok").all()
    for end in ("r_low", "r_high"):
        assert table.loc[told, end].to_numpy() == pytest.approx(profile.loc[told, end].to_numpy(), rel=1e-2)


@pytest.mark.parametrize("noise", [3e-4, 0.03])
def test_a_rate_told_by_a_saturated_culture_alone_is_not_ok_and_wrong(growth, noise):
    """Error bars of 2 % of the range; the likelihood of a faster growth falls off hardly at all."""
    seen = data(16, noise, r=1.12, capacity=2.7, first=0.035).assign(initial_n=0.035)
    table = estimate(growth, seen).table
    off = (table["r"] - 1.12).abs() / table["r_std"]
    assert (off > 4).sum() > 3
    assert ((table["status"] == "ok") & (off > 4) & (table["r_high"] < 1.12)).sum() <= 1


def test_of_linear_equations_too():
    """Of what is absorbed while nobody looks the data tell only that it is over, by error bars of 1 % of the range."""
    problem = Problem(
        name="dose",
        coordinates={"t": [0, 24]},
        fields=["a", "c"],
        parameters={"ka": {"range": [0.6, 4], "scale": "log"}, "k": [0.03, 0.2]},
        equations=["a_t + ka*a", "c_t - ka*a + k*c"],
        initial={"a": "10", "c": "0"},
    )
    basis, rng = train(problem), np.random.default_rng(0)
    times = np.sort(rng.uniform(16, 24, (60, 40)), axis=1)
    ka, k = rng.uniform(2.5, 4, (60, 1)), rng.uniform(0.05, 0.1, (60, 1))
    gut = 10 * np.exp(-ka * times)
    plasma = 10 * ka / (ka - k) * (np.exp(-k * times) - np.exp(-ka * times))
    noise = rng.standard_normal((2, 60, 40))
    table = pd.DataFrame({"query": np.repeat(np.arange(60), 40), "t": times.ravel()})
    table["a"], table["c"] = (gut + 1e-5 * noise[0]).ravel(), (plasma + 0.05 * noise[1]).ravel()
    found = estimate(basis, table, noise_std={"a": 1e-5, "c": 0.05}).table
    off = (found["ka"] - ka[:, 0]).abs() / found["ka_std"]
    assert (off > 4).sum() > 3
    wrong = (ka[:, 0] < found["ka_low"]) | (ka[:, 0] > found["ka_high"])
    assert ((found["status"] == "ok") & wrong & (off > 4)).sum() <= 1


def test_with_the_profile_the_interval_itself_tells_it(growth):
    table = estimate(growth, data(9, 0.3).assign(initial_n=0.03), profile=True).table
    assert not table["message"].str.contains("open to one side").any()
    assert ((table["r_low"] <= 0.8) & (table["r_high"] >= 0.8)).mean() > 0.8
