"""Figures that compare the sources of a table: errors, seconds, trainings. Each can be understood on its own."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from ipbasis.evaluation.names import COLOURS, SOURCES

mpl.use("Agg")

_MARKERS, _LINES = ["o", "s", "^", "D"], ["-", "--", ":", "-."]
_WIDTH, _HEIGHT = 5.1, 4.0


def _panels(count: int, width: float = _WIDTH, height: float = _HEIGHT) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side, at most two in a row."""
    columns = min(count, 2)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns + 0.4, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in axes[count:]:
        unused.remove()
    return figure, list(axes[:count])


def _legend(figure: Figure, panels: list[Axes], columns: int) -> None:
    """One legend below for all panels, each entry once."""
    entries = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns, fontsize=8)


def _plain_ticks(axes: Axes) -> None:
    """Figures at 1, 2 and 5 on a logarithmic axis that spans little, where powers of ten alone would be too few."""
    low, high = axes.get_ylim()
    if high / low < 300:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def plot_training(histories: Mapping[tuple[str, int], pd.DataFrame]) -> Figure:
    """Training loss and validation error by step.

    Args:
        histories: for each source and number of readouts the columns ``step``, ``loss`` and, where there is
            a validation, ``validation_parameter_mse``.
    """
    validated = any("validation_parameter_mse" in history for history in histories.values())
    titles = {"loss": "training loss"}
    if validated:
        titles["validation_parameter_mse"] = "mean squared parameter error,\nunseen inverse problems"
    figure, panels = _panels(len(titles))
    counts = sorted({count for _, count in histories})
    for (source, count), history in histories.items():
        style = {"color": COLOURS[source], "linestyle": _LINES[counts.index(count) % 4]}
        for axes, column in zip(panels, titles, strict=True):
            if column in history:
                shown = history[["step", column]].dropna()
                axes.plot(shown["step"], shown[column], label=f"{SOURCES[source]}, {count} readouts", **style)
    for axes, title in zip(panels, titles.values(), strict=True):
        axes.set_yscale("log")
        axes.set_xscale("symlog", linthresh=100)
        axes.set_xlim(0)
        axes.set_xlabel("training step")
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
    _legend(figure, panels, 2)
    return figure


def plot_errors(table: pd.DataFrame, x_text: str) -> Figure:
    """Mean absolute errors of every source, in several panels.

    Args:
        table: columns ``panel`` (title of the panel), ``source``, ``variant`` (what the line is besides),
            ``x`` (NaN for a source to which the axis does not apply) and ``error``.
        x_text: what the horizontal axis is.
    """
    titles = list(dict.fromkeys(table["panel"]))
    figure, panels = _panels(len(titles))
    variants = list(dict.fromkeys(table["variant"]))
    ticks = sorted(table["x"].dropna().unique())
    for axes, title in zip(panels, titles, strict=True):
        for (source, variant), rows in table[table["panel"] == title].groupby(["source", "variant"], sort=False):
            label = SOURCES[source] + (f", {variant}" if variant else "")
            number = variants.index(variant) % 4
            style = {"color": COLOURS[source], "label": label}
            if rows["x"].isna().all():
                axes.axhline(rows["error"].mean(), linestyle=_LINES[number], **style)
            else:
                rows = rows.sort_values("x")
                axes.plot(rows["x"], rows["error"], marker=_MARKERS[number], linestyle=_LINES[number], **style)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(ticks, [f"{v:g}" for v in ticks])
        axes.minorticks_off()
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(x_text)
        axes.set_ylabel("mean absolute error")
        _plain_ticks(axes)
        axes.grid(alpha=0.3)
    _legend(figure, panels, 3)
    return figure


def _map(axes: Axes, table: pd.DataFrame, norm, cmap: str):
    """One heat map with its figures written in."""
    drawn = axes.pcolormesh(np.ma.masked_invalid(table.to_numpy()), norm=norm, cmap=cmap, edgecolors="white")
    for row, column in np.ndindex(table.shape):
        value = table.iloc[row, column]
        if np.isfinite(value):
            red, green, blue, _ = drawn.cmap(norm(value))
            colour = "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else "black"
            text = f"{value:.2g}" if value < 1000 else f"{value:.0f}"
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=7.5, color=colour)
    axes.set_xticks(np.arange(table.shape[1]) + 0.5, [f"{v:,.0f}".replace(",", " ") for v in table.columns])
    axes.set_yticks(np.arange(table.shape[0]) + 0.5, [f"{v:g}" for v in table.index])
    axes.tick_params(length=0)
    return drawn


def plot_error_maps(
    errors: Mapping[str, pd.DataFrame], ratio: pd.DataFrame, texts: Mapping[str, str], ratio_title: str
) -> Figure:
    """Errors over two axes for several sources on one scale of colours, and the ratio to the ideal.

    Args:
        errors: for each source its errors, one axis as index and one as columns.
        ratio: likewise, the error of ipbasis over the ideal one.
        texts: what ``index``, ``columns`` and ``error`` are.
        ratio_title: title of the map of the ratio.

    Returns:
        the figure; a cell is white where there is no figure.
    """
    count = len(errors) + 1
    figure = Figure(figsize=(2.75 * count + 1.0, 5.4), layout="constrained")
    panels = list(figure.subplots(1, count, sharey=True))
    values = np.concatenate([table.to_numpy().ravel() for table in errors.values()])
    norm = LogNorm(np.nanmin(values), np.nanmax(values))
    for axes, (source, table) in zip(panels, errors.items(), strict=False):
        drawn = _map(axes, table, norm, "viridis")
        axes.set_title(SOURCES[source], fontsize=10)
    figure.colorbar(drawn, ax=panels[: count - 1], label=texts["error"], location="bottom", shrink=0.5, aspect=40)
    drawn = _map(panels[-1], ratio, LogNorm(0.25, 4), "RdBu_r")
    panels[-1].set_title(ratio_title, fontsize=10)
    bar = figure.colorbar(drawn, ax=panels[-1], label="ratio", location="bottom", extend="both")
    bar.set_ticks([0.25, 0.5, 1, 2, 4], labels=["1/4", "1/2", "1", "2", "4"])
    bar.ax.minorticks_off()
    for axes in panels:
        axes.set_xlabel(texts["columns"])
    panels[0].set_ylabel(texts["index"])
    return figure


def plot_times(table: pd.DataFrame) -> Figure:
    """Seconds per query of each method, on a logarithmic axis.

    Args:
        table: columns ``source``, ``variant`` and ``seconds_per_query``.
    """
    figure = Figure(figsize=(6.8, 1.2 + 0.36 * len(table)), layout="constrained")
    axes = figure.subplots()
    rows = table.iloc[::-1]
    names = [SOURCES[s] + (f", {v}" if v else "") for s, v in zip(rows["source"], rows["variant"], strict=True)]
    values = rows["seconds_per_query"].to_numpy()
    axes.barh(names, values, color=[COLOURS[source] for source in rows["source"]])
    for position, value in enumerate(values):
        axes.text(value * 1.15, position, f"{value:.2g} s", va="center", fontsize=9)
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 3, max(values) * 8)
    axes.set_xlabel("seconds per query")
    return figure
