"""Scores, tables and figures."""

import numpy as np
import pandas as pd
import pytest

from ipbasis import estimate
from ipbasis.evaluation import figures
from ipbasis.evaluation.metrics import coverage, parameter_errors
from ipbasis.evaluation.tables import combine
from ipbasis.observations import check_observations, long_table
from ipbasis.reference.ode import integrate


def test_errors_follow_the_query_not_the_row():
    estimates = pd.DataFrame({"query": ["b", "a"], "k": [2.5, 1.0]})
    truth = pd.DataFrame({"query": ["a", "b"], "k": [1.0, 2.0]})
    assert parameter_errors(estimates, truth, ["k"]) == {"k_mse": 0.125, "k_mae": 0.25}


def test_coverage_counts_intervals_that_hold_the_truth():
    estimates = pd.DataFrame({"query": [0, 1, 2, 3], "k_low": [0, 0, 0, 2.0], "k_high": [2, 2, 0.5, 3.0]})
    truth = pd.DataFrame({"query": [0, 1, 2, 3], "k": [1.0, 1.5, 1.0, 1.0]})
    assert coverage(estimates, truth, ["k"]) == {"k_coverage": 0.5}


def test_published_columns_come_first_and_sources_in_order():
    published = pd.DataFrame({"readouts": [10, 30], "k_mae": [0.5, 0.4]})
    own = pd.DataFrame({"source": ["ipbasis"], "readouts": [10], "k_mae": [0.1], "extra": [7]})
    other = pd.DataFrame({"source": ["pinn"], "k_mae": [0.2]})
    table = combine(published, [other, own], ["readouts"])
    assert list(table) == ["source", "readouts", "k_mae", "extra"]
    assert table["source"].tolist() == ["published", "published", "ipbasis", "pinn"]
    assert table["k_mae"].tolist() == [0.5, 0.4, 0.1, 0.2]


@pytest.fixture
def fitted(basis, oscillator):
    tasks = oscillator.sample_tasks(3, np.random.default_rng(0))
    times = np.linspace(0, 3, 30)
    values = integrate(oscillator, tasks, times)
    values = values + 0.05 * np.random.default_rng(1).normal(size=values.shape)
    observations = check_observations(long_table(oscillator, times[None, :, None], values), oscillator)
    return estimate(basis, observations), observations


def test_a_picture_per_query_even_where_names_collide(fitted, tmp_path):
    estimates, observations = fitted
    names = {0: "a/b", 1: "a b", 2: "c"}
    estimates.table["query"] = estimates.table["query"].map(names)
    observations.table["query"] = observations.table["query"].map(names)
    figures.plot_queries(estimates, observations, tmp_path / "new")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["query_a_b.png", "query_a_b_1.png", "query_c.png"]


def test_the_picture_shows_data_fit_and_band(fitted):
    estimates, observations = fitted
    figure = figures.plot_query(estimates, observations.table[observations.table["query"] == 1], 1)
    upper, lower = figure.axes
    assert [text.get_text() for text in upper.get_legend().get_texts()] == ["u: fit", "u: observations"]
    assert [text.get_text() for text in lower.get_legend().get_texts()] == ["u: 95 % band of the fit"]
    assert lower.get_xlabel() == "t"
    shown = observations.table.loc[observations.table["query"] == 1, ["t", "u"]].to_numpy()
    assert np.array_equal(upper.lines[1].get_xydata(), shown)
    left = shown[:, 1] - estimates.solution(shown[:, 0])[1, :, 0]
    assert lower.lines[0].get_ydata() == pytest.approx(left)
