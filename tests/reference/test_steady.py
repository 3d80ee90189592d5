"""Problems without time against solutions in closed form."""

import numpy as np
import pytest
from scipy.optimize import brentq

from ipbasis.problem.declaration import Problem
from ipbasis.reference.solutions import solutions, solutions_or_nan
from ipbasis.reference.steady import solve_steady


def problem(equations, boundary, fields=("u",), coordinates=None, **keys):
    return Problem(
        name="p",
        coordinates=coordinates or {"x": [0, 1]},
        fields=list(fields),
        parameters={"a": [0.5, 2]},
        equations=equations,
        boundary=boundary,
        **keys,
    )


def walls(*pairs):
    return [{"at": {name: value}, "equations": [text]} for name, value, text in pairs]


def bratu(a, x):
    size = brentq(lambda size: np.sqrt(2 * a) * np.cosh(size / 4) - size, 0.1, 3)
    return -2 * np.log(np.cosh((x - 0.5) * size / 2) / np.cosh(size / 4))


CASES = {
    "a rod with flux and convection": (
        problem(["u_xx - a*u"], walls(("x", 0, "u_x + a"), ("x", 1, "u_x + 3*u"))),
        lambda a, x: (
            (m := np.sqrt(a))
            * (np.cosh(m * (1 - x)) + 3 / m * np.sinh(m * (1 - x)))
            / (np.sinh(m) + 3 / m * np.cosh(m))
        ),
    ),
    "a beam, fourth order": (
        problem(["u_xxxx - a"], [{"at": {"x": wall}, "equations": ["u", "u_xx"]} for wall in (0, 1)]),
        lambda a, x: a * (x**4 - 2 * x**3 + x) / 24,
    ),
    "not linear (Bratu)": (problem(["u_xx + a*exp(u)"], walls(("x", 0, "u"), ("x", 1, "u"))), bratu),
    "periodic, with a coefficient that varies": (
        problem(["u_xx - (2 + a)*u + (2 + a + 4*pi**2)*sin(2*pi*x)"], [{"periodic": "x"}]),
        lambda a, x: np.sin(2 * np.pi * x),
    ),
    "two coordinates, walls of three kinds": (
        problem(
            ["u_xx + u_yy + a*u - (a - 1)*exp(x)*cos(2*y) + 2*exp(x)*cos(2*y)"],
            walls(
                ("x", 0, "u_x - cos(2*y)"),
                ("x", 1, "u_x + u - 2*exp(1)*cos(2*y)"),
                ("y", 0, "u - exp(x)"),
                ("y", 1, "u - exp(x)*cos(2)"),
            ),
            coordinates={"x": [0, 1], "y": [0, 1]},
        ),
        lambda a, x, y: np.exp(x) * np.cos(2 * y),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_closed_form(name):
    problem, exact = CASES[name]
    points = np.random.default_rng(0).random((1, 30, len(problem.coordinates)))
    for a in (0.5, 2.0):
        found = solve_steady(problem, problem.tasks(np.array([[a]])), points)[0, :, 0]
        assert np.abs(found - exact(a, *points[0].T)).max() < 1e-10


def test_two_fields_that_are_given_in_the_other_order():
    """v'' = a, u'' = v: u and v are told apart by their derivatives, not by the order of the equations."""
    both = problem(
        ["u_xx - v", "v_xx - a"], [{"at": {"x": wall}, "equations": ["u", "v"]} for wall in (0, 1)], ("v", "u")
    )
    x = np.linspace(0, 1, 7)
    found = solutions(both, both.tasks(np.array([[2.0]])), x[None, :, None])[0]
    assert found[:, 0] == pytest.approx(x**2 - x, abs=1e-12)
    assert found[:, 1] == pytest.approx((x**4 - 2 * x**3 + x) / 12, abs=1e-12)


def test_a_task_without_a_solution_leaves_the_others_alone():
    fold = problem(["u_xx + a*exp(u)"], walls(("x", 0, "u"), ("x", 1, "u")))
    found = solutions_or_nan(fold, fold.tasks(np.array([[2.0], [4.0], [1.0]])), np.array([[[0.5]]]))[:, 0, 0]
    assert np.isnan(found[1])  # beyond 3.5138 there is none
    assert found[[0, 2]] == pytest.approx([bratu(2.0, 0.5), bratu(1.0, 0.5)], abs=1e-10)


def test_layers_take_more_functions_and_at_last_are_refused():
    layer = problem(["a*u_xx/1000 - u_x"], walls(("x", 0, "u"), ("x", 1, "u - 1")))
    found = solve_steady(layer, layer.tasks(np.array([[1.0]])), np.array([[[0.999], [0.5]]]))[0, :, 0]
    assert found == pytest.approx([np.exp(-1), 0], abs=1e-9)
    with pytest.raises(ArithmeticError, match="functions do not resolve the solution at a = 1e-05"):
        solve_steady(layer, layer.tasks(np.array([[1e-5]])), np.array([[[0.5]]]))
