"""Hydra multirun: offline and online for each job of a sweep, collected in one table.

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
from pydantic import PositiveFloat, PositiveInt

from ipbasis.offline.artefact import Basis
from ipbasis.problem.declaration import Declared
from ipbasis.tracking import Tracker
from pipelines.benchmark import Benchmark
from pipelines.cells import Cell, simulate
from pipelines.common import run_stage
from pipelines.configuration import composed, parsed
from pipelines.querying import SimulatedCell, query
from pipelines.training import offline_row, train_basis

_BOTH = ("epochs", "seconds")  # stand in the offline and in the online row


class JobSettings(Declared):
    """What a job of a study does, see ``conf/study``.

    Args:
        set: number of the set of queries.
        queries: of the set.
        length: factor on the steps of the training.
        report: name of table and figure of the study among the reports; None where it has none.
        label: of the job in the figure; None where it has none.
    """

    set: int
    queries: PositiveInt
    length: PositiveFloat = 1.0
    report: str | None = None
    label: str | None = None


class Job(Benchmark):
    """One job of a study: a benchmark at the values of a sweep.

    Args:
        study: what is done with it.
    """

    study: JobSettings


def parsed_job(config: DictConfig) -> Job:
    """What Hydra composed for a job."""
    return parsed(config, Job)


def of_length(benchmark: Benchmark, length: float) -> Benchmark:
    """The benchmark with other numbers of training steps in the recipe that is meant."""
    recipe, offline = benchmark.chosen, benchmark.chosen.offline
    training = {**offline["training"], "steps": round(length * offline["training"]["steps"])}
    changed = recipe.model_copy(update={"offline": {**offline, "training": training}})
    return benchmark.model_copy(update={"recipes": {**benchmark.recipes, benchmark.recipe: changed}})


def trained_once(benchmark: Benchmark, place: Path, tracker: Tracker) -> tuple[Basis, dict]:
    """The basis of a job and its offline row; jobs of one sweep that need the same basis share it.

    Args:
        benchmark: of the training: of the problem and recipe that the basis is for.
        place: directory of the sweep.
        tracker: receives metrics of the training and the basis.
    """
    needed = {
        **benchmark.model_dump(include={"problem", "basis", "profile", "seed"}),
        "recipe": benchmark.recipe,
        "offline": benchmark.chosen.offline,
    }
    identity = hashlib.sha256(json.dumps(needed, sort_keys=True).encode()).hexdigest()[:16]
    directory = place / "bases" / identity
    directory.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{directory}.lock"):
        if not (directory / "basis.json").exists():
            started = time.process_time()
            basis, history = train_basis(benchmark, Path(f"{directory}.pt"), tracker)
            row = offline_row(benchmark, basis, history)
            row |= {"cpu_seconds": time.process_time() - started, "approximation": basis.record.accuracy.approximation}
            basis.save(directory)
            pd.DataFrame([row]).to_csv(directory / "offline.csv", index=False)
    tracker.artefact(directory, "basis")
    return Basis.load(directory), pd.read_csv(directory / "offline.csv").iloc[0].to_dict()


def work(job: Job, tracker: Tracker) -> None:
    chosen = job.study
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        job = job.model_copy(update={"threads": 1})  # the workers share the cores
    source = job.chosen.source
    training = of_length(composed(problem=job.basis.problem, recipe=source, online=source), chosen.length)
    basis, offline = trained_once(training, sweep_directory(), tracker)
    observed = job.observations
    cell = Cell(chosen.set, observed.number, observed.noise, observed.sets[chosen.set].label)
    (answer,) = query(job, basis, [SimulatedCell(cell, *simulate(job, chosen.set, chosen.queries))])
    overrides = dict(o.lstrip("+").split("=", 1) for o in HydraConfig.get().overrides.task)
    further = {f"offline_{key}": value for key, value in offline.items() if key not in answer.row or key in _BOTH}
    row = {"label": chosen.label} if chosen.label else {}
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
    run_stage("study", config, work, parsed_job, group=str(sweep), group_name=f"study {sweep.name}")


if __name__ == "__main__":
    main()
