"""Derivatives of reference solutions by parameters and initial values."""

import numpy as np

from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.reference.solutions import solutions_or_nan

_STEP = 1e-3  # of an unknown's range: differences are exact to 1e-6, and far above the error of the reference


def linearised_solutions(
    problem: Problem,
    tasks: Tasks,
    points: np.ndarray,
    step: float = _STEP,
    columns: np.ndarray | None = None,
    tolerance: float = 1e-10,
) -> tuple[np.ndarray, np.ndarray]:
    """Reference solutions and their derivatives by parameters and free initial values, by central differences.

    All disturbed tasks are solved together: they take the same steps, so that most of the error of the
    integration drops out of the differences.

    Args:
        problem: a problem with a reference solution.
        tasks: where.
        points: (1 or tasks, n, d), the same for all tasks or each task's own.
        step: of each difference, as a share of the unknown's range.
        columns: (parameters + free initial values,) true for the unknowns to derive by; None for all.
        tolerance: error allowed in the solutions, relative to their size.

    Returns:
        values (tasks, n, F) and derivatives (tasks, n, F, U); NaN for tasks without a solution.

    Raises:
        InputError: if the problem has no reference solution, or a point lies outside the domain.
    """
    width = np.ptp(problem.unknown_ranges, axis=1)
    chosen = np.arange(len(width)) if columns is None else np.flatnonzero(columns)
    steps = step * width[chosen]
    shifts = np.zeros((1 + 2 * len(chosen), len(width)))
    shifts[1 + np.arange(len(chosen)), chosen] = steps
    shifts[1 + len(chosen) + np.arange(len(chosen)), chosen] = -steps
    disturbed = (np.hstack([tasks.parameters, tasks.initial])[:, None] + shifts).reshape(-1, len(width))
    parameters, initial = np.split(disturbed, [len(problem.parameters)], axis=1)
    each = points if len(points) == 1 else np.repeat(points, len(shifts), axis=0)
    values = solutions_or_nan(problem, Tasks(parameters, initial), each, tolerance, len(shifts))
    values = values.reshape(len(tasks), len(shifts), *values.shape[1:])
    forward, backward = np.split(values[:, 1:], 2, axis=1)
    return values[:, 0], np.moveaxis(forward - backward, 1, -1) / (2 * steps)


def sensitivities(problem: Problem, tasks: Tasks, points: np.ndarray) -> np.ndarray:
    """(tasks, n, F, U) derivatives of the exact solutions by all parameters and free initial values.

    Args:
        problem, tasks, points: as for `linearised_solutions`.
    """
    return linearised_solutions(problem, tasks, points)[1]
