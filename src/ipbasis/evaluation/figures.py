"""Figures: each can be understood without the text around it."""

import re
import shutil
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ipbasis.evaluation.tables import SOURCES
from ipbasis.files import replacing_file
from ipbasis.inverse.estimate import Estimates
from ipbasis.observations import Observations

mpl.use("Agg")

# one colour per source in every figure; distinguishable without colour vision (Okabe & Ito)
COLOURS = {
    "published": "#999999",
    "paper_recipe": "#E69F00",
    "ipbasis": "#0072B2",
    "pinn": "#CC79A7",
    "least_squares": "#009E73",
}
_SIZE = (6.4, 4.0)


def _figure(columns: int = 1) -> tuple[Figure, list]:
    figure = Figure(figsize=(_SIZE[0] * (1 if columns == 1 else 0.8 * columns), _SIZE[1]), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(1, columns)))


def plot_query(estimates: Estimates, observations: pd.DataFrame, row: int) -> Figure:
    """Data, fit and 95 % band of one query of a problem with one coordinate, and what the fit leaves."""
    problem, table = estimates.basis.problem, estimates.table
    (coordinate,) = problem.coordinates
    times = np.linspace(*problem.domain[0], 300)
    one = Estimates(
        table.iloc[[row]],
        estimates.basis,
        estimates.readouts[[row]],
        None if estimates.readout_covariance is None else estimates.readout_covariance[[row]],
    )
    fit, std = one.solution(times)[0], one.solution_std(times)[0]
    at_data = one.solution(observations[coordinate].to_numpy())[0]
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    for number, field in enumerate(problem.fields):
        colour = f"C{number}"
        band = 1.96 * std[:, number]
        upper.plot(times, fit[:, number], color=colour, label=f"{field}: fit")
        for axes, centre, label in ((upper, fit[:, number], None), (lower, 0, f"{field}: 95 % band of the fit")):
            axes.fill_between(times, centre - band, centre + band, color=colour, alpha=0.3, linewidth=0, label=label)
        circles = {"markersize": 3.5, "markerfacecolor": "none", "color": "black" if number == 0 else colour}
        upper.plot(observations[coordinate], observations[field], "o", label=f"{field}: observations", **circles)
        lower.plot(observations[coordinate], observations[field] - at_data[:, number], "o", **circles)
    record = table.iloc[row]
    found = (
        f"{p} = {record[p]:.4g} ± {(record[f'{p}_high'] - record[f'{p}_low']) / 2:.2g}" for p in problem.parameters
    )
    upper.set_title(f"query {record['query']}: {record['status']}\n{', '.join(found)}  (95 %)", fontsize=9)
    upper.set_ylabel(", ".join(problem.fields))
    upper.legend(fontsize=8)
    lower.axhline(0, color="#888888", linewidth=0.8)
    lower.set_ylabel("observation - fit")
    lower.set_xlabel(coordinate)
    lower.legend(fontsize=8)
    return figure


def plot_queries(estimates: Estimates, observations: Observations, directory: Path) -> None:
    """One picture per query, named after it; all are drawn before the first is put in place."""
    if len(estimates.basis.problem.coordinates) != 1:
        return
    groups = dict(list(observations.table.groupby("query", sort=False)))
    names: dict[str, int] = {}
    for row, query in enumerate(estimates.table["query"]):
        name = re.sub(r"[^\w.-]+", "_", str(query))
        names[name if name not in names else f"{name}_{row}"] = row
    with tempfile.TemporaryDirectory() as drawn:
        for name, row in names.items():
            query = estimates.table["query"].iloc[row]
            plot_query(estimates, groups[query], row).savefig(Path(drawn) / f"{name}.png", dpi=110)
        for name in names:
            with replacing_file(directory / f"query_{name}.png") as temporary:
                shutil.copyfile(Path(drawn) / f"{name}.png", temporary)


def plot_training(histories: dict[tuple[str, int], pd.DataFrame]) -> Figure:
    """Training loss and validation error by step, for each recipe and number of readouts."""
    figure, (left, right) = _figure(2)
    styles = ["-", "--", ":", "-."]
    readouts = sorted({count for _, count in histories})
    for (source, count), history in histories.items():
        style = {"color": COLOURS[source], "linestyle": styles[readouts.index(count) % 4]}
        left.plot(history["step"], history["loss"], label=f"{SOURCES[source]}, {count} readouts", **style)
        right.plot(history["step"], history["validation_parameter_mse"], **style)
    for axes, title in ((left, "training loss"), (right, "mean squared parameter error,\nunseen inverse problems")):
        axes.set_yscale("log")
        axes.set_xscale("symlog", linthresh=100)
        axes.set_xlim(0)
        axes.set_xlabel("Adam step")
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return figure


def plot_errors(table: pd.DataFrame, parameters: list[str], by: str, by_label: str) -> Figure:
    """Mean absolute error of each parameter against one column, for each source and number of readouts."""
    figure, panels = _figure(len(parameters))
    markers = ["o", "s", "^", "D"]
    counts = sorted(table["readouts"].dropna().unique())
    for axes, parameter in zip(panels, parameters, strict=True):
        for (source, count), rows in table.groupby(["source", "readouts"], dropna=False, sort=False):
            known = not np.isnan(count)
            label = SOURCES[source] + (f", {count:.0f} readouts" if known else "")
            marker = markers[counts.index(count) % 4] if known else "x"
            rows = rows.sort_values(by)
            axes.plot(rows[by], rows[f"{parameter}_mae"], marker=marker, color=COLOURS[source], label=label)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(sorted(table[by].unique()), [f"{v:g}" for v in sorted(table[by].unique())])
        axes.minorticks_off()
        axes.set_xlabel(by_label)
        axes.set_ylabel(f"mean absolute error of {parameter}")
        axes.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7)
    figure.set_size_inches(figure.get_size_inches()[0], 5.2)
    return figure


def plot_solutions(times: np.ndarray, observed: pd.DataFrame, truth: np.ndarray, fits: dict[str, np.ndarray]) -> Figure:
    """Solutions of a few queries: observations, exact solution and the fit of each source.

    Args:
        times: (n,).
        observed: columns ``query``, the coordinate and the field, of the queries shown.
        truth: (queries, n).
        fits: per source (queries, n).
    """
    figure = Figure(figsize=(9.6, 5.6), layout="constrained")
    coordinate, field = observed.columns[1:3]
    grid = figure.subplots(2, truth.shape[0], sharex=True, squeeze=False)
    for column, (query, rows) in enumerate(observed.groupby("query", sort=False)):
        upper, lower = grid[:, column]
        upper.plot(rows[coordinate], rows[field], ".", color="#BBBBBB", markersize=4, label="observations")
        upper.plot(times, truth[column], color="black", linewidth=1, label="exact solution")
        for source, values in fits.items():
            upper.plot(times, values[column], "--", color=COLOURS[source], label=SOURCES[source])
            error = np.abs(values[column] - truth[column]).clip(1e-16)
            lower.plot(times, error, color=COLOURS[source])
        upper.set_title(f"query {query}", fontsize=10)
        lower.set_yscale("log")
        lower.set_xlabel(coordinate)
    grid[0, 0].set_ylabel(field)
    grid[1, 0].set_ylabel(f"|error of {field}|")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def plot_times(seconds: pd.Series) -> Figure:
    """Seconds per query of each source, on a logarithmic axis."""
    figure, (axes,) = _figure()
    names = list(seconds.index)[::-1]
    values = [seconds[name] for name in names]
    axes.barh([SOURCES[name] for name in names], values, color=[COLOURS[name] for name in names])
    for position, value in enumerate(values):
        axes.text(value * 1.15, position, f"{value:.2g} s", va="center", fontsize=9)
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 3, max(values) * 8)
    axes.set_xlabel("seconds per query")
    figure.set_size_inches(6.4, 2.6)
    return figure
