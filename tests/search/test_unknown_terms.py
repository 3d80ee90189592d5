"""Unknown terms: with a library and without a formula, on the trajectory and off it, and what is refused."""

import numpy as np
import pytest
from simulated import simulated

from ipbasis import InputError, estimate
from ipbasis.problem.declaration import Problem
from ipbasis.published.solvers import PublishedAdam, PublishedTermNetworks
from ipbasis.reference.solutions import solutions
from ipbasis.reference.terms import true_terms
from ipbasis.search.library import Library, coefficient_name, with_library
from ipbasis.search.unknown_terms import searched_problem

TIMES = np.linspace(0, 10, 100)


@pytest.fixture(scope="module")
def terms_basis(lotka_volterra_basis, lotka_volterra):
    return lotka_volterra_basis.for_problem(lotka_volterra)


def with_terms(problem, count, std=0.0, low=0.5, high=1.5):
    """Observations with alpha and gamma given, tasks, and the true terms."""
    ranges, initial = dict.fromkeys(problem.parameters, (low, high)), {"x": [0.1, 2.1], "y": [0.1, 2.1]}
    table, tasks, _ = simulated(problem, count, TIMES, 0, ranges, initial, std=std, known=["alpha", "gamma"])
    return table, tasks, true_terms(problem, tasks, TIMES[None, :, None])


@pytest.mark.parametrize(
    ("solver", "inside", "outside"),
    [("free_form", 0.003, 0.04), ("library", 0.001, 0.01), ("gauss_newton", 0.001, 0.01)],
)
def test_terms_along_the_trajectory(terms_basis, lotka_volterra, solver, inside, outside):
    """The mean absolute errors to reach of the published 0.024 and 0.11, on 30 queries of each range."""
    for low, high, bar in ((0.5, 1.5, inside), (1.5, 2.5, outside)):
        table, _, truth = with_terms(lotka_volterra, 30, low=low, high=high)
        found = estimate(terms_basis, table, solver)
        assert np.abs(found.terms(TIMES) - truth).mean() < bar


def test_the_library_gives_the_formula(terms_basis, lotka_volterra):
    table, tasks, _ = with_terms(lotka_volterra, 20)
    found = estimate(terms_basis, table).table
    assert found["f_xy"].to_numpy() == pytest.approx(tasks.parameters[:, 1], abs=2e-3)
    assert found["g_xy"].to_numpy() == pytest.approx(tasks.parameters[:, 3], abs=2e-3)
    simple = found["f"].str.fullmatch(r"[\d.]+\*x\*y")
    assert simple.mean() > 0.8
    assert (found.loc[simple, ["f_1", "f_x", "f_y", "f_x2", "f_y2"]] == 0).all().all()
    assert float(found["f"][simple.idxmax()].split("*")[0]) == pytest.approx(found["f_xy"][simple.idxmax()], rel=1e-3)


def test_error_bars_of_coefficients_hold(terms_basis, lotka_volterra):
    """Where only the true function is kept: root mean square of error over error bar near 1."""
    table, tasks, _ = with_terms(lotka_volterra, 60, std=0.02)
    found = estimate(terms_basis, table).table
    kept = found["f"].str.fullmatch(r"[\d.]+\*x\*y").to_numpy() & found["g"].str.fullmatch(r"[\d.]+\*x\*y").to_numpy()
    assert kept.sum() > 15
    for name, column in (("f_xy", 1), ("g_xy", 3)):
        ratio = (found[name] - tasks.parameters[:, column]) / found[f"{name}_std"]
        assert np.sqrt((ratio[kept] ** 2).mean()) == pytest.approx(1, abs=0.5)


def test_terms_on_a_grid_agree_with_the_truth_where_data_came_by(terms_basis, lotka_volterra):
    table, tasks, _ = with_terms(lotka_volterra, 10)
    grid = np.array([[0.5, 0.5], [1.0, 1.0]])
    truth = np.stack([tasks.parameters[:, [1, 3]] * 0.25, tasks.parameters[:, [1, 3]]], axis=1)
    library = estimate(terms_basis, table, "library")
    assert np.abs(library.terms_on(grid) - truth).max() < 0.01
    free = estimate(terms_basis, table, "free_form")
    std = free.terms_std_on(grid)
    error = np.abs(free.terms_on(grid) - truth)
    assert (error < 5 * std + 0.01).all()
    far = free.terms_std_on(np.array([[30.0, 30.0]]))
    assert (far[:, 0] > 10 * std.min(axis=1)).all()


def test_free_form_with_noise_has_a_fit_and_a_band(terms_basis, lotka_volterra):
    table, tasks, truth = with_terms(lotka_volterra, 10, std=0.02)
    found = estimate(terms_basis, table, "free_form")
    assert (found.table["status"] == "ok").all()
    assert found.table["noise_std"].median() == pytest.approx(0.02, rel=0.2)
    assert np.abs(found.terms(TIMES) - truth).mean() < 0.15
    band = found.solution_std(TIMES)
    error = found.solution(TIMES) - solutions(lotka_volterra, tasks, TIMES[None, :, None])
    assert np.mean(np.abs(error) < 2 * band) > 0.8


def test_the_published_networks_give_terms_too(terms_basis, lotka_volterra):
    table, _, truth = with_terms(lotka_volterra, 4)
    found = estimate(terms_basis, table, PublishedTermNetworks(steps=300))
    assert found.terms(TIMES).shape == truth.shape
    assert found.terms_on(np.ones((3, 2))).shape == (4, 3, 2)
    assert list(found.table.columns)[:2] == ["query", "alpha"]


def test_library_functions_and_their_columns(lotka_volterra):
    functions = Library(degree=2, expressions=["x/(1 + x)", "x*y"]).functions(lotka_volterra, "f")
    assert list(functions) == ["1", "x", "y", "x**2", "x*y", "y**2", "x/(1 + x)"]
    assert [coefficient_name("f", name) for name in functions][3:5] == ["f_x2", "f_xy"]
    written = with_library(lotka_volterra, Library(degree=1))
    assert list(written.parameters) == ["alpha", "gamma", "f_1", "f_x", "f_y", "g_1", "g_x", "g_y"]
    assert not written.unknown_terms


def test_parameters_that_only_the_truth_holds_are_not_searched(lotka_volterra):
    assert list(searched_problem(lotka_volterra).parameters) == ["alpha", "gamma"]


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("x*", "library: equation 'x*', position"),
        ("x*z", "unknown symbol 'z'"),
        ("x*alpha", "'x*alpha' holds alpha, but f is a function of x, y"),
        ("x_t", "holds x_t"),
    ],
)
def test_a_library_that_does_not_fit_is_refused(terms_basis, lotka_volterra, expression, reason):
    table, _, _ = with_terms(lotka_volterra, 1)
    with pytest.raises(InputError) as refused:
        estimate(terms_basis, table, Library(expressions=[expression]))
    assert reason in str(refused.value)


def test_two_functions_of_one_column_are_refused(lotka_volterra):
    with pytest.raises(InputError, match="would share a column"):
        with_library(lotka_volterra, Library(degree=0, expressions=["x*y", "x/y"]))


def test_solvers_that_do_not_fit_are_refused(terms_basis, lotka_volterra_basis, lotka_volterra):
    table, _, _ = with_terms(lotka_volterra, 1)
    with pytest.raises(InputError, match="has no unknown terms"):
        estimate(lotka_volterra_basis, table.drop(columns=["alpha", "gamma"]), "library")
    with pytest.raises(InputError, match="give it in a column 'alpha'"):
        estimate(terms_basis, table.drop(columns="alpha"), "free_form")
    with pytest.raises(InputError, match="'adam' needs an affine split"):
        estimate(terms_basis, table, PublishedAdam())


@pytest.mark.parametrize("solver", ["library", "free_form"])
def test_terms_of_broken_queries_are_nan(terms_basis, lotka_volterra, solver):
    table, _, _ = with_terms(lotka_volterra, 3)
    whole = estimate(terms_basis, table, solver)
    gone = ["x", "y"] if solver == "library" else ["alpha"]  # without a formula it has to be given
    found = estimate(
        terms_basis, table.assign(**{name: table[name].mask(table["query"] == 1) for name in gone}), solver
    )
    assert found.table["status"].tolist() == [whole.table["status"][0], "failed", whole.table["status"][2]]
    assert list(found.table) == list(whole.table)
    terms, expected = found.terms([1.0, 2.0]), whole.terms([1.0, 2.0])
    assert terms[[0, 2]] == pytest.approx(expected[[0, 2]], rel=1e-3)
    assert np.isnan(terms[1]).all()


def test_equations_that_do_not_determine_the_terms_are_refused(terms_basis, lotka_volterra):
    values = lotka_volterra.model_dump() | {"equations": ["x_t - alpha*x + f + g", "y_t + gamma*y"]}
    table, _, _ = with_terms(lotka_volterra, 1)
    with pytest.raises(InputError, match="do not determine f, g"):
        estimate(terms_basis.for_problem(Problem(**values)), table, "free_form")


def test_a_basis_of_other_fields_is_refused(terms_basis, oscillator):
    with pytest.raises(InputError, match="has the coordinates"):
        terms_basis.for_problem(oscillator)
