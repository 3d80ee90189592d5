"""Figures of the studies: accuracy, coverage, convergence, throughput, basis. Each can be understood on its own."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from ipbasis.evaluation.names import BASES, COLOURS, SOURCES

mpl.use("Agg")

# Okabe & Ito, apart from the colours of the sources where both are in one figure
_COLOURS, _MARKERS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"], ["o", "s", "^", "D"]
_BAR = {"color": "black", "linestyle": "--", "linewidth": 1}
# styles of bases: those whose curves lie on each other can be told apart
_BASIS_STYLES = {
    "ipbasis": {"color": COLOURS["ipbasis"], "marker": "o", "linewidth": 2, "zorder": 2.5},
    "trained": {"color": COLOURS["trained"], "marker": "P"},
    "paper_recipe": {"color": COLOURS["paper_recipe"], "marker": "s"},
    "pod": {"color": "black", "marker": "D"},
    "chebyshev": {"color": "#009E73", "marker": "^"},
    "untrained": {
        "color": "#CC79A7",
        "marker": "v",
        "linestyle": "--",
        "zorder": 2.6,
        "markerfacecolor": "white",
    },
    "random_features": {"color": "#D55E00", "marker": "X", "zorder": 2.4},
    "sinusoidal": {"color": "#8C564B", "marker": "*", "linestyle": ":"},
}
_NORMAL_MEDIAN = 0.6745  # of the absolute value of a standard normal error
_LAYOUTS = {"common": ("-", "the same points for all queries"), "own": (":", "points of its own for each query")}


def _panels(
    table: pd.DataFrame, titles: pd.Series, height: float = 4.2
) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """A figure with panels side by side, one for the rows of each title."""
    parts = list(table.groupby(titles, sort=False))
    figure = Figure(figsize=(4.2 * len(parts) + 0.6, height), layout="constrained")
    axes = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
    for panel, (title, _) in zip(axes, parts, strict=True):
        panel.set_title(title, fontsize=10)
        panel.grid(alpha=0.3)
    return figure, [(panel, rows) for panel, (_, rows) in zip(axes, parts, strict=True)]


def _by_problem(table: pd.DataFrame, height: float = 4.2) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """A figure with one panel per problem, and the rows of each."""
    return _panels(table, table["problem"].str.replace("_", " "), height)


def _legend(figure: Figure, columns: int) -> None:
    """One legend below for all panels, each entry once."""
    entries = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns, fontsize=8)


def _numbers(axes: Axes, values: pd.Series, text: str) -> None:
    """A logarithmic horizontal axis with ticks at the values that occur."""
    axes.set_xscale("log")
    axes.set_xticks(sorted(values.unique()), [f"{value:g}" for value in sorted(values.unique())])
    axes.minorticks_off()
    axes.set_xlabel(text)


def plot_accuracy(table: pd.DataFrame, bar: float) -> Figure:
    """Errors over the Cramér-Rao bound by number of observations and noise, one panel per problem.

    Args:
        table: columns ``problem``, ``noise_percent``, ``observations``, ``parameter``, ``rmse_over_cramer_rao``.
        bar: the ratio that is aimed at.
    """
    figure, panels = _by_problem(table)
    for axes, rows in panels:
        for number, (noise, some) in enumerate(rows.groupby("noise_percent")):
            style = {"color": _COLOURS[number], "marker": _MARKERS[number]}
            middle = some.groupby("observations")["rmse_over_cramer_rao"].median()
            axes.plot(middle.index, middle, label=f"{noise:g} % noise", **style)
            axes.scatter(some["observations"], some["rmse_over_cramer_rao"], s=14, alpha=0.45, **style)
        bound = axes.axhline(1, color="black", linewidth=1)
        aim = axes.axhline(bar, **_BAR)
        axes.set_yscale("log")
        _numbers(axes, rows["observations"], "observations per query")
        axes.legend(fontsize=8)
    first = panels[0][0]
    first.set_ylabel("root mean square of error / Cramér-Rao bound")
    low, high = first.get_ylim()
    first.set_ylim(min(low, 0.8), max(high, 1.25))  # noise of the ratio is not to look like more
    first.yaxis.set_major_locator(LogLocator(subs=(1, 1.1, 1.2, 1.5, 2, 3, 5, 8, 9)))
    first.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    first.yaxis.set_minor_locator(LogLocator(subs=()))
    texts = ["Cramér-Rao bound: no unbiased estimate is better", f"aim: {bar:g}"]
    figure.legend([bound, aim], texts, loc="outside lower center", ncols=2, fontsize=8)
    figure.suptitle(
        "Error of ipbasis on identifiable queries (line: median of the parameters, dots: each)", fontsize=11
    )
    return figure


def plot_coverage(table: pd.DataFrame, slack: float) -> Figure:
    """Observed less nominal coverage of the intervals by confidence, one panel per problem.

    Args:
        table: columns ``problem``, ``noise_percent``, ``observations``, ``parameter``, ``confidence``, ``queries``,
            ``coverage``.
        slack: how far off the coverage of the highest confidence may be.
    """
    figure, panels = _by_problem(table)
    confidences = sorted(table["confidence"].unique())
    for axes, rows in panels:
        cells = rows[["noise_percent", "observations"]].drop_duplicates()
        places = np.arange(len(cells))
        for number, confidence in enumerate(confidences):
            some = rows[rows["confidence"] == confidence].groupby(["noise_percent", "observations"], sort=False)
            off = 100 * (some["coverage"].mean() - confidence)
            # of a binomial share; the parameters of one query are not independent and count once
            error = 196 * np.sqrt(confidence * (1 - confidence) / some["queries"].first())
            axes.errorbar(
                places + 0.22 * (number - (len(confidences) - 1) / 2),
                off,
                error,
                linestyle="",
                color=_COLOURS[number],
                marker=_MARKERS[number],
                capsize=2,
                label=f"{100 * confidence:g} % interval",
            )
        axes.axhline(0, color="black", linewidth=1)
        axes.axhspan(-100 * slack, 100 * slack, color="black", alpha=0.08, label=f"within {100 * slack:g} points")
        names = [f"{cell.noise_percent:g} %\n{cell.observations}" for cell in cells.itertuples()]
        axes.set_xticks(places, names, fontsize=8)
        axes.set_xlabel("noise, and observations per query")
    panels[0][0].set_ylabel("observed less nominal coverage\n(percentage points)")
    _legend(figure, len(confidences) + 1)
    figure.suptitle(
        "How often the intervals of ipbasis hold the truth (mean of the parameters; bars: what chance allows)",
        fontsize=11,
    )
    return figure


def plot_convergence(table: pd.DataFrame, bar: float) -> Figure:
    """Share of queries that reach the global optimum by how far off the start is, one panel per problem.

    Args:
        table: columns ``problem``, ``source``, ``variant`` (``polished`` or empty), ``times_off`` (NaN where no start
            is needed), ``share``.
        bar: the share that is aimed at.
    """
    figure, panels = _by_problem(table)
    for axes, rows in panels:
        for (source, variant), some in rows.fillna({"variant": ""}).groupby(["source", "variant"], sort=False):
            label, style = SOURCES[source], {"color": COLOURS[source]}
            if some["times_off"].isna().all():
                style |= {"linestyle": "--"} if variant else {}
                label = f"{label}, {variant}, no guess" if variant else f"{label}, no guess"
                axes.axhline(100 * some["share"].item(), linewidth=2, label=label, **style)
            else:
                axes.plot(some["times_off"], 100 * some["share"], marker="o", label=f"{label}, one start", **style)
        axes.axhline(100 * bar, label=f"aim: {100 * bar:g} %", **_BAR)
        _numbers(axes, rows["times_off"].dropna(), "start: times off the true parameters")
        axes.set_ylim(0, 104)
    panels[0][0].set_ylabel("queries at the global optimum (%)")
    _legend(figure, 3)
    return figure


def plot_throughput(table: pd.DataFrame, bars: Mapping[str, Mapping[str, float]]) -> Figure:
    """Queries per second by batch size, number of observations and layout of the points, one panel per problem.

    Args:
        table: columns ``problem``, ``layout``, ``observations``, ``batch``, ``queries_per_second``,
            ``least_squares_seconds``.
        bars: for some problems what is aimed at, by layout.
    """
    figure, panels = _by_problem(table, 4.8)
    counts = sorted(table["observations"].unique())
    for axes, rows in panels:
        for (layout, count), some in rows.groupby(["layout", "observations"], sort=False):
            line, text = _LAYOUTS[layout]
            number = counts.index(count)
            axes.plot(
                some["batch"],
                some["queries_per_second"],
                line,
                color=_COLOURS[number],
                marker=_MARKERS[number],
                markersize=4,
                label=f"{count} observations, {text}",
            )
        slow = 1 / rows["least_squares_seconds"]
        label = f"{SOURCES['least_squares']}, in a loop (all cells)"
        axes.axhspan(slow.min(), slow.max(), color="#999999", alpha=0.6, label=label)
        for layout, aim in bars.get(rows["problem"].iloc[0], {}).items():
            style = {**_BAR, "linestyle": "--" if layout == "common" else ":"}
            axes.axhline(aim, label=f"aim at 100 observations, {_LAYOUTS[layout][1]}", **style)
        axes.set_yscale("log")
        axes.set_xscale("log")
        axes.set_xlabel("queries in a batch")
    panels[0][0].set_ylabel("queries per second")
    _legend(figure, 3)
    return figure


def plot_basis_quality(quality: pd.DataFrame, online: pd.DataFrame, bars: Mapping[str, Mapping[str, float]]) -> Figure:
    """Error of the best approximation by number of functions, and below it errors of estimates with each basis.

    Args:
        quality: columns ``problem``, ``basis``, ``functions``, ``relative_l2``.
        online: columns ``problem``, ``basis``, ``functions``, ``noise_percent``, ``observations``,
            ``clean_error_over_cramer_rao``, ``error_over_cramer_rao``; one row per problem and basis.
        bars: for some problems the error ``relative_l2`` that is aimed at, and ``functions``, the most for it.
    """
    problems = list(quality["problem"].unique())
    figure = Figure(figsize=(4.2 * len(problems) + 0.6, 8), layout="constrained")
    panels = figure.subplots(2, len(problems), squeeze=False, height_ratios=[3, 2])
    for (upper, lower), problem in zip(panels.T, problems, strict=True):
        curves, answers = (table[table["problem"] == problem] for table in (quality, online))
        _draw_curves(upper, curves, bars.get(problem))
        _draw_estimates(lower, answers)
        upper.set_title(problem.replace("_", " "), fontsize=10)
    panels[0, 0].set_ylabel("error of the best approximation of unseen solutions\n(relative, root mean square)")
    panels[1, 0].set_ylabel("median error of the estimated parameters\n/ Cramér-Rao bound for that noise")
    _legend(figure, 3)
    return figure


def _draw_curves(axes: Axes, rows: pd.DataFrame, bar: Mapping[str, float] | None) -> None:
    """Error by number of functions, as far as it can be compared with the trained basis."""
    trained = rows.loc[rows["basis"] == "ipbasis", "functions"].max()
    end = 1.3 * max(trained, (bar or {}).get("functions", 0))
    for name, some in rows[rows["functions"] <= end].groupby("basis", sort=False):
        axes.plot(some["functions"], some["relative_l2"], label=BASES[name], markersize=5, **_BASIS_STYLES[name])
    if bar:
        most = bar.get("functions", end)
        axes.plot([0, most], [bar["relative_l2"]] * 2, label="aim: below this line, with no more functions", **_BAR)
    axes.set_yscale("log")
    axes.set_xlim(0, end)
    axes.set_xlabel("functions")
    axes.grid(alpha=0.3)


def _draw_estimates(axes: Axes, rows: pd.DataFrame) -> None:
    """Errors with and without noise, one place for each basis."""
    for place, (_, row) in enumerate(rows.iterrows()):
        style = {key: _BASIS_STYLES[row["basis"]][key] for key in ("color", "marker")} | {"linestyle": ""}
        axes.plot(place, row["error_over_cramer_rao"], markersize=10, markerfacecolor="none", **style)
        axes.plot(place, row["clean_error_over_cramer_rao"], markersize=6, **style)
    style = {"color": "black", "marker": "o", "linestyle": ""}
    axes.plot([], [], markersize=10, markerfacecolor="none", label="estimates with this noise", **style)
    axes.plot([], [], markersize=6, label="estimates without noise, in the same unit", **style)
    axes.axhline(
        _NORMAL_MEDIAN, color="black", linestyle=":", label="errors at the bound: no unbiased estimate is better"
    )
    axes.set_yscale("log")
    axes.set_xticks(range(len(rows)), [str(count) for count in rows["functions"]])
    axes.set_xlim(-0.6, len(rows) - 0.4)
    first = rows.iloc[0]
    axes.set_xlabel(f"functions used ({first['observations']} observations, {first['noise_percent']:g} % noise)")
    axes.grid(alpha=0.3)


def plot_readouts(table: pd.DataFrame) -> Figure:
    """Error of a parameter by tasks of the training, for each training, solver and length; one panel per width.

    Args:
        table: of the study: columns ``recipe``, ``online`` (of which the last part is a recipe, too),
            ``basis.readouts``, ``basis.width``, ``study.length``, ``a1_mae``.
    """
    solvers = table["online"].str.split("/").str[-1]
    kinds = {
        ("paper_recipe", "paper_recipe"): "published training, published solver",
        ("paper_recipe", "ipbasis"): "published training, solver of ipbasis",
        ("ipbasis", "paper_recipe"): "training of ipbasis, published solver",
        ("ipbasis", "ipbasis"): "training and solver of ipbasis",
    }
    lengths = sorted(table["study.length"].unique())
    table = table.sort_values("basis.width")
    figure, panels = _panels(table, table["basis.width"].map("{} features".format), 4.8)
    for axes, rows in panels:
        for number, (kind, text) in enumerate(kinds.items()):
            mine = rows[(rows["recipe"] == kind[0]) & (solvers[rows.index] == kind[1])]
            for length, some in mine.groupby("study.length"):
                some = some.sort_values("basis.readouts")
                weight = 1 + lengths.index(length)
                axes.plot(
                    some["basis.readouts"],
                    some["a1_mae"],
                    color=_COLOURS[number],
                    marker=_MARKERS[number],
                    markersize=3 + weight,
                    linewidth=0.8 * weight,
                    alpha=0.4 + 0.6 * weight / len(lengths),
                    label=text if length == lengths[-1] else None,
                )
        axes.set_yscale("log")
        _numbers(axes, rows["basis.readouts"], "tasks (readouts) of the training")
    panels[0][0].set_ylabel("mean absolute error of a1, clean data")
    _legend(figure, 2)
    thin, thick = (f"{length:g} x" for length in (lengths[0], lengths[-1]))
    figure.suptitle(
        f"Does accuracy fall with more tasks? (damped oscillator; thin to thick: {thin} to {thick} the training steps)",
        fontsize=11,
    )
    return figure


def plot_variants(table: pd.DataFrame) -> Figure:
    """What each variant of a training reaches in about the same time: one line per variant, a dot per seed.

    Args:
        table: of the study: columns ``label``, ``offline_residual_accuracy``, ``offline_approximation``,
            ``offline_cpu_seconds``, ``offline_epochs``; the rows of the base come first.
    """
    labels = list(table["label"].unique())
    places = table["label"].map(labels.index)
    figure = Figure(figsize=(11, 0.25 * len(labels) + 1.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    columns = {
        "offline_residual_accuracy": "relative residual of the equation\non unseen tasks",
        "offline_approximation": "relative error of the best\napproximation of unseen solutions",
    }
    for axes, (column, text) in zip(panels, columns.items(), strict=True):
        base = table.loc[places == 0, column]
        axes.axvspan(base.min(), base.max(), color="black", alpha=0.12, label="range of the base over its seeds")
        axes.plot(table[column], places, "o", color=_COLOURS[0], alpha=0.8, label="one training (a dot per seed)")
        if table[column].max() > 2 * table[column].min():
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_minor_locator(LogLocator(subs=()))
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel(text)
        axes.grid(alpha=0.3)
    spent = table.groupby(places)[["offline_epochs", "offline_cpu_seconds"]].mean()
    names = [f"{name}  ({some[0]:.0f} steps, {some[1]:.0f} s)" for name, some in zip(labels, spent.values, strict=True)]
    panels[0].set_yticks(range(len(labels)), names, fontsize=8)
    panels[0].invert_yaxis()
    _legend(figure, 2)
    problem = table["problem"].iloc[0].replace("_", " ")
    figure.suptitle(f"Training of the {problem}, one thing changed at a time (left is better)", fontsize=11)
    return figure
