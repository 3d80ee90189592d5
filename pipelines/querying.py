"""The step that queries a basis, for stages and studies."""

import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from ipbasis.basis.artefact import Basis
from ipbasis.basis.quadrature import equispaced
from ipbasis.evaluation.metrics import coverage, ideal_errors, parameter_errors, term_errors
from ipbasis.inverse.estimate import SOLVERS, Estimates, estimate
from ipbasis.observations import check_observations, long_table
from ipbasis.problem import Problem
from ipbasis.reference.terms import true_terms
from pipelines.cells import Cell, Observed, observe, tasks_of
from pipelines.common import Settings


@dataclass(frozen=True)
class Answer:
    """What a query of a cell gives.

    Args:
        row: of the online table.
        estimates: of the first draw of the noise.
        table: estimates of all draws, with the errors of the unknown terms where there are any.
    """

    row: dict
    estimates: Estimates
    table: pd.DataFrame


def query(
    settings: Settings,
    basis: Basis,
    cell: Cell,
    simulated: pd.DataFrame,
    truth: pd.DataFrame,
    sensitivity: np.ndarray | None = None,
) -> Answer:
    """Estimate all queries of a cell, with as many draws of the noise as the recipe asks for.

    Args:
        settings: the configuration; its recipe says how.
        basis: of the problem, or of one with the same coordinates and fields.
        cell: the cell.
        simulated: noise-free observations of its set.
        truth: one row per query of those.
        sensitivity: of the simulated observations, see `sensitivities`, to compare with the ideal errors.
    """
    torch.set_num_threads(settings["threads"])
    problem, online = Problem(**settings["problem"]), settings["online"]
    basis, solver = basis.for_problem(problem), SOLVERS[online["solver"]](**online)
    first = observe(settings, cell, simulated, truth)
    checked = check_observations(first.observations, problem)
    started = time.perf_counter()
    estimates = estimate(basis, checked, solver)
    seconds = time.perf_counter() - started
    draws = settings["recipe"]["noise_seeds"] if cell.noise and not problem.unknown_terms else 1
    tables, truths = [estimates.table], [first.truth]
    if draws > 1:
        further = observe(settings, cell, simulated, truth, range(1, draws))
        tables.append(estimate(basis, further.observations, solver).table)
        truths.append(further.truth)
    table, every = pd.concat(tables, ignore_index=True), pd.concat(truths, ignore_index=True)
    scored = settings["observations"]["scored"]
    published = online["solver"] == "adam"
    misfit = data_misfit(estimates, first)
    terms = {}
    if problem.unknown_terms:
        # along the trajectories, at the points of observation
        true = true_terms(problem, tasks_of(problem, first.truth), first.points)
        found = estimates.terms(first.points[0])
        table = table.join(pd.DataFrame([term_errors(*pair) for pair in zip(found, true, strict=True)]))
        terms = {"terms": "network" if published else online["solver"], **term_errors(found, true)}
    row = {
        "source": settings["recipe"]["source"],
        "readouts": settings["basis"]["readouts"],
        **cell.label,
        "queries": len(truth),
        "epochs": int(estimates.table["iterations"].max()),
        "learning_rate": getattr(solver, "learning_rate", None),
        "loss": float(estimates.table["objective"].mean()) if published else misfit,
        **parameter_errors(table, every, scored),
        **terms,
        "seconds": seconds,
        "seconds_per_query": seconds / len(truth),
        "noise": cell.noise,
        "noise_unit": settings["observations"]["noise_unit"],
        "noise_seeds": draws,
        "data_mse": misfit,
    }
    if sensitivity is not None and cell.noise:
        row |= _against_ideal(settings, row, sensitivity[:, : cell.number], first.truth["noise_std"].to_numpy())
    if draws > 1:
        row |= _spread(table, every, scored)
    if not published:  # the published recipe gives no error bars
        row |= {"ok_share": float((table["status"] == "ok").mean()), **coverage(table, every, scored)}
    return Answer(row, estimates, table)


def data_misfit(estimates: Estimates, observed: Observed) -> float:
    """Mean squared difference between observations and fitted solutions."""
    problem = estimates.basis.problem
    values = observed.observations[problem.fields].to_numpy().reshape(len(estimates.table), -1, len(problem.fields))
    if len(observed.points) == 1:
        fitted = estimates.solution(observed.points[0])
    else:
        features = estimates.basis.features(observed.points.reshape(-1, observed.points.shape[2]))
        fitted = np.einsum("qnk,qfk->qnf", features.reshape(*values.shape[:2], -1), estimates.readouts)
    return float(((fitted - values) ** 2).mean())


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


def fits(estimates: Estimates, shown: list[int]) -> pd.DataFrame:
    """The fitted solutions of some queries, for pictures."""
    problem = estimates.basis.problem
    table = long_table(problem, shown_points(problem)[None], estimates.solution(shown_points(problem))[shown])
    return table.assign(query=np.array(shown)[table["query"]])


def term_surfaces(estimates: Estimates, shown: list[int], simulated: pd.DataFrame) -> pd.DataFrame:
    """The unknown terms that some queries gave, on a grid of the fields, for pictures.

    Args:
        estimates: of all queries.
        shown: numbers of the queries.
        simulated: noise-free observations of the queries; the grid spans what they visit.

    Returns:
        columns ``query``, the fields, and the terms.
    """
    problem = estimates.basis.problem
    visited = simulated[problem.fields].to_numpy().reshape(len(estimates.table), -1, len(problem.fields))
    unit = np.stack(np.meshgrid(*[np.linspace(0, 1, 40)] * len(problem.fields), indexing="ij"), axis=-1)
    tables = []
    for number in shown:
        low, high = visited[number].min(axis=0), visited[number].max(axis=0)
        grid = (low + (high - low) * unit).reshape(-1, len(problem.fields))
        columns = dict(zip(problem.fields, grid.T, strict=True))
        columns |= dict(zip(problem.unknown_terms, estimates.terms_on(grid)[number].T, strict=True))
        tables.append(pd.DataFrame({"query": number, **columns}))
    return pd.concat(tables, ignore_index=True)
