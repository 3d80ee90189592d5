"""What every stage shares: its place in MLflow, one-line errors, and the cores."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, Protocol, TypeVar

import psutil
import torch
from omegaconf import DictConfig
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from ipbasis.errors import InputError
from ipbasis.tracking import Tracker, tracked_run
from pipelines.configuration import parsed
from pipelines.paths import ROOT


class Settings(Protocol):
    """What a stage works on: a `Benchmark`, or the settings of a study of all problems."""

    seed: int
    profile: str

    @property
    def name(self) -> str:
        """Of the problem, for the tag of the run."""

    def model_dump(self) -> dict[str, Any]:
        """All values, for the record of the run."""


Work = TypeVar("Work", bound=Settings)


def one_thread() -> None:
    """Keep what this process computes on one core, for work too small to be shared.

    NumPy and SciPy each bring threads of their own besides PyTorch's.
    """
    torch.set_num_threads(1)
    threadpool_limits(1)


def side_by_side(work: Callable[..., Any], jobs: Sequence[tuple], workers: int, name: str) -> list:
    """What a function returns for each job, several at a time, each on a core of its own.

    Most operations on small batches are too small to be shared by the cores.

    Args:
        work: at the top level of a module, takes the arguments of a job.
        jobs: arguments of each call.
        workers: processes; with one the work is done in this one.
        name: of the progress bar.
    """
    if workers == 1:
        return [work(*job) for job in tqdm(jobs, desc=name)]
    with ProcessPoolExecutor(workers, get_context("spawn"), one_thread) as pool:
        return list(tqdm(pool.map(work, *zip(*jobs, strict=True)), desc=name, total=len(jobs)))


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _pipeline_run() -> str:
    """Identity of the command that this process is part of.

    All stages of one ``dvc repro`` share its process group; ``IPBASIS_PIPELINE_RUN`` overrides it.
    """
    if given := os.environ.get("IPBASIS_PIPELINE_RUN"):
        return given
    leader = os.getpgid(0)
    try:
        return f"{leader}-{psutil.Process(leader).create_time():.0f}"
    except psutil.Error:
        return str(leader)


def run_stage(
    name: str,
    config: DictConfig,
    work: Callable[[Work, Tracker], None],
    parse: Callable[[DictConfig], Work] = parsed,
    group: str | None = None,
    group_name: str = "pipeline",
) -> None:
    """Run the work of a stage within its MLflow run; exit with 2 and one line on bad input.

    Args:
        name: of the stage.
        config: composed by Hydra.
        work: receives what was parsed, and the tracker.
        parse: makes settings of the configuration.
        group: identity of the parent run; None for the pipeline run that this process belongs to.
        group_name: name of the parent run.
    """
    try:
        settings = parse(config)
        torch.manual_seed(settings.seed)
        title = f"{name} {settings.name}"
        with tracked_run(title, group or _pipeline_run(), group_name, _tags(name, settings), ROOT) as tracker:
            tracker.parameters(settings.model_dump())
            work(settings, tracker)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _tags(name: str, settings: Settings) -> dict[str, str]:
    """Where a run comes from."""
    return {
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": str(bool(_git("status", "--porcelain", "--untracked-files=no"))).lower(),
        "dvc_stage": os.environ.get("DVC_STAGE", name),
        "problem": settings.name,
        "profile": settings.profile,
    }
