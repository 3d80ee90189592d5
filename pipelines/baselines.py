"""What the baseline stages share: queries one by one, scored like ours."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ipbasis.baselines.fit import BaselineFit, BaselineQuery
from ipbasis.errors import InputError
from ipbasis.evaluation.metrics import parameter_errors, term_errors
from ipbasis.files import replacing_file
from ipbasis.problem.declaration import Problem
from ipbasis.reference.terms import true_terms
from ipbasis.tracking import Tracker
from pipelines.benchmark import Baseline, Benchmark
from pipelines.cells import Cell, Observed, cells, read_cell, tasks_of
from pipelines.common import side_by_side
from pipelines.paths import estimates_directory


@dataclass(frozen=True)
class KnownQuery:
    """A query with the truth behind it.

    Args:
        cell: it belongs to.
        id: of the query.
        problem: with the ranges from which its set was drawn.
        query: what a baseline gets.
        parameters: (P,) true parameters.
        terms: (n, terms) true unknown terms at the points of observation.
    """

    cell: Cell
    id: int
    problem: Problem
    query: BaselineQuery
    parameters: np.ndarray
    terms: np.ndarray


# with what a baseline made of it
FittedQuery = tuple[KnownQuery, BaselineFit]


def baseline_of(benchmark: Benchmark, source: str) -> Baseline:
    """What the benchmark says of a baseline."""
    return getattr(benchmark.baselines, source)


def chosen_cells(benchmark: Benchmark, source: str) -> list[Cell]:
    """The cells that a baseline answers: those with the labels that its configuration names, all without such."""
    every, wanted = cells(benchmark), baseline_of(benchmark, source).cells
    if wanted is None:
        return every
    found = [[cell for cell in every if label.items() <= cell.label.items()] for label in wanted]
    for label, matching in zip(wanted, found, strict=True):
        if not matching:
            raise InputError(f"baselines.{source}.cells: no cell of the benchmark has the label {label}")
    return [cell for cell in every if any(cell in matching for matching in found)]


def queries_of_cell(benchmark: Benchmark, cell: Cell, queries: int | list[int]) -> Iterator[KnownQuery]:
    """Some queries of a cell: the first so many, or those with these numbers."""
    numbers = list(range(queries)) if isinstance(queries, int) else queries
    observed = read_cell(benchmark, cell, max(numbers) + 1)
    if max(numbers) >= len(observed.truth):
        raise InputError(f"baselines: query {max(numbers)} is asked for, the set has {len(observed.truth)}")
    yield from known_queries(benchmark, cell, observed, numbers)


def known_queries(benchmark: Benchmark, cell: Cell, observed: Observed, numbers: Sequence[int]) -> Iterator[KnownQuery]:
    """Queries of a cell that is observed, by their numbers."""
    problem = benchmark.drawn_problem(benchmark.observations.sets[cell.set])
    by_query = dict(list(observed.observations.groupby("query", sort=False)))
    for number in numbers:
        truth = observed.truth.iloc[[number]]
        rows = by_query[truth["query"].item()]
        known = [rows[name].iloc[0] if name in rows else np.nan for name in problem.parameters]
        points = rows[list(problem.coordinates)].to_numpy()
        tasks = tasks_of(problem, truth)
        terms = true_terms(problem, tasks, points[None])[0] if problem.unknown_terms else np.empty((len(points), 0))
        query = BaselineQuery(points, rows[problem.fields].to_numpy(), np.array(known, dtype=float))
        yield KnownQuery(cell, truth["query"].item(), problem, query, tasks.parameters[0], terms)


def chosen_queries(benchmark: Benchmark, source: str) -> list[KnownQuery]:
    """The queries that the configuration of a baseline names, cell by cell."""
    queries = baseline_of(benchmark, source).queries
    return [one for cell in chosen_cells(benchmark, source) for one in queries_of_cell(benchmark, cell, queries)]


def fit_all(
    fit: Callable[[Any, KnownQuery], BaselineFit], jobs: Sequence[tuple[Any, KnownQuery]], workers: int, name: str
) -> list[FittedQuery]:
    """Fits of queries, each with settings of its own.

    Args:
        fit: takes the settings and the query, of which it may use the problem and what a baseline gets.
        jobs: settings and queries.
        workers: how many are fitted at a time.
        name: of the progress bar.
    """
    return list(zip([known for _, known in jobs], side_by_side(fit, jobs, workers, name), strict=True))


def query_row(benchmark: Benchmark, source: str, known: KnownQuery, fit: BaselineFit) -> dict:
    """Row of one query: the true scored parameters, the errors, the effort."""
    names, scored = list(known.problem.parameters), benchmark.observations.scored
    errors = dict(zip(names, np.abs(fit.parameters - known.parameters), strict=True))
    true = dict(zip(names, known.parameters, strict=True))
    return {
        "source": source,
        **{name: true[name] for name in scored},
        **known.cell.label,
        "query": known.id,
        "epochs": fit.effort,
        "loss": fit.loss,
        **{f"{name}_abs_error": errors[name] for name in scored},
        **(term_errors(fit.terms, known.terms) if known.terms.size else {}),
        "seconds": fit.seconds,
    }


def cell_row(benchmark: Benchmark, source: str, cell: Cell, fitted: list[FittedQuery]) -> dict:
    """Row of the online table; queries on which the baseline failed are left out of the scores, and counted."""
    solved = [(known, fit) for known, fit in fitted if np.isfinite(fit.loss)]
    scores = {}
    if solved:
        names = list(solved[0][0].problem.parameters)
        estimated = pd.DataFrame([fit.parameters for _, fit in solved], columns=names)
        true = pd.DataFrame([known.parameters for known, _ in solved], columns=names)
        numbers = range(len(solved))
        scored = benchmark.observations.scored
        scores = parameter_errors(estimated.assign(query=numbers), true.assign(query=numbers), scored)
        if solved[0][0].terms.size:
            found = np.concatenate([fit.terms for _, fit in solved])
            scores |= term_errors(found, np.concatenate([known.terms for known, _ in solved]))
    seconds = [fit.seconds for _, fit in fitted]
    return {
        "source": source,
        **cell.label,
        "queries": len(fitted),
        "failed": len(fitted) - len(solved),
        "epochs": int(np.mean([fit.effort for _, fit in fitted])),
        "learning_rate": baseline_of(benchmark, source).settings.get("learning_rate"),
        "loss": np.mean([fit.loss for _, fit in solved]) if solved else np.nan,
        **scores,
        "seconds": np.sum(seconds),
        "seconds_per_query": np.mean(seconds),
        "noise": cell.noise,
        "noise_unit": benchmark.observations.noise_unit,
    }


def estimates_table(fitted: list[FittedQuery]) -> pd.DataFrame:
    """The estimates, one row per query."""
    rows = [
        {
            "query": known.id,
            **dict(zip(known.problem.parameters, fit.parameters, strict=True)),
            "loss": fit.loss,
            "seconds": fit.seconds,
            "effort": fit.effort,
        }
        for known, fit in fitted
    ]
    return pd.DataFrame(rows)


def write_tables(
    benchmark: Benchmark, tracker: Tracker, source: str, fitted: list[FittedQuery], further: Mapping[str, pd.DataFrame]
) -> None:
    """Write the estimates and the row of each cell, and further tables; log all of them.

    Args:
        benchmark: the benchmark.
        tracker: receives metrics and files.
        source: name of the baseline.
        fitted: cell by cell.
        further: tables by name.
    """
    folder = estimates_directory(benchmark.name, source)
    rows = []
    by_cell = {known.cell.name: known.cell for known, _ in fitted}
    for number, (name, cell) in enumerate(by_cell.items()):
        of_cell = [one for one in fitted if one[0].cell.name == name]
        with replacing_file(folder / f"{source}_{name}.parquet") as temporary:
            estimates_table(of_cell).to_parquet(temporary, index=False)
        rows.append(cell_row(benchmark, source, cell, of_cell))
        tracker.metrics(rows[-1], step=number)
    for name, table in {**further, "online": pd.DataFrame(rows)}.items():
        with replacing_file(folder / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)
    tracker.artefact(folder, "estimates")
