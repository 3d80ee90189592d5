"""Reference solutions of any problem that has them, and the truth as the paper simulated it."""

from collections.abc import Callable

import numpy as np
from scipy.integrate import solve_ivp

from ipbasis.errors import InputError
from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.problem.equations import Jet
from ipbasis.reference.evolution import evolution, solve_evolution
from ipbasis.reference.galerkin import linear_evolution, solve_linear
from ipbasis.reference.ode import first_order_system, integrate_state
from ipbasis.reference.steady import solve_steady, steady

_STATES_AT_ONCE = 10_000_000  # numbers that one integration of tasks with points of their own may hold
_EVALUATIONS = 50_000  # of the right-hand side, after which a solution is given up that may fail
_STEPWISE = 1 / 30  # share of the tolerance allowed in a step: errors of early steps grow
_PUBLISHED_NODES = 501  # of the published mesh, per coordinate


def _solver(problem: Problem) -> Callable[..., np.ndarray]:
    """What solves the problem: a function of tasks, points, tolerance and evaluations, as `solutions` takes them.

    Raises:
        InputError: if nothing does.
    """
    if problem.truth is None:
        raise InputError(f"{problem.name}: no reference solution: an unknown term has no true form")
    if not problem.has_time:
        steady(problem)
        return lambda tasks, points, tolerance, _: solve_steady(problem, tasks, points, tolerance)
    if len(problem.coordinates) == 1:
        system = first_order_system(problem)
        return lambda *given: system.fields_of(_states(problem, *given))
    try:
        linear_evolution(problem)
    except InputError:
        evolution(problem)
        return lambda *given: solve_evolution(problem, *given)
    return lambda tasks, points, tolerance, _: solve_linear(problem, tasks, points, tolerance)


def has_reference(problem: Problem) -> bool:
    """Whether `solutions` can solve the problem."""
    try:
        _solver(problem)
    except InputError:
        return False
    return True


def has_jets(problem: Problem) -> bool:
    """Whether `jets` can: an ODE."""
    return len(problem.coordinates) == 1 and problem.has_time and has_reference(problem)


def _within(problem: Problem, points: np.ndarray) -> np.ndarray:
    """Points (1 or tasks, n, d) moved into the domain, where they lie outside by rounding alone."""
    low, high = problem.domain.T
    slack = 1e-9 * (high - low)
    if not ((points >= low - slack) & (points <= high + slack)).all():
        raise InputError(f"{problem.name}: a point lies outside the domain, where there is no reference solution")
    return np.clip(points, low, high)


def _states(
    problem: Problem, tasks: Tasks, points: np.ndarray, tolerance: float, evaluations: int | None = None
) -> np.ndarray:
    """(state, tasks, n) states of an ODE problem at points (1 or tasks, n, 1).

    Tasks with points of their own are integrated together too, as many as fit in memory over the union of
    their points.
    """
    tolerance = _STEPWISE * tolerance
    if len(points) == 1:
        return integrate_state(problem, tasks, points[0, :, 0], tolerance, evaluations)
    count, number, _ = points.shape
    states = len(first_order_system(problem).state)
    size = max(int(np.sqrt(_STATES_AT_ONCE / (states * number))), 1)
    parts = []
    for first in range(0, count, size):
        some, times = tasks[first : first + size], points[first : first + size, :, 0]
        union, place = np.unique(times, return_inverse=True)
        together = integrate_state(problem, some, union, tolerance, evaluations)
        parts.append(np.take_along_axis(together, place.reshape(1, *times.shape), axis=2))
    return np.concatenate(parts, axis=1)


def solutions(
    problem: Problem, tasks: Tasks, points: np.ndarray, tolerance: float = 1e-10, evaluations: int | None = None
) -> np.ndarray:
    """Reference solutions of many tasks.

    Args:
        problem: ordinary equations with initial conditions, partial ones in time and one or two coordinates of space,
            or without time, in one or two coordinates, with conditions that determine the solution.
        tasks: parameters and initial values.
        points: (1 or tasks, n, d) points, the same for all tasks or each task's own.
        tolerance: error allowed, relative to the size of each task's solution.
        evaluations: of the right-hand side of what is integrated in time at most; None for as many as it takes.

    Returns:
        (tasks, n, fields) values of the fields.

    Raises:
        InputError: if the problem has no reference solution, or a point lies outside the domain.
        ArithmeticError: if the solution of a task cannot be computed.
    """
    return _solver(problem)(tasks, _within(problem, points), tolerance, evaluations)


def solutions_or_nan(
    problem: Problem, tasks: Tasks, points: np.ndarray, tolerance: float = 1e-10, together: int = 1
) -> np.ndarray:
    """Reference solutions as by `solutions`, NaN for tasks that have none: the others are not spoiled by them.

    Tasks are solved together as long as that succeeds, else in halves, until those without a solution are alone:
    solutions that end within the domain, are too stiff or too fine, and tasks that are not finite numbers.

    Args:
        problem, tasks, points, tolerance: as for `solutions`.
        together: so many tasks in a row have a solution all of them, or none.

    Returns:
        (tasks, n, fields) values of the fields.

    Raises:
        InputError: as by `solutions`.
    """
    values = np.full((len(tasks), points.shape[1], len(problem.fields)), np.nan)
    finite = np.isfinite(np.hstack([tasks.parameters, tasks.initial])).all(axis=1)
    remaining = [np.flatnonzero(finite.reshape(-1, together).all(axis=1))]
    while remaining:
        groups = remaining.pop()
        if not len(groups):
            continue
        rows = (groups[:, None] * together + np.arange(together)).ravel()
        own = points if len(points) == 1 else points[rows]
        try:
            with np.errstate(all="ignore"):
                values[rows] = solutions(problem, tasks[rows], own, tolerance, _EVALUATIONS)
        except ArithmeticError:
            remaining += np.array_split(groups, 2) if len(groups) > 1 else []
    values[~np.isfinite(values).all(axis=(1, 2))] = np.nan
    return values


def jets(problem: Problem, tasks: Tasks, points: np.ndarray) -> dict[Jet, np.ndarray]:
    """Values of every field, and every derivative in the equations, of an ODE problem along its solutions.

    Args:
        problem: an ODE problem.
        tasks: parameters and initial values.
        points: (1 or tasks, n, 1) points, the same for all tasks or each task's own.

    Returns:
        (tasks, n) values by jet; the highest derivatives come from the equations themselves.
    """
    points, system = _within(problem, points), first_order_system(problem)
    return system.jets_of(points[..., 0], _states(problem, tasks, points, 1e-10), tasks.parameters.T)


def _published_ode(problem: Problem, task: Tasks, times: np.ndarray) -> np.ndarray:
    """(1, n, fields) one task as published: RK45 at the default tolerances of SciPy."""
    system, parameters = first_order_system(problem), task.parameters[0]
    unique, inverse = np.unique(times, return_inverse=True)
    solution = solve_ivp(
        lambda t, y: system.right_side(t, y, parameters),
        problem.domain[0],
        system.initial_state(task)[:, 0],
        method="RK45",
        t_eval=unique,
        rtol=1e-3,
        atol=1e-6,
    )
    if not solution.success:
        raise ArithmeticError(f"{problem.name}: integration failed: {solution.message}")
    return system.fields_of(solution.y[:, None, inverse])


def published_solutions(problem: Problem, tasks: Tasks, points: np.ndarray) -> np.ndarray:
    """What the published data holds at the given points, with its two faults.

    ODEs are integrated to a relative tolerance of 1e-3 only. Data of partial differential equations is noted at
    coordinates that are too far from the low end of each interval: node i of 501 at i/499 of it, instead of i/500.

    Args:
        problem: as for `solutions`.
        tasks: parameters and initial values.
        points: (1 or tasks, n, d) points, the same for all tasks or each task's own.

    Returns:
        (tasks, n, fields) values of the fields.
    """
    points = _within(problem, points)
    if len(problem.coordinates) > 1:
        low = problem.domain[:, 0]
        actual = low + (points - low) * (_PUBLISHED_NODES - 2) / (_PUBLISHED_NODES - 1)
        return solutions(problem, tasks, actual)
    each = [_published_ode(problem, tasks[i : i + 1], points[i % len(points), :, 0]) for i in range(len(tasks))]
    return np.concatenate(each)


# the values of `ObservationSettings.truth`
TRUTHS: dict[str, Callable[[Problem, Tasks, np.ndarray], np.ndarray]] = {
    "exact": solutions,
    "published_tolerance": published_solutions,
}
