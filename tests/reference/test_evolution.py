"""Partial equations in time against solutions in closed form, of every kind of equation and condition."""

import numpy as np
import pytest

from ipbasis.errors import InputError
from ipbasis.problem.declaration import Problem
from ipbasis.reference.evolution import evolution, solve_evolution
from ipbasis.reference.solutions import solutions_or_nan


def problem(equations, boundary, initial, parameters=None, fields=("u",), coordinates=None, **keys):
    return Problem(
        name="p",
        coordinates=coordinates or {"t": [0, 1], "x": [0, 1]},
        fields=list(fields),
        parameters=parameters or {"a": [0.5, 2]},
        equations=equations,
        boundary=boundary,
        initial=initial,
        **keys,
    )


def walls(*pairs):
    return [{"at": {name: value}, "equations": [text]} for name, value, text in pairs]


ZERO = walls(("x", 0, "u"), ("x", 1, "u"))
SINE = {"u": "sin(pi*x)"}
HEATED = "heat switched on at t = 0.4"
CASES = {
    "travelling wave of Fisher's equation, walls that move with it": (
        problem(
            ["u_t - u_xx - a*u*(1 - u)"],
            walls(
                ("x", 0, "u - (1 + exp(-5*a*t/6))**(-2)"),
                ("x", 1, "u - (1 + exp(sqrt(a/6) - 5*a*t/6))**(-2)"),
            ),
            {"u": "(1 + exp(sqrt(a/6)*x))**(-2)"},
        ),
        lambda a, t, x: (1 + np.exp(np.sqrt(a / 6) * x - 5 * a * t / 6)) ** -2,
    ),
    "third order, three conditions, not linear, forced": (
        problem(
            ["u_t + a*u*u_x + u_xxx/400 - sin(x)*cos(t) - a*sin(2*x)/2*sin(t)**2 + cos(x)*sin(t)/400"],
            [
                {"at": {"x": 0}, "equations": ["u"]},
                {"at": {"x": 1}, "equations": ["u - sin(1)*sin(t)", "u_x - cos(1)*sin(t)"]},
            ],
            {"u": "0"},
        ),
        lambda a, t, x: np.sin(x) * np.sin(t),
    ),
    "second order in time, damped in space": (
        problem(["u_tt - 4*u_xx - a*u_txx/20"], ZERO, SINE | {"u_t": "0"}),
        lambda a, t, x: np.sin(np.pi * x) * _swing(t, a * np.pi**2 / 20, 4 * np.pi**2),
    ),
    "beam, fourth order": (
        problem(
            ["u_tt + a*u_xxxx/50"],
            [{"at": {"x": wall}, "equations": ["u", "u_xx"]} for wall in (0, 1)],
            SINE | {"u_t": "0"},
        ),
        lambda a, t, x: np.sin(np.pi * x) * np.cos(np.sqrt(a / 50) * np.pi**2 * t),
    ),
    "a wall whose convection changes in time": (
        problem(
            ["u_t - u_xx + u"],
            walls(("x", 0, "u_x - u*a*(1 + t) - (1 - a*(1 + t))"), ("x", 1, "u_x - E")),
            {"u": "exp(x)"},
            constants={"E": float(np.e)},
        ),
        lambda a, t, x: np.exp(x),
    ),
    HEATED: (
        problem(["u_t - a*u_xx/10 - where(t > 0.4, 1, 0)*sin(pi*x)"], ZERO, SINE),
        lambda a, t, x: np.sin(np.pi * x) * _heated(t, a * np.pi**2 / 10),
    ),
    "periodic, transport and growth": (
        problem(["u_t + u_x - a*u*u"], [{"periodic": "x"}], {"u": "1/(4 + sin(2*pi*x))"}),
        lambda a, t, x: 1 / (4 + np.sin(2 * np.pi * (x - t)) - a * t),
    ),
    "two dimensions of space, walls of three kinds": (
        problem(
            ["u_t - a*(u_xx + u_yy)/10 - u"],
            [{"periodic": "x"}, *walls(("y", 0, "u_y"), ("y", 1, "u_y + u*tan(1)"))],
            {"u": "cos(2*pi*x)*cos(y)"},
            coordinates={"t": [0, 1], "x": [0, 1], "y": [0, 1]},
        ),
        lambda a, t, x, y: np.cos(2 * np.pi * x) * np.cos(y) * np.exp(t - a * (4 * np.pi**2 + 1) / 10 * t),
    ),
    "two dimensions, not linear": (
        problem(
            ["u_t + u*(u_x + u_y) - a*(u_xx + u_yy)/4"],
            walls(*((c, v, "u - 1/(1 + exp(2*(x + y - t)/a))") for c in "xy" for v in (0, 1))),
            {"u": "1/(1 + exp(2*(x + y)/a))"},
            coordinates={"t": [0, 1], "x": [0, 1], "y": [0, 1]},
        ),
        lambda a, t, x, y: 1 / (1 + np.exp(2 * (x + y - t) / a)),
    ),
}


def _swing(t, damping, stiffness):
    turn = np.sqrt(stiffness - damping**2 / 4)
    return np.exp(-damping * t / 2) * (np.cos(turn * t) + damping / 2 / turn * np.sin(turn * t))


def _heated(t, rate):
    return np.exp(-rate * t) + np.where(t > 0.4, -np.expm1(-rate * np.maximum(t - 0.4, 0)) / rate, 0)


def drawn(problem, count=60):
    low, high = problem.domain.T
    return low + (high - low) * np.random.default_rng(0).random((1, count, len(low)))


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_closed_form(name):
    """To a few hundredths of a millionth: what errors of the steps, 1e-11 each, become over hundreds of them."""
    problem, exact = CASES[name]
    points = drawn(problem)
    for a in (2.0,) if name == "two dimensions, not linear" else (0.5, 2.0):
        found = solve_evolution(problem, problem.tasks(np.array([[a]])), points)[0, :, 0]
        assert np.abs(found - exact(a, *points[0].T)).max() < 3e-8


def test_fields_of_different_order_in_time_and_a_free_initial_value():
    """A string v = sin(πx) cos(πt) that heats: u_t = u_xx / π² + u + a v has u = a (1 + sin(πt) / π) sin(πx)."""
    both = problem(
        ["u_t - u_xx/pi**2 - u - a*v", "v_tt - v_xx"],
        [{"at": {"x": wall}, "equations": ["u", "v"]} for wall in (0, 1)],
        {"u": "a*sin(pi*x)", "v": "sin(pi*x)", "v_t": "0"},
        fields=("u", "v"),
    )
    points = drawn(both)
    t, x = points[0].T
    found = solve_evolution(both, both.tasks(np.array([[2.0]])), points)[0]
    assert found[:, 0] == pytest.approx(2 * (1 + np.sin(np.pi * t) / np.pi) * np.sin(np.pi * x), abs=1e-8)
    assert found[:, 1] == pytest.approx(np.cos(np.pi * t) * np.sin(np.pi * x), abs=1e-8)
    even = problem(["u_t - u_xx + a*u"], walls(("x", 0, "u_x"), ("x", 1, "u_x")), {"u": [1, 2]})
    found = solve_evolution(even, even.tasks(np.array([[0.7, 1.5]])), points)[0, :, 0]
    assert found == pytest.approx(1.5 * np.exp(-0.7 * t), abs=1e-9)


def test_the_start_is_as_declared_even_where_the_walls_contradict_it():
    cold = problem(["u_t - a*u_xx"], walls(("x", 0, "u - 1"), ("x", 1, "u_x")), {"u": "x"})
    points = np.array([[[0.0, 0.0], [0.0, 0.3], [0.5, 0.0]]])
    found = solve_evolution(cold, cold.tasks(np.array([[1.0]])), points)[0, :, 0]
    assert found == pytest.approx([0, 0.3, 1], abs=1e-10)


def test_tasks_without_a_solution_leave_the_others_alone():
    explosion = problem(["u_t - a*u**2"], [{"periodic": "x"}], {"u": "1 + sin(2*pi*x)/2"}, {"a": [0.1, 1]})
    tasks = explosion.tasks(np.array([[0.2], [0.9], [0.5]]))  # the second ends at t = 1 / (0.9 * 1.5)
    points = np.array([[[1.0, 0.25], [1.0, 0.1]]])
    found = solutions_or_nan(explosion, tasks, points)[..., 0]
    start = 1 + np.sin(2 * np.pi * points[0, :, 1]) / 2
    assert np.isnan(found[1]).all()
    assert found[[0, 2]] == pytest.approx(1 / (1 / start - np.array([[0.2], [0.5]])), rel=1e-8)


@pytest.mark.parametrize(
    ("equations", "boundary", "initial", "reason"),
    [
        (["u_t - u_txx - a*u"], ZERO, SINE, "differentiated along space too"),
        (["u_t - a*u_xx"], walls(("x", 0, "u_t - u"), ("x", 1, "u")), SINE, "a derivative along time"),
        (
            ["u_t - a*u_xx"],
            [{"at": {"x": 0.0, "t": 0.5}, "equations": ["u"]}, *ZERO[1:]],
            SINE,
            "one coordinate of space",
        ),
    ],
)
def test_other_forms_are_refused_with_what_is_in_the_way(equations, boundary, initial, reason):
    with pytest.raises(InputError, match=f"p: no reference solution: .*{reason}"):
        evolution(problem(equations, boundary, initial))
