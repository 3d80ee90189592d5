"""Tracking in MLflow: parent and children, and many processes on a database that does not exist yet."""

import math
import os
import subprocess
import sys

import pytest

from ipbasis.tracking import tracked_run


@pytest.fixture
def client(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    return lambda: MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")


def runs(client):
    found = client()
    return found.search_runs([found.get_experiment_by_name("ipbasis").experiment_id])


def test_logs_everything_below_one_parent(client, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("a,b\n")
    for name in ("train", "query"):
        with tracked_run(name, "group-1", "pipeline", {"git_commit": "abc"}, tmp_path) as tracker:
            tracker.parameters({"basis": {"readouts": 10}, "seed": 0})
            tracker.history([{"step": s, "loss": 1 / (s + 1), "bad": math.nan} for s in range(1500)])
            tracker.metrics({"error": 0.5}, step=3)
            tracker.artefact(table, "tables")
    found = runs(client)
    parents = [r for r in found if r.data.tags["role"] == "parent"]
    children = [r for r in found if r.data.tags["role"] == "child"]
    assert len(parents) == 1
    assert {r.info.run_name for r in children} == {"train", "query"}
    for child in children:
        assert child.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
        assert child.data.tags["git_commit"] == "abc"
        assert child.data.params == {"basis.readouts": "10", "seed": "0"}
        assert child.info.status == "FINISHED"
        assert len(client().get_metric_history(child.info.run_id, "loss")) == 1500
        assert [a.path for a in client().list_artifacts(child.info.run_id, "tables")] == ["tables/table.csv"]


def test_failed_work_is_marked(client, tmp_path):
    with pytest.raises(RuntimeError), tracked_run("train", "group-1", "pipeline", {}, tmp_path):
        raise RuntimeError
    assert {r.info.status for r in runs(client)} == {"FAILED"}


def test_many_processes_on_a_fresh_database(client, tmp_path):
    code = (
        "import sys; from pathlib import Path; from ipbasis.tracking import tracked_run\n"
        "with tracked_run(sys.argv[1], 'g', 'study', {}, Path(sys.argv[2])) as t:\n"
        "    t.history([{'step': s, 'loss': s} for s in range(50)])\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, f"job{i}", str(tmp_path)], env=environment, stderr=subprocess.PIPE
        )
        for i in range(4)
    ]
    for process in started:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    found = runs(client)
    assert len([r for r in found if r.data.tags["role"] == "parent"]) == 1
    assert {r.info.run_name for r in found if r.data.tags["role"] == "child"} == {f"job{i}" for i in range(4)}
