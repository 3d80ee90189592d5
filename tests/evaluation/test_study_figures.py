"""The figures of the studies show the tables."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from ipbasis.evaluation.study_figures import (
    plot_accuracy,
    plot_basis_quality,
    plot_convergence,
    plot_coverage,
    plot_readouts,
    plot_throughput,
    plot_variants,
)

PROBLEMS = ["damped_oscillator", "lotka_volterra"]


def levels(axes):
    """Heights of the lines across the panel."""
    return [line.get_ydata()[0] for line in axes.get_lines() if list(line.get_xdata()) == [0, 1]]


def test_accuracy_shows_every_parameter_their_median_the_bound_and_the_aim():
    cells = list(product(PROBLEMS, [1, 5], [20, 100], ["a", "b", "c"]))
    table = pd.DataFrame(cells, columns=["problem", "noise_percent", "observations", "parameter"])
    table["rmse_over_cramer_rao"] = np.random.default_rng(0).uniform(1, 2, len(table))
    panels = plot_accuracy(table, 1.1).axes
    assert [axes.get_title() for axes in panels] == ["damped oscillator", "lotka volterra"]
    rows = table[(table["problem"] == PROBLEMS[0]) & (table["noise_percent"] == 5)]
    assert list(panels[0].get_lines()[1].get_ydata()) == [
        rows[rows["observations"] == number]["rmse_over_cramer_rao"].median() for number in (20, 100)
    ]
    assert len(panels[0].collections[0].get_offsets()) == 2 * 3
    assert levels(panels[0]) == [1, 1.1]


def test_coverage_shows_how_far_each_cell_is_off():
    cells = list(product(PROBLEMS, [1, 5], [20, 100], ["a", "b"], [0.5, 0.95]))
    table = pd.DataFrame(cells, columns=["problem", "noise_percent", "observations", "parameter", "confidence"])
    table = table.assign(queries=400, coverage=table["confidence"] + np.where(table["parameter"] == "a", 0.01, 0.02))
    panels = plot_coverage(table, 0.02).axes
    (line, _, (bars,)) = panels[1].containers[1].lines
    assert list(line.get_ydata()) == pytest.approx([1.5] * 4)
    low, high = bars.get_segments()[0][:, 1]
    assert high - low == pytest.approx(2 * 196 * np.sqrt(0.95 * 0.05 / 400))
    assert panels[0].get_xticklabels()[0].get_text() == "1 %\n20"


def test_convergence_shows_ours_as_a_level_and_least_squares_by_start():
    rows = [
        {"problem": problem, "source": source, "variant": variant, "times_off": off, "share": share}
        for problem in PROBLEMS
        for source, variant, off, share in [
            ("ipbasis", "", np.nan, 1.0),
            ("ipbasis", "polished", np.nan, 0.995),
            ("least_squares", "", 1.25, 0.9),
            ("least_squares", "", 2.0, 0.5),
        ]
    ]
    panels = plot_convergence(pd.DataFrame(rows), 0.99).axes
    assert levels(panels[0]) == [100, 99.5, 99]
    line = panels[0].get_lines()[2]
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([1.25, 2.0], [90, 50])


def test_throughput_shows_a_line_per_layout_and_number_and_the_aims():
    cells = list(product(PROBLEMS, ["common", "own"], [20, 100], [1, 10]))
    table = pd.DataFrame(cells, columns=["problem", "layout", "observations", "batch"])
    table = table.assign(queries_per_second=100.0 * table["batch"], least_squares_seconds=0.1)
    figure = plot_throughput(table, {"damped_oscillator": {"common": 5000, "own": 2000}})
    first, second = figure.axes
    assert levels(first) == [5000, 2000]
    assert levels(second) == []
    assert len(second.get_lines()) == 4
    assert list(second.get_lines()[0].get_ydata()) == [100, 1000]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(texts) == len(set(texts)) == 4 + 1 + 2


def test_basis_quality_shows_curves_as_far_as_they_compare_and_estimates_of_each_basis():
    bases = ["ipbasis", "pod", "chebyshev"]
    quality = pd.DataFrame(list(product(PROBLEMS, bases, [5, 10, 40])), columns=["problem", "basis", "functions"])
    quality = quality[(quality["basis"] != "ipbasis") | (quality["functions"] < 40)]
    quality = quality.assign(relative_l2=1 / quality["functions"])
    online = pd.DataFrame(list(product(PROBLEMS, bases)), columns=["problem", "basis"])
    online = online.assign(functions=10, observations=100, noise_percent=1)
    online = online.assign(error_over_cramer_rao=0.7, clean_error_over_cramer_rao=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    figure = plot_basis_quality(quality, online, {"damped_oscillator": {"functions": 30, "relative_l2": 1e-3}})
    first, second, below, beside = figure.axes
    assert first.get_title() == "damped oscillator"
    # up to 1.3 times what is asked for, or what the trained basis has
    ours, pod, _, aim = first.get_lines()
    assert (list(ours.get_xdata()), list(ours.get_ydata())) == ([5, 10], [0.2, 0.1])
    assert list(pod.get_xdata()) == [5, 10]
    assert (list(aim.get_xdata()), list(aim.get_ydata())) == ([0, 30], [1e-3, 1e-3])
    assert len(second.get_lines()) == 3
    assert second.get_xlim()[1] == pytest.approx(13)
    assert [line.get_ydata()[0] for line in beside.get_lines()[:6]] == [0.7, 0.4, 0.7, 0.5, 0.7, 0.6]
    assert [text.get_text() for text in below.get_xticklabels()] == ["10"] * 3
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(texts) == len(set(texts)) == 3 + 1 + 3


def test_readouts_shows_each_training_solver_and_length_by_width():
    recipes = ["ipbasis", "paper_recipe"]
    cells = list(product(recipes, recipes, [10, 50], [20, 160], [0.25, 4]))
    table = pd.DataFrame(cells, columns=["recipe", "online", "basis.readouts", "basis.width", "study.length"])
    table["a1_mae"] = np.random.default_rng(0).uniform(1e-3, 1, len(table))
    table["online"] = "damped_oscillator/" + table["online"]
    figure = plot_readouts(table.sample(frac=1, random_state=0))
    assert [axes.get_title() for axes in figure.axes] == ["20 features", "160 features"]
    lines = figure.axes[1].get_lines()
    assert len(lines) == 2 * 2 * 2
    published = table[(table["recipe"] == "paper_recipe") & (table["online"] == "damped_oscillator/paper_recipe")]
    longest = published[(published["basis.width"] == 160) & (published["study.length"] == 4)]
    (line,) = [line for line in lines if line.get_label() == "published training, published solver"]
    assert list(line.get_ydata()) == list(longest["a1_mae"])
    assert line.get_linewidth() == max(other.get_linewidth() for other in lines)


def test_variants_shows_every_training_on_the_line_of_its_variant():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"label": ["base", "Adam", "4 tasks"] * 2, "problem": "quantum_oscillator"})
    for column in ("offline_residual_accuracy", "offline_approximation"):
        table[column] = rng.uniform(1e-3, 1e-1, len(table))
    table = table.assign(offline_epochs=[750, 800, 810] * 2, offline_cpu_seconds=[30.0, 31, 32, 34, 33, 34])
    figure = plot_variants(table)
    for axes, column in zip(figure.axes, ("offline_residual_accuracy", "offline_approximation"), strict=True):
        (line,) = axes.get_lines()
        assert list(line.get_xdata()) == list(table[column])
        assert list(line.get_ydata()) == [0, 1, 2] * 2
        (band,) = axes.patches
        assert [band.get_x(), band.get_x() + band.get_width()] == pytest.approx(sorted(table[column][[0, 3]]))
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names == ["base  (750 steps, 32 s)", "Adam  (800 steps, 32 s)", "4 tasks  (810 steps, 33 s)"]
    assert figure.axes[0].yaxis_inverted()
