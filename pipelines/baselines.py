"""What the baseline stages share: queries one by one, scored like ours."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ipbasis.baselines.fit import Fit, Query
from ipbasis.errors import InputError
from ipbasis.evaluation.metrics import parameter_errors, term_errors
from ipbasis.files import replacing_file
from ipbasis.problem.declaration import Problem
from ipbasis.reference.terms import true_terms
from ipbasis.tracking import Tracker
from pipelines.cells import Cell, Observed, cells, read_cell, tasks_of
from pipelines.common import DATA, Settings, side_by_side


@dataclass(frozen=True)
class Question:
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
    query: Query
    parameters: np.ndarray
    terms: np.ndarray


# what a baseline answered
Answer = tuple[Question, Fit]


def drawn_problem(settings: Settings, number: int) -> Problem:
    """The problem with the ranges that a set is drawn from: what a baseline is told of the parameters."""
    entry = settings["observations"]["sets"][number]
    return Problem(**settings["problem"]).with_ranges(entry.get("parameters"), entry.get("initial"))


def chosen_cells(settings: Settings, source: str) -> list[Cell]:
    """The cells that a baseline answers: those with the labels that its configuration names, all without such."""
    every = cells(settings)
    wanted = settings["baselines"][source].get("cells")
    if wanted is None:
        return every
    found = [[cell for cell in every if label.items() <= cell.label.items()] for label in wanted]
    for label, matching in zip(wanted, found, strict=True):
        if not matching:
            raise InputError(f"baselines.{source}.cells: no cell of the problem has the label {label}")
    return [cell for cell in every if any(cell in matching for matching in found)]


def questions(settings: Settings, cell: Cell, queries: int | list[int]) -> Iterator[Question]:
    """Some queries of a cell: the first so many, or those with these numbers."""
    numbers = list(range(queries)) if isinstance(queries, int) else queries
    observed = read_cell(settings, cell, max(numbers) + 1)
    if max(numbers) >= len(observed.truth):
        raise InputError(f"baselines: query {max(numbers)} is asked for, the set has {len(observed.truth)}")
    yield from questions_of(settings, cell, observed, numbers)


def questions_of(settings: Settings, cell: Cell, observed: Observed, numbers: Sequence[int]) -> Iterator[Question]:
    """Queries of a cell that is observed, by their numbers."""
    problem = drawn_problem(settings, cell.set)
    by_query = dict(list(observed.observations.groupby("query", sort=False)))
    for number in numbers:
        truth = observed.truth.iloc[[number]]
        rows = by_query[truth["query"].item()]
        known = [rows[name].iloc[0] if name in rows else np.nan for name in problem.parameters]
        points = rows[list(problem.coordinates)].to_numpy()
        tasks = tasks_of(problem, truth)
        terms = true_terms(problem, tasks, points[None])[0] if problem.unknown_terms else np.empty((len(points), 0))
        query = Query(points, rows[problem.fields].to_numpy(), np.array(known, dtype=float))
        yield Question(cell, truth["query"].item(), problem, query, tasks.parameters[0], terms)


def asked(settings: Settings, source: str) -> list[Question]:
    """The questions that the configuration of a baseline names, cell by cell."""
    queries = settings["baselines"][source]["queries"]
    return [question for cell in chosen_cells(settings, source) for question in questions(settings, cell, queries)]


def fit_all(
    fit: Callable[[Any, Question], Fit], jobs: list[tuple[Any, Question]], workers: int, name: str
) -> list[Answer]:
    """Answers to questions, each with settings of its own.

    Args:
        fit: takes the settings and the question, of which it may use the problem and the query.
        jobs: what to answer.
        workers: how many are answered at a time.
        name: of the progress bar.
    """
    return list(zip([question for _, question in jobs], side_by_side(fit, jobs, workers, name), strict=True))


def query_row(settings: Settings, source: str, question: Question, fit: Fit) -> dict:
    """Row of one query: the true scored parameters, the errors, the effort."""
    names, scored = list(question.problem.parameters), settings["observations"]["scored"]
    errors = dict(zip(names, np.abs(fit.parameters - question.parameters), strict=True))
    true = dict(zip(names, question.parameters, strict=True))
    return {
        "source": source,
        **{name: true[name] for name in scored},
        **question.cell.label,
        "query": question.id,
        "epochs": fit.effort,
        "loss": fit.loss,
        **{f"{name}_abs_error": errors[name] for name in scored},
        **(term_errors(fit.terms, question.terms) if question.terms.size else {}),
        "seconds": fit.seconds,
    }


def cell_row(settings: Settings, source: str, cell: Cell, answers: list[Answer]) -> dict:
    """Row of the online table; queries on which the baseline failed are left out of the scores, and counted."""
    solved = [(question, fit) for question, fit in answers if np.isfinite(fit.loss)]
    scores = {}
    if solved:
        names = list(solved[0][0].problem.parameters)
        estimated = pd.DataFrame([fit.parameters for _, fit in solved], columns=names)
        true = pd.DataFrame([question.parameters for question, _ in solved], columns=names)
        numbers = range(len(solved))
        scored = settings["observations"]["scored"]
        scores = parameter_errors(estimated.assign(query=numbers), true.assign(query=numbers), scored)
        if solved[0][0].terms.size:
            found = np.concatenate([fit.terms for _, fit in solved])
            scores |= term_errors(found, np.concatenate([question.terms for question, _ in solved]))
    seconds = [fit.seconds for _, fit in answers]
    return {
        "source": source,
        **cell.label,
        "queries": len(answers),
        "failed": len(answers) - len(solved),
        "epochs": int(np.mean([fit.effort for _, fit in answers])),
        "learning_rate": settings["baselines"][source]["settings"].get("learning_rate"),
        "loss": np.mean([fit.loss for _, fit in solved]) if solved else np.nan,
        **scores,
        "seconds": np.sum(seconds),
        "seconds_per_query": np.mean(seconds),
        "noise": cell.noise,
        "noise_unit": settings["observations"]["noise_unit"],
    }


def estimates_table(answers: list[Answer]) -> pd.DataFrame:
    """The estimates, one row per query."""
    rows = [
        {
            "query": question.id,
            **dict(zip(question.problem.parameters, fit.parameters, strict=True)),
            "loss": fit.loss,
            "seconds": fit.seconds,
            "effort": fit.effort,
        }
        for question, fit in answers
    ]
    return pd.DataFrame(rows)


def write_tables(
    settings: Settings, tracker: Tracker, source: str, answers: list[Answer], further: Mapping[str, pd.DataFrame]
) -> None:
    """Write the estimates and the row of each cell, and further tables; log all of them.

    Args:
        settings: the configuration.
        tracker: receives metrics and files.
        source: name of the baseline.
        answers: cell by cell.
        further: tables by name.
    """
    folder = DATA / "estimates" / settings["problem"]["name"] / source
    rows = []
    by_cell = {question.cell.name: question.cell for question, _ in answers}
    for number, (name, cell) in enumerate(by_cell.items()):
        of_cell = [answer for answer in answers if answer[0].cell.name == name]
        with replacing_file(folder / f"{source}_{name}.parquet") as temporary:
            estimates_table(of_cell).to_parquet(temporary, index=False)
        rows.append(cell_row(settings, source, cell, of_cell))
        tracker.metrics(rows[-1], step=number)
    for name, table in {**further, "online": pd.DataFrame(rows)}.items():
        with replacing_file(folder / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)
    tracker.artefact(folder, "estimates")
