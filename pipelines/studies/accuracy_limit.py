"""Errors against the Cramér-Rao bound, coverage of the intervals, and wrong estimates called ok.

All three are taken from the same estimates.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from pydantic import PositiveInt

from ipbasis.estimates.estimate import estimate
from ipbasis.estimates.result import Estimates
from ipbasis.evaluation.metrics import identifiable
from ipbasis.evaluation.study_figures import plot_accuracy, plot_coverage
from ipbasis.offline.artefact import Basis
from ipbasis.problem.declaration import Declared, Problem
from ipbasis.tracking import Tracker
from pipelines.benchmark import CrossedCells, QuerySet
from pipelines.cells import tasks_of
from pipelines.common import side_by_side
from pipelines.report.outputs import write_figure, write_table
from pipelines.studies.queries import Queries, best_basis, draw, unit_bounds
from pipelines.studies.study import QueryStudy


class Size(Declared):
    """How many queries.

    Args:
        tasks: in range.
        outside: drawn from beyond it.
        draws: of the noise, for each.
    """

    tasks: PositiveInt
    outside: PositiveInt
    draws: PositiveInt


class Bars(Declared):
    """What is aimed at, drawn as lines."""

    rmse_over_cramer_rao: float
    coverage: float


class AccuracyLimit(QueryStudy):
    """Settings of the study, see ``conf/accuracy_limit.yaml``.

    Args:
        sizes: by problem.
        cells: by problem, each noise with each number of observations.
        confidences: of the intervals.
        outside: by problem, the wider ranges that queries out of range are drawn from.
        wrong: error bars that an estimate must be off to count as wrong.
        bars: what is aimed at.
    """

    sizes: dict[str, Size]
    cells: dict[str, CrossedCells]
    confidences: list[float]
    outside: dict[str, QuerySet]
    wrong: float
    bars: Bars


@dataclass(frozen=True)
class JudgedCell:
    """The estimates of a cell beside the truth.

    Args:
        label: what the tables note of the cell.
        problem: the problem.
        estimates: of all queries.
        true: (queries, P) parameters.
        bound: (queries, P) Cramér-Rao bounds of the parameters, initial values unknown too; None if not asked for.
    """

    label: dict
    problem: Problem
    estimates: Estimates
    true: np.ndarray
    bound: np.ndarray | None

    @property
    def errors(self) -> np.ndarray:
        """(queries, P); NaN where there is no estimate."""
        return self.estimates.table[list(self.problem.parameters)].to_numpy() - self.true

    @property
    def scored(self) -> np.ndarray:
        """(queries,) whether a query is identifiable, and counts in the scores against the bound."""
        return identifiable(self.bound, self.problem.parameter_ranges)


def out_of_range(queries: Queries) -> Queries:
    """Those queries of which a parameter or initial value lies outside the trained range, numbered anew."""
    problem = queries.problem
    tasks = tasks_of(problem, queries.truth)
    values = np.hstack([tasks.parameters, tasks.initial])
    ranges = problem.unknown_ranges
    kept = ((values < ranges[:, 0]) | (values > ranges[:, 1])).any(axis=1)
    # numbered anew: draws of the noise count on from the number of queries
    number = np.cumsum(kept) - 1
    simulated = queries.simulated[kept[queries.simulated["query"]]]
    return replace(
        queries,
        truth=queries.truth[kept].assign(query=number[kept]),
        simulated=simulated.assign(query=number[simulated["query"]]),
    )


def judged_cells(
    basis: Basis, queries: Queries, noises: Sequence[float], draws: int, bounded: bool
) -> Iterator[JudgedCell]:
    """Estimates of queries at each noise.

    Args:
        basis: of the problem.
        queries: free of noise.
        noises: sizes of the noise.
        draws: of the noise, for each query.
        bounded: whether the bounds are asked for.
    """
    problem = queries.problem
    unit = np.tile(unit_bounds(queries), (draws, 1)) if bounded else None
    for noise in noises:
        observed = queries.observed(noise, draws)
        noise_std = observed.truth["noise_std"].to_numpy()
        yield JudgedCell(
            {"problem": problem.name, "noise_percent": noise, "observations": queries.cell(noise).number},
            problem,
            estimate(basis, observed.observations),
            observed.truth[list(problem.parameters)].to_numpy(),
            unit * noise_std[:, None] if bounded else None,
        )


def accuracy_rows(judged: JudgedCell) -> list[dict]:
    """One row per parameter, over the identifiable queries; those without an estimate are counted apart.

    ``rmse_over_cramer_rao`` is the root mean square of each error over the bound of its own query; ``rmse`` and
    ``cramer_rao`` are the root mean squares themselves.
    """
    errors, bound = judged.errors[judged.scored], judged.bound[judged.scored]
    found = np.isfinite(errors).all(axis=1)
    errors, bound = errors[found], bound[found]
    rows = []
    for column, name in enumerate(judged.problem.parameters):
        error, limit = errors[:, column], bound[:, column]
        rows.append(
            {
                **judged.label,
                "parameter": name,
                "queries": len(found),
                "identifiable_share": judged.scored.mean(),
                "failed": int((~found).sum()),
                "rmse": _rms(error),
                "cramer_rao": _rms(limit),
                "rmse_over_cramer_rao": _rms(error / limit),
            }
        )
    return rows


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2))) if len(values) else np.nan


def coverage_rows(judged: JudgedCell, confidences: Sequence[float]) -> list[dict]:
    """Share of the intervals that hold the truth, by confidence and parameter, over the identifiable queries."""
    rows = []
    for confidence in confidences:
        low, high = judged.estimates.intervals(confidence)
        inside = ((low <= judged.true) & (judged.true <= high))[judged.scored]
        rows += [
            {
                **judged.label,
                "parameter": name,
                "confidence": confidence,
                "queries": len(inside),
                "coverage": _mean(held),
            }
            for name, held in zip(judged.problem.parameters, inside.T, strict=True)
        ]
    return rows


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else np.nan


def false_ok_row(judged: JudgedCell, drawn: str, wrong: float) -> dict:
    """How many of all queries are called ok, are wrong, and are both.

    Args:
        judged: the estimates.
        drawn: from where, for the table.
        wrong: error bars that a parameter must be off to count as wrong.
    """
    table = judged.estimates.table
    std = table[[f"{name}_std" for name in judged.problem.parameters]].to_numpy()
    # a failed query has no estimate that could be right
    off = ~(np.abs(judged.errors) <= wrong * std).all(axis=1)
    ok = table["status"].to_numpy() == "ok"
    shares = {"ok": ok.mean(), "wrong": off.mean(), "false_ok": (ok & off).mean()}
    return {**judged.label, "drawn": drawn, "queries": len(table), **shares}


def rows(study: AccuracyLimit, name: str, number: int) -> dict[str, list[dict]]:
    """Rows of each table for one problem at one number of observations."""
    benchmark, basis = study.benchmarks[name], best_basis(name)
    size, noises = study.sizes[name], study.cells[name].noise
    found: dict[str, list[dict]] = {"accuracy_limit": [], "coverage": [], "false_ok": []}
    within = draw(benchmark, study.drawn[name], size.tasks, number)
    for judged in judged_cells(basis, within, noises, size.draws, bounded=True):
        found["accuracy_limit"] += accuracy_rows(judged)
        found["coverage"] += coverage_rows(judged, study.confidences)
        found["false_ok"].append(false_ok_row(judged, "in range", study.wrong))
    outside = out_of_range(draw(benchmark, study.outside[name], size.outside, number))
    for judged in judged_cells(basis, outside, noises, size.draws, bounded=False):
        found["false_ok"].append(false_ok_row(judged, "out of range", study.wrong))
    return found


def work(study: AccuracyLimit, tracker: Tracker) -> None:
    torch.set_num_threads(study.threads)
    jobs = [(study, name, number) for name, cells in study.cells.items() for number in cells.number]
    parts = side_by_side(rows, jobs, study.threads, "accuracy_limit")
    tables = {name: pd.DataFrame([row for part in parts for row in part[name]]) for name in parts[0]}
    for name, table in tables.items():
        write_table(table, name, tracker)
    write_figure(plot_accuracy(tables["accuracy_limit"], study.bars.rmse_over_cramer_rao), "accuracy_limit", tracker)
    write_figure(plot_coverage(tables["coverage"], study.bars.coverage), "coverage", tracker)
    by_problem = tables["accuracy_limit"].groupby("problem")["rmse_over_cramer_rao"].median()
    tracker.metrics(by_problem.add_suffix("_rmse_over_cramer_rao").to_dict())
    print(tables["accuracy_limit"].to_string(index=False, float_format=lambda value: f"{value:.3g}"))
