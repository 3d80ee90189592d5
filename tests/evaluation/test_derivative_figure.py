"""The figure of the derivative benchmark shows the table."""

import numpy as np
import pandas as pd
import pytest

from ipbasis.baselines.derivatives import METHODS, PASSES
from ipbasis.evaluation.derivative_figure import plot_derivatives


@pytest.fixture
def table():
    sizes = [("damped_oscillator", 1, 40), ("quantum_oscillator", 2, 100)]
    sizes += [("laplacian", coordinates, features) for features in (1, 8) for coordinates in (1, 2, 3)]
    rows = [
        {"problem": problem, "coordinates": coordinates, "features": features, "points": 30, "method": method}
        | {"pass": chosen}
        for problem, coordinates, features in sizes
        for chosen in PASSES
        for method in METHODS
    ]
    seconds = np.random.default_rng(0).uniform(1e-3, 1, len(rows))
    return pd.DataFrame(rows).assign(seconds=seconds, ratio_to_forward=10 * seconds)


def test_shows_every_training_step(table):
    bars, *panels = plot_derivatives(table).axes
    step = table[table["pass"] == "forward_backward"]
    problems = step[step["problem"] != "laplacian"]
    assert sorted(bar.get_height() for bar in bars.patches) == pytest.approx(sorted(problems["seconds"]))
    assert [label.get_text().split("\n")[0] for label in bars.get_xticklabels()] == [
        "damped oscillator",
        "quantum oscillator",
    ]
    assert len(panels) == 2
    for axes, features in zip(panels, (1, 8), strict=True):
        rows = step[(step["problem"] == "laplacian") & (step["features"] == features)]
        for line, method in zip(axes.get_lines(), METHODS, strict=True):
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
