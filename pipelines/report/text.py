"""The report of a problem in Markdown."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ipbasis.evaluation.names import SOURCES
from pipelines.benchmark import Benchmark
from pipelines.cells import label_keys
from pipelines.report.outputs import markdown
from pipelines.report.pictures import crossed_axes

_CAPTIONS = {
    "errors": "Mean absolute errors of every source",
    "times": "Seconds per query of every method",
    "solutions": "Fitted solutions of a few queries",
    "phase": "Phase portraits of a few queries",
    "terms": "The unknown terms, true and as they were found",
}


def report(benchmark: Benchmark, tables: Mapping[str, pd.DataFrame], figures: Sequence[str], best: int) -> str:
    """The report of a problem.

    Args:
        benchmark: the benchmark.
        tables: by kind, see `pipelines.report.comparison`.
        figures: names of the figures.
        best: readouts of the basis that is kept for real queries.
    """
    problem, trained = benchmark.problem, benchmark.basis.problem
    equations = "; ".join(f"${line}$" for line in problem.system.latex())
    sections = [
        f"# {problem.name}",
        f"Written by `pipelines/stages/compare.py`, profile `{benchmark.profile}`. Equations: {equations}.",
        *benchmark.report.intro,
        "## Online: " + ("unknown terms" if problem.unknown_terms else "parameters") + " from observations",
        *_online(benchmark, tables["online"]),
        _figure(benchmark, "errors"),
        "The first `queries` queries of the set are estimated. `epochs` counts Adam steps (published, paper_recipe), "
        "the most Gauss-Newton steps that any query took (ipbasis), training steps (pinn), or solutions of the "
        "equation, all starts together (least_squares). `loss` in the CSV is the published loss for paper_recipe and "
        "the mean squared misfit to the data otherwise.",
        *(_figure(benchmark, name) for name in figures if name not in ("errors", "times")),
        "## Seconds per query",
        f"Mean over all cells, on a machine with {os.cpu_count()} cores (published: another machine); the ratios are "
        "taken on the cells that both methods answered.",
        markdown(tables["times"]),
        _figure(benchmark, "times"),
        "## Plain PINN, query by query",
        "One network is trained anew for each query; `ipbasis` rows are the same queries.",
        markdown(tables["pinn"].dropna(axis="columns", how="all")),
        "Seconds of the PINN until its error falls under a target to stay there, and how many times faster ipbasis is "
        "where its own error is at most that target:",
        markdown(tables["time_to_accuracy"]),
        "## Basis and solver apart",
        "Each basis with each solver, on the first queries of the first cell: `adam` is the published solver.",
        markdown(tables["solvers"]),
        f"The basis kept for real queries is the one with {best} readouts; its training is in "
        f"[`{trained}_offline.csv`](tables/{trained}_offline.csv), drawn in "
        f"[this figure](figures/{trained}_training.png).",
        *_repeated(benchmark, tables["online"]),
    ]
    return "\n\n".join(sections) + "\n"


def _figure(benchmark: Benchmark, name: str) -> str:
    return f"![{_CAPTIONS[name]}](figures/{benchmark.name}/{name}.png)"


def _errors(online: pd.DataFrame) -> list[str]:
    """Columns with mean absolute errors."""
    return [c for c in online if c.endswith("_mae")]


def _online(benchmark: Benchmark, online: pd.DataFrame) -> list[str]:
    """The online table, or one map per source where it has too many cells to read."""
    if axes := crossed_axes(benchmark):
        shown = []
        for source, rows in online.groupby("source", sort=False):
            further = [c for c in rows if c.endswith("_mae_over_ideal") and source == "ipbasis"]
            for column in (*_errors(rows), *further):
                table = rows.pivot_table(column, *axes).reset_index()
                shown.append(f"`{column}`, {SOURCES[source]}, by `{axes[0]}` and `{axes[1]}`:\n\n{markdown(table)}")
        return shown
    columns = ["source", "terms", "readouts", *label_keys(benchmark), "queries", "epochs", *_errors(online)]
    columns += [c for c in online if c.endswith("_mae_over_ideal")] + ["seconds", "seconds_per_query"]
    return [markdown(online[[c for c in columns if c in online]])]


def _repeated(benchmark: Benchmark, online: pd.DataFrame) -> list[str]:
    """How the published recipe run here compares with the paper, cell by cell, and why."""
    published = online[online["source"] == "published"]
    if published.empty:
        return []
    keys = [key for key in ("readouts", *label_keys(benchmark)) if key in published and published[key].notna().all()]
    errors = [c for c in _errors(online) if published[c].notna().any()]
    here = online[online["source"] == "paper_recipe"].set_index(keys)[errors]
    ratio = (here / published.set_index(keys)[errors]).stack().dropna()
    within = (ratio <= 3).mean()
    trained, answered = (budget.steps["paper_recipe"] for budget in (benchmark.budget.offline, benchmark.budget.online))
    return [
        "## The published recipe, here and in the paper",
        f"Errors of paper_recipe over the published ones, cell by cell: {ratio.min():.2g} to {ratio.max():.2g}, median "
        f"{np.median(ratio):.2g}; {within:.0%} of them are at most 3. This profile trains the published bases for "
        f"{trained} steps and answers with {answered} (profile `paper`: as published). "
        "What the faults of the published data amount to is in [`published_data.csv`](tables/published_data.csv).",
        *benchmark.report.notes,
    ]
