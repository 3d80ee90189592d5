"""Exact solutions of linear evolution equations, against refinement and closed forms."""

import numpy as np
import pytest

from ipbasis.errors import InputError
from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.reference.galerkin import discretisation, linear_evolution, solve_linear

A0, P0, Q0 = 4.0, 0.1, -2.0  # 1 / s^2, momentum and position of the quantum oscillator's packet


def tasks_of(*parameters):
    values = np.array(parameters, dtype=float).reshape(len(parameters), -1)
    return Tasks(values, np.zeros((len(values), 0)))


def scattered(problem, count, seed=0):
    low, high = problem.domain.T
    return low + (high - low) * np.random.default_rng(seed).random((1, count, 2))


def free_packet(t, x):
    """The packet without potential and walls."""
    spread = 1 + 1j * A0 * t
    norm = np.sqrt(2 / np.sqrt(np.pi)) / np.sqrt(spread)
    rest = np.exp((-A0 * (x - Q0) ** 2 / 2 + 1j * P0 * (x - Q0) - 1j * P0**2 * t / 2) / spread)
    return norm * rest * np.exp(1j * P0 * Q0)


def packet_in_potential(k, t, x):
    """The packet in the potential without walls, before the first half period."""
    w = np.sqrt(k)
    turn = np.cos(w * t) + 1j * A0 / w * np.sin(w * t)
    width = (A0 * np.cos(w * t) + 1j * w * np.sin(w * t)) / turn
    q, p = Q0 * np.cos(w * t) + P0 / w * np.sin(w * t), P0 * np.cos(w * t) - Q0 * w * np.sin(w * t)
    phase = P0 * Q0 + p * (x - q) + (p * q - P0 * Q0) / 2
    return np.sqrt(2 / np.sqrt(np.pi)) / np.sqrt(turn) * np.exp(-width * (x - q) ** 2 / 2 + 1j * phase)


def complex_solution(problem, k, points):
    return solve_linear(problem, tasks_of(k), points)[0] @ [1, 1j]


@pytest.mark.parametrize("k", [0.0, 2.5, 5.0])
def test_refinement_changes_the_quantum_oscillator_by_less_than_1e_8(quantum_oscillator, k):
    points = scattered(quantum_oscillator, 2000)
    points[0, :500, 1] = -5 + 0.2 * np.random.default_rng(1).random(500)  # near the wall that the packet touches
    fine = discretisation(quantum_oscillator, 256)
    finer = fine.motion(np.array([k])).values(points[0, :, 0], fine.functions(points[0, :, 1]))
    found = solve_linear(quantum_oscillator, tasks_of(k), points)[0]
    assert np.abs(found - finer).max() < 2e-9


def test_agrees_with_reflected_free_packets_where_there_is_no_potential(quantum_oscillator):
    """They solve the equation and vanish at both walls, and start off by the 1.6e-8 that the packet has there."""
    points = scattered(quantum_oscillator, 2000)
    t, x = points[0].T
    exact = sum(free_packet(t, x + 20 * m) - free_packet(t, 10 - x + 20 * m) for m in range(-4, 5))
    error = np.abs(complex_solution(quantum_oscillator, 0, points) - exact)
    assert error.max() < 1.6e-8
    assert error.mean() < 3e-9


@pytest.mark.parametrize(("k", "end", "at_wall"), [(5, 1.3, 1e-5), (16, 0.75, 5e-8)])
def test_agrees_with_the_packet_in_the_potential_up_to_its_tail_at_the_wall(quantum_oscillator, k, end, at_wall):
    """At k = 5 the packet widens towards the wall, at k = 16 it keeps its shape (a coherent state)."""
    points = scattered(quantum_oscillator, 2000)
    points[..., 0] *= end / 1.5
    exact = packet_in_potential(k, *points[0].T)
    assert np.abs(complex_solution(quantum_oscillator, k, points) - exact).max() < at_wall


def test_quantum_oscillator_conserves_the_norm(quantum_oscillator):
    nodes, weights = np.polynomial.legendre.leggauss(300)
    times = np.repeat([0, 0.5, 1, 1.5], 300)
    points = np.stack([times, np.tile(5 * nodes, 4)], axis=1)[None]
    values = solve_linear(quantum_oscillator, tasks_of(0, 8 / 3, 5), points)
    norms = 5 * (values**2).sum(axis=2).reshape(3, 4, 300) @ weights
    assert np.abs(norms - norms[:, :1]).max() < 1e-11
    assert norms == pytest.approx(1, abs=1e-9)


def test_meets_initial_and_boundary_values(quantum_oscillator):
    x = np.linspace(-5, 5, 101)
    start = np.stack([np.zeros(101), x], axis=1)[None]
    error = np.abs(complex_solution(quantum_oscillator, 5, start) - free_packet(0, x))
    assert error[5:].max() < 1e-9
    # in the corner the two conditions contradict each other by the packet's value at the wall
    assert error[0] == pytest.approx(abs(free_packet(0, -5.0)), rel=1e-6)
    assert abs(free_packet(0, -5.0)) < 1.7e-8
    walls = np.array([[[0.3, -5], [0.3, 5], [1.5, -5], [1.5, 5]]])
    assert np.abs(complex_solution(quantum_oscillator, 5, walls)).max() < 1e-12


def test_points_of_each_task_and_common_points_agree(quantum_oscillator):
    tasks, points = tasks_of(1, 3, 5), scattered(quantum_oscillator, 50)
    common = solve_linear(quantum_oscillator, tasks, points)
    shifted = np.concatenate([np.roll(points, i, axis=1) for i in range(3)])
    own = solve_linear(quantum_oscillator, tasks, shifted)
    for i in range(3):
        assert np.abs(np.roll(own[i], -i, axis=0) - common[i]).max() < 1e-13


def linear(**changes):
    """Heat conduction u_t = a u_xx on a rod of length 1, both ends at zero."""
    values = {
        "name": "rod",
        "coordinates": {"t": [1, 2], "x": [0, 1]},
        "fields": ["u"],
        "parameters": {"a": [0.1, 1]},
        "equations": ["u_t - a*u_xx"],
        "initial": {"u": "sin(pi*x)"},
        "boundary": [{"at": {"x": 0}, "equations": ["u"]}, {"at": {"x": 1}, "equations": ["u"]}],
    }
    return Problem(**{**values, **changes})


def test_heat_conduction():
    problem, points = linear(), scattered(linear(), 200)
    t, x = points[0].T
    for a in (0.1, 1.0):
        exact = np.exp(-a * np.pi**2 * (t - 1)) * np.sin(np.pi * x)
        assert np.abs(solve_linear(problem, tasks_of(a), points)[0, :, 0] - exact).max() < 1e-10


def test_drift_makes_the_operator_neither_symmetric_nor_skew():
    problem = linear(equations=["2*u_t - 2*a*u_xx + 4*a*u_x"], initial={"u": "exp(x)*sin(pi*x)"})
    points = scattered(problem, 200)
    t, x = points[0].T
    exact = np.exp(x - 0.5 * (np.pi**2 + 1) * (t - 1)) * np.sin(np.pi * x)
    assert np.abs(solve_linear(problem, tasks_of(0.5), points)[0, :, 0] - exact).max() < 1e-9


def test_vibrating_string_as_two_equations():
    walls = [{"at": {"x": end}, "equations": ["u + v", "u - v"]} for end in (0, 1)]
    problem = linear(
        fields=["u", "v"],
        equations=["u_t - v", "v_t - a*u_xx"],
        initial={"u": "sin(pi*x)", "v": "0"},
        boundary=walls,
    )
    points = scattered(problem, 200)
    t, x = points[0].T
    w = np.pi * np.sqrt(0.7)
    exact = np.stack([np.cos(w * (t - 1)), -w * np.sin(w * (t - 1))], axis=1) * np.sin(np.pi * x)[:, None]
    assert np.abs(solve_linear(problem, tasks_of(0.7), points)[0] - exact).max() < 1e-9


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"equations": ["u_t - a*u_xx + u**2"]}, "not linear"),
        ({"equations": ["u_tt - a*u_xx"], "initial": {"u": "sin(pi*x)", "u_t": "0"}}, "first order in t"),
        ({"equations": ["u_t - a*u_x"], "boundary": [{"at": {"x": 1}, "equations": ["u"]}]}, "second order in x"),
        ({"equations": ["u_t - a*u_xxxx"]}, "second order in x"),
        ({"equations": ["u_t - a*t*u_xx"]}, "depend on t"),
        ({"equations": ["u_t - a*u_xx - 1"]}, "a part without the fields"),
        ({"equations": ["u_t - exp(a*x)*u_xx"]}, "do not separate"),
        (
            {
                "fields": ["u", "v"],
                "equations": ["u_t + v_t - a*u_xx", "u_t + v_t - v_xx"],
                "initial": {"u": "0", "v": "0"},
            },
            "do not determine",
        ),
        ({"initial": {"u": [0, 1]}}, "a formula as its initial value"),
        ({"initial": {"u": "a*sin(pi*x)"}}, "the initial values hold parameters"),
        ({"boundary": [{"periodic": "x"}]}, "every field must be zero at x = 0"),
        ({"boundary": [{"at": {"x": x}, "equations": ["u - a + 1"]} for x in (0, 1)]}, "every field must be zero"),
        ({"initial": {"u": "cos(x)"}}, "initial values are not zero at the ends of x"),
        ({"boundary": [{"at": {"x": 0}, "equations": ["u"]}]}, "zero at x = 1"),
        ({"boundary": [{"at": {"x": 0}, "equations": ["u"]}, {"at": {"x": 1}, "equations": ["u_x"]}]}, "at x = 1"),
        ({"boundary": [{"at": {"x": 0}, "equations": ["u - 1"]}, {"at": {"x": 1}, "equations": ["u"]}]}, "at x = 0"),
    ],
)
def test_refuses_what_it_cannot_solve(changes, reason):
    with pytest.raises(InputError, match=f"rod: no reference solution: .*{reason}"):
        linear_evolution(linear(**changes))


def test_refuses_an_ode(oscillator):
    with pytest.raises(InputError, match="two coordinates"):
        linear_evolution(oscillator)


def test_says_when_a_solution_is_too_fine():
    growing = linear(equations=["u_t + a*u_xx"])  # heat conduction backwards: no smooth solution
    with pytest.raises(ArithmeticError, match="do not resolve the solution at a = 1"):
        solve_linear(growing, tasks_of(1), scattered(growing, 5))
