"""Tracking of runs: a protocol, and its MLflow adapter. Nothing else imports MLflow."""

import math
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Protocol

_EXPERIMENT = "ipbasis"
_LONGEST_VALUE = 500


class Tracker(Protocol):
    """Receives what a run does."""

    def parameters(self, values: Mapping[str, object]) -> None:
        """Settings of the run, possibly nested."""

    def metrics(self, values: Mapping[str, object], step: int = 0) -> None:
        """Figures at one step, see `history`."""

    def history(self, rows: Sequence[Mapping[str, object]], prefix: str = "") -> None:
        """Figures of many steps, each with its ``step``, sent together; what is no finite number is left out."""

    def artefact(self, path: Path, folder: str = "") -> None:
        """A file, or a directory with all its files."""


def _flat(values: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)[:_LONGEST_VALUE]
    return flat


class MlflowTracker:
    """Logs to one MLflow run; another process that it is sent to logs to the same run.

    Args:
        uri: of the tracking store.
        run_id: of the run.
    """

    def __init__(self, uri: str, run_id: str):
        from mlflow import MlflowClient

        self._client, self._uri, self.run_id = MlflowClient(uri), uri, run_id

    def __reduce__(self):
        return MlflowTracker, (self._uri, self.run_id)

    def parameters(self, values: Mapping[str, object]) -> None:
        from mlflow.entities import Param

        items = [Param(key, value) for key, value in _flat(values).items()]
        for begin in range(0, len(items), 100):
            self._client.log_batch(self.run_id, params=items[begin : begin + 100])

    def metrics(self, values: Mapping[str, object], step: int = 0) -> None:
        self.history([{**values, "step": step}])

    def history(self, rows: Sequence[Mapping[str, object]], prefix: str = "") -> None:
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        items = [
            Metric(prefix + key, float(value), now, int(row["step"]))
            for row in rows
            for key, value in row.items()
            if key != "step" and isinstance(value, Real) and math.isfinite(value)
        ]
        for begin in range(0, len(items), 1000):
            self._client.log_batch(self.run_id, metrics=items[begin : begin + 1000])

    def artefact(self, path: Path, folder: str = "") -> None:
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), folder or None)
        else:
            self._client.log_artifact(self.run_id, str(path), folder or None)


def tracking_uri(root: Path) -> str:
    """Where runs are logged: ``MLFLOW_TRACKING_URI``, by default an SQLite file below `root`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}"


@contextmanager
def tracked_run(name: str, group: str, group_name: str, tags: Mapping[str, str], root: Path) -> Iterator[MlflowTracker]:
    """A run in MLflow, child of the run that stands for the whole group.

    Several processes may start at once on a database that does not exist yet: a file lock lets one create
    it. The parent is finished when none of its children failed.

    Args:
        name: of the run.
        group: identity of the pipeline run or multirun that this run belongs to.
        group_name: name of the parent run.
        tags: further tags of the run and its parent, such as the git commit.
        root: directory for the default database and its artefacts.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    from filelock import FileLock
    from mlflow import MlflowClient

    uri = tracking_uri(root)
    with FileLock(root / "mlflow.db.lock"):
        client = MlflowClient(uri)
        found = client.get_experiment_by_name(_EXPERIMENT)
        # artefacts lie beside an SQLite file; a server knows its own place for them
        location = (Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts").absolute().as_uri()
        location = location if uri.startswith("sqlite:") else None
        experiment = found.experiment_id if found else client.create_experiment(_EXPERIMENT, location)
        parents = client.search_runs([experiment], f"tags.group = '{group}' and tags.role = 'parent'", max_results=1)
        shared = {"group": group, "host": platform.node(), **tags}
        if parents:
            parent = parents[0].info.run_id
        else:
            common = {key: value for key, value in shared.items() if key != "dvc_stage"}
            parent = client.create_run(experiment, run_name=group_name, tags={**common, "role": "parent"}).info.run_id
        own = {**shared, "role": "child", "mlflow.parentRunId": parent}
        run = client.create_run(experiment, run_name=name, tags=own).info.run_id
    try:
        yield MlflowTracker(uri, run)
    except BaseException:
        client.set_terminated(run, "FAILED")
        client.set_terminated(parent, "FAILED")
        raise
    client.set_terminated(run, "FINISHED")
    if client.get_run(parent).info.status != "FAILED":
        client.set_terminated(parent, "FINISHED")
