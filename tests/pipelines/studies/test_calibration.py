"""The calibration counts what it says it counts."""

import numpy as np
import pandas as pd
import pytest
from stages import CONF, study

from ipbasis import InputError, Problem
from ipbasis.evaluation.calibration_figure import plot_calibration
from ipbasis.problem.declaration import Tasks
from ipbasis.problem.units import rescaled
from ipbasis.reference.solutions import solutions
from pipelines.studies.calibration import Calibration, Variant, answers, cells, drawn_units, observed, queries_of, worst

PROFILES = [path.stem for path in (CONF / "profile").glob("*.yaml")]


@pytest.mark.parametrize("profile", PROFILES)
def test_the_study_composes(profile):
    chosen = study(Calibration, "calibration", f"profile={profile}")
    assert all(problem.name == name for name, problem in chosen.problems.items())
    for name in chosen.chosen or chosen.problems:
        assert chosen.tasks[len(chosen.problems[name].coordinates)] >= len(chosen.variants)


def test_a_wrong_name_is_told():
    with pytest.raises(InputError, match="best: there is no problem 'pendulum'; there are advection_diffusion,"):
        study(Calibration, "calibration", "best=[pendulum]")


@pytest.fixture(scope="module")
def smoke() -> Calibration:
    return study(Calibration, "calibration", "profile=smoke")


def test_every_design_is_simulated_for_every_variant(smoke):
    problem = smoke.problems["logistic_growth"]
    found = {queries.variant: queries for queries in queries_of(smoke, problem)}
    assert list(found) == list(smoke.variants)
    designs = len(smoke.parts) * len(smoke.noises) * len(smoke.points)
    tasks = [queries.about["task"].unique().tolist() for queries in found.values()]
    assert sorted(number for own in tasks for number in own) == list(range(smoke.tasks[1]))
    one = found["all fields"]
    assert len(one.about) == designs * smoke.tasks[1] // len(smoke.variants) == len(one.tasks.parameters)
    counted = one.observations.groupby("query").size()
    assert (counted.loc[one.about["query"]].to_numpy() == one.about["points"]).all()
    low, high = problem.domain[0]
    for part, (begin, end) in smoke.parts.items():
        rows = one.observations["query"].isin(one.about.loc[one.about["part"] == part, "query"])
        assert one.observations.loc[rows, "t"].between(low + begin * (high - low), low + end * (high - low)).all()
    assert "initial_n" in found["initial values given"].observations
    assert "n_std" in found["noise given"].observations


def test_noise_and_outliers_are_of_their_sizes():
    problem = Problem(
        name="two",
        coordinates={"t": [0, 1]},
        fields=["u", "w"],
        parameters={"k": [0, 1]},
        equations=["u_t + k*u", "w_t - k*u"],
        initial={"u": [1, 2], "w": "0"},
    )
    points = np.linspace(0, 1, 5000)[None, :, None]
    clean = np.stack([np.full((1, 5000), 10.0), np.full((1, 5000), -0.1)], axis=2)
    tasks, std = Tasks(np.array([[0.5]]), np.array([[1.5]])), np.array([[[1.0, 0.01]]])
    variant = Variant(noise_std=True, initial=True)
    table = observed(problem, variant, points, clean, std, tasks, np.random.default_rng(0))
    assert np.std(table["u"] - 10) == pytest.approx(1, rel=0.05)
    assert np.std(table["w"] + 0.1) == pytest.approx(0.01, rel=0.05)
    assert table["w_std"].to_numpy() == pytest.approx(0.01)
    assert (table["initial_u"] == 1.5).all()
    variant = Variant(observed="first", outliers=0.1)
    spoiled = observed(problem, variant, points, clean, std, tasks, np.random.default_rng(0))
    assert "w" not in spoiled
    assert (np.abs(spoiled["u"] - 10) > 5).mean() == pytest.approx(0.08, abs=0.02)  # of the outliers 80 % are so large


def test_noise_is_no_smaller_than_solutions_are_exact(smoke):
    only = {
        "parts": {"all": (0.0, 1.0), "last third": (0.667, 1.0)},
        "noises": [1e-4],
        "points": [20],
        "variants": {"told": Variant(noise_std=True)},
    }
    [queries] = queries_of(smoke.model_copy(update=only), smoke.problems["pharmacokinetics_absorption"])
    gut = queries.observations.groupby("query")["a"]
    assert gut.mean().abs().min() < 1e-6  # of 320: it is empty
    assert queries.observations["a_std"].min() > 1e-8


def test_a_problem_in_drawn_units_has_the_same_solutions():
    problem = Problem(
        name="decay",
        coordinates={"t": [0, 1]},
        fields=["u"],
        parameters={"k": [1, 2]},
        equations=["u_t + k*u"],
        initial={"u": [1, 2]},
    )
    units = drawn_units(problem, 9, np.random.default_rng(1))
    own = rescaled(problem, units)
    tasks = units.tasks_to(problem, Tasks(np.array([[1.5]]), np.array([[2.0]])))
    end = solutions(own, tasks, own.domain[None, None, 0, 1:])[0, 0, 0]
    assert end * units.fields["u"] == pytest.approx(2 * np.exp(-1.5))
    assert not 1e-2 < units.fields["u"] < 1e2


def test_coverage_is_that_of_queries_that_are_ok():
    table = pd.DataFrame(
        {
            "problem": "decay",
            "part": ["all", "all", "all", "first"],
            "noise": 0.1,
            "points": 6,
            "variant": "all fields",
            "task": range(4),
            "status": ["ok", "ok", "poor_fit", "ok"],
            "covered": [1.0, 0.5, 0.0, 0.0],
            "wrong": [False, True, True, True],
            "by_chance": [0.01, 0.03, 0.5, 0.5],
        }
    )
    found = cells(table, 2).set_index(["by", "part"])
    own = found.loc[("problem, part", "all")]
    assert (own["queries"], own["queries_ok"], own["coverage"], own["wrong_ok"]) == (3, 2, 0.75, 0.5)
    assert own["by_chance"] == pytest.approx(0.02)
    assert own["poor_fit"] == pytest.approx(1 / 3)
    assert np.isnan(found.loc[("problem, part", "first")]["coverage"])  # one ok query says nothing
    assert worst(table)["task"].tolist() == [1, 3]
    figure = plot_calibration(cells(table, 1), {"low": 0.92, "high": 0.98, "wrong_ok": 0.005, "poor_fit": 0.02})
    assert len(figure.axes) == 12


def test_answers_of_a_problem_in_any_units(smoke):
    few = smoke.model_copy(update={"parts": {"all": (0.0, 1.0)}, "noises": [0.01], "points": [20]})
    found = answers(few, "logistic_growth")
    assert len(found) == smoke.tasks[1]
    assert (found["status"] == "ok").mean() > 0.5
    assert found.loc[found["status"] == "ok", "covered"].mean() > 0.6
    # six or more standard errors, of twenty observations and three unknowns
    assert 0 < found["by_chance"].min() <= found["by_chance"].max() < 2e-3
