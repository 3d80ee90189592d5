"""Figures hold what they are meant to show."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from ipbasis.estimates.result import Estimates
from ipbasis.evaluation import comparison_figures, figures, solution_figures
from ipbasis.evaluation.solution_figures import Fitted
from ipbasis.features.trunk import Trunk, TrunkSettings
from ipbasis.offline.artefact import Accuracy, Basis, Record


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.fixture
def quantum_estimates(quantum_oscillator):
    settings = TrunkSettings(width=8, depth=1, dtype="float64")
    trunk = Trunk(quantum_oscillator.domain, settings, torch.Generator().manual_seed(0)).requires_grad_(False)
    accuracy = Accuracy.model_construct(residual=0.1, solution=0.1)
    record = Record.model_construct(problem=quantum_oscillator, features=settings, functions=9, accuracy=accuracy)
    basis = Basis(trunk, torch.eye(9, dtype=torch.float64), record)
    columns = {"query": ["a", "b"], "k": [1.0, 2.0], "k_std": 0.1, "k_low": 0.8, "k_high": 1.2, "status": "ok"}
    readouts = np.random.default_rng(0).normal(size=(2, 2, 9))
    return Estimates(pd.DataFrame(columns), basis, readouts, (), None, np.full((2, 1, 1), np.nan), np.full(2, np.inf))


def test_the_picture_of_two_coordinates_shows_fit_observations_and_what_is_left(quantum_estimates):
    rng = np.random.default_rng(1)
    places = rng.uniform([0, -5], [1.5, 5], (50, 2))
    observed = pd.DataFrame({"query": "b", "t": places[:, 0], "x": places[:, 1], "re": 1.0, "im": rng.normal(size=50)})
    figure = figures.plot_query(quantum_estimates, observed, 1)
    assert figure.get_suptitle().startswith("query b: ok\nk = 2 ± 0.2")
    upper = [axes for axes in figure.axes if axes.get_title() == "re: fit, and observations in the same colours"]
    lower = [axes for axes in figure.axes if axes.get_title() == "im: observation - fit"]
    assert len(upper) == len(lower) == 1
    shown = upper[0].collections[-1]
    assert np.asarray(shown.get_offsets()) == pytest.approx(places)
    assert np.asarray(shown.get_array()) == pytest.approx(observed["re"])
    left = observed["im"] - quantum_estimates.solution(places)[1, :, 1]
    assert np.asarray(lower[0].collections[-1].get_array()) == pytest.approx(left)


def test_error_maps_write_every_error_into_its_cell():
    errors = pd.DataFrame([[0.5, 0.25], [0.1, 0.001]], index=[0, 10], columns=[10, 10000])
    ratio = pd.DataFrame([[np.nan, np.nan], [1.5, 2.0]], index=[0, 10], columns=[10, 10000])
    axes_texts = {"index": "noise", "columns": "observations", "error": "error of k"}
    figure = comparison_figures.plot_error_maps(
        {"published": errors, "ipbasis": errors / 10}, ratio, axes_texts, "ratio"
    )
    first, second, third = figure.axes[:3]
    assert [t.get_text() for t in first.texts] == ["0.5", "0.25", "0.1", "0.001"]
    assert [t.get_text() for t in second.texts] == ["0.05", "0.025", "0.01", "0.0001"]
    assert [t.get_text() for t in third.texts] == ["1.5", "2"]
    assert [t.get_text() for t in first.get_xticklabels()] == ["10", "10 000"]
    scales = [axes.collections[0].norm for axes in (first, second)]
    assert scales[0] is scales[1]


def test_errors_are_drawn_over_the_axis_or_as_a_level():
    rows = [
        {"panel": "in range", "source": "ipbasis", "variant": "library", "x": x, "error": 0.1 / x} for x in (10, 100)
    ]
    rows.append({"panel": "in range", "source": "pinn", "variant": "", "x": np.nan, "error": 0.5})
    figure = comparison_figures.plot_errors(pd.DataFrame(rows), "readouts")
    (axes,) = figure.axes
    assert legend(figure) == ["ipbasis, library", "plain PINN"]
    assert axes.lines[0].get_xydata() == pytest.approx(np.array([[10, 0.01], [100, 0.001]]))
    assert list(axes.lines[1].get_ydata()) == [0.5, 0.5]


def test_training_without_validation_is_one_panel():
    history = pd.DataFrame({"step": [0, 10], "loss": [1.0, 0.1]})
    assert len(comparison_figures.plot_training({("ipbasis", 6): history}).axes) == 1
    validated = history.assign(validation_parameter_mse=[0.5, np.nan])
    figure = comparison_figures.plot_training({("ipbasis", 6): history, ("paper_recipe", 6): validated})
    assert [len(axes.lines) for axes in figure.axes] == [2, 1]


def test_times_are_named_by_source_and_variant():
    table = pd.DataFrame(
        {"source": ["published", "ipbasis"], "variant": ["", "library"], "seconds_per_query": [9, 0.1]}
    )
    (axes,) = comparison_figures.plot_times(table).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ipbasis, library", "published"]
    assert [text.get_text() for text in axes.texts] == ["0.1 s", "9 s"]


@pytest.fixture
def orbit():
    """A query on a circle with the unknown term x y."""
    angle = np.linspace(0, 2 * np.pi, 60)
    exact = np.stack([2 + np.cos(angle), 2 + np.sin(angle)], axis=1)
    observed = pd.DataFrame({"query": 0, "t": angle[::4], "x": exact[::4, 0], "y": exact[::4, 1]})
    line = np.linspace(1, 3, 20)
    grid = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    true = grid.prod(axis=1, keepdims=True)
    return Fitted("query 0", observed, exact, {"ipbasis": exact + 0.1}, grid, true, {"library": true + 0.25})


def test_phase_portraits_show_orbits(orbit):
    figure = solution_figures.plot_phase(["x", "y"], {"in range": [orbit]})
    (axes,) = figure.axes
    assert legend(figure) == ["observations", "exact", "ipbasis"]
    assert axes.lines[2].get_xydata() == pytest.approx(orbit.exact + 0.1)
    assert "in range" in axes.get_ylabel()


def test_terms_are_shown_near_the_orbit_with_their_error(orbit):
    figure = solution_figures.plot_terms(["x", "y"], ["f"], [orbit], {"library": "ipbasis, library"})
    true, found = figure.axes[:2]
    assert true.get_title() == "true f"
    assert found.get_title() == "ipbasis, library\nmean |error| 0.25"
    shown = np.ma.getmaskarray(true.collections[0].get_array()).reshape(20, 20)
    assert shown[10, 10]  # the middle, which the orbit does not visit
    assert not shown[0, 10]


def test_solutions_of_two_fields_have_a_row_each_and_one_of_errors(orbit):
    times = np.linspace(0, 2 * np.pi, 60)
    figure = solution_figures.plot_solutions("t", ["x", "y"], times, [orbit])
    assert [axes.get_ylabel() for axes in figure.axes] == ["x", "y", "largest |error|"]
    assert figure.axes[2].lines[0].get_ydata() == pytest.approx(0.1)


def test_moduli_are_shown_with_their_errors():
    line = np.linspace(0, 1, 10)
    points = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    exact = np.stack([points[:, 0], points[:, 1]], axis=1)
    observed = pd.DataFrame({"t": [0.5], "x": [0.25], "re": [1.0], "im": [0.0]})
    query = Fitted("k = 1", observed, exact, {"ipbasis": 2 * exact})
    figure = solution_figures.plot_moduli(["t", "x"], points, "|ψ|²", [query], ["ipbasis"])
    assert figure.axes[0].get_title().startswith("exact")
    error = next(axes for axes in figure.axes if axes.get_title() == "|error|, ipbasis")
    # |2 ψ|² - |ψ|² = 3 |ψ|², the second coordinate upwards
    expected = 3 * (exact**2).sum(axis=1).reshape(10, 10).T
    assert np.asarray(error.collections[0].get_array()).reshape(10, 10) == pytest.approx(expected)
