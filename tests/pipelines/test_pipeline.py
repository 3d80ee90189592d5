"""The pipeline as users run it: smoke profile through DVC, and a multirun study."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from pipelines.common import ROOT
from pipelines.readme import example, main_table, replaced
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


@pytest.mark.parametrize("name", ["damped_oscillator_offline", "damped_oscillator_online"])
def test_tables_have_the_published_columns_and_every_source(pipeline, name):
    table = pd.read_csv(pipeline / "reports" / "tables" / f"{name}.csv")
    published = pd.read_csv(pipeline / "data" / "published" / f"{name}.csv")
    assert list(table)[: 1 + published.shape[1]] == ["source", *published]
    assert len(table[table["source"] == "published"]) == len(published)
    sources = {"published", "paper_recipe", "ipbasis"}
    sources |= {"pinn", "least_squares"} if name.endswith("online") else set()
    assert set(table["source"]) == sources


def test_published_rows_are_the_published_figures(pipeline):
    table = pd.read_csv(pipeline / "reports" / "tables" / "damped_oscillator_online.csv")
    published = pd.read_csv(pipeline / "data" / "published" / "damped_oscillator_online.csv")
    found = table[table["source"] == "published"][list(published)].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, published, check_dtype=False, rtol=1e-5)


def test_own_rows_are_accurate_even_at_the_smoke_budget(pipeline):
    table = pd.read_csv(pipeline / "reports" / "tables" / "damped_oscillator_online.csv")
    own = table[table["source"] == "ipbasis"]
    assert len(own) == 4
    assert own[["a1_mae", "a2_mae"]].max().max() < 1e-3


def test_models_reports_and_figures_are_there(pipeline):
    for name in ("readouts-10", "readouts-10/paper_recipe", "best"):
        record = json.loads((pipeline / "models" / "damped_oscillator" / name / "basis.json").read_text())
        assert record["problem"]["name"] == "damped_oscillator"
        assert record["settings"]["profile"]["name"] == "smoke"
    for name in ("training", "errors", "times", "solutions"):
        assert (pipeline / "reports" / "figures" / f"damped_oscillator_{name}.png").stat().st_size > 10_000
    assert "times_faster" in (pipeline / "reports" / "damped_oscillator.md").read_text()


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
    stages = {r.data.tags["dvc_stage"].split("@")[0]: r for r in found if r.data.tags["role"] == "child"}
    assert set(stages) == {"simulate", "train", "query", "pinn", "least_squares", "compare"}
    for run in stages.values():
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert len(run.data.tags["git_commit"]) == 40
    train = stages["train"].info.run_id
    assert len(client.get_metric_history(train, "ipbasis_loss")) > 1
    assert client.list_artifacts(train, "basis/ipbasis")
    assert client.list_artifacts(stages["compare"].info.run_id, "figures")


def elsewhere(tmp_path):
    """Environment in which a command of the checkout leaves the checkout as it is."""
    return {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}


def test_multirun_study_collects_one_table(tmp_path):
    arguments = ["--multirun", "basis.readouts=5,6", "observations.noise=0,1", "profile=smoke", "study.queries=10"]
    sweep = tmp_path / "sweep"
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.study", *arguments, f"hydra.sweep.dir={sweep}"],
        cwd=ROOT,
        env=elsewhere(tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(sweep / "table.csv")
    cells = set(zip(table["basis.readouts"], table["observations.noise"], strict=True))
    assert cells == {(5, 0), (5, 1), (6, 0), (6, 1)}
    assert len(list((sweep / "bases").glob("*/basis.json"))) == 2
    assert table["offline_validation_parameter_mse"].notna().all()
    clean = table[table["observations.noise"] == 0]
    assert clean["a1_mae"].max() < 1e-3
    assert (table[table["observations.noise"] == 1]["a1_mae"] > clean["a1_mae"].max()).all()


def test_bad_configuration_is_one_line_and_exit_2(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pipelines.train",
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
    assert "error: Problem: parameters.a1: range [2, 1]: low must be below high" in done.stderr


def test_readme_shows_the_tables_of_the_reports():
    text = (ROOT / "README.md").read_text()
    assert replaced(text, "main table", main_table()) == text


def test_readme_shows_what_its_example_prints():
    """Words alike, and figures to 1 %: the last digits may differ between machines."""
    text = (ROOT / "README.md").read_text()
    shown = text.split("<!-- example: written by pipelines/readme.py -->")[1].split("<!-- end of example -->")[0]
    expected, found = shown.split(), example().split()
    assert len(expected) == len(found)
    for one, other in zip(expected, found, strict=True):
        try:
            assert float(one) == pytest.approx(float(other), rel=1e-2)
        except ValueError:
            assert one == other


def test_reports_and_lock_are_of_the_profile_in_params():
    profile = yaml.safe_load((ROOT / "params.yaml").read_text())["profile"]
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())
    assert all(f"profile={profile}" in stage["cmd"] for stage in lock["stages"].values())
    assert f"profile `{profile}`" in (ROOT / "reports" / "damped_oscillator.md").read_text()
