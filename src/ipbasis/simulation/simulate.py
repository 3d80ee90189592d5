"""Simulated data sets of a problem: to try a design before the experiment, and to measure what estimates are worth."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from tqdm import tqdm

from ipbasis.errors import InputError
from ipbasis.observations.long_form import InputWarning
from ipbasis.observations.simulate import long_table
from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.reference.solutions import has_reference, solutions_or_nan
from ipbasis.simulation.design import given_unknowns, observation_points, observed_fields, parameter_table

TOLERANCE = 1e-8  # of the solutions, relative to their size: far below any noise
_TOGETHER = 10  # tasks between two steps of the progress bar
_DRAWS = 20  # of tasks that take the place of those without a solution


@dataclass(frozen=True)
class Simulation:
    """Data sets and what is behind them.

    Args:
        problem: the problem.
        truth: one row per query: ``query``, the parameters, ``initial_<name>`` of free initial values, and
            ``<field>_noise_std`` of each observed field.
        points: (1 or queries, n, d) where the fields are observed.
        values: (queries, n, F) solutions there, free of noise.
        observations: long form; fields that are not observed have no column.
    """

    problem: Problem
    truth: pd.DataFrame
    points: np.ndarray
    values: np.ndarray
    observations: pd.DataFrame

    @property
    def tasks(self) -> Tasks:
        """Parameters and free initial values of the queries."""
        return self.problem.tasks(self.truth[self.problem.known_names].to_numpy(dtype=float))

    @property
    def noise_std(self) -> np.ndarray:
        """(queries, F) standard deviations of the noise; infinite for fields that are not observed."""
        unseen = np.full(len(self.truth), np.inf)
        return np.stack([self.truth.get(f"{field}_noise_std", unseen) for field in self.problem.fields], axis=1)


def simulate(
    problem: Problem,
    parameters: pd.DataFrame | Mapping[str, Any] | None = None,
    points: int | np.ndarray = 100,
    noise: float = 0.03,
    *,
    queries: int = 12,
    fields: Sequence[str] | None = None,
    layout: Literal["random", "equispaced"] = "random",
    seed: int = 0,
) -> pd.DataFrame:
    """Simulated observations of a problem in long form, see `simulation`.

    Example:
        ``simulate(problem, {"k": [0.5, 1, 2]}, np.linspace(0, 10, 20), noise=0.05)``
    """
    given = {"queries": queries, "fields": fields, "layout": layout, "seed": seed}
    return simulation(problem, parameters, points, noise, **given).observations


def simulation(
    problem: Problem,
    parameters: pd.DataFrame | Mapping[str, Any] | None = None,
    points: int | np.ndarray = 100,
    noise: float = 0.03,
    *,
    queries: int = 12,
    fields: Sequence[str] | None = None,
    layout: Literal["random", "equispaced"] = "random",
    seed: int = 0,
) -> Simulation:
    """Solve a problem for some parameters and add noise.

    Args:
        problem: with a reference solution, see `ipbasis.reference.solutions.solutions`.
        parameters: values by name, one a query: parameters and ``initial_<name>`` of free initial values, and
            ``query``, the names of the queries. What is not given is drawn from its range, on its scale.
        points: of each query, their number, or (n, d) or, in one coordinate, (n,) the points of every query.
        noise: standard deviation of each field, relative to the root mean square of the query's values of it.
        queries: how many, where `parameters` does not say so.
        fields: that are observed; None for all.
        layout: of a number of points: ``random``, each query's own, uniform in the domain, or ``equispaced``.
        seed: of all that is drawn.

    Raises:
        InputError: if an argument makes no sense, no reference solves the problem, or given values have no solution.
    """
    observed = observed_fields(problem, fields)
    if not (np.isfinite(noise) and noise >= 0):
        raise InputError(f"noise {noise:g}: a standard deviation of zero or more is right, such as 0.03 for 3 %")
    table = parameter_table(parameters)
    count = queries if table is None else len(table)
    if count < 1:
        raise InputError(f"queries {count}: one or more are right")
    if not has_reference(problem):
        raise InputError(f"{problem.name}: no reference solution, so that nothing can be simulated")
    where = observation_points(problem, points, layout, count, seed)
    unknowns, values = _solved(problem, given_unknowns(problem, table, count), where, seed)
    std = noise * np.sqrt((values**2).mean(axis=1))
    disturbed = values + std[:, None] * np.random.default_rng([seed, 1]).standard_normal(values.shape)
    truth = pd.DataFrame({"query": np.arange(count) if table is None else table["query"].to_numpy()})
    truth = truth.assign(**dict(zip(problem.known_names, unknowns.T, strict=True)))
    truth = truth.assign(**{f"{field}_noise_std": std[:, problem.fields.index(field)] for field in observed})
    rows = long_table(problem, where, disturbed)
    rows["query"] = truth["query"].to_numpy()[rows["query"]]
    rows = rows.drop(columns=[field for field in problem.fields if field not in observed])
    return Simulation(problem, truth, where, values, rows)


def _solved(problem: Problem, given: np.ndarray, points: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Unknowns (queries, U), drawn where none are given, and solutions (queries, n, F).

    Tasks without a solution are drawn anew.
    """
    rng, unknowns = np.random.default_rng([seed, 2]), given.copy()
    values = np.full((len(given), points.shape[1], len(problem.fields)), np.nan)
    missing, lost = np.arange(len(given)), 0
    for _ in range(_DRAWS):
        drawn = problem.ranges.drawn(len(missing), rng)
        unknowns[missing] = np.where(np.isnan(given[missing]), drawn, given[missing])
        own = points if len(points) == 1 else points[missing]
        values[missing] = _solutions(problem, problem.tasks(unknowns[missing]), own)
        missing = missing[np.isnan(values[missing]).any(axis=(1, 2))]
        lost += len(missing)
        hopeless = missing[~np.isnan(given[missing]).any(axis=1)]
        if len(missing) in (0, len(given)) or len(hopeless):
            break
    if len(missing):
        pairs = zip(problem.known_names, unknowns[[*hopeless, *missing][0]], strict=True)
        example = ", ".join(f"{name} = {value:g}" for name, value in pairs)
        raise InputError(f"{problem.name}: no solution could be computed at {example}")
    if lost:
        told = f"{problem.name}: {lost} tasks that were drawn have no solution; others took their place"
        warnings.warn(told, InputWarning, stacklevel=3)
    return unknowns, values


def _solutions(problem: Problem, tasks: Tasks, points: np.ndarray) -> np.ndarray:
    """Reference solutions, NaN where there are none, with a progress bar where they are computed one by one."""
    if len(problem.coordinates) == 1:
        return solutions_or_nan(problem, tasks, points, TOLERANCE)
    rows = np.array_split(np.arange(len(tasks)), -(-len(tasks) // _TOGETHER))
    rows = tqdm(rows, desc=f"{len(tasks)} solutions", disable=len(rows) == 1)
    every = np.broadcast_to(points, (len(tasks), *points.shape[1:]))
    return np.concatenate([solutions_or_nan(problem, tasks[own], every[own], TOLERANCE) for own in rows])
