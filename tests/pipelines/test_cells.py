"""Sets of queries as data: what is drawn, what is given, and how cells observe it."""

import numpy as np
import pytest
from stages import benchmark

from ipbasis.errors import InputError
from ipbasis.reference.solutions import solutions
from pipelines.cells import cells, label_keys, observe, simulate, tasks_of
from pipelines.shown import shown_cells, shown_queries


def small(problem, *overrides):
    return benchmark(problem, "profile=smoke", *overrides)


def test_cells_carry_the_labels_of_the_published_tables():
    labels = [cell.label for cell in cells(small("lotka_volterra_unknown_terms"))]
    assert labels == [{"parameter_low": 0.5, "parameter_high": 1.5}, {"parameter_low": 1.5, "parameter_high": 2.5}]
    quantum = small("quantum_oscillator")
    found = cells(quantum)
    assert len(found) == 13 * 4
    assert label_keys(quantum) == ["noise_percent", "observations"]
    assert {(cell.noise, cell.number) for cell in found} == {tuple(cell.label.values()) for cell in found}
    (shown,) = shown_cells(quantum)
    assert shown.label == {"noise_percent": 50, "observations": 100}
    assert shown.text == "50 % noise, 100 observations"


def test_given_tasks_are_the_thirds_between_the_trained_values():
    chosen = small("quantum_oscillator", "observations.number=5")
    _, truth = simulate(chosen, 0, 100)
    thirds = [k / 3 for k in range(15) if k % 3]
    assert truth["k"].to_numpy() == pytest.approx(thirds)
    assert simulate(chosen, 0, 2)[1]["k"].to_numpy() == pytest.approx(thirds[:2])


def test_sets_are_drawn_from_their_own_ranges():
    chosen = small("lotka_volterra_unknown_terms")
    for number, (low, high) in enumerate([(0.5, 1.5), (1.5, 2.5)]):
        _, truth = simulate(chosen, number, 20)
        parameters = truth[["alpha", "beta", "gamma", "delta"]]
        assert parameters.min().min() > low
        assert parameters.max().max() < high
        assert truth[["initial_x", "initial_y"]].min().min() > 0.1


def test_known_parameters_stand_with_the_observations():
    chosen = small("lotka_volterra_unknown_terms")
    simulated, truth = simulate(chosen, 0, 3)
    observed = observe(chosen, cells(chosen)[0], simulated, truth)
    assert list(observed.observations) == ["query", "t", "x", "y", "alpha", "gamma"]
    by_query = observed.observations.groupby("query")[["alpha", "gamma"]].first()
    assert np.array_equal(by_query, truth[["alpha", "gamma"]])


@pytest.fixture(scope="module")
def quantum():
    chosen = small("quantum_oscillator", "observations.number=40", "observations.cells.number=[40,8]")
    return chosen, *simulate(chosen, 0, 3)


def test_a_cell_is_the_first_points_with_noise_of_its_size(quantum):
    chosen, simulated, truth = quantum
    problem = chosen.problem
    cell = next(c for c in cells(chosen) if (c.noise, c.number) == (50, 8))
    observed = observe(chosen, cell, simulated, truth)
    assert observed.points.shape == (1, 8, 2)
    exact = solutions(problem, tasks_of(problem, truth), observed.points)
    noise = observed.observations[["re", "im"]].to_numpy().reshape(3, 8, 2) - exact
    size = np.sqrt((simulated[["re", "im"]] ** 2).sum(axis=1)).groupby(simulated["query"]).max().to_numpy()
    relative = np.abs(noise) / size[:, None, None]
    assert relative.max() < 0.5
    assert relative.max() > 0.4  # of 48 uniform draws, one lies above 0.4 but for a chance of 2e-5
    assert observed.truth["noise_std"].to_numpy() == pytest.approx(size * 0.5 / np.sqrt(3))


def test_draws_of_the_noise_differ_and_repeat(quantum):
    chosen, simulated, truth = quantum
    cell = cells(chosen)[-1]
    several = observe(chosen, cell, simulated, truth, range(1, 4))
    assert several.truth["query"].is_unique
    assert several.truth.groupby("noise_seed").size().to_dict() == {1: 3, 2: 3, 3: 3}
    values = several.observations[["re", "im"]].to_numpy().reshape(3, 3, cell.number, 2)
    assert not np.isclose(values[0], values[1]).any()
    again = observe(chosen, cell, simulated, truth, (2,)).observations[["re", "im"]].to_numpy()
    assert np.array_equal(again.reshape(3, cell.number, 2), values[1])


def test_points_of_each_query_s_own_stay_with_it():
    chosen = small("damped_oscillator", "observations.layout=own", "observations.number=12")
    problem = chosen.problem
    simulated, truth = simulate(chosen, 0, 3)
    observed = observe(chosen, cells(chosen)[0], simulated, truth, range(2))
    assert observed.points.shape == (6, 12, 1)
    assert np.array_equal(observed.points.ravel(), observed.observations["t"])
    exact = solutions(problem, tasks_of(problem, observed.truth), observed.points)
    assert observed.observations["u"].to_numpy() == pytest.approx(exact.ravel(), abs=1e-8)


def test_queries_of_the_pictures_are_those_that_every_recipe_answers():
    chosen = small("quantum_oscillator", "+budget.queries=10")
    assert shown_queries(chosen) == [0, 1]
    both = small(
        "quantum_oscillator",
        "+budget.queries=100",
        "+budget.paper_queries=100",
    )
    assert shown_queries(both) == [0, 4, 9]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["observations.cells.number=[20000]"], "20000 of 10000 simulated observations"),
        (["observations.layout=equispaced"], "the first of equispaced points do not span the domain"),
    ],
)
def test_cells_that_cannot_be_observed_are_refused(overrides, message):
    with pytest.raises(InputError, match=message):
        cells(small("quantum_oscillator", *overrides))
