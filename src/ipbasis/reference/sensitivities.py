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
        step: of each difference, as a share of the unknown's range (on its scale).
        columns: (parameters + free initial values,) true for the unknowns to derive by; None for all.
        tolerance: error allowed in the solutions, relative to their size.

    Returns:
        values (tasks, n, F) and derivatives (tasks, n, F, U); NaN for tasks without a solution.

    Raises:
        InputError: if the problem has no reference solution, or a point lies outside the domain.
    """
    values = np.hstack([tasks.parameters, tasks.initial])
    chosen = np.arange(values.shape[1]) if columns is None else np.flatnonzero(columns)
    steps = step * _widths(problem, values)[:, chosen]
    shifts = np.zeros((len(tasks), 1 + 2 * len(chosen), values.shape[1]))
    shifts[:, 1 + np.arange(len(chosen)), chosen] = steps
    shifts[:, 1 + len(chosen) + np.arange(len(chosen)), chosen] = -steps
    together = shifts.shape[1]
    disturbed = (values[:, None] + shifts).reshape(-1, values.shape[1])
    parameters, initial = np.split(disturbed, [len(problem.parameters)], axis=1)
    each = points if len(points) == 1 else np.repeat(points, together, axis=0)
    solved = solutions_or_nan(problem, Tasks(parameters, initial), each, tolerance, together)
    solved = solved.reshape(len(tasks), together, *solved.shape[1:])
    forward, backward = np.split(solved[:, 1:], 2, axis=1)
    return solved[:, 0], np.moveaxis(forward - backward, 1, -1) / (2 * steps[:, None, None])


def _widths(problem: Problem, values: np.ndarray) -> np.ndarray:
    """(tasks, U) width of the range of each unknown; on a logarithmic scale what it is at the unknown's own value."""
    low, high = problem.ranges.scaled_ends
    least = np.where(problem.ranges.logarithmic, problem.ranges.ends[:, 0], 1.0)
    return (high - low) * np.where(problem.ranges.logarithmic, np.maximum(np.abs(values), least), 1.0)


def sensitivities(problem: Problem, tasks: Tasks, points: np.ndarray) -> np.ndarray:
    """(tasks, n, F, U) derivatives of the exact solutions by all parameters and free initial values.

    Args:
        problem, tasks, points: as for `linearised_solutions`.
    """
    return linearised_solutions(problem, tasks, points)[1]
