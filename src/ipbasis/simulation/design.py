"""What is given of a simulation, checked and brought into order: fields, parameters, points."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ipbasis.errors import InputError
from ipbasis.observations.simulate import ObservationSettings
from ipbasis.problem.declaration import Problem


def observed_fields(problem: Problem, fields: Sequence[str] | None) -> list[str]:
    """The fields that are observed; all if none are named."""
    chosen = list(problem.fields) if fields is None else list(fields)
    if not chosen:
        raise InputError("fields: at least one has to be observed")
    for name in chosen:
        if name not in problem.fields:
            raise InputError(f"fields: {problem.name} has no field {name!r}; it has {', '.join(problem.fields)}")
    return chosen


def parameter_table(parameters: pd.DataFrame | Mapping[str, Any] | None) -> pd.DataFrame | None:
    """Given parameters, one row per query; single values stand for one query."""
    if parameters is None:
        return None
    try:
        table = pd.DataFrame(parameters if isinstance(parameters, pd.DataFrame) else _columns(parameters))
    except ValueError:
        raise InputError("parameters: as many values of each are right as there are queries") from None
    if "query" not in table:
        table = table.assign(query=np.arange(len(table)))
    if (repeated := table["query"].duplicated()).any():
        query = table["query"][repeated].iloc[0]
        raise InputError(f"parameters: query {query} is there twice; one row each is right")
    return table.reset_index(drop=True)


def _columns(parameters: Mapping[str, Any]) -> dict[str, np.ndarray]:
    longest = max((np.size(values) for values in parameters.values()), default=1)
    return {name: np.broadcast_to(values, longest) for name, values in parameters.items()}


def observation_points(problem: Problem, points: int | np.ndarray, layout: str, count: int, seed: int) -> np.ndarray:
    """(1 or count, n, d) points of observation, see `ipbasis.simulation.simulate.simulation`."""
    if isinstance(points, int | np.integer):
        kinds = {"random": "own", "equispaced": "equispaced"}
        if layout not in kinds:
            raise InputError(f"layout {layout!r}: random or equispaced is right")
        if points < 1:
            raise InputError(f"points {points}: one or more of each query are right")
        settings = ObservationSettings(
            number=int(points), layout=kinds[layout], noise=0, noise_unit="percent", noise_kind="gaussian", seed=seed
        )
        return settings.points(problem, count)
    given, dimension = np.asarray(points, dtype=float), len(problem.coordinates)
    given = given[:, None] if given.ndim == 1 and dimension == 1 else given
    if given.ndim != 2 or given.shape[1] != dimension or not len(given):
        raise InputError(f"points of shape {np.shape(points)}: (n, {dimension}) is right, or a number of points")
    return given[None]


def given_unknowns(problem: Problem, table: pd.DataFrame | None, count: int) -> np.ndarray:
    """(count, U) given values of the unknowns, NaN for those to draw; values declared as fixed hold otherwise."""
    names = problem.known_names
    columns = np.tile([problem.fixed.get(name, np.nan) for name in names], (count, 1)).astype(float)
    for name in [] if table is None else table.columns.drop("query"):
        if name not in names:
            raise InputError(f"parameters: {problem.name} has no {name!r}; it has {', '.join(names)}")
        numbers = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=float)
        wrong = ~np.isfinite(numbers) & ~table[name].isna().to_numpy()
        if wrong.any():
            query, value = table[["query", name]].iloc[int(np.argmax(wrong))]
            raise InputError(f"parameters: column {name!r} (query {query}): {value!r} is not a finite number")
        columns[:, names.index(name)] = np.where(np.isnan(numbers), columns[:, names.index(name)], numbers)
    return columns
