"""Hydra multirun: offline and online for each cell of a sweep, collected in one table.

Example: ``python -m pipelines.studies.sweep --multirun basis.readouts=10,30,50 observations.noise=0,1,5``
"""

import hashlib
import json
import time
from pathlib import Path

import hydra
import pandas as pd
from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from ipbasis.offline.artefact import Basis
from ipbasis.tracking import Tracker
from pipelines.cells import Cell, simulate
from pipelines.common import Settings, composed, run_stage
from pipelines.querying import Question, query
from pipelines.training import offline_row, train_basis

_BOTH = ("epochs", "seconds")  # stand in the offline and in the online row


def trained_once(settings: Settings, place: Path, tracker: Tracker) -> tuple[Basis, dict]:
    """The basis of a cell and its offline row; cells of one sweep that need the same basis share it.

    Args:
        settings: of the training: of the problem and recipe that the basis is for.
        place: directory of the sweep.
        tracker: receives metrics of the training and the basis.
    """
    needed = {key: settings[key] for key in ("problem", "basis", "offline", "recipe", "profile", "seed")}
    identity = hashlib.sha256(json.dumps(needed, sort_keys=True).encode()).hexdigest()[:16]
    directory = place / "bases" / identity
    directory.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{directory}.lock"):
        if not (directory / "basis.json").exists():
            started = time.process_time()
            basis, history = train_basis(settings, Path(f"{directory}.pt"), tracker)
            row = offline_row(settings, basis, history)
            row |= {"cpu_seconds": time.process_time() - started, "approximation": basis.record.accuracy.approximation}
            basis.save(directory)
            pd.DataFrame([row]).to_csv(directory / "offline.csv", index=False)
    tracker.artefact(directory, "basis")
    return Basis.load(directory), pd.read_csv(directory / "offline.csv").iloc[0].to_dict()


def work(settings: Settings, tracker: Tracker) -> None:
    chosen = settings["study"]
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        settings = {**settings, "threads": 1}  # the workers share the cores
    training = composed(problem=settings["basis"]["problem"], recipe=settings["recipe"]["source"])
    steps = training["offline"]["training"]
    steps["steps"] = round(chosen["length"] * steps["steps"])
    basis, offline = trained_once(training, sweep_directory(), tracker)
    observed = settings["observations"]
    label = observed["sets"][chosen["set"]]["label"]
    cell = Cell(chosen["set"], observed["number"], observed["noise"], label)
    (answer,) = query(settings, basis, [Question(cell, *simulate(settings, chosen["set"], chosen["queries"]))])
    overrides = dict(o.lstrip("+").split("=", 1) for o in HydraConfig.get().overrides.task)
    further = {f"offline_{key}": value for key, value in offline.items() if key not in answer.row or key in _BOTH}
    row = {"label": chosen["label"]} if chosen["label"] else {}
    row |= {**overrides, **{key: value for key, value in answer.row.items() if key not in overrides}, **further}
    output = Path(HydraConfig.get().runtime.output_dir)
    answer.table.to_csv(output / "estimates.csv", index=False)
    pd.DataFrame([row]).to_csv(output / "row.csv", index=False)
    tracker.metrics(row)
    tracker.artefact(output / "estimates.csv")


def sweep_directory() -> Path:
    """Directory of the sweep, or of the job if it stands alone."""
    job = HydraConfig.get()
    return Path(job.sweep.dir if job.mode == RunMode.MULTIRUN else job.runtime.output_dir)


@hydra.main(version_base=None, config_path="../../conf", config_name="config")
def main(config: DictConfig) -> None:
    sweep = sweep_directory()
    run_stage("study", config, work, group=str(sweep), group_name=f"study {sweep.name}")


if __name__ == "__main__":
    main()
