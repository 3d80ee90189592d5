"""The step that queries a basis, for stages and studies."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from ipbasis.errors import InputError
from ipbasis.estimates.estimate import estimate
from ipbasis.estimates.result import Estimates
from ipbasis.evaluation.metrics import coverage, ideal_errors, parameter_errors, term_errors
from ipbasis.evaluation.names import SEARCHES
from ipbasis.observations.long_form import Observations, check_observations
from ipbasis.offline.artefact import Basis
from ipbasis.problem.declaration import Problem
from ipbasis.published.solvers import ALL
from ipbasis.reference.terms import true_terms
from ipbasis.search.solver import Solver
from pipelines.benchmark import Benchmark, Recipe
from pipelines.cells import Cell, Observed, observe, tasks_of


@dataclass(frozen=True)
class SimulatedCell:
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

    @property
    def seen_sensitivity(self) -> np.ndarray | None:
        """That of the observations that the cell sees; None without noise."""
        if self.sensitivity is None or not self.cell.noise:
            return None
        return self.sensitivity[: len(self.truth), : self.cell.number]


@dataclass(frozen=True)
class EstimatedCell:
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


def solver_of(recipe: Recipe) -> Solver:
    """The solver of a recipe with its settings."""
    if (name := recipe.online.get("solver")) not in ALL:
        raise InputError(f"online.solver: {name!r} is not known; there are {', '.join(ALL)}")
    return ALL[name](**recipe.online)


def query(benchmark: Benchmark, basis: Basis, asked: Sequence[SimulatedCell]) -> list[EstimatedCell]:
    """Estimate all queries of some cells, with as many draws of the noise as the recipe asks for.

    Args:
        benchmark: its recipe says how. Where it says ``together``, the cells are one batch and the time is shared out
            by the number of queries.
        basis: of the problem, or of one with the same coordinates and fields.
        asked: the cells.

    Returns:
        one for each cell.
    """
    torch.set_num_threads(benchmark.threads)
    problem, recipe = benchmark.problem, benchmark.chosen
    basis, solver = basis.for_problem(problem), solver_of(recipe)
    observed = [observe(benchmark, one.cell, one.simulated, one.truth) for one in asked]
    parts = [observed] if recipe.together else [[one] for one in observed]
    answers = []
    for part in parts:
        observations = _joined(problem, [one.observations for one in part])
        started = time.perf_counter()
        estimates = estimate(basis, observations, solver)
        seconds = (time.perf_counter() - started) / len(estimates.table)
        ends = np.cumsum([len(one.truth) for one in part])
        for one, end in zip(part, ends, strict=True):
            rows = slice(end - len(one.truth), end)
            answers.append(_estimated(benchmark, basis, asked[len(answers)], one, estimates, rows, seconds))
    return answers


def _joined(problem: Problem, tables: Sequence[pd.DataFrame]) -> Observations:
    """Several tables of observations as one, with ids of their own."""
    shifts = np.cumsum([0, *(table["query"].max() + 1 for table in tables[:-1])])
    moved = [table.assign(query=table["query"] + shift) for table, shift in zip(tables, shifts, strict=True)]
    return check_observations(pd.concat(moved, ignore_index=True), problem)


def _estimated(
    benchmark: Benchmark,
    basis: Basis,
    asked: SimulatedCell,
    first: Observed,
    estimates: Estimates,
    rows: slice,
    seconds: float,
) -> EstimatedCell:
    """The row of a cell, its estimates with those of further draws of the noise.

    Args:
        benchmark: the benchmark.
        basis: of the problem.
        asked: the cell.
        first: the first draw of the noise.
        estimates: of the first draw, possibly among other cells.
        rows: those of this cell.
        seconds: that a query took.
    """
    problem, scored, recipe = basis.problem, benchmark.observations.scored, benchmark.chosen
    own = estimates.table.iloc[rows].assign(query=first.truth["query"].to_numpy()).reset_index(drop=True)
    misfit = data_misfit(estimates, rows, first)
    table, truth = _all_draws(benchmark, basis, asked, own, first)
    found = {}
    if problem.unknown_terms:
        # along the trajectories, at the points of observation
        terms = estimates.terms(first.points[0])[rows], true_terms(problem, tasks_of(problem, truth), first.points)
        table = table.join(pd.DataFrame([term_errors(*pair) for pair in zip(*terms, strict=True)]))
        found = {"terms": SEARCHES[recipe.online["solver"]], **term_errors(*terms)}
    published = recipe.source == "paper_recipe"
    row = {
        **_cell_columns(benchmark, asked.cell, own),
        "loss": float(own["objective"].mean()) if published else misfit,
        **parameter_errors(table, truth, scored),
        **found,
        "seconds": seconds * len(own),
        "seconds_per_query": seconds,
        "noise": asked.cell.noise,
        "noise_unit": benchmark.observations.noise_unit,
        "noise_seeds": truth["noise_seed"].nunique(),
        "data_mse": misfit,
    }
    if (sensitivity := asked.seen_sensitivity) is not None:
        row |= _against_ideal(benchmark, row, sensitivity, first.truth["noise_std"].to_numpy())
    if row["noise_seeds"] > 1:
        row |= _spread(table, truth, scored)
    if not published:  # the published recipe gives no error bars
        row |= {"ok_share": float((table["status"] == "ok").mean()), **coverage(table, truth, scored)}
    return EstimatedCell(row, table, estimates, rows)


def _cell_columns(benchmark: Benchmark, cell: Cell, own: pd.DataFrame) -> dict:
    """What a row of the online table says first: which cell, and how it was estimated."""
    return {
        "source": benchmark.chosen.source,
        "readouts": benchmark.basis.readouts,
        **cell.label,
        "queries": len(own),
        "epochs": int(own["iterations"].max()),
        "learning_rate": getattr(solver_of(benchmark.chosen), "learning_rate", None),
    }


def _all_draws(
    benchmark: Benchmark, basis: Basis, asked: SimulatedCell, own: pd.DataFrame, first: Observed
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Estimates and truth of all draws of the noise; of unknown terms there is but one."""
    draws = benchmark.chosen.noise_seeds if asked.cell.noise and not basis.problem.unknown_terms else 1
    if draws == 1:
        return own, first.truth
    further = observe(benchmark, asked.cell, asked.simulated, asked.truth, range(1, draws))
    table = estimate(basis, further.observations, solver_of(benchmark.chosen)).table
    return pd.concat([own, table], ignore_index=True), pd.concat([first.truth, further.truth], ignore_index=True)


def data_misfit(estimates: Estimates, rows: slice, observed: Observed) -> float:
    """Mean squared difference between the observations of a cell and the solutions fitted to them."""
    basis, readouts = estimates.basis, estimates.readouts[rows]
    fields = basis.problem.fields
    values = observed.observations[fields].to_numpy().reshape(len(readouts), -1, len(fields))
    functions = basis.functions(observed.points.reshape(-1, observed.points.shape[2]))
    functions = np.broadcast_to(
        functions.reshape(*observed.points.shape[:2], -1), (len(readouts), values.shape[1], functions.shape[1])
    )
    fitted = functions @ readouts.transpose(0, 2, 1) * estimates.field_scales
    return float(((fitted - values) ** 2).mean())


def _against_ideal(benchmark: Benchmark, row: dict, sensitivity: np.ndarray, noise_std: np.ndarray) -> dict:
    """Mean absolute errors at the Cramér-Rao bound, and how many times larger those of the row are."""
    problem, known = benchmark.problem, benchmark.observations.known
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
