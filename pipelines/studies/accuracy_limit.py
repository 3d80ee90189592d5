"""Errors against the Cramér-Rao bound, coverage of the intervals, and wrong estimates called ok.

All three are taken from the same estimates.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from ipbasis.estimates.estimate import estimate
from ipbasis.estimates.result import Estimates
from ipbasis.evaluation.metrics import identifiable
from ipbasis.evaluation.study_figures import plot_accuracy, plot_coverage
from ipbasis.offline.artefact import Basis
from ipbasis.problem.declaration import Problem
from ipbasis.tracking import Tracker
from pipelines.cells import tasks_of
from pipelines.common import Settings, side_by_side
from pipelines.report.outputs import write_figure, write_table
from pipelines.studies.queries import Queries, best_basis, draw, unit_bounds


@dataclass(frozen=True)
class Answer:
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
    ranges = np.concatenate([problem.parameter_ranges, np.array([*problem.free_initial.values()]).reshape(-1, 2)])
    kept = ((values < ranges[:, 0]) | (values > ranges[:, 1])).any(axis=1)
    # numbered anew: draws of the noise count on from the number of queries
    number = np.cumsum(kept) - 1
    simulated = queries.simulated[kept[queries.simulated["query"]]]
    return replace(
        queries,
        truth=queries.truth[kept].assign(query=number[kept]),
        simulated=simulated.assign(query=number[simulated["query"]]),
    )


def answers(basis: Basis, queries: Queries, noises: Sequence[float], draws: int, bounded: bool) -> Iterator[Answer]:
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
        yield Answer(
            {"problem": problem.name, "noise_percent": noise, "observations": queries.cell(noise).number},
            problem,
            estimate(basis, observed.observations),
            observed.truth[list(problem.parameters)].to_numpy(),
            unit * noise_std[:, None] if bounded else None,
        )


def accuracy_rows(answer: Answer) -> list[dict]:
    """One row per parameter, over the identifiable queries; those without an estimate are counted apart.

    ``rmse_over_cramer_rao`` is the root mean square of each error over the bound of its own query; ``rmse`` and
    ``cramer_rao`` are the root mean squares themselves.
    """
    errors, bound = answer.errors[answer.scored], answer.bound[answer.scored]
    found = np.isfinite(errors).all(axis=1)
    errors, bound = errors[found], bound[found]
    rows = []
    for column, name in enumerate(answer.problem.parameters):
        error, limit = errors[:, column], bound[:, column]
        rows.append(
            {
                **answer.label,
                "parameter": name,
                "queries": len(found),
                "identifiable_share": answer.scored.mean(),
                "failed": int((~found).sum()),
                "rmse": _rms(error),
                "cramer_rao": _rms(limit),
                "rmse_over_cramer_rao": _rms(error / limit),
            }
        )
    return rows


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2))) if len(values) else np.nan


def coverage_rows(answer: Answer, levels: Sequence[float]) -> list[dict]:
    """Share of the intervals that hold the truth, by level and parameter, over the identifiable queries."""
    rows = []
    for level in levels:
        low, high = answer.estimates.intervals(level)
        inside = ((low <= answer.true) & (answer.true <= high))[answer.scored]
        rows += [
            {**answer.label, "parameter": name, "level": level, "queries": len(inside), "coverage": _mean(held)}
            for name, held in zip(answer.problem.parameters, inside.T, strict=True)
        ]
    return rows


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else np.nan


def false_ok_row(answer: Answer, drawn: str, wrong: float) -> dict:
    """How many of all queries are called ok, are wrong, and are both.

    Args:
        answer: the estimates.
        drawn: from where, for the table.
        wrong: error bars that a parameter must be off to count as wrong.
    """
    table = answer.estimates.table
    std = table[[f"{name}_std" for name in answer.problem.parameters]].to_numpy()
    # a failed query has no estimate that could be right
    off = ~(np.abs(answer.errors) <= wrong * std).all(axis=1)
    ok = table["status"].to_numpy() == "ok"
    shares = {"ok": ok.mean(), "wrong": off.mean(), "false_ok": (ok & off).mean()}
    return {**answer.label, "drawn": drawn, "queries": len(table), **shares}


def rows(settings: Settings, name: str, number: int) -> dict[str, list[dict]]:
    """Rows of each table for one problem at one number of observations."""
    basis, size, noises = best_basis(name), settings["sizes"][name], settings["cells"][name]["noise"]
    found: dict[str, list[dict]] = {"accuracy_limit": [], "coverage": [], "false_ok": []}
    within = draw(settings, name, settings["drawn"][name], size["tasks"], number)
    for answer in answers(basis, within, noises, size["draws"], bounded=True):
        found["accuracy_limit"] += accuracy_rows(answer)
        found["coverage"] += coverage_rows(answer, settings["levels"])
        found["false_ok"].append(false_ok_row(answer, "in range", settings["wrong"]))
    outside = out_of_range(draw(settings, name, settings["outside"][name], size["outside"], number))
    for answer in answers(basis, outside, noises, size["draws"], bounded=False):
        found["false_ok"].append(false_ok_row(answer, "out of range", settings["wrong"]))
    return found


def work(settings: Settings, tracker: Tracker) -> None:
    torch.set_num_threads(settings["threads"])
    jobs = [(settings, name, number) for name, cells in settings["cells"].items() for number in cells["number"]]
    parts = side_by_side(rows, jobs, settings["threads"], "accuracy_limit")
    tables = {name: pd.DataFrame([row for part in parts for row in part[name]]) for name in parts[0]}
    for name, table in tables.items():
        write_table(table, name, tracker)
    bars = settings["bars"]
    write_figure(plot_accuracy(tables["accuracy_limit"], bars["rmse_over_cramer_rao"]), "accuracy_limit", tracker)
    write_figure(plot_coverage(tables["coverage"], bars["coverage"]), "coverage", tracker)
    by_problem = tables["accuracy_limit"].groupby("problem")["rmse_over_cramer_rao"].median()
    tracker.metrics(by_problem.add_suffix("_rmse_over_cramer_rao").to_dict())
    print(tables["accuracy_limit"].to_string(index=False, float_format=lambda value: f"{value:.3g}"))
