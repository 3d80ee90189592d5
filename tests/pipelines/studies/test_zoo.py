"""The zoo counts what it says it counts."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from stages import CONF, Recorder, study

from ipbasis.errors import InputError
from ipbasis.problem.declaration import Interval, Problem, problem_directory
from ipbasis.simulation.simulate import simulation
from pipelines.studies import zoo
from pipelines.studies.zoo import Zoo
from pipelines.studies.zoo_scores import Answered, answered, basis_error, redrawn, scores

PROFILES = [path.stem for path in (CONF / "profile").glob("*.yaml")]


@pytest.mark.parametrize("profile", PROFILES)
def test_the_zoo_holds_every_problem_without_unknown_terms(profile):
    chosen = study(Zoo, "zoo", f"profile={profile}")
    declared = [Problem.from_yaml(path) for path in problem_directory().glob("*.yaml")]
    assert set(chosen.problems) == {problem.name for problem in declared if not problem.unknown_terms}
    assert all(problem.name == name for name, problem in chosen.problems.items())
    for name, problem in chosen.problems.items():
        assert set(chosen.observed.get(name, problem.fields)) <= set(problem.fields)
        assert chosen.size(problem).tasks > 0


def test_a_wrong_name_is_told():
    with pytest.raises(InputError, match="chosen: there is no problem 'pendulum'; there are advection_diffusion,"):
        study(Zoo, "zoo", "chosen=[pendulum]")


@pytest.fixture
def judged():
    """Six queries of two parameters, the second on a logarithmic scale."""
    ranges = {"a": Interval(0.0, 1.0), "b": Interval(0.1, 10.0, "log")}
    problem = SimpleNamespace(parameters=ranges, parameter_ranges=np.array([[0, 1], [0.1, 10]]))
    true = np.tile([0.5, 1.0], (6, 1))
    found = true.copy()
    found[:, 0] += [0.1, -0.1, 0.3, 0.1, np.nan, 0.9]
    found[:, 1] *= np.exp([0.2, -0.2, 0.4, 0.0, np.nan, 0.0])
    table = pd.DataFrame({"a": found[:, 0], "b": found[:, 1], "a_std": 0.1, "b_std": 0.2})
    table["status"] = ["ok", "ok", "ok", "not_identifiable", "failed", "ok"]
    bound = np.tile([0.1, 0.2], (6, 1))
    bound[5] = 3.0  # not identifiable by its data
    half = np.array([0.15, 0.3])
    return Answered(problem, table, found - half, found + half, true, bound, seconds=2.0)


def test_errors_and_coverage_are_those_of_queries_that_are_ok_and_identifiable(judged):
    found = scores(judged, wrong=5)
    first, second = np.sqrt(np.mean([1, 1, 9])), np.sqrt(np.mean([1, 1, 4]))
    assert found["error_over_cramer_rao"] == pytest.approx((first + second) / 2)
    assert found["worst_error_over_cramer_rao"] == pytest.approx(first)
    assert found["typical_error_over_cramer_rao"] == pytest.approx(1 / 0.6745)
    assert found["worst_coverage"] == pytest.approx(2 / 3)
    assert found["identifiable"] == pytest.approx(5 / 6)
    assert found["queries_per_second"] == 3


def test_shares_are_those_of_all_queries(judged):
    found = scores(judged, wrong=5)
    assert (found["ok"], found["not_identifiable"], found["failed"], found["poor_basis"]) == pytest.approx(
        (4 / 6, 1 / 6, 1 / 6, 0)
    )
    assert found["wrong_ok"] == pytest.approx(1 / 6)  # off by nine error bars


def test_without_estimates_there_are_no_errors(judged):
    judged.table["status"] = "failed"
    found = scores(judged, wrong=5)
    assert np.isnan(found["error_over_cramer_rao"])
    assert found["failed"] == 1


def test_draws_of_the_noise_differ_and_keep_points_and_fields(oscillator):
    data = simulation(oscillator, queries=3, noise=0.1)
    again = redrawn(data, 1, seed=0)
    assert (again["t"] == data.observations["t"]).all()
    clean = data.values[..., 0].ravel()
    first, second = data.observations["u"] - clean, again["u"] - clean
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.2
    assert second.std() == pytest.approx(first.std(), rel=0.2)


def test_estimates_reach_the_bound(basis):
    """Over 60 queries with two draws each; the root mean square of 120 normal errors is known to 6.5 %."""
    data = simulation(basis.problem, queries=60, noise=0.01)
    found = scores(answered(basis, data, 2, seed=0), wrong=5)
    assert found["queries"] == 120
    assert found["error_over_cramer_rao"] == pytest.approx(1, abs=0.25)
    assert found["coverage"] > 0.85
    assert found["wrong_ok"] == 0


def test_the_error_of_a_basis_is_what_its_functions_leave(basis):
    """The basis of the tests spans its solutions to 1e-11; a reference of 1e-8 shows less."""
    assert basis_error(basis, 5, seed=0) < 1e-7
    one = basis.transform[:, :1]
    alone = type(basis)(basis.features, one, basis.record.model_copy(update={"functions": 1}))
    assert 0.05 < basis_error(alone, 5, seed=0) < 1


def test_a_problem_that_cannot_be_trained_has_a_row_that_says_so(monkeypatch):
    def refused(problem, accuracy, minutes):
        raise InputError(f"{problem.name}: not today")

    monkeypatch.setattr(zoo, "train", refused)
    found = zoo.row(study(Zoo, "zoo", "profile=smoke"), "sir")
    assert (found["problem"], found["observed"], found["note"]) == ("sir", 1, "sir: not today")


def test_a_small_problem_from_its_equation_to_the_table(place):
    chosen = study(Zoo, "zoo", "profile=smoke", "chosen=[logistic_growth]")
    recorder = Recorder()
    zoo.work(chosen, recorder)
    table = pd.read_csv(place / "tables" / "zoo.csv")
    assert table["problem"].tolist() == ["logistic_growth"]
    assert table["ok"].item() == 1
    assert table["accuracy"].item() < 1e-3
    assert (place / "figures" / "zoo.png").exists()
    assert recorder.figures["median_error_over_cramer_rao"] == pytest.approx(table["error_over_cramer_rao"].item())
