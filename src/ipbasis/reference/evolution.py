"""Reference solutions of partial equations that evolve in time: functions of space, integrated in time.

Linear equations with constant coefficients are solved by eigenvectors, without a step in time, all others by SciPy's
implicit integrators (see `lines`). The number of functions along each axis grows until the last eighth of them has no
share in the solution.
"""

from functools import lru_cache

import numpy as np

from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.problem.equations import Jet
from ipbasis.reference.collocation import Collocated, on_axes, resolved
from ipbasis.reference.evolving import Evolution
from ipbasis.reference.lines import Lines

_STEPWISE = 1 / 30  # share of the tolerance allowed in a step: errors of early steps grow


@lru_cache(maxsize=16)
def _evolution(declaration: str) -> Evolution:
    return Evolution(Problem.model_validate_json(declaration))


def evolution(problem: Problem) -> Evolution:
    """The problem as one that evolves, derived once per problem."""
    return _evolution(problem.model_dump_json())


@lru_cache(maxsize=8)
def _collocated(declaration: str, counts: tuple[int, ...]) -> Collocated:
    return on_axes(_evolution(declaration).form, counts)


def solve_evolution(
    problem: Problem, tasks: Tasks, points: np.ndarray, tolerance: float = 1e-10, evaluations: int | None = None
) -> np.ndarray:
    """Solutions of many tasks of a partial equation in time at scattered points.

    Args:
        problem: with one or two coordinates of space; see `Evolution`.
        tasks: parameters and initial values.
        points: (1 or tasks, n, d) coordinates, time first.
        tolerance: error allowed, relative to the size of the solution.
        evaluations: of the right-hand side, at most.

    Returns:
        (tasks, n, fields) values of the fields.

    Raises:
        InputError: if the problem has another form.
        ArithmeticError: if a solution is too fine for the functions, or cannot be integrated.
    """
    found, counts = [], None
    for number in range(len(tasks)):
        places = points[number % len(points)]
        values, counts = _solved(problem, tasks[number : number + 1], places, tolerance, evaluations, counts)
        found.append(values)
    return np.array(found)


def _solved(
    problem: Problem,
    task: Tasks,
    points: np.ndarray,
    tolerance: float,
    evaluations: int | None,
    counts: tuple[int, ...] | None,
) -> tuple[np.ndarray, tuple[int, ...]]:
    """(n, fields) the solution of one task, and how many functions it took; those that are given are tried first."""
    evolving, declaration, low = evolution(problem), problem.model_dump_json(), problem.domain[0, 0]
    late = points[:, 0] > low
    times, place = np.unique(points[late, 0], return_inverse=True)
    values = np.empty((len(points), len(problem.fields)))
    for field in range(len(problem.fields)):
        # exact where it starts, even if that does not agree with the conditions
        values[~late, field] = evolving.start(Jet(field, ()), points[~late, 1:], task)
    if not late.any():
        return values, counts
    coefficients, on = resolved(
        lambda on: Lines(evolving, on, task).coefficients(times, _STEPWISE * tolerance, evaluations),
        lambda counts: _collocated(declaration, counts),
        evolving.form,
        task.parameters[0],
        tolerance,
        counts,
    )
    values[late] = on.evaluated(coefficients[place], points[late, 1:])
    return values, tuple(axis.count for axis in on.axes)
