"""Figure of the derivative benchmark: seconds of a training step by the way of differentiating."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ipbasis.evaluation.names import COLOURS

# what each method is called, its colour and its marker; two colours are those of the recipes that use the method
_METHODS = {
    "reverse_loop": ("reverse mode, one feature after the other (as published)", COLOURS["paper_recipe"], "o"),
    "reverse_batched": ("reverse mode, all features at once (vmap)", "#D55E00", "s"),
    "nested_jvp": ("forward mode, nested torch.func.jvp", "#56B4E9", "^"),
    "forward": ("forward mode, one pass (ipbasis)", COLOURS["ipbasis"], "D"),
    "matrix_products": ("matrix products of the one pass alone", COLOURS["published"], "x"),
}


def plot_derivatives(table: pd.DataFrame) -> Figure:
    """Seconds per training step by method: of each problem, and against the number of coordinates.

    Args:
        table: as `ipbasis.baselines.derivatives.time_derivatives` gives it; the rows of the problem
            ``laplacian`` are shown against the coordinates, one panel per number of features.
    """
    step = table[table["pass"] == "forward_backward"]
    sweep = step[step["problem"] == "laplacian"]
    counts = sorted(sweep["features"].unique())
    figure = Figure(figsize=(14.5, 5.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.35, 1])
    left.suptitle("published problems (n×: times the one-pass forward mode)", fontsize=10)
    right.suptitle("second derivatives along every coordinate", fontsize=10)
    _bars(left.subplots(), step[step["problem"] != "laplacian"])
    panels = np.atleast_1d(right.subplots(1, len(counts), sharey=True))
    for axes, count in zip(panels, counts, strict=True):
        _lines(axes, sweep[sweep["features"] == count])
        axes.set_title(f"of {_count(count, 'feature')}", fontsize=10)
    panels[0].set_ylabel("seconds per training step")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    return figure


def _bars(axes: Axes, step: pd.DataFrame) -> None:
    """One group of bars per problem and size; above each how many times the seconds of the one-pass forward mode."""
    groups = [group.set_index("method") for _, group in step.groupby(["problem", "points"], sort=False)]
    width = 0.8 / len(_METHODS)
    for place, group in enumerate(groups):
        # side by side about the middle: not every method is timed at every size
        timed = [method for method in _METHODS if method in group.index]
        for number, method in enumerate(timed):
            row, middle = group.loc[method], place + (number - (len(timed) - 1) / 2) * width
            axes.bar(middle, row["seconds"], 0.94 * width, color=_METHODS[method][1])
            ratio = row["ratio_to_forward"]
            text = f"{ratio:.2g}×" if ratio < 10 else f"{ratio:.0f}×"
            axes.annotate(text, (middle, row["seconds"]), (0, 2), textcoords="offset points", ha="center", fontsize=7)
    axes.set_xticks(range(len(groups)), [_description(group.iloc[0]) for group in groups], fontsize=8)
    axes.set_yscale("log")
    axes.margins(y=0.1)
    axes.set_ylabel("seconds per training step")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)


def _description(row: pd.Series) -> str:
    sizes = [_count(row[f"{noun}s"], noun) for noun in ("coordinate", "feature", "point")]
    return "\n".join([row["problem"].replace("_", " "), *sizes])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _lines(axes: Axes, sweep: pd.DataFrame) -> None:
    """Seconds against the number of coordinates."""
    for method, (label, colour, marker) in _METHODS.items():
        rows = sweep[sweep["method"] == method].sort_values("coordinates")
        axes.plot(rows["coordinates"], rows["seconds"], marker=marker, color=colour, label=label)
    axes.set_xticks(sorted(sweep["coordinates"].unique()))
    axes.set_yscale("log")
    axes.set_xlabel("coordinates")
    axes.grid(alpha=0.3)
