"""Simulated observations: random tasks solved by the reference, noise, a long table; and what they can tell at most."""

import numpy as np
import pandas as pd

from ipbasis.observations.simulate import ObservationSettings, long_table
from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.reference.sensitivities import sensitivities
from ipbasis.reference.solutions import solutions


def observed(
    problem: Problem, tasks: Tasks, points=100, noise=0.0, std=None, layout="equispaced", known=(), seed=0
) -> tuple[pd.DataFrame, np.ndarray]:
    """Observations of given tasks.

    Args:
        problem: with a reference solution.
        tasks: one a query.
        points: observations per query, or the (n,) times of all queries.
        noise: its standard deviation in percent of the largest modulus of the query's values,
        std: or in the unit of the fields.
        layout: of the points, as in `ObservationSettings`.
        known: parameters to give in columns of their own.
        seed: of points and noise.

    Returns:
        The table, and the (queries,) standard deviations of the noise.
    """
    given = not isinstance(points, int)
    size, unit = (noise, "percent") if std is None else (std, "absolute")
    settings = ObservationSettings(
        number=len(points) if given else points,
        layout=layout,
        noise=size,
        noise_unit=unit,
        noise_kind="gaussian",
        seed=seed,
    )
    where = points[None, :, None] if given else settings.points(problem, len(tasks))
    values, deviation = settings.disturb(solutions(problem, tasks, where))
    table = long_table(problem, where, values)
    columns = dict(zip(problem.parameters, tasks.parameters[table["query"]].T, strict=True))
    return table.assign(**{name: columns[name] for name in known}), deviation


def simulated(
    problem: Problem, count: int, points=100, noise=0.0, parameters=None, initial=None, seed=0, **options
) -> tuple[pd.DataFrame, Tasks, np.ndarray]:
    """Observations of random tasks.

    Args:
        problem, points, noise, seed, options: as for `observed`.
        count: tasks.
        parameters, initial: ranges to draw from in place of the problem's, by name.

    Returns:
        The table, the tasks, and the (queries,) standard deviations of the noise.
    """
    tasks = problem.with_ranges(parameters, initial).sample_tasks(count, np.random.default_rng([seed, 1]))
    table, std = observed(problem, tasks, points, noise, seed=seed, **options)
    return table, tasks, std


def cramer_rao(problem: Problem, tasks: Tasks, points: np.ndarray, std: np.ndarray, known=()) -> np.ndarray:
    """(tasks, P) smallest possible standard errors of the parameters, initial values unknown too.

    Args:
        problem, tasks: with a reference solution.
        points: (1 or tasks, n, d), or (n,) times of all tasks.
        std: (tasks,) standard deviations of the noise, or (tasks or 1, n or 1, F).
        known: columns of the parameters that are given, and left out.
    """
    points = points if points.ndim == 3 else points[None, :, None]
    std = std if std.ndim == 3 else std[:, None, None]
    rows = np.delete(sensitivities(problem, tasks, points) / std[..., None], known, axis=3)
    rows = rows.reshape(len(tasks), -1, rows.shape[3])
    bounds = np.sqrt(np.linalg.inv(rows.transpose(0, 2, 1) @ rows).diagonal(axis1=1, axis2=2))
    return bounds[:, : len(problem.parameters) - len(known)]
