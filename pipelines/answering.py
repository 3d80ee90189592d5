"""What the stage `query` does with each recipe: it answers every cell, and keeps what the pictures show."""

from pathlib import Path

import numpy as np
import pandas as pd

from ipbasis.files import replacing_file
from ipbasis.observations.simulate import long_table
from ipbasis.offline.artefact import Basis
from ipbasis.problem.declaration import Problem
from ipbasis.reference.sensitivities import sensitivities
from pipelines.benchmark import Benchmark
from pipelines.cells import cells, points_of, read_set, tasks_of
from pipelines.paths import basis_directory, online_file
from pipelines.querying import EstimatedCell, SimulatedCell, query
from pipelines.shown import shown_cells, shown_points, shown_queries


def ideal(benchmark: Benchmark, number: int) -> np.ndarray | None:
    """Sensitivities of a set, if there is noise to compare with."""
    if not any(cell.noise for cell in cells(benchmark) if cell.set == number):
        return None
    problem = benchmark.problem
    simulated, truth = read_set(benchmark, number)
    return sensitivities(problem, tasks_of(problem, truth), points_of(benchmark, simulated, len(truth)))


def answered(benchmark: Benchmark, sensitivity: dict[int, np.ndarray | None]) -> tuple[list[dict], list[dict]]:
    """Answer every cell by one recipe on the bases of one number of readouts; the estimates are written.

    Args:
        benchmark: its recipe and readouts are meant.
        sensitivity: see `SimulatedCell`, of each set.

    Returns:
        rows of the online table, and of that of each solver on each basis.
    """
    bases = {
        name: Basis.load(basis_directory(benchmark.basis.problem, benchmark.basis.readouts, name))
        for name in benchmark.trained_recipes
    }
    source, count = benchmark.chosen.source, benchmark.chosen.queries
    sets = {number: read_set(benchmark, number, count) for number in sensitivity}
    asked = [SimulatedCell(cell, *sets[cell.set], sensitivity[cell.set]) for cell in cells(benchmark)]
    answers = query(benchmark, bases[source], asked)
    shown = {cell.name for cell in shown_cells(benchmark)}
    for one, answer in zip(asked, answers, strict=True):
        _write(benchmark, one, answer, shown=one.cell.name in shown)
    own = {"basis": source, "solver": benchmark.chosen.online["solver"], **answers[0].row}
    return [answer.row for answer in answers], [own, *_crossed(benchmark, bases)]


def _crossed(benchmark: Benchmark, bases: dict[str, Basis]) -> list[dict]:
    """One solver on the bases of the other recipes: which part of a difference is the basis, which the solver."""
    cell = cells(benchmark)[0]
    asked = SimulatedCell(cell, *read_set(benchmark, cell.set, benchmark.budget.crossed_queries))
    return [
        {"basis": name, "solver": benchmark.chosen.online["solver"], **query(benchmark, basis, [asked])[0].row}
        for name, basis in bases.items()
        if name != benchmark.chosen.source
    ]


def _write(benchmark: Benchmark, asked: SimulatedCell, answer: EstimatedCell, shown: bool) -> None:
    """Estimates of a cell and, if it is shown, what the pictures show of it."""
    tables = {"estimates": answer.table}
    if shown:
        problem, queries = benchmark.problem, shown_queries(benchmark)
        tables["fits"] = fits(problem, answer, queries)
        if problem.unknown_terms:
            tables["terms"] = term_surfaces(problem, answer, queries, asked.simulated)
    for part, table in tables.items():
        with replacing_file(_file(benchmark, asked.cell.name, part)) as temporary:
            table.to_parquet(temporary, index=False)


def _file(benchmark: Benchmark, cell: str, part: str) -> Path:
    return online_file(benchmark.name, benchmark.basis.readouts, benchmark.recipe, cell, part)


def fits(problem: Problem, answer: EstimatedCell, shown: list[int]) -> pd.DataFrame:
    """The fitted solutions of some queries, for pictures."""
    points = shown_points(problem)
    table = long_table(problem, points[None], answer.estimates.solution(points)[answer.rows][shown])
    return table.assign(query=np.array(shown)[table["query"]])


def term_surfaces(problem: Problem, answer: EstimatedCell, shown: list[int], simulated: pd.DataFrame) -> pd.DataFrame:
    """The unknown terms that some queries gave, on a grid of the fields, for pictures.

    Args:
        problem: the problem.
        answer: of a cell.
        shown: numbers of the queries.
        simulated: noise-free observations of the queries; the grid spans what they visit.

    Returns:
        columns ``query``, the fields, and the terms.
    """
    visited = simulated[problem.fields].to_numpy().reshape(simulated["query"].nunique(), -1, len(problem.fields))
    unit = np.stack(np.meshgrid(*[np.linspace(0, 1, 40)] * len(problem.fields), indexing="ij"), axis=-1)
    tables = []
    for number in shown:
        low, high = visited[number].min(axis=0), visited[number].max(axis=0)
        grid = (low + (high - low) * unit).reshape(-1, len(problem.fields))
        found = answer.estimates.terms_on(grid)[answer.rows][number]
        columns = dict(zip(problem.fields, grid.T, strict=True)) | dict(
            zip(problem.unknown_terms, found.T, strict=True)
        )
        tables.append(pd.DataFrame({"query": number, **columns}))
    return pd.concat(tables, ignore_index=True)
