"""The pipeline as users run it: smoke profile through DVC, and a multirun study."""

import json
import os
import re
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from pipelines.paths import ROOT
from pipelines.report.readme import EXAMPLES, TABLES, example, replaced
from pipelines.smoke import smoke


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory):
    """A copy of the checkout after the smoke profile ran through DVC."""
    target = tmp_path_factory.mktemp("smoke") / "ipbasis"
    before = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True).stdout
    smoke(target)
    after = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True).stdout
    assert before == after
    return target


PUBLISHED = sorted(path.stem for path in (ROOT / "data" / "published").glob("*.csv"))
PROBLEMS = yaml.safe_load((ROOT / "params.yaml").read_text())["problems"]


def table(pipeline, name):
    return pd.read_csv(pipeline / "reports" / "tables" / f"{name}.csv")


@pytest.mark.parametrize("name", PUBLISHED)
def test_tables_have_the_published_columns_rows_and_every_source(pipeline, name):
    found, published = table(pipeline, name), pd.read_csv(pipeline / "data" / "published" / f"{name}.csv")
    assert list(found)[: 1 + published.shape[1]] == ["source", *published]
    columns = list(published)
    same = found[found["source"] == "published"][columns].sort_values(columns, ignore_index=True)
    ordered = published.sort_values(columns, ignore_index=True)
    pd.testing.assert_frame_equal(same, ordered, check_dtype=False, rtol=1e-5)
    kind = name.rsplit("_", 1)[1]
    trained = {"paper_recipe", "ipbasis"} | ({"trained"} if name.startswith("quantum") else set())
    sources = {"offline": trained, "pinn": {"ipbasis", "pinn"}}
    online = {*trained, "pinn", "least_squares"}
    assert set(found["source"]) == {"published"} | sources.get(kind, online)


def test_own_rows_of_the_oscillator_are_accurate_even_at_the_smoke_budget(pipeline):
    online = table(pipeline, "damped_oscillator_online")
    own = online[online["source"] == "ipbasis"]
    assert len(own) == 4
    assert own[["a1_mae", "a2_mae"]].max().max() < 1e-3


def test_unknown_terms_are_found_by_every_method(pipeline):
    online = table(pipeline, "lotka_volterra_online")
    own = online[online["source"] == "ipbasis"]
    assert set(own["terms"]) == {"free_form", "library"}
    assert set(online.loc[online["source"] == "paper_recipe", "terms"]) == {"network"}
    in_range = own[own["parameter_low"] == 0.5].groupby("terms")["unknown_term_mae"].max()
    assert in_range.max() < 0.05  # the published figure after the full budget is 0.024


def test_quantum_cells_are_all_there_with_their_ideal_errors(pipeline):
    online = table(pipeline, "quantum_oscillator_online")
    own = online[online["source"] == "ipbasis"]
    assert len(own) == 13 * 4
    noisy = own[own["noise_percent"] > 0]
    assert (noisy["noise_seeds"] > 1).all()
    assert noisy[["k_mae_ideal", "k_mae_over_ideal", "k_mae_spread"]].notna().all().all()
    # ten times the observations at ten times the noise, up to the luck of the points
    ideal = noisy.set_index(["noise_percent", "observations"])["k_mae_ideal"]
    assert ideal[100, 10000] / ideal[10, 100] == pytest.approx(1, rel=0.3)
    assert own.loc[own["noise_percent"] == 0, "k_mae_ideal"].isna().all()


@pytest.mark.parametrize("problem", PROBLEMS)
def test_models_reports_and_figures_are_there(pipeline, problem):
    record = json.loads((pipeline / "models" / problem / "best" / "basis.json").read_text())
    assert record["problem"]["name"] == problem
    assert record["provenance"]["profile"] == "smoke"
    text = (pipeline / "reports" / f"{problem}.md").read_text()
    shown = re.findall(r"\]\(((?:figures|tables)/[^)]*)\)", text)
    assert len(shown) >= 5
    for path in shown:
        assert (pipeline / "reports" / path).stat().st_size > (10_000 if path.startswith("figures") else 0)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_pinn_and_ipbasis_answer_the_same_queries(pipeline, problem):
    rows = table(pipeline, f"{PROBLEMS[problem]['table']}_pinn")
    queries = {source: set(own["query"]) for source, own in rows.groupby("source") if source != "published"}
    assert queries["ipbasis"] == queries["pinn"] != set()
    reached = table(pipeline, f"{PROBLEMS[problem]['table']}_time_to_accuracy")
    assert {"target", "pinn_seconds", "ipbasis_seconds", "ipbasis_error", "times_faster"} <= set(reached)


def test_tables_of_all_problems_together_are_there(pipeline):
    assert set(table(pipeline, "derivatives")["method"]) >= {"reverse_loop", "forward"}
    assert len(table(pipeline, "published_data")) > 0
    for name in ("accuracy_limit", "coverage", "false_ok", "convergence_basin", "throughput", "basis_quality"):
        assert set(table(pipeline, name)["problem"]) == {"damped_oscillator", "lotka_volterra", "quantum_oscillator"}


def test_a_few_problems_of_the_zoo_are_there(pipeline):
    found = table(pipeline, "zoo").set_index("problem")
    assert list(found.index) == ["heat_dirichlet", "logistic_growth"]
    assert (found["ok"] > 0).all()
    assert (found["error_over_cramer_rao"] < 10).all()


def test_nothing_reruns_when_nothing_changed(pipeline):
    environment = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["dvc", "status", "--json"], cwd=pipeline, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}


def test_every_stage_is_a_child_of_one_pipeline_run(pipeline):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{pipeline / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("ipbasis").experiment_id
    found = client.search_runs([experiment])
    (parent,) = [r for r in found if r.data.tags["role"] == "parent"]
    stages = {r.data.tags["dvc_stage"]: r for r in found if r.data.tags["role"] == "child"}
    named = {"simulate", "train", "offline", "query", "pinn", "least_squares", "compare"}
    named |= {"accuracy_limit", "basis_quality", "convergence_basin", "throughput", "zoo", "calibration"}
    assert {name.split("@")[0] for name in stages} == named | {"derivatives", "published_data"}
    for run in stages.values():
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert len(run.data.tags["git_commit"]) == 40
    trained = {name.split("@")[1]: r.info.run_id for name, r in stages.items() if name.startswith("train@")}
    assert {name.rsplit("-", 1)[0] for name in trained} == {problem["basis"] for problem in PROBLEMS.values()}
    train = next(run for name, run in trained.items() if name.startswith("damped_oscillator-"))
    assert len(client.get_metric_history(train, "ipbasis_loss")) > 1
    assert client.list_artifacts(train, "basis/ipbasis")
    assert client.list_artifacts(stages[f"compare@{next(iter(PROBLEMS))}"].info.run_id, "figures")


def elsewhere(tmp_path):
    """Environment in which a command of the checkout leaves the checkout as it is."""
    return {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}


def test_multirun_study_collects_one_table(tmp_path):
    arguments = ["--multirun", "basis.readouts=5,6", "observations.noise=0,1", "profile=smoke", "study.queries=10"]
    sweep = tmp_path / "sweep"
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.studies.sweep", *arguments, f"hydra.sweep.dir={sweep}"],
        cwd=ROOT,
        env=elsewhere(tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"written to {sweep / 'table.csv'}" in done.stdout  # after all is logged
    table = pd.read_csv(sweep / "table.csv")
    cells = set(zip(table["basis.readouts"], table["observations.noise"], strict=True))
    assert cells == {(5, 0), (5, 1), (6, 0), (6, 1)}
    assert len(list((sweep / "bases").glob("*/basis.json"))) == 2
    assert table["offline_validation_parameter_mse"].notna().all()
    assert (table["offline_approximation"] <= table["offline_solution_accuracy"]).all()
    assert (table["offline_cpu_seconds"] > 0).all()
    clean = table[table["observations.noise"] == 0]
    assert clean["a1_mae"].max() < 1e-3
    assert (table[table["observations.noise"] == 1]["a1_mae"] > clean["a1_mae"].max()).all()


def test_bad_configuration_is_one_line_and_exit_2(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pipelines.stages.train",
            "profile=smoke",
            "problem.parameters.a1=[2,1]",
            f"hydra.run.dir={tmp_path / 'run'}",
        ],
        cwd=ROOT,
        env=elsewhere(tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "error: Benchmark: problem.parameters.a1: range [2, 1]: low must be below high" in done.stderr


@pytest.mark.parametrize("name", TABLES)
def test_readme_shows_the_tables_of_the_reports(name):
    text = (ROOT / "README.md").read_text()
    assert replaced(text, name, TABLES[name]()) == text


@pytest.mark.parametrize("problem", EXAMPLES)
def test_readme_shows_what_its_examples_print(problem):
    """Words alike, and figures to 1 %: the last digits may differ between machines."""
    text = (ROOT / "README.md").read_text()
    begin, end = (
        f"<!-- {problem} example: written by pipelines/report/readme.py -->",
        f"<!-- end of {problem} example -->",
    )
    shown = text.split(begin)[1].split(end)[0]
    expected, found = shown.split(), example(problem).split()
    assert len(expected) == len(found)
    for one, other in zip(expected, found, strict=True):
        try:
            assert float(one) == pytest.approx(float(other), rel=1e-2)
        except ValueError:
            assert re.sub(r"[\d.]+", "", one) == re.sub(r"[\d.]+", "", other)


def test_reports_and_lock_are_of_the_profile_in_params():
    profile = yaml.safe_load((ROOT / "params.yaml").read_text())["profile"]
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())
    assert all(f"profile={profile}" in stage["cmd"] for stage in lock["stages"].values())
    for problem in PROBLEMS:
        assert f"profile `{profile}`" in (ROOT / "reports" / f"{problem}.md").read_text()
