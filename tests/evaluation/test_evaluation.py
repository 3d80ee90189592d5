"""Scores, tables and figures."""

import numpy as np
import pandas as pd
import pytest
from simulated import simulated

from ipbasis import estimate
from ipbasis.evaluation import figures
from ipbasis.evaluation.metrics import (
    approximation_errors,
    coverage,
    cramer_rao,
    dependence,
    ideal_errors,
    identifiable,
    parameter_errors,
    term_errors,
)
from ipbasis.evaluation.tables import combine
from ipbasis.observations.long_form import InputWarning, check_observations


def test_errors_follow_the_query_not_the_row():
    estimates = pd.DataFrame({"query": ["b", "a"], "k": [2.5, 1.0]})
    truth = pd.DataFrame({"query": ["a", "b"], "k": [1.0, 2.0]})
    assert parameter_errors(estimates, truth, ["k"]) == {"k_mse": 0.125, "k_mae": 0.25}


def test_coverage_counts_intervals_that_hold_the_truth():
    estimates = pd.DataFrame({"query": [0, 1, 2, 3], "k_low": [0, 0, 0, 2.0], "k_high": [2, 2, 0.5, 3.0]})
    truth = pd.DataFrame({"query": [0, 1, 2, 3], "k": [1.0, 1.5, 1.0, 1.0]})
    assert coverage(estimates, truth, ["k"]) == {"k_coverage": 0.5}


def test_term_errors_are_means_over_queries_points_and_terms():
    true = np.zeros((2, 3, 2))
    found = true.copy()
    found[0, 0, 0], found[1, 2, 1] = 6.0, -3.0
    assert term_errors(found, true) == {"unknown_term_mse": 45 / 12, "unknown_term_mae": 9 / 12}


def test_ideal_error_is_that_of_least_squares_on_a_linear_model():
    rng = np.random.default_rng(0)
    slopes = rng.normal(size=(1, 30, 1, 2))
    design = slopes[0, :, 0]
    estimates = np.linalg.lstsq(design, 0.3 * rng.normal(size=(30, 20000)), rcond=None)[0]
    # the mean of 20 000 absolute errors is known to 0.5 %
    assert ideal_errors(slopes, np.array([0.3]))[0] == pytest.approx(np.abs(estimates).mean(axis=1), rel=0.02)


def test_the_bound_is_infinite_where_parameters_cannot_be_told_apart():
    slopes = np.random.default_rng(0).normal(size=(2, 30, 1, 2))
    slopes[1, :, :, 1] = 0
    found = cramer_rao(slopes, np.array([0.3, 0.3]))
    design = slopes[0, :, 0]
    assert found[0] == pytest.approx(0.3 * np.sqrt(np.linalg.inv(design.T @ design).diagonal()))
    assert np.isinf(found[1]).all()


def test_the_bound_of_fields_with_noise_of_their_own_and_one_that_is_not_observed():
    slopes = np.random.default_rng(0).normal(size=(2, 30, 3, 2)) * [1, 1e9]
    std = np.array([[0.3, 2.0, np.inf], [0.1, np.inf, 0.1]])
    found = cramer_rao(slopes, std)
    for task in range(2):
        information = sum(slopes[task, :, f].T @ slopes[task, :, f] / std[task, f] ** 2 for f in range(3))
        scale = np.diag([1, 1e9])
        inverse = np.linalg.inv(np.linalg.inv(scale) @ information @ np.linalg.inv(scale))
        assert found[task] * [1, 1e9] == pytest.approx(np.sqrt(inverse.diagonal()))


def test_a_query_is_identifiable_where_every_interval_is_narrower_than_its_range():
    ranges = np.array([[0.0, 1.0], [-2.0, 2.0]])
    bound = np.array([[0.25, 1.0], [0.26, 0.1], [0.1, 1.03], [0.1, np.inf]])
    assert identifiable(bound, ranges).tolist() == [True, False, False, False]


def test_dependence_is_taken_in_the_mean_over_the_domain():
    """Of functions with known products: 1 and cos x + 1 over a period, two copies of one, and a tiny one."""
    x = 2 * np.pi * np.arange(40) / 40
    weights = np.full(40, 1 / 40)
    found = dependence(np.stack([np.ones(40), 1 + np.cos(x)], axis=1), weights, 1e-10)
    # Gram matrix [[1, 1], [1, 3/2]]
    high, low = (2.5 + np.sqrt(4.25)) / 2, (2.5 - np.sqrt(4.25)) / 2
    assert found["condition_number"] == pytest.approx(np.sqrt(high / low))
    assert found["largest_correlation"] == found["mean_correlation"] == pytest.approx(1 / np.sqrt(1.5))
    assert found["rank"] == 2
    functions = np.stack([np.cos(x), -np.cos(x), 1e-11 * np.sin(x)], axis=1)
    found = dependence(functions, weights, 1e-10)
    assert (found["rank"], found["largest_correlation"]) == (1, pytest.approx(1))
    assert found["mean_correlation"] == pytest.approx(1 / 3)
    assert found["condition_number"] > 1e10
    # where the weight is does count
    assert dependence(np.array([[1.0, 1.0], [1.0, -1.0]]), np.array([1.0, 0.0]), 1e-10)["rank"] == 1


def test_approximation_errors_are_those_of_least_squares():
    rng = np.random.default_rng(0)
    features, truth, weights = rng.normal(size=(30, 4)), rng.normal(size=(5, 30, 2)), rng.uniform(0.5, 1, 30)
    root = np.sqrt(weights)[:, None]
    for count, found in enumerate(approximation_errors(features, weights, truth), start=1):
        relative = []
        for values in truth * root:
            chosen = features[:, :count] * root
            left = values - chosen @ np.linalg.lstsq(chosen, values, rcond=None)[0]
            relative.append((left**2).sum() / (values**2).sum())
        assert found == pytest.approx(np.sqrt(np.mean(relative)))


def test_published_columns_come_first_and_sources_in_order():
    published = pd.DataFrame({"readouts": [10, 30], "k_mae": [0.5, 0.4]})
    own = pd.DataFrame({"source": ["ipbasis"], "readouts": [10], "k_mae": [0.1], "extra": [7]})
    other = pd.DataFrame({"source": ["pinn"], "k_mae": [0.2]})
    table = combine(published, [other, own], ["readouts", "no such column"])
    assert list(table) == ["source", "readouts", "k_mae", "extra"]
    assert table["source"].tolist() == ["published", "published", "ipbasis", "pinn"]
    assert table["k_mae"].tolist() == [0.5, 0.4, 0.1, 0.2]


@pytest.fixture
def fitted(basis, oscillator):
    table, _, _ = simulated(oscillator, 3, 30, std=0.05)
    observations = check_observations(table, oscillator)
    return estimate(basis, observations), observations


def renamed(fitted, names):
    estimates, observations = fitted
    estimates.table["query"] = estimates.table["query"].map(dict(enumerate(names)))
    observations.table["query"] = observations.table["query"].map(dict(enumerate(names)))
    return fitted


@pytest.mark.parametrize(
    ("names", "pictures"),
    [
        (("a_b_2", "a b", "a/b"), ["query_a_b_2.png", "query-1.png", "query-2.png"]),
        (("A", "a", "b"), ["query-0.png", "query-1.png", "query_b.png"]),  # one file where capitals do not count
        (("$^$", ".", "x" * 300), ["query-0.png", "query-1.png", "query-2.png"]),
        (("a\nb", "ä", "_{$"), ["query-0.png", "query-1.png", "query-2.png"]),
    ],
)
def test_every_query_has_a_picture_of_its_own_and_the_index_says_which(fitted, tmp_path, names, pictures):
    figures.plot_queries(*renamed(fitted, names), tmp_path / "new")
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"index.csv", *pictures}
    index = pd.read_csv(tmp_path / "new" / "index.csv")
    assert index["query"].tolist() == list(names)
    assert index["picture"].tolist() == pictures


def test_a_query_that_cannot_be_drawn_is_told_and_the_others_are_drawn(fitted, tmp_path):
    estimates, observations = renamed(fitted, ("a", "b", "c"))
    estimates.readouts[1] = 1e308
    with pytest.warns(InputWarning, match="query b: cannot be drawn: "):
        figures.plot_queries(estimates, observations, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"index.csv", "query_a.png", "query_c.png"}
    index = pd.read_csv(tmp_path / "index.csv", keep_default_na=False)
    assert index["picture"].tolist() == ["query_a.png", "", "query_c.png"]
    assert index["message"][1].startswith("cannot be drawn")


def test_where_the_paper_has_no_table_only_own_rows_are_there():
    own = pd.DataFrame({"source": ["pinn", "ipbasis"], "k_mae": [0.2, 0.1]})
    assert combine(pd.DataFrame(), [own], ["readouts"])["source"].tolist() == ["ipbasis", "pinn"]


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
