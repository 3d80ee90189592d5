"""Sets of queries and the cells in which they are observed.

A set is simulated once, free of noise. A cell is one way to observe it: how many of the simulated points are seen, and
how large the noise is. Noise is added when a cell is read, from the seed of the configuration, so that a table with
many cells needs one simulation on disk.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from ipbasis.errors import InputError
from ipbasis.files import replacing_file
from ipbasis.observations.simulate import ObservationSettings, long_table
from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.reference.solutions import TRUTHS
from pipelines.common import DATA, Settings

_UNITS = {"percent": "% ", "absolute": ""}


@dataclass(frozen=True)
class Cell:
    """One set of queries observed in one way: what a row of an online table stands for.

    Args:
        set: number of the set.
        number: observations of each query, the first ones of those simulated.
        noise: size of the noise.
        label: what the tables note of it.
        text: the same in words, for pictures.
    """

    set: int
    number: int
    noise: float
    label: Mapping[str, float]
    text: str = ""

    @property
    def name(self) -> str:
        """Name of the cell's files."""
        return _name(self.label)


@dataclass(frozen=True)
class Observed:
    """A cell as it is observed, once or with several draws of the noise.

    Args:
        observations: in long form.
        truth: one row per query: ``query``, parameters, ``initial_<name>``, ``noise_std``, ``noise_seed``.
        points: (1 or queries, n, d) points of observation.
    """

    observations: pd.DataFrame
    truth: pd.DataFrame
    points: np.ndarray


def _name(label: Mapping[str, float]) -> str:
    return "_".join(f"{key}-{value:g}" for key, value in label.items()) or "queries"


def observation_settings(settings: Settings, **changes: object) -> ObservationSettings:
    """The part of the observations' configuration that says how to sample."""
    chosen = {key: settings["observations"][key] for key in ObservationSettings.model_fields}
    return ObservationSettings(**chosen | changes)


def cells(settings: Settings) -> list[Cell]:
    """All cells of the problem's online table; each number of observations with each noise where both vary."""
    chosen = settings["observations"]
    crossed = chosen.get("cells", {})
    numbers, noises = crossed.get("number", [chosen["number"]]), crossed.get("noise", [chosen["noise"]])
    if max(numbers) > chosen["number"]:
        raise InputError(f"observations.cells.number: {max(numbers)} of {chosen['number']} simulated observations")
    if len(numbers) > 1 and chosen["layout"] == "equispaced":
        raise InputError("observations.cells.number: the first of equispaced points do not span the domain")
    found = []
    for (position, entry), noise, number in product(enumerate(chosen["sets"]), noises, numbers):
        varied = {f"noise_{chosen['noise_unit']}": noise} if "noise" in crossed else {}
        varied |= {"observations": number} if "number" in crossed else {}
        parts = [entry.get("text"), f"{noise:g} {_UNITS[chosen['noise_unit']]}noise" if "noise" in crossed else None]
        parts.append(f"{number} observations" if "number" in crossed else None)
        text = ", ".join(part for part in parts if part)
        found.append(Cell(position, number, noise, {**entry["label"], **varied}, text))
    return found


def label_keys(settings: Settings) -> list[str]:
    """Columns of the online table that say which cell a row is of."""
    return list(dict.fromkeys(key for cell in cells(settings) for key in cell.label))


def shown_cells(settings: Settings) -> list[Cell]:
    """The cells whose fits the pictures show: those with the labels that are named, or else the first."""
    found, named = cells(settings), settings["observations"].get("shown")
    if named is None:
        return found[:1]
    return [cell for labels in named for cell in found if labels.items() <= cell.label.items()]


def shown_queries(settings: Settings) -> list[int]:
    """Numbers of the queries that the pictures show, spread over those that every recipe answers."""
    counts = [settings["budget"]["queries"], settings["budget"]["paper_queries"]]
    counts += [len(values) for entry in settings["observations"]["sets"] for values in entry.get("tasks", {}).values()]
    return np.unique(np.linspace(0, min(counts) - 1, 3).round().astype(int)).tolist()


def _tasks(settings: Settings, number: int, queries: int) -> Tasks:
    """Tasks of a set: those that it lists, or else drawn from its ranges."""
    problem, entry = Problem(**settings["problem"]), settings["observations"]["sets"][number]
    if "tasks" in entry:
        listed = np.array([entry["tasks"][name] for name in problem.parameters], dtype=float).T[:queries]
        return Tasks(listed, np.zeros((len(listed), 0)))
    drawn = problem.with_ranges(entry.get("parameters"), entry.get("initial"))
    return drawn.sample_tasks(queries, np.random.default_rng([settings["seed"], 1000 + number]))


def tasks_of(problem: Problem, truth: pd.DataFrame) -> Tasks:
    """The tasks behind a set of queries."""
    initial = [column for column in truth if column.startswith("initial_")]
    return Tasks(truth[list(problem.parameters)].to_numpy(), truth[initial].to_numpy())


def simulate(settings: Settings, number: int, queries: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Noise-free observations of one set of queries, and the parameters and initial values behind them.

    Args:
        settings: the configuration.
        number: of the set.
        queries: how many; fewer where the set lists fewer tasks.

    Returns:
        observations in long form, and one row per query.
    """
    problem, sampling = Problem(**settings["problem"]), observation_settings(settings)
    tasks = _tasks(settings, number, queries)
    points = sampling.points(problem, len(tasks))
    values = TRUTHS[sampling.truth](problem, tasks, points)
    truth = pd.DataFrame({"query": np.arange(len(tasks))})
    truth[list(problem.parameters)] = tasks.parameters
    truth[[f"initial_{problem.notation.jet_name(jet)}" for jet in problem.free_initial]] = tasks.initial
    return long_table(problem, points, values), truth


def write_set(settings: Settings, number: int, observations: pd.DataFrame, truth: pd.DataFrame) -> Path:
    """Put a simulated set where `read_set` finds it; returns where its truth is."""
    for suffix, table in (("observations", observations), ("truth", truth)):
        with replacing_file(_path(settings, number, suffix)) as temporary:
            table.to_parquet(temporary, index=False)
    return _path(settings, number, "truth")


def _path(settings: Settings, number: int, suffix: str) -> Path:
    name = _name(settings["observations"]["sets"][number]["label"])
    return DATA / "observations" / settings["problem"]["name"] / f"{name}_{suffix}.parquet"


def points_of(settings: Settings, simulated: pd.DataFrame, queries: int) -> np.ndarray:
    """(queries, n, d) points of a simulated set, (1, n, d) if they are the same for all."""
    coordinates = list(settings["problem"]["coordinates"])
    points = simulated[coordinates].to_numpy().reshape(queries, -1, len(coordinates))
    return points if settings["observations"]["layout"] == "own" else points[:1]


def observe(
    settings: Settings, cell: Cell, simulated: pd.DataFrame, truth: pd.DataFrame, seeds: Sequence[int] = (0,)
) -> Observed:
    """A cell as it is observed: with noise, the first points only, and the parameters that are known.

    Args:
        settings: the configuration.
        cell: the cell.
        simulated: noise-free observations of its set.
        truth: one row per query of those.
        seeds: draws of the noise, counted from the seed of the configuration; each gives all queries anew.
    """
    problem, queries = Problem(**settings["problem"]), len(truth)
    values = simulated[problem.fields].to_numpy().reshape(queries, -1, len(problem.fields))
    points = points_of(settings, simulated, queries)[:, : cell.number]
    disturbed, truths = [], []
    for seed in seeds:
        sampling = observation_settings(settings, noise=cell.noise, seed=settings["observations"]["seed"] + seed)
        noisy, std = sampling.disturb(values)
        disturbed.append(noisy[:, : cell.number])
        truths.append(truth.assign(query=truth["query"] + seed * queries, noise_std=std, noise_seed=seed))
    every, all_values = pd.concat(truths, ignore_index=True), np.concatenate(disturbed)
    repeated = points if len(points) == 1 else np.tile(points, (len(seeds), 1, 1))
    observations = long_table(problem, repeated, all_values)
    observations["query"] = np.repeat(every["query"].to_numpy(), cell.number)
    for name in settings["observations"].get("known", []):
        observations[name] = np.repeat(every[name].to_numpy(), cell.number)
    return Observed(observations, every, repeated)


def read_set(settings: Settings, number: int, queries: int | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The noise-free simulation of a set, or of its first queries, and the truth behind it."""
    simulated, truth = (pd.read_parquet(_path(settings, number, part)) for part in ("observations", "truth"))
    if queries is not None:
        truth = truth.head(queries)
        simulated = simulated[simulated["query"].isin(truth["query"])]
    return simulated, truth


def read_cell(settings: Settings, cell: Cell, queries: int | None = None, seeds: Sequence[int] = (0,)) -> Observed:
    """A cell of the stage `simulate` as it is observed, see `observe`."""
    return observe(settings, cell, *read_set(settings, cell.set, queries), seeds)
