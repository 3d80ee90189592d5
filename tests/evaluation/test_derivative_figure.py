"""The figure of the derivative benchmark shows the table."""

import numpy as np
import pandas as pd
import pytest

from ipbasis.baselines.derivatives import METHODS, PASSES, PRODUCTS
from ipbasis.evaluation.derivative_figure import plot_derivatives

EVERYTHING = [*METHODS, PRODUCTS]


@pytest.fixture
def table():
    """The quantum oscillator at two sizes, at the larger one with some of the methods."""
    sizes = [("damped_oscillator", 1, 40, 30, EVERYTHING), ("quantum_oscillator", 2, 100, 30, EVERYTHING)]
    sizes += [("quantum_oscillator", 2, 100, 5000, ["nested_jvp", "forward", PRODUCTS])]
    sizes += [("laplacian", dimension, count, 30, EVERYTHING) for count in (1, 8) for dimension in (1, 2, 3)]
    rows = [
        {"problem": problem, "coordinates": coordinates, "features": features, "points": points, "method": method}
        | {"pass": chosen}
        for problem, coordinates, features, points, methods in sizes
        for chosen in PASSES
        for method in methods
    ]
    seconds = np.random.default_rng(0).uniform(1e-3, 1, len(rows))
    return pd.DataFrame(rows).assign(seconds=seconds, ratio_to_forward=10 * seconds)


def test_shows_every_training_step(table):
    bars, *panels = plot_derivatives(table).axes
    step = table[table["pass"] == "forward_backward"]
    problems = step[step["problem"] != "laplacian"]
    assert sorted(bar.get_height() for bar in bars.patches) == pytest.approx(sorted(problems["seconds"]))
    labels = [label.get_text().split("\n") for label in bars.get_xticklabels()]
    assert [(lines[0], lines[-1]) for lines in labels] == [
        ("damped oscillator", "30 points"),
        ("quantum oscillator", "30 points"),
        ("quantum oscillator", "5000 points"),
    ]
    last = [bar.get_x() + bar.get_width() / 2 for bar in bars.patches[-3:]]
    assert np.mean(last) == pytest.approx(2)  # about their label
    assert len(panels) == 2
    for axes, features in zip(panels, (1, 8), strict=True):
        rows = step[(step["problem"] == "laplacian") & (step["features"] == features)]
        for line, method in zip(axes.get_lines(), EVERYTHING, strict=True):
            expected = rows[rows["method"] == method]
            assert list(line.get_xdata()) == [1, 2, 3]
            assert list(line.get_ydata()) == list(expected["seconds"])


def test_panels_of_the_laplacian_share_their_scale(table):
    _, *panels = plot_derivatives(table).axes
    low, high = panels[0].get_ylim()
    assert all(axes.get_ylim() == (low, high) for axes in panels)
    sweep = table[(table["problem"] == "laplacian") & (table["pass"] == "forward_backward")]["seconds"]
    assert low <= sweep.min()
    assert sweep.max() <= high
