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
from ipbasis.observations.simulate import long_table
from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.reference.solutions import TRUTHS
from pipelines.benchmark import Benchmark, CrossedCells
from pipelines.paths import observations_file

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


def cells(benchmark: Benchmark) -> list[Cell]:
    """All cells of the problem's online table; each number of observations with each noise where both vary."""
    chosen = benchmark.observations
    crossed = chosen.cells or CrossedCells()
    numbers, noises = crossed.number or [chosen.number], crossed.noise or [chosen.noise]
    if max(numbers) > chosen.number:
        raise InputError(f"observations.cells.number: {max(numbers)} of {chosen.number} simulated observations")
    if len(numbers) > 1 and chosen.layout == "equispaced":
        raise InputError("observations.cells.number: the first of equispaced points do not span the domain")
    found = []
    for (position, entry), noise, number in product(enumerate(chosen.sets), noises, numbers):
        varied = {f"noise_{chosen.noise_unit}": noise} if crossed.noise else {}
        varied |= {"observations": number} if crossed.number else {}
        parts = [entry.text, f"{noise:g} {_UNITS[chosen.noise_unit]}noise" if crossed.noise else None]
        parts.append(f"{number} observations" if crossed.number else None)
        text = ", ".join(part for part in parts if part)
        found.append(Cell(position, number, noise, {**entry.label, **varied}, text))
    return found


def label_keys(benchmark: Benchmark) -> list[str]:
    """Columns of the online table that say which cell a row is of."""
    return list(dict.fromkeys(key for cell in cells(benchmark) for key in cell.label))


def cell_with(benchmark: Benchmark, row: pd.Series) -> Cell:
    """The cell that a row of a table is of, by its labels."""
    return next(cell for cell in cells(benchmark) if all(row[key] == value for key, value in cell.label.items()))


def _tasks(benchmark: Benchmark, number: int, queries: int) -> Tasks:
    """Tasks of a set: those that it lists, or else drawn from its ranges."""
    entry = benchmark.observations.sets[number]
    if entry.tasks:
        listed = np.array([entry.tasks[name] for name in benchmark.problem.parameters], dtype=float).T[:queries]
        return Tasks(listed, np.zeros((len(listed), 0)))
    rng = np.random.default_rng([benchmark.seed, 1000 + number])
    return benchmark.drawn_problem(entry).sample_tasks(queries, rng)


def tasks_of(problem: Problem, truth: pd.DataFrame) -> Tasks:
    """The tasks behind a set of queries."""
    initial = [column for column in truth if column.startswith("initial_")]
    return Tasks(truth[list(problem.parameters)].to_numpy(), truth[initial].to_numpy())


def simulate(benchmark: Benchmark, number: int, queries: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Noise-free observations of one set of queries, and the parameters and initial values behind them.

    Args:
        benchmark: the benchmark.
        number: of the set.
        queries: how many; fewer where the set lists fewer tasks.

    Returns:
        observations in long form, and one row per query.
    """
    problem, sampling = benchmark.problem, benchmark.observations
    tasks = _tasks(benchmark, number, queries)
    points = sampling.points(problem, len(tasks))
    values = TRUTHS[sampling.truth](problem, tasks, points)
    truth = pd.DataFrame({"query": np.arange(len(tasks))})
    truth[list(problem.parameters)] = tasks.parameters
    truth[[f"initial_{problem.notation.jet_name(jet)}" for jet in problem.free_initial]] = tasks.initial
    return long_table(problem, points, values), truth


def write_set(benchmark: Benchmark, number: int, observations: pd.DataFrame, truth: pd.DataFrame) -> Path:
    """Put a simulated set where `read_set` finds it; returns where its truth is."""
    for part, table in (("observations", observations), ("truth", truth)):
        with replacing_file(_file(benchmark, number, part)) as temporary:
            table.to_parquet(temporary, index=False)
    return _file(benchmark, number, "truth")


def _file(benchmark: Benchmark, number: int, part: str) -> Path:
    return observations_file(benchmark.name, _name(benchmark.observations.sets[number].label), part)


def points_of(benchmark: Benchmark, simulated: pd.DataFrame, queries: int) -> np.ndarray:
    """(queries, n, d) points of a simulated set, (1, n, d) if they are the same for all."""
    coordinates = list(benchmark.problem.coordinates)
    points = simulated[coordinates].to_numpy().reshape(queries, -1, len(coordinates))
    return points if benchmark.observations.layout == "own" else points[:1]


def observe(
    benchmark: Benchmark, cell: Cell, simulated: pd.DataFrame, truth: pd.DataFrame, seeds: Sequence[int] = (0,)
) -> Observed:
    """A cell as it is observed: with noise, the first points only, and the parameters that are known.

    Args:
        benchmark: the benchmark.
        cell: the cell.
        simulated: noise-free observations of its set.
        truth: one row per query of those.
        seeds: draws of the noise, counted from the seed of the configuration; each gives all queries anew.
    """
    problem, chosen, queries = benchmark.problem, benchmark.observations, len(truth)
    values = simulated[problem.fields].to_numpy().reshape(queries, -1, len(problem.fields))
    points = points_of(benchmark, simulated, queries)[:, : cell.number]
    disturbed, truths = [], []
    for seed in seeds:
        sampling = chosen.model_copy(update={"noise": cell.noise, "seed": chosen.seed + seed})
        noisy, std = sampling.disturb(values)
        disturbed.append(noisy[:, : cell.number])
        truths.append(truth.assign(query=truth["query"] + seed * queries, noise_std=std, noise_seed=seed))
    every, all_values = pd.concat(truths, ignore_index=True), np.concatenate(disturbed)
    repeated = points if len(points) == 1 else np.tile(points, (len(seeds), 1, 1))
    observations = long_table(problem, repeated, all_values)
    observations["query"] = np.repeat(every["query"].to_numpy(), cell.number)
    for name in chosen.known:
        observations[name] = np.repeat(every[name].to_numpy(), cell.number)
    return Observed(observations, every, repeated)


def read_set(benchmark: Benchmark, number: int, queries: int | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The noise-free simulation of a set, or of its first queries, and the truth behind it."""
    simulated, truth = (pd.read_parquet(_file(benchmark, number, part)) for part in ("observations", "truth"))
    if queries is not None:
        truth = truth.head(queries)
        simulated = simulated[simulated["query"].isin(truth["query"])]
    return simulated, truth


def read_cell(benchmark: Benchmark, cell: Cell, queries: int | None = None, seeds: Sequence[int] = (0,)) -> Observed:
    """A cell of the stage `simulate` as it is observed, see `observe`."""
    return observe(benchmark, cell, *read_set(benchmark, cell.set, queries), seeds)
