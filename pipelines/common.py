"""What every stage shares: its configuration, its place in MLflow, and one-line errors."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import hydra
import psutil
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from ipbasis.errors import InputError
from ipbasis.tracking import Tracker, tracked_run

ROOT = Path(__file__).parents[1]
DATA, MODELS, REPORTS = ROOT / "data", ROOT / "models", ROOT / "reports"
Settings = Mapping[str, Any]


def settings_of(config: DictConfig) -> Settings:
    """The configuration as plain values, interpolations resolved."""
    return OmegaConf.to_container(config, resolve=True)


def composed(**changes: object) -> Settings:
    """The running job's configuration with other values of some overrides.

    Args:
        changes: by key; dots in it are written as double underscores, ``basis__readouts=10``.
    """
    named = {key.replace("__", "."): value for key, value in changes.items()}
    overrides = [o for o in HydraConfig.get().overrides.task if o.split("=")[0] not in named]
    return settings_of(hydra.compose("config", [*overrides, *(f"{key}={value}" for key, value in named.items())]))


def methods(settings: Settings) -> list[str]:
    """The recipes by which a problem is queried: those that are trained, and further ones on the same bases."""
    return [*settings["recipes"], *settings["observations"].get("further_recipes", [])]


def trained_readouts(problem: str) -> list[int]:
    """Numbers of readouts for which there are bases of a problem."""
    found = (DATA / "training" / problem).glob("readouts-*")
    return sorted(int(path.name.removeprefix("readouts-")) for path in found)


def recipe_directory(problem: str, readouts: int, recipe: str) -> Path:
    """Where the basis of a recipe lies; the published one's below ours."""
    directory = MODELS / problem / f"readouts-{readouts}"
    return directory if recipe == "ipbasis" else directory / recipe


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
    work: Callable[[Settings, Tracker], None],
    group: str | None = None,
    group_name: str = "pipeline",
) -> None:
    """Run the work of a stage within its MLflow run; exit with 2 and one line on bad input.

    Args:
        name: of the stage.
        config: composed by Hydra.
        work: receives settings and tracker.
        group: identity of the parent run; None for the pipeline run that this process belongs to.
        group_name: name of the parent run.
    """
    settings = settings_of(config)
    problem = settings["problem"]["name"]
    tags = {
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": str(bool(_git("status", "--porcelain", "--untracked-files=no"))).lower(),
        "dvc_stage": os.environ.get("DVC_STAGE", name),
        "problem": problem,
        "profile": settings["profile"]["name"],
    }
    torch.manual_seed(settings["seed"])
    try:
        with tracked_run(f"{name} {problem}", group or _pipeline_run(), group_name, tags, ROOT) as tracker:
            tracker.parameters(settings)
            work(settings, tracker)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
