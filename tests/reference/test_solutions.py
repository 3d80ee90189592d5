"""Reference solutions of any problem, and those of the paper."""

import numpy as np
import pytest
from conftest import closed_form
from scipy.integrate import solve_ivp

from ipbasis.errors import InputError
from ipbasis.problem.declaration import Problem, Tasks, problem_directory
from ipbasis.reference import solutions as module
from ipbasis.reference.solutions import TRUTHS, has_reference, jets, published_solutions, solutions, solutions_or_nan


def drawn(problem, count, points, seed=0):
    """Tasks, and points of their own."""
    rng = np.random.default_rng(seed)
    low, high = problem.domain.T
    return problem.sample_tasks(count, rng), low + (high - low) * rng.random((count, points, len(low)))


@pytest.mark.parametrize("at_once", [10_000_000, 700])
def test_tasks_with_points_of_their_own(oscillator, monkeypatch, at_once):
    """Together and in groups of a few."""
    monkeypatch.setattr(module, "_STATES_AT_ONCE", at_once)
    tasks, points = drawn(oscillator, 20, 30)
    tasks.parameters[:, 1] = np.maximum(tasks.parameters[:, 1], 0.05)  # the closed form divides by a2
    exact = [closed_form(tasks.parameters[i : i + 1], tasks.initial[i : i + 1], points[i, :, 0])[0] for i in range(20)]
    assert np.abs(solutions(oscillator, tasks, points)[..., 0] - exact).max() < 1e-9


def test_common_points_are_points_of_every_task(lotka_volterra):
    tasks, points = drawn(lotka_volterra, 5, 20)
    common = solutions(lotka_volterra, tasks, points[:1])
    own = solutions(lotka_volterra, tasks, np.repeat(points[:1], 5, axis=0))
    assert np.abs(common - own).max() < 1e-9


def test_lotka_volterra_holds_its_tolerance(lotka_volterra):
    tasks, points = drawn(lotka_volterra, 10, 50)
    strict = solutions(lotka_volterra, tasks, points, 1e-13)
    found = np.concatenate([solutions(lotka_volterra, tasks[i : i + 1], points[i : i + 1]) for i in range(10)])
    assert np.abs(found - strict).max() < 1e-9  # relative to solutions of size up to 10


def test_quantum_oscillator_starts_as_declared(quantum_oscillator):
    tasks = quantum_oscillator.sample_tasks(2, np.random.default_rng(0))
    (re, im), x = solutions(quantum_oscillator, tasks, np.array([[[0.0, -1.7]]]))[1, 0], -1.7
    height = np.sqrt(2 / np.sqrt(np.pi)) * np.exp(-2 * (x + 2) ** 2)
    assert (re, im) == pytest.approx((height * np.cos(x / 10), height * np.sin(x / 10)), abs=1e-8)


def test_start_alone(oscillator):
    tasks, _ = drawn(oscillator, 3, 1)
    assert np.array_equal(solutions(oscillator, tasks, np.zeros((1, 2, 1)))[:, 1, 0], tasks.initial[:, 0])


def test_points_must_lie_in_the_domain(oscillator, quantum_oscillator):
    tasks, points = drawn(oscillator, 2, 3)
    beyond = solutions(oscillator, tasks, np.array([[[3 + 1e-12], [-1e-12]]]))
    assert np.array_equal(beyond, solutions(oscillator, tasks, np.array([[[3.0], [0.0]]])))
    points[1, 2] = 3.1
    for solve in TRUTHS.values():
        with pytest.raises(InputError, match="damped_oscillator: a point lies outside the domain"):
            solve(oscillator, tasks, points)
        with pytest.raises(InputError, match="quantum_oscillator: a point lies outside the domain"):
            solve(quantum_oscillator, Tasks(np.ones((1, 1)), np.zeros((1, 0))), np.array([[[1.0, 5.02]]]))


@pytest.mark.parametrize("path", sorted(problem_directory().glob("*.yaml")), ids=lambda path: path.stem)
def test_every_problem_that_comes_along_has_a_reference(path):
    assert has_reference(Problem.from_yaml(path))


def test_others_have_none(lotka_volterra, quantum_oscillator):
    terms = {"f": {"of": ["x"]}, "g": {"of": ["y"]}}
    changes = {"parameters": {"alpha": [0, 1], "gamma": [0, 1]}, "unknown_terms": terms}
    unknown = Problem(**{**lotka_volterra.model_dump(), **changes})
    nonlinear = Problem(**{**quantum_oscillator.model_dump(), "equations": ["re_t + re*re_xx", "im_t - k*re_xx"]})
    for problem in (unknown, nonlinear):
        assert not has_reference(problem)
        with pytest.raises(InputError):
            solutions(problem, problem.sample_tasks(1, np.random.default_rng(0)), problem.domain[None, None, :, 0])


@pytest.mark.parametrize("name", ["oscillator", "lotka_volterra"])
@pytest.mark.parametrize("own", [True, False])
def test_jets_solve_the_equations(request, name, own):
    problem = request.getfixturevalue(name)
    tasks, points = drawn(problem, 4, 30)
    points = points if own else points[:1]
    found = jets(problem, tasks, points)
    assert tuple(found) == problem.truth.jets
    assert all(values.shape == (4, 30) for values in found.values())
    residuals = problem.truth.compiled(problem.truth.residuals)(
        [points[..., 0]], list(found.values()), list(tasks.parameters.T[..., None])
    )
    assert max(np.abs(residual).max() for residual in residuals) < 1e-12


def test_jets_are_derivatives_of_each_other(oscillator):
    tasks, points = drawn(oscillator, 3, 1)
    h = 1e-3
    points = np.clip(points, h, 3 - h) + h * np.array([-1, 0, 1])[:, None]
    u, u_t, u_tt = jets(oscillator, tasks, points).values()
    assert (u[:, 2] - u[:, 0]) / (2 * h) == pytest.approx(u_t[:, 1], abs=1e-4)  # h^2 u_ttt / 6
    assert (u[:, 2] - 2 * u[:, 1] + u[:, 0]) / h**2 == pytest.approx(u_tt[:, 1], abs=1e-4)


def test_jets_need_an_ode(quantum_oscillator):
    with pytest.raises(InputError, match="only an ODE"):
        jets(quantum_oscillator, quantum_oscillator.sample_tasks(1, np.random.default_rng(0)), np.zeros((1, 1, 2)))


def test_published_odes_are_integrated_at_the_default_tolerance(lotka_volterra):
    tasks, points = drawn(lotka_volterra, 3, 40)
    found = published_solutions(lotka_volterra, tasks, points)
    for i in range(3):
        alpha, beta, gamma, delta = tasks.parameters[i]
        times = np.sort(points[i, :, 0])
        default = solve_ivp(
            lambda t, s, a=alpha, b=beta, c=gamma, d=delta: [a * s[0] - b * s[0] * s[1], -c * s[1] + d * s[0] * s[1]],
            (0, 10),
            tasks.initial[i],
            t_eval=times,
        )
        # rounding differs from one processor to the next
        assert np.abs(found[i, np.argsort(points[i, :, 0])] - default.y.T).max() < 1e-9
    error = np.abs(found - solutions(lotka_volterra, tasks, points))
    assert 1e-4 < error.mean() < 0.05


def test_published_coordinates_are_too_far_from_the_low_end(quantum_oscillator):
    tasks = quantum_oscillator.sample_tasks(2, np.random.default_rng(0))
    nodes = np.array([[10, 480], [250, 100], [499, 499]])
    low, high = quantum_oscillator.domain.T
    noted, actual = (low + (high - low) * nodes / steps for steps in (499, 500))
    assert np.abs(noted - actual)[:, 1].max() == pytest.approx(0.02, rel=1e-2)
    found = published_solutions(quantum_oscillator, tasks, noted[None])
    assert np.abs(found - solutions(quantum_oscillator, tasks, actual[None])).max() < 1e-12


@pytest.fixture(scope="module")
def explosion() -> Problem:
    """u' = a u², u = 1/(1/u₀ − a t): ends at t = 1/(a u₀)."""
    return Problem(
        name="explosion",
        coordinates={"t": [0, 1]},
        fields=["u"],
        parameters={"a": [0, 1]},
        equations=["u_t - a*u**2"],
        initial={"u": [0, 1]},
    )


@pytest.mark.parametrize("own", [True, False])
def test_tasks_without_a_solution_leave_the_others_alone(explosion, own):
    rng = np.random.default_rng(0)
    tasks = explosion.sample_tasks(20, rng)
    points = rng.random((20 if own else 1, 10, 1)) * 0.9
    points[:, 0] = 1.0
    expected = 1 / (1 / tasks.initial - tasks.parameters * points[..., 0])
    tasks.initial[[3, 4, 11]] = 5.0
    tasks.parameters[[3, 4, 11]] = 1.0
    tasks.parameters[7] = np.nan
    with pytest.raises(ArithmeticError):
        solutions(explosion, tasks[:5], points[:5])
    found = solutions_or_nan(explosion, tasks, points)[..., 0]
    lost = np.isin(np.arange(20), [3, 4, 7, 11])
    assert np.isnan(found[lost]).all()
    assert found[~lost] == pytest.approx(expected[~lost], rel=1e-8)
    in_pairs = solutions_or_nan(explosion, tasks, points, together=2)[..., 0]
    lost = np.repeat(lost[::2] | lost[1::2], 2)
    assert np.isnan(in_pairs[lost]).all()
    assert in_pairs[~lost] == pytest.approx(expected[~lost], rel=1e-8)


def test_a_stiff_task_is_solved_and_one_that_takes_too_long_given_up(monkeypatch):
    monkeypatch.setattr(module, "_EVALUATIONS", 2000)
    decay = Problem(
        name="decay",
        coordinates={"t": [0, 1]},
        fields=["u"],
        parameters={"a": [0, 1]},
        equations=["u_t + a*u"],
        initial={"u": [0, 1]},
    )
    tasks = Tasks(np.array([[0.5], [1e5], [0.2]]), np.full((3, 1), 1.0))
    found = solutions_or_nan(decay, tasks, np.ones((1, 1, 1)))[:, 0, 0]
    assert found == pytest.approx(np.exp([-0.5, -1e5, -0.2]), abs=1e-10)
    waves = decay.model_dump() | {"equations": ["u_tt + a**2*u"], "initial": {"u": [0, 1], "u_t": "0"}}
    tasks.parameters[1] = 1e4
    found = solutions_or_nan(Problem(**waves), tasks, np.ones((1, 1, 1)))[:, 0, 0]
    assert np.isnan(found[1])
    assert found[[0, 2]] == pytest.approx(np.cos([0.5, 0.2]))


def test_all_tasks_or_none_without_a_solution(explosion):
    tasks = Tasks(np.full((3, 1), np.nan), np.ones((3, 1)))
    assert np.isnan(solutions_or_nan(explosion, tasks, np.ones((1, 2, 1)))).all()
