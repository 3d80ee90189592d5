"""Figure of the calibration: what intervals and statuses are worth, by how queries are observed."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

mpl.use("Agg")

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe & Ito
_MARKERS = "os^Dv*"
_BAR = {"color": "black", "linestyle": "--", "linewidth": 1}
# a panel of the figure: the column by which its points are told apart, and what that is called
_PANELS = {
    "part": "part of the domain",
    "noise": "noise over the size of the data",
    "points": "observations of a query",
    "variant": "observed and told",
}


def plot_calibration(table: pd.DataFrame, bars: Mapping[str, float]) -> Figure:
    """Coverage, estimates that are wrong and ok, and false alarms of every problem, by one thing after the other.

    Args:
        table: columns ``by``, ``problem``, ``part``, ``noise``, ``points``, ``variant``, ``queries_ok``, ``coverage``,
            ``wrong_ok``, ``poor_fit``; see `pipelines.studies.calibration.cells`.
        bars: what is aimed at: ``low`` and ``high`` of the coverage, ``wrong_ok`` and ``poor_fit`` at most.
    """
    problems = sorted(table["problem"].dropna().unique(), reverse=True)
    figure = Figure(figsize=(16, 0.42 * len(problems) + 8), layout="constrained")
    panels = figure.subplots(3, len(_PANELS), sharey=True, sharex="row")
    for column, (kind, text) in enumerate(_PANELS.items()):
        own = table[table["by"] == f"problem, {kind}"]
        values = list(dict.fromkeys(own[kind]))
        for number, value in enumerate(values):
            rows = own[own[kind] == value].set_index("problem").reindex(problems)
            shift = 0.7 * ((number + 0.5) / len(values) - 0.5)
            label = f"{value:g}" if isinstance(value, int | float) else str(value).replace("_", " ")
            style = {"color": _COLOURS[number % 6], "marker": _MARKERS[number % 6], "label": label}
            _draw(panels[:, column], np.arange(len(problems)) - shift, rows, style)
        panels[0, column].set_title(text, fontsize=10)
        panels[0, column].legend(fontsize=7, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16))
        _aims(panels[:, column], bars)
    for row in panels[1:]:  # one range for all of a row: the worst must be seen
        most = [np.nanmax(line.get_xdata(), initial=0.0) for axes in row for line in axes.lines]
        row[0].set_xlim(right=1.05 * max(row[0].get_xlim()[1], *most))
    for row in panels:
        row[0].set_yticks(np.arange(len(problems)), [name.replace("_", " ") for name in problems], fontsize=8)
    return figure


def _draw(panels: np.ndarray, places: np.ndarray, rows: pd.DataFrame, style: Mapping) -> None:
    covered, wrong, alarms = panels
    # of a binomial share: parameters of one query count once
    chance = 196 * np.sqrt(0.95 * 0.05 / rows["queries_ok"].clip(lower=1))
    covered.errorbar(100 * rows["coverage"], places, xerr=chance, linestyle="", markersize=4, elinewidth=0.7, **style)
    wrong.plot(100 * rows["wrong_ok"], places, linestyle="", markersize=4, **style)
    alarms.plot(100 * rows["poor_fit"], places, linestyle="", markersize=4, **style)


def _aims(panels: np.ndarray, bars: Mapping[str, float]) -> None:
    covered, wrong, alarms = panels
    covered.axvspan(100 * bars["low"], 100 * bars["high"], color="0.92", zorder=0)
    covered.axvline(95, color="black", linewidth=1)
    covered.set_xlim(max(50, min(covered.get_xlim()[0], 85)), 100.5)
    covered.set_xlabel(
        "95 % intervals of ok estimates that hold the truth, %\n(grey: aimed at; bars: chance)", fontsize=8
    )
    for axes, aim, text in (
        (wrong, bars["wrong_ok"], "ok and off by more than four error bars, % of ok"),
        (alarms, bars["poor_fit"], "called poor fit though the equation is right, %"),
    ):
        _aim(axes, aim, text)


def _aim(axes: Axes, aim: float, text: str) -> None:
    axes.axvline(100 * aim, **_BAR)
    axes.set_xlim(-10 * aim, 300 * aim)
    axes.set_xlabel(f"{text} (dashed: at most)", fontsize=8)
    axes.grid(alpha=0.3)
