"""The studies count what they say they count."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from stages import CONF, Recorder, benchmark, study

from ipbasis.baselines.fit import BaselineFit
from ipbasis.baselines.least_squares import LeastSquaresSettings
from ipbasis.estimates.estimate import estimate
from ipbasis.problem.declaration import Tasks
from pipelines.baselines import known_queries
from pipelines.benchmark import CrossedCells, QuerySet
from pipelines.paths import best_directory
from pipelines.studies import accuracy_limit, bases, basis_quality, convergence_basin, throughput
from pipelines.studies.accuracy_limit import (
    AccuracyLimit,
    JudgedCell,
    accuracy_rows,
    coverage_rows,
    false_ok_row,
    out_of_range,
)
from pipelines.studies.basis_quality import BasisQuality
from pipelines.studies.convergence_basin import ConvergenceBasin
from pipelines.studies.queries import Queries, draw, unit_bounds
from pipelines.studies.study import StudyCell
from pipelines.studies.throughput import Throughput

EVERYWHERE = QuerySet(label={})  # in the trained range
PROBLEMS = {"damped_oscillator", "lotka_volterra", "quantum_oscillator"}


@pytest.mark.parametrize("profile", [path.stem for path in (CONF / "profile").glob("*.yaml")])
def test_every_profile_gives_sizes_for_every_problem(profile):
    for kind, name in (
        (AccuracyLimit, "accuracy_limit"),
        (ConvergenceBasin, "convergence_basin"),
        (BasisQuality, "basis_quality"),
    ):
        chosen = study(kind, name, f"profile={profile}")
        assert set(chosen.sizes) == set(chosen.cells) == set(chosen.drawn) == set(chosen.benchmarks) == PROBLEMS
        assert {one.profile for one in chosen.benchmarks.values()} == {profile}
    chosen = study(Throughput, "throughput", f"profile={profile}")
    assert set(chosen.sizes) == set(chosen.noise) == PROBLEMS
    assert isinstance(chosen.least_squares, LeastSquaresSettings)


def test_ranges_out_of_range_are_half_a_range_wider_at_either_end():
    chosen = study(AccuracyLimit, "accuracy_limit")
    for name in PROBLEMS:
        problem, outside = chosen.benchmarks[name].problem, chosen.outside[name]
        for given, ranges in ((outside.parameters, problem.parameters), (outside.initial, problem.initial)):
            for key, (low, high, _) in given.items():
                trained = ranges[key]
                half = (trained[1] - trained[0]) / 2
                # populations do not fall below those of the benchmark
                assert low in (trained[0] - half, 0.1)
                assert high == trained[1] + half


def test_queries_with_nothing_out_of_range_are_left_out():
    chosen = study(AccuracyLimit, "accuracy_limit")
    drawn = draw(chosen.benchmarks["quantum_oscillator"], chosen.outside["quantum_oscillator"], 20, 5)
    kept = out_of_range(drawn)
    k = drawn.truth["k"].to_numpy()
    assert 0 < len(kept.truth) < 20
    assert kept.truth["k"].tolist() == k[(k < 0) | (k > 5)].tolist()
    observed = kept.observed(0, draws=2)
    assert observed.truth["query"].tolist() == list(range(2 * len(kept.truth)))
    # a query keeps its own observations
    first = int(np.flatnonzero((k < 0) | (k > 5))[0])
    own = drawn.simulated.loc[drawn.simulated["query"] == first, "re"].to_numpy()
    assert observed.observations.loc[observed.observations["query"] == 0, "re"].to_numpy() == pytest.approx(own)


class Stub:
    """Estimates with given intervals."""

    def __init__(self, table, half_width):
        self.table, self._half_width = table, half_width

    def intervals(self, confidence):
        middle = self.table[["a", "b"]].to_numpy()
        return middle - self._half_width * confidence, middle + self._half_width * confidence


@pytest.fixture
def answer(oscillator):
    """Five queries: two good ones, one far off, one that failed, one that is not identifiable."""
    problem = oscillator.model_copy(update={"parameters": {"a": (0.0, 1.0), "b": (0.0, 1.0)}})
    table = pd.DataFrame({"a": [0.3, 0.1, 0.9, np.nan, 0.5], "b": [0.5, 0.5, 0.5, np.nan, 0.5]})
    table = table.assign(a_std=0.1, b_std=0.1, status=["ok", "poor_fit", "ok", "failed", "ok"])
    true = np.tile([0.2, 0.5], (5, 1))
    bound = np.full((5, 2), 0.1)
    bound[4] = 1.0
    return JudgedCell({"problem": "p"}, problem, Stub(table, 1.0), true, bound)


def test_errors_are_scored_against_the_bound_where_queries_are_identifiable(answer):
    first, second = accuracy_rows(answer)
    assert (first["queries"], first["identifiable_share"], first["failed"]) == (4, 0.8, 1)
    assert first["rmse"] == pytest.approx(np.sqrt((0.1**2 + 0.1**2 + 0.7**2) / 3))
    assert first["rmse_over_cramer_rao"] == pytest.approx(first["rmse"] / 0.1)
    assert second["rmse"] == 0


def test_an_interval_without_an_estimate_does_not_hold_the_truth(answer):
    rows = coverage_rows(answer, [0.05, 0.5, 0.95])
    assert [row["coverage"] for row in rows if row["parameter"] == "a"] == [0, 0.5, 0.75]
    assert [row["coverage"] for row in rows if row["parameter"] == "b"] == [0.75] * 3
    assert {row["queries"] for row in rows} == {4}


def test_only_wrong_estimates_that_are_called_ok_count_as_false(answer):
    row = false_ok_row(answer, "in range", 5)
    assert (row["queries"], row["ok"], row["wrong"], row["false_ok"]) == (5, 0.6, 0.4, 0.2)


def test_bounds_are_those_of_least_squares_at_the_truth(oscillator):
    """Errors of the estimate at little noise scatter as the bound says; 200 of them tell it to 5 %."""
    queries = draw(benchmark("damped_oscillator"), EVERYWHERE, 1, 100)
    observed = queries.observed(0.1, draws=200)
    fits = [
        convergence_basin.fit(
            convergence_basin.Start(
                LeastSquaresSettings(starts=1, tolerance=1e-9, seed=0),
                "truth",
                np.nan,
                convergence_basin.tasks_of(oscillator, queries.truth),
            ),
            known,
        )
        for known in known_queries(queries.benchmark, queries.cell(0.1), observed, range(0, 200, 4))
    ]
    errors = np.array([one.parameters for one in fits]) - queries.truth[list(oscillator.parameters)].to_numpy()
    expected = unit_bounds(queries)[0] * observed.truth["noise_std"].iloc[0]
    # the standard error of a root mean square of 50 is a tenth
    assert np.sqrt((errors**2).mean(axis=0)) / expected == pytest.approx([1] * 3, abs=0.35)


def test_starts_are_the_factor_off_either_way_alike_for_each_factor():
    truth = np.random.default_rng(0).uniform(-1, 1, (50, 4))
    twice, four = (convergence_basin.disturbed(truth, factor, 0) / truth for factor in (2, 4))
    assert set(np.round(twice, 12).ravel()) == {0.5, 2}
    assert four == pytest.approx(twice**2)


LEAST_SQUARES = LeastSquaresSettings(starts=1, tolerance=1e-9, seed=0)


def test_estimates_stand_for_tasks_with_their_own_initial_values(basis, oscillator):
    queries = draw(benchmark("damped_oscillator"), EVERYWHERE, 4, 30)
    tasks = convergence_basin.tasks_of(oscillator, queries.truth)
    found = convergence_basin.estimated_tasks(estimate(basis, queries.observed(0).observations))
    assert found.parameters == pytest.approx(tasks.parameters, abs=1e-5)
    assert found.initial == pytest.approx(tasks.initial, abs=1e-5)


def test_initial_values_out_of_their_range_are_taken_within(basis, oscillator):
    queries = draw(benchmark("damped_oscillator"), EVERYWHERE, 1, 30)
    observations = queries.observed(0).observations
    found = convergence_basin.estimated_tasks(estimate(basis, observations.assign(u=10 * observations["u"])))
    low, high = oscillator.unknown_ranges[len(oscillator.parameters) :].T
    assert (np.abs(10 * convergence_basin.tasks_of(oscillator, queries.truth).initial) > high).any()
    assert ((low < found.initial) & (found.initial < high)).all()


@pytest.mark.parametrize("name", ["damped_oscillator", "quantum_oscillator"])
def test_the_misfit_of_parameters_is_that_of_their_best_solution(name):
    """Wrong initial values do not count, wrong parameters do; no parameters, no misfit."""
    queries = draw(benchmark(name), EVERYWHERE, 1, 30)
    (known,) = known_queries(queries.benchmark, queries.cell(0), queries.observed(0), [0])
    truth = convergence_basin.tasks_of(queries.problem, queries.truth)

    def misfit(parameters):
        start = convergence_basin.Start(LEAST_SQUARES, "ipbasis", None, Tasks(parameters, truth.initial + 0.1), True)
        return convergence_basin.fit(start, known).loss

    assert misfit(truth.parameters) < 1e-12
    assert misfit(truth.parameters + 0.3) > 1e-5
    assert np.isnan(misfit(np.full_like(truth.parameters, np.nan)))


def test_rows_compare_every_fit_with_the_one_from_the_truth():
    def loss(value):
        return BaselineFit(np.zeros(1), np.zeros((10, 0)), value, 0.1, 1)

    asked = SimpleNamespace(query=SimpleNamespace(values=np.zeros((10, 2))))
    nothing, noise_std = Tasks(np.zeros((3, 1)), np.zeros((3, 0))), np.array([1.0, 1.0, 2.0])
    case = convergence_basin.Case({"problem": "p"}, nothing, noise_std, [asked] * 3, {"": nothing})
    losses = [("truth", None, value) for value in (1.0, 1.0, 1.0)]
    # of 20 observed values each: chi-square is above the best one by 0.8, 1.2 and, at twice the noise, 0.75
    losses += [("ipbasis", None, value) for value in (1.04, 1.06, 1.15)]
    losses += [("least_squares", 2.0, value) for value in (0.9, np.nan)]
    fits = [(convergence_basin.Start(None, source, off, None), loss(value)) for source, off, value in losses]
    ours, theirs = convergence_basin.rows(case, fits, 1)
    assert (ours["source"], ours["queries"], ours["share"]) == ("ipbasis", 3, pytest.approx(2 / 3))
    assert ours["largest_excess"] == pytest.approx(1.2)
    assert (theirs["times_off"], theirs["queries"], theirs["share"]) == (2.0, 2, 0.5)
    assert theirs["largest_excess"] == np.inf


def test_a_call_is_repeated_until_it_took_long_enough(monkeypatch):
    clock = iter([0, 1, 1, 4, 4, 6])
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(clock))
    calls = []
    assert throughput.seconds_of(lambda: calls.append(1), 5) == 2
    assert len(calls) == 3


def test_accuracy_limit_writes_its_tables_and_figures(place):
    changes = {
        "cells": {"damped_oscillator": CrossedCells(noise=[1], number=[100])},
        "sizes": {"damped_oscillator": accuracy_limit.Size(tasks=100, outside=20, draws=2)},
    }
    tracker = Recorder()
    accuracy_limit.work(study(AccuracyLimit, "accuracy_limit", "profile=smoke").model_copy(update=changes), tracker)
    accuracy, coverage, false_ok = (
        pd.read_csv(place / "tables" / f"{name}.csv") for name in ("accuracy_limit", "coverage", "false_ok")
    )
    assert accuracy["parameter"].tolist() == ["a1", "a2", "a3"]
    assert accuracy["queries"].iloc[0] == pytest.approx(200 * accuracy["identifiable_share"].iloc[0])
    assert (accuracy["rmse_over_cramer_rao"] < 1.5).all()
    assert set(coverage["confidence"]) == {0.5, 0.9, 0.95}
    assert false_ok["drawn"].tolist() == ["in range", "out of range"]
    assert (place / "figures" / "accuracy_limit.png").stat().st_size > 10_000
    assert len(tracker.paths) == 5


def test_convergence_basin_writes_table_and_figure(place):
    chosen = study(ConvergenceBasin, "convergence_basin", "profile=smoke", "times_off=[1.25]")
    one = {"damped_oscillator": chosen.cells["damped_oscillator"]}
    convergence_basin.work(chosen.model_copy(update={"cells": one}), Recorder())
    table = pd.read_csv(place / "tables" / "convergence_basin.csv")
    assert table["source"].tolist() == ["ipbasis", "ipbasis", "least_squares"]
    assert table["variant"].fillna("").tolist() == ["", "polished", ""]
    assert table["share"].tolist() == [1, 1, 1]
    assert (place / "figures" / "convergence_basin.png").stat().st_size > 10_000


def test_throughput_writes_table_and_figure(place):
    chosen = study(Throughput, "throughput", "profile=smoke", "seconds=0", "numbers=[100]")
    sizes = {"damped_oscillator": throughput.Size(batches=[1, 60], least_squares=2)}
    throughput.work(chosen.model_copy(update={"sizes": sizes}), Recorder())
    table = pd.read_csv(place / "tables" / "throughput.csv")
    assert table["layout"].tolist() == ["common"] * 2 + ["own"] * 2
    assert table["batch"].tolist() == [1, 60] * 2
    product = table["queries_per_second"] * table["seconds_per_query"]
    assert product.to_numpy() == pytest.approx(np.ones(4), rel=1e-4)
    ratio = table["least_squares_seconds"] * table["queries_per_second"]
    assert table["times_faster"].to_numpy() == pytest.approx(ratio.to_numpy(), rel=1e-4)
    assert (table["error_over_cramer_rao"] < 4).all()
    assert (place / "figures" / "throughput.png").stat().st_size > 10_000


def test_functions_are_counted_up_to_the_error_that_is_asked_for():
    curves = {
        "pod": np.array([0.5, 0.09, 0.01]),
        "ipbasis": np.array([0.5, 0.3, 0.1]),
        "chebyshev": np.array([0.9, 0.8]),
    }
    rows = pd.DataFrame(basis_quality.size_rows(curves, [0.1, 0.01])).set_index(["relative_l2", "basis"])
    assert rows["functions"].to_list() == pytest.approx([2, 3, np.nan, 3, np.nan, np.nan], nan_ok=True)
    assert rows.loc[(0.1, "ipbasis"), "times_pod"] == 1.5


@pytest.fixture
def no_published_basis(monkeypatch):
    """The basis for real queries in the place of that of the published recipe, which is not in the repository."""
    monkeypatch.setattr(bases, "basis_directory", lambda problem, *_: best_directory(problem))


@pytest.mark.usefixtures("no_published_basis")
def test_basis_quality_writes_its_tables_and_figure(place):
    changes = {
        "cells": {"damped_oscillator": StudyCell(noise=1, number=100)},
        "sizes": {
            "damped_oscillator": bases.Size(tasks=50, solutions=200, queries=40, points=40, accuracy=1e-9, minutes=1)
        },
    }
    chosen = study(BasisQuality, "basis_quality", "profile=smoke", "functions=[3,5,8,10,20]")
    tracker = Recorder()
    basis_quality.work(chosen.model_copy(update=changes), tracker)
    quality, features, size, online = (
        pd.read_csv(place / "tables" / f"basis_{kind}.csv") for kind in ("quality", "features", "size", "online")
    )
    assert quality.columns[:6].tolist() == [
        *("problem", "basis", "functions", "relative_l2", "residual_mse", "train_seconds")
    ]
    names = ["ipbasis", "paper_recipe", "pod", "chebyshev", "untrained", "random_features", "sinusoidal"]
    assert quality["basis"].unique().tolist() == size["basis"].unique().tolist() == online["basis"].tolist() == names
    few = quality[quality["functions"] <= 10]
    errors = few.pivot(index="functions", columns="basis", values="relative_l2")
    # best by far for the solutions it was made of, and for unseen ones up to chance
    assert (errors.drop(columns="pod").min(axis=1) > 0.5 * errors["pod"]).all()
    assert (errors["chebyshev"] > 1.2 * errors["pod"]).all()
    assert (errors.diff().iloc[1:] < 0).all(axis=None)
    seconds = quality.groupby("basis")["train_seconds"].first()
    assert seconds["chebyshev"] == 0
    assert (seconds.drop("chebyshev") > 0).all()
    by_stage = features.groupby("stage")["condition_number"]
    assert by_stage.min()["raw"] > 1e6
    assert by_stage.max()["compressed"] < 1.1
    assert set(features["basis"]) == {"ipbasis", "paper_recipe", "untrained"}
    assert (size.groupby("basis")["functions"].apply(lambda counts: counts.is_monotonic_increasing)).all()
    # every basis serves the solver
    assert (online["clean_abs_error"] < 1e-4).all()
    assert online["error_over_cramer_rao"].to_numpy() == pytest.approx(np.full(7, 0.7), abs=0.25)
    assert (place / "figures" / "basis_quality.png").stat().st_size > 10_000
    assert len(tracker.paths) == 5


def test_queries_of_a_study_are_drawn_from_its_ranges():
    chosen = study(Throughput, "throughput")
    queries = draw(chosen.benchmarks["lotka_volterra"], chosen.drawn["lotka_volterra"], 10, 30, "own")
    assert isinstance(queries, Queries)
    assert queries.truth[["initial_x", "initial_y"]].to_numpy().min() >= 0.1
    assert queries.simulated.groupby("query")["t"].nunique().tolist() == [30] * 10
    assert queries.observed(1, draws=3).truth["query"].tolist() == list(range(30))
