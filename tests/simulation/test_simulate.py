"""Simulated data sets: what they hold, how large the noise is, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from ipbasis import simulate
from ipbasis.errors import InputError
from ipbasis.observations.long_form import InputWarning, check_observations
from ipbasis.problem.declaration import Problem
from ipbasis.simulation.simulate import simulation


@pytest.fixture(scope="module")
def chain() -> Problem:
    """a → b, a seen or hidden; k on a logarithmic scale."""
    return Problem(
        name="chain",
        coordinates={"t": [0, 2]},
        fields=["a", "b"],
        parameters={"k": {"range": [0.1, 10], "scale": "log"}},
        equations=["a_t + k*a", "b_t - k*a"],
        initial={"a": [1, 3], "b": "0"},
    )


def test_without_noise_the_data_are_the_solution(chain):
    found = simulation(chain, noise=0, queries=5)
    table = found.observations.merge(found.truth, on="query")
    left = table["initial_a"] * np.exp(-table["k"] * table["t"])
    assert len(table) == 500
    assert table["a"].to_numpy() == pytest.approx(left, abs=1e-7)
    assert table["b"].to_numpy() == pytest.approx(table["initial_a"] - left, abs=1e-7)


def test_noise_is_relative_to_each_field_of_each_query(chain):
    found = simulation(chain, points=4000, noise=0.05, queries=3, seed=1)
    clean = simulation(chain, points=4000, noise=0, queries=3, seed=1)
    for field in ("a", "b"):
        error = found.observations[field] - clean.observations[field]
        size = clean.observations.groupby("query")[field].agg(lambda values: np.sqrt((values**2).mean()))
        told = found.truth.set_index("query")[f"{field}_noise_std"]
        assert told.to_numpy() == pytest.approx(0.05 * size)
        # a standard deviation from 4000 draws is good to 1.1 %
        assert error.groupby(found.observations["query"]).std().to_numpy() == pytest.approx(told, rel=0.05)


def test_the_same_seed_gives_the_same_data_and_another_one_others(chain):
    pd.testing.assert_frame_equal(simulate(chain, seed=3), simulate(chain, seed=3))
    assert not np.allclose(simulate(chain, seed=3)["t"], simulate(chain, seed=4)["t"])


def test_parameters_are_drawn_on_their_scale(chain):
    k = simulation(chain, points=1, queries=400).truth["k"]
    assert k.between(0.1, 10).all()
    assert (k < 1).mean() == pytest.approx(0.5, abs=0.1)


def test_parameters_points_and_fields_may_be_given(chain):
    given = pd.DataFrame({"query": ["x", "y"], "k": [0.5, 20.0], "initial_a": [2.0, np.nan]})
    found = simulation(chain, given, np.array([0.0, 1.0]), noise=0, fields=["b"])
    assert list(found.observations) == ["query", "t", "b"]
    assert found.observations["query"].tolist() == ["x", "x", "y", "y"]
    assert found.observations["b"].iloc[1] == pytest.approx(2 * (1 - np.exp(-0.5)), abs=1e-7)
    assert found.truth["k"].tolist() == [0.5, 20.0]
    assert 1 <= found.truth["initial_a"].iloc[1] <= 3
    assert found.noise_std.tolist() == [[np.inf, 0], [np.inf, 0]]
    single = simulate(chain, {"k": [1, 2, 3], "initial_a": 2}, 5)
    assert single["query"].nunique() == 3


def test_data_are_good_observations(chain):
    checked = check_observations(simulate(chain, fields=["b"]), chain)
    assert checked.usable.all()
    assert len(checked.queries) == 12


def test_points_of_two_coordinates():
    heat = Problem(
        name="heat",
        coordinates={"t": [0, 1], "x": [0, 2]},
        fields=["u"],
        parameters={"D": [0.1, 1]},
        equations=["u_t - D*u_xx"],
        initial={"u": "sin(pi*x/2)"},
        boundary=[{"at": {"x": wall}, "equations": ["u"]} for wall in (0, 2)],
    )
    grid = simulate(heat, {"D": [0.5, 0.7]}, 49, noise=0, layout="equispaced")
    assert grid.groupby("query")[["t", "x"]].nunique().to_numpy().tolist() == [[7, 7], [7, 7]]
    exact = np.exp(-0.5 * np.pi**2 / 4 * grid["t"]) * np.sin(np.pi * grid["x"] / 2)
    assert grid["u"][grid["query"] == 0].to_numpy() == pytest.approx(exact[grid["query"] == 0], abs=1e-7)
    scattered = simulate(heat, queries=2, points=30)
    assert scattered["x"].between(0, 2).all()
    assert scattered["x"].nunique() == 60


def explosion(low, high):
    """u' = a u² from 1 ends at t = 1 / a."""
    return Problem(
        name="explosion",
        coordinates={"t": [0, 1]},
        fields=["u"],
        parameters={"a": [low, high]},
        equations=["u_t - a*u**2"],
        initial={"u": "1"},
    )


def test_tasks_without_a_solution_are_drawn_anew():
    with pytest.warns(InputWarning, match="explosion: [1-9][0-9]* tasks that were drawn have no solution"):
        found = simulation(explosion(0.1, 3), queries=30)
    assert (found.truth["a"] < 1.01).all()
    assert np.isfinite(found.observations["u"]).all()


def test_given_parameters_without_a_solution_are_told():
    with pytest.raises(InputError, match="explosion: no solution could be computed at a = 2"):
        simulate(explosion(0.1, 3), {"a": [0.5, 2.0]})
    with pytest.raises(InputError, match="no solution could be computed"):
        simulate(explosion(2, 3))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"noise": -0.1}, "noise -0.1: a standard deviation of zero or more is right"),
        ({"queries": 0}, "queries 0: one or more are right"),
        ({"points": 0}, "points 0: one or more"),
        ({"points": np.zeros((3, 2))}, r"points of shape \(3, 2\): \(n, 1\) is right"),
        ({"points": np.array([0.0, 3.0])}, "a point lies outside the domain"),
        ({"layout": "grid"}, "layout 'grid': random or equispaced is right"),
        ({"fields": ["c"]}, "chain has no field 'c'; it has a, b"),
        ({"fields": []}, "at least one"),
        ({"parameters": {"q": [1]}}, "chain has no 'q'; it has k, initial_a"),
        ({"parameters": {"k": [1, 2], "initial_a": [1, 2, 3]}}, "as many values of each"),
        ({"parameters": {"k": ["fast"]}}, r"column 'k' \(query 0\): 'fast' is not a finite number"),
        ({"parameters": {"query": [1, 1], "k": [1, 2]}}, "query 1 is there twice"),
    ],
)
def test_bad_input_is_told(chain, arguments, reason):
    with pytest.raises(InputError, match=reason) as raised:
        simulate(chain, **arguments)
    assert "\n" not in str(raised.value)


def test_a_problem_without_a_reference_is_told():
    unknown = Problem(
        name="unknown",
        coordinates={"t": [0, 1]},
        fields=["u"],
        parameters={"a": [0, 1]},
        equations=["u_t - a*u - f"],
        initial={"u": "1"},
        unknown_terms={"f": {"of": ["u"]}},
    )
    with pytest.raises(InputError, match="unknown: no reference solution, so that nothing can be simulated"):
        simulate(unknown)
