"""The step that queries a basis, for stages and studies."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from ipbasis.estimates.estimate import estimate
from ipbasis.estimates.result import Estimates
from ipbasis.evaluation.metrics import coverage, ideal_errors, parameter_errors, term_errors
from ipbasis.features.quadrature import equispaced
from ipbasis.observations.long_form import Observations, check_observations
from ipbasis.observations.simulate import long_table
from ipbasis.offline.artefact import Basis
from ipbasis.problem.declaration import Problem
from ipbasis.published.solvers import ALL
from ipbasis.reference.terms import true_terms
from pipelines.cells import Cell, Observed, observe, tasks_of
from pipelines.common import Settings

# how a solver searches unknown terms, as the tables call it
_SEARCHED = {"free_form": "free_form", "library": "library", "term_networks": "network"}


@dataclass(frozen=True)
class Question:
    """A cell to be estimated.

    Args:
        cell: the cell.
        simulated: noise-free observations of its set, or of the first queries of it.
        truth: one row per query of those.
        sensitivity: of the simulated observations, see `sensitivities`, to compare with the ideal errors.
    """

    cell: Cell
    simulated: pd.DataFrame
    truth: pd.DataFrame
    sensitivity: np.ndarray | None = None


@dataclass(frozen=True)
class Answer:
    """What the estimation of a cell gives.

    Args:
        row: of the online table.
        table: estimates of all draws of the noise, with the errors of the unknown terms where there are any.
        estimates: of the first draw, possibly among other cells.
        rows: those of this cell.
    """

    row: dict
    table: pd.DataFrame
    estimates: Estimates
    rows: slice


def query(settings: Settings, basis: Basis, questions: Sequence[Question]) -> list[Answer]:
    """Estimate all queries of some cells, with as many draws of the noise as the recipe asks for.

    Args:
        settings: the configuration; its recipe says how. Where it says ``together``, the cells are one batch and
            the time is shared out by the number of queries.
        basis: of the problem, or of one with the same coordinates and fields.
        questions: one for each cell.

    Returns:
        one answer for each question.
    """
    torch.set_num_threads(settings["threads"])
    problem = Problem(**settings["problem"])
    basis, solver = basis.for_problem(problem), ALL[settings["online"]["solver"]](**settings["online"])
    observed = [observe(settings, q.cell, q.simulated, q.truth) for q in questions]
    parts = [observed] if settings["recipe"]["together"] else [[one] for one in observed]
    answers = []
    for part in parts:
        observations = _joined(problem, [one.observations for one in part])
        started = time.perf_counter()
        estimates = estimate(basis, observations, solver)
        seconds = (time.perf_counter() - started) / len(estimates.table)
        ends = np.cumsum([len(one.truth) for one in part])
        for one, end in zip(part, ends, strict=True):
            rows = slice(end - len(one.truth), end)
            answers.append(_answer(settings, basis, questions[len(answers)], one, estimates, rows, seconds))
    return answers


def _joined(problem: Problem, tables: Sequence[pd.DataFrame]) -> Observations:
    """Several tables of observations as one, with ids of their own."""
    shifts = np.cumsum([0, *(table["query"].max() + 1 for table in tables[:-1])])
    moved = [table.assign(query=table["query"] + shift) for table, shift in zip(tables, shifts, strict=True)]
    return check_observations(pd.concat(moved, ignore_index=True), problem)


def _answer(
    settings: Settings,
    basis: Basis,
    question: Question,
    first: Observed,
    estimates: Estimates,
    rows: slice,
    seconds: float,
) -> Answer:
    """The row of a cell, its estimates with those of further draws of the noise.

    Args:
        settings: the configuration.
        basis: of the problem.
        question: the cell.
        first: the first draw of the noise.
        estimates: of the first draw, possibly among other cells.
        rows: those of this cell.
        seconds: that a query took.
    """
    cell, problem, scored = question.cell, basis.problem, settings["observations"]["scored"]
    solver = ALL[settings["online"]["solver"]](**settings["online"])
    published = settings["recipe"]["source"] == "paper_recipe"
    own = estimates.table.iloc[rows].assign(query=first.truth["query"].to_numpy()).reset_index(drop=True)
    misfit = data_misfit(basis, estimates.readouts[rows], first)
    table, truth = _all_draws(settings, basis, question, own, first)
    found = {}
    if problem.unknown_terms:
        # along the trajectories, at the points of observation
        terms = estimates.terms(first.points[0])[rows], true_terms(problem, tasks_of(problem, truth), first.points)
        table = table.join(pd.DataFrame([term_errors(*pair) for pair in zip(*terms, strict=True)]))
        found = {"terms": _SEARCHED[solver.solver], **term_errors(*terms)}
    row = {
        "source": settings["recipe"]["source"],
        "readouts": settings["basis"]["readouts"],
        **cell.label,
        "queries": len(own),
        "epochs": int(own["iterations"].max()),
        "learning_rate": getattr(solver, "learning_rate", None),
        "loss": float(own["objective"].mean()) if published else misfit,
        **parameter_errors(table, truth, scored),
        **found,
        "seconds": seconds * len(own),
        "seconds_per_query": seconds,
        "noise": cell.noise,
        "noise_unit": settings["observations"]["noise_unit"],
        "noise_seeds": truth["noise_seed"].nunique(),
        "data_mse": misfit,
    }
    if question.sensitivity is not None and cell.noise:
        seen = question.sensitivity[: len(own), : cell.number]
        row |= _against_ideal(settings, row, seen, first.truth["noise_std"].to_numpy())
    if row["noise_seeds"] > 1:
        row |= _spread(table, truth, scored)
    if not published:  # the published recipe gives no error bars
        row |= {"ok_share": float((table["status"] == "ok").mean()), **coverage(table, truth, scored)}
    return Answer(row, table, estimates, rows)


def _all_draws(
    settings: Settings, basis: Basis, question: Question, own: pd.DataFrame, first: Observed
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Estimates and truth of all draws of the noise; of unknown terms there is but one."""
    draws = settings["recipe"]["noise_seeds"] if question.cell.noise and not basis.problem.unknown_terms else 1
    if draws == 1:
        return own, first.truth
    solver = ALL[settings["online"]["solver"]](**settings["online"])
    further = observe(settings, question.cell, question.simulated, question.truth, range(1, draws))
    table = estimate(basis, further.observations, solver).table
    return pd.concat([own, table], ignore_index=True), pd.concat([first.truth, further.truth], ignore_index=True)


def data_misfit(basis: Basis, readouts: np.ndarray, observed: Observed) -> float:
    """Mean squared difference between observations and fitted solutions with readouts (queries, F, K)."""
    fields = basis.problem.fields
    values = observed.observations[fields].to_numpy().reshape(len(readouts), -1, len(fields))
    features = basis.functions(observed.points.reshape(-1, observed.points.shape[2]))
    features = np.broadcast_to(
        features.reshape(*observed.points.shape[:2], -1), (len(readouts), values.shape[1], features.shape[1])
    )
    return float(((features @ readouts.transpose(0, 2, 1) - values) ** 2).mean())


def _against_ideal(settings: Settings, row: dict, sensitivity: np.ndarray, noise_std: np.ndarray) -> dict:
    """Mean absolute errors at the Cramér-Rao bound, and how many times larger those of the row are."""
    problem, known = Problem(**settings["problem"]), settings["observations"].get("known", [])
    unknown = [n for n, name in enumerate([*problem.parameters, *problem.free_initial]) if name not in known]
    ideal = ideal_errors(sensitivity[..., unknown], noise_std).mean(axis=0)
    scores = {}
    for name, error in zip((p for p in problem.parameters if p not in known), ideal, strict=False):
        scores[f"{name}_mae_ideal"] = float(error)
        scores[f"{name}_mae_over_ideal"] = row[f"{name}_mae"] / float(error)
    return scores


def _spread(table: pd.DataFrame, truth: pd.DataFrame, scored: list[str]) -> dict:
    """Standard deviation of the mean absolute errors from one draw of the noise to the next."""
    true = truth.set_index("query").loc[table["query"]].reset_index()
    errors = (table[scored] - true[scored]).abs().groupby(true["noise_seed"]).mean().std()
    return {f"{name}_mae_spread": errors[name] for name in scored}


def shown_points(problem: Problem) -> np.ndarray:
    """(n, d) grid on which the pictures show solutions."""
    per_axis = 200 if len(problem.coordinates) == 1 else 60
    return equispaced(problem.domain, per_axis ** len(problem.coordinates), torch.float64).numpy()


def fits(problem: Problem, answer: Answer, shown: list[int]) -> pd.DataFrame:
    """The fitted solutions of some queries, for pictures."""
    points = shown_points(problem)
    table = long_table(problem, points[None], answer.estimates.solution(points)[answer.rows][shown])
    return table.assign(query=np.array(shown)[table["query"]])


def term_surfaces(problem: Problem, answer: Answer, shown: list[int], simulated: pd.DataFrame) -> pd.DataFrame:
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
