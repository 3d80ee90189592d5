"""Figure of the zoo: errors, coverage and status of the estimates of every problem."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

mpl.use("Agg")

_STATUSES = {  # Okabe & Ito; ok in the one of ipbasis elsewhere
    "ok": "#0072B2",
    "not_identifiable": "#56B4E9",
    "out_of_range": "#999999",
    "poor_fit": "#E69F00",
    "poor_basis": "#CC79A7",
    "failed": "#D55E00",
}
_TICKS = (0.2, 0.5, 0.7, 1, 1.3, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
_BAR = {"color": "black", "linestyle": "--", "linewidth": 1}


def plot_zoo(table: pd.DataFrame, bars: Mapping[str, float]) -> Figure:
    """Errors over the Cramér-Rao bound, coverage and status by problem, one line each.

    Args:
        table: columns ``problem``, ``error_over_cramer_rao``, ``worst_error_over_cramer_rao``,
            ``typical_error_over_cramer_rao``, ``coverage``, ``worst_coverage``, ``queries``, and the shares of each
            status; NaN or no column where there are no estimates.
        bars: what is aimed at: ``median`` and ``worst`` of the errors, ``coverage``.
    """
    figure = Figure(figsize=(12, 0.32 * len(table) + 2.2), layout="constrained")
    errors, covered, statuses = figure.subplots(1, 3, sharey=True, width_ratios=[4, 3, 3])
    places = np.arange(len(table))[::-1]
    table = table.reindex(columns=[*dict.fromkeys([*table, *_STATUSES, *_needed()])])
    _draw_errors(errors, places, table, bars)
    _draw_coverage(covered, places, table, bars["coverage"])
    left = np.zeros(len(table))
    for status, colour in _STATUSES.items():
        share = 100 * table[status].fillna(0).to_numpy()
        statuses.barh(places, share, left=left, color=colour, label=status.replace("_", " "))
        left += share
    statuses.set_xlabel("queries by status (%)")
    statuses.legend(fontsize=7, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    errors.set_yticks(places, table["problem"].str.replace("_", " "), fontsize=8)
    return figure


def _needed() -> list[str]:
    return [
        *("error_over_cramer_rao", "worst_error_over_cramer_rao", "typical_error_over_cramer_rao"),
        *("coverage", "worst_coverage", "queries"),
    ]


def _draw_errors(axes: Axes, places: np.ndarray, table: pd.DataFrame, bars: Mapping[str, float]) -> None:
    style = {"linestyle": "", "color": _STATUSES["ok"]}
    axes.plot(table["error_over_cramer_rao"], places, marker="o", label="root mean square", **style)
    axes.plot(
        table["worst_error_over_cramer_rao"], places, marker="|", markersize=10, label="of the worst parameter", **style
    )
    typical = table["typical_error_over_cramer_rao"]
    axes.plot(typical, places, marker="o", markerfacecolor="white", label="typical (median)", **style)
    axes.axvline(1, color="black", linewidth=1)
    axes.axvline(bars["median"], **_BAR)
    axes.axvline(bars["worst"], **{**_BAR, "linestyle": ":"})
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.7), max(high, 2))  # noise of the ratio is not to look like more
    low, high = axes.get_xlim()
    axes.set_xticks([tick for tick in _TICKS if low <= tick <= high], minor=False)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"error / Cramér-Rao bound\n(aims: {bars['median']:g}, at worst {bars['worst']:g})")
    axes.legend(fontsize=7, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    axes.grid(alpha=0.3)


def _draw_coverage(axes: Axes, places: np.ndarray, table: pd.DataFrame, aim: float) -> None:
    # of a binomial share; the parameters of one query are not independent and count once
    counted = (table["queries"] * table["ok"]).clip(lower=1)
    chance = 196 * np.sqrt(0.95 * 0.05 / counted)
    axes.errorbar(
        100 * table["coverage"], places, xerr=chance, linestyle="", marker="o", color=_STATUSES["ok"], capsize=2
    )
    axes.plot(100 * table["worst_coverage"], places, linestyle="", marker="|", markersize=10, color=_STATUSES["ok"])
    axes.axvline(95, color="black", linewidth=1)
    axes.axvline(100 * aim, **_BAR)
    axes.set_xlim(min(axes.get_xlim()[0], 85), 101)
    axes.set_xlabel("95 % intervals that hold the truth, %\n(bars: chance; tick: worst parameter)")
    axes.grid(alpha=0.3)
