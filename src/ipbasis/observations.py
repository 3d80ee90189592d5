"""Observations in long form: one row per query and point."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import NonNegativeFloat, PositiveInt
from scipy.stats import qmc

from ipbasis.errors import InputError
from ipbasis.problem import Declared, Problem


class InputWarning(UserWarning):
    """Something in the input was passed over; the message says what and how much of it."""


@dataclass(frozen=True)
class Batch:
    """Observations of several queries, padded to the same number of points.

    Args:
        queries: ids of the queries (B).
        points: (B, n, d) coordinates; padding repeats a point of the domain.
        values: (B, n, F), zero where nothing was observed.
        observed: (B, n, F) whether there is an observation.
        std: (B, n, F) standard deviation of the noise, or None if it is not given.
        known: (B, P) given values of parameters, NaN for those to estimate.
    """

    queries: np.ndarray
    points: np.ndarray
    values: np.ndarray
    observed: np.ndarray
    std: np.ndarray | None
    known: np.ndarray

    def select(self, rows: np.ndarray) -> "Batch":
        """The queries in `rows`."""
        parts = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return Batch(**{name: None if part is None else part[rows] for name, part in parts.items()})


@dataclass(frozen=True)
class Observations:
    """A checked table of observations.

    Args:
        problem: what the coordinates, fields and parameters are.
        table: columns ``query``, the coordinates, the fields, and where given ``<field>_std`` and known
            parameters; NaN where not observed.
    """

    problem: Problem
    table: pd.DataFrame

    @property
    def queries(self) -> np.ndarray:
        """Ids in the order of their first row."""
        return self.table["query"].unique()

    def batches(self, size: int) -> Iterator[Batch]:
        """Queries in batches of at most `size`."""
        codes, queries = pd.factorize(self.table["query"])
        order = np.argsort(codes, kind="stable")
        ends = np.searchsorted(codes[order], np.arange(0, len(queries) + size, size))
        for start, stop, first in zip(ends[:-1], ends[1:], range(0, len(queries), size), strict=False):
            rows = order[start:stop]
            yield self._batch(self.table.iloc[rows], codes[rows] - first, queries[first : first + size])

    def _batch(self, table: pd.DataFrame, codes: np.ndarray, queries: np.ndarray) -> Batch:
        problem = self.problem
        counts = np.bincount(codes, minlength=len(queries))
        position = np.arange(len(codes)) - np.repeat(np.cumsum(counts) - counts, counts)
        shape = (len(queries), counts.max())

        def padded(columns: list[str], fill: float) -> np.ndarray:
            out = np.full((*shape, len(columns)), fill)
            out[codes, position] = table[columns].to_numpy(dtype=float)
            return out

        values = padded(problem.fields, np.nan)
        points = padded(list(problem.coordinates), 0.0)
        points[np.arange(shape[1]) >= counts[:, None]] = problem.domain[:, 0]
        deviations = [f"{field}_std" for field in problem.fields]
        std = padded(deviations, np.nan) if set(deviations) <= set(table) else None
        known = np.full((len(queries), len(problem.parameters)), np.nan)
        for column, name in enumerate(problem.parameters):
            if name in table:
                known[codes, column] = table[name]
        observed = np.isfinite(values)
        return Batch(np.asarray(queries), points, np.where(observed, values, 0.0), observed, std, known)


def read_observations(path: str | Path, problem: Problem) -> Observations:
    """Read observations from a CSV or Parquet file (by its suffix) and check them.

    Raises:
        InputError: names file, row and column of the first fault.
    """
    path = Path(path)
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            table = pd.read_parquet(path)
        else:
            table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False, skip_blank_lines=False)
            table.index += 2  # lines of the file: 1 is the header
            table = table[(table != "").any(axis=1)]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # pandas' and pyarrow's parse errors are ValueErrors
        raise InputError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
    return check_observations(table, problem, str(path))


def _numbers(column: pd.Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of a column, NaN where there is none; which cells are empty; which hold other text."""
    if column.dtype.kind in "fiu":
        numbers = column.to_numpy(dtype=float)
        return numbers, np.isnan(numbers), np.zeros(len(numbers), dtype=bool)
    text = column.astype("string").fillna("").str.strip()
    empty = (text == "").to_numpy(dtype=bool)
    numbers = pd.to_numeric(text.mask(empty), errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    spelled = text.str.lower().isin(["nan", "+nan", "-nan"]).to_numpy(dtype=bool)
    return numbers, empty, ~empty & ~spelled & np.isnan(numbers)


def check_observations(table: pd.DataFrame, problem: Problem, source: str = "observations") -> Observations:
    """Check a table of observations and bring it into order.

    Args:
        table: long form, see `Observations`; numbers may be given as text.
        problem: what the columns mean.
        source: where the table comes from, for messages; rows are named by the table's index.

    Raises:
        InputError: names source, row and column of the first fault.
    """
    present = ", ".join(map(str, table.columns))
    fields = [field for field in problem.fields if field in table]
    needed = ["query", *problem.coordinates, *(() if fields else problem.fields[:1])]
    for column in needed:
        if column not in table:
            raise InputError(f"{source}: column {column!r} is missing; there are {present}")
    if duplicate := list(table.columns[table.columns.duplicated()]):
        raise InputError(f"{source}: column {duplicate[0]!r} stands there twice")
    if table.empty:
        raise InputError(f"{source}: no rows")
    deviations = [f"{field}_std" for field in fields if f"{field}_std" in table]
    known = [name for name in problem.parameters if name in table]
    used = [*needed[:1], *problem.coordinates, *fields, *deviations, *known]
    if ignored := [str(column) for column in table.columns if column not in used]:
        warnings.warn(f"{source}: columns ignored: {', '.join(ignored)}", InputWarning, stacklevel=2)

    def fault(rows: np.ndarray, column: str, what: str) -> InputError:
        row = int(np.argmax(rows))
        query = table["query"].iloc[row]
        return InputError(f"{source}: row {table.index[row]}, column {column!r} (query {query}): {what}")

    checked = pd.DataFrame({"query": table["query"].to_numpy()})
    missing = checked["query"].isna().to_numpy() | (checked["query"].astype(str) == "").to_numpy()
    if missing.any():
        raise InputError(f"{source}: row {table.index[int(np.argmax(missing))]}, column 'query': empty")
    spoiled = 0
    for column in used[1:]:
        numbers, empty, text = _numbers(table[column])
        if text.any():
            raise fault(text, column, f"{table[column].iloc[int(np.argmax(text))]!r} is not a number")
        if column in fields:
            unusable = ~empty & ~np.isfinite(numbers)
            spoiled += int(unusable.sum())
            numbers = np.where(unusable, np.nan, numbers)
        elif column in problem.coordinates:
            low, high = problem.coordinates[column]
            if (unset := ~np.isfinite(numbers)).any():
                raise fault(unset, column, "a coordinate must be a finite number")
            slack = 1e-9 * (high - low)
            if (outside := (numbers < low - slack) | (numbers > high + slack)).any():
                value = numbers[int(np.argmax(outside))]
                raise fault(outside, column, f"{value:g} is outside the basis domain [{low:g}, {high:g}]")
        elif (infinite := np.isinf(numbers)).any():
            raise fault(infinite, column, "must be a finite number")
        checked[column] = numbers
    if spoiled:
        warnings.warn(f"{source}: {spoiled} values are NaN or infinite and count as not observed", InputWarning, 2)

    for column in deviations:
        seen = checked[column.removesuffix("_std")].notna()
        if (wrong := (seen & ~(checked[column] > 0)).to_numpy()).any():
            raise fault(wrong, column, "a standard deviation must be above zero where there is a value")
    by_query = checked.groupby("query", sort=False)
    for name in known:
        if (several := by_query[name].nunique(dropna=False) > 1).any():
            query = several.index[several][0]
            raise InputError(f"{source}: column {name!r}: query {query} has several values; one per query is right")
    unseen = ~by_query[fields].count().any(axis=1)
    if unseen.any():
        raise InputError(f"{source}: query {unseen.index[unseen][0]} has no observation in {', '.join(fields)}")
    for field in problem.fields:
        if field not in checked:
            checked[field] = np.nan
        if deviations and f"{field}_std" not in checked:
            if field in fields:
                raise InputError(f"{source}: column '{field}_std' is missing, but there is {deviations[0]!r}")
            checked[f"{field}_std"] = np.nan
    return Observations(problem, checked)


class ObservationSettings(Declared):
    """How observations are simulated.

    Args:
        number: observations per query.
        layout: ``equispaced`` points, the same for all queries; ``common`` random points, the same for
            all; ``own`` random points for each query.
        noise: size of the noise: standard deviation (gaussian) or half-width (uniform).
        noise_unit: ``percent`` of the largest modulus of the query's noise-free values, or ``absolute``.
        noise_kind: distribution of the noise.
        seed: of points and noise.
        truth: what the noise is added to: ``exact`` solutions, or ``published_tolerance``, those of the paper with
            the faults of its data (see `ipbasis.reference.solutions.TRUTHS`).
    """

    number: PositiveInt
    layout: Literal["equispaced", "common", "own"]
    noise: NonNegativeFloat
    noise_unit: Literal["percent", "absolute"]
    noise_kind: Literal["gaussian", "uniform"]
    seed: int
    truth: Literal["exact", "published_tolerance"] = "exact"

    def points(self, problem: Problem, queries: int) -> np.ndarray:
        """(queries, number, d) points of observation, or (1, number, d) if they are the same for all."""
        domain, dimension = problem.domain, len(problem.coordinates)
        if self.layout == "equispaced":
            per_axis = round(self.number ** (1 / dimension))
            grids = np.meshgrid(*[np.linspace(low, high, per_axis) for low, high in domain], indexing="ij")
            return np.stack(grids, axis=-1).reshape(1, -1, dimension)
        sampler = np.random.default_rng([self.seed, 0])
        unit = sampler.random((1 if self.layout == "common" else queries, self.number, dimension))
        if self.layout == "common":
            unit[0] = qmc.LatinHypercube(dimension, rng=sampler).random(self.number)
        points = domain[:, 0] + (domain[:, 1] - domain[:, 0]) * unit
        return np.sort(points, axis=1) if dimension == 1 else points

    def disturb(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values (queries, n, F) with noise added, and its standard deviation per query."""
        modulus = np.sqrt((values**2).sum(axis=2)).max(axis=1)
        size = self.noise * (modulus / 100 if self.noise_unit == "percent" else np.ones_like(modulus))
        generator = np.random.default_rng([self.seed, 1])
        if self.noise_kind == "gaussian":
            unit, std = generator.standard_normal(values.shape), 1.0
        else:
            unit, std = generator.uniform(-1, 1, values.shape), 3**-0.5
        return values + size[:, None, None] * unit, size * std


def long_table(problem: Problem, points: np.ndarray, values: np.ndarray) -> pd.DataFrame:
    """A table of observations from arrays.

    Args:
        problem: gives the names of the columns.
        points: (queries or 1, n, d).
        values: (queries, n, F).
    """
    queries, count, _ = values.shape
    points = np.broadcast_to(points, (queries, count, points.shape[2]))
    columns = {"query": np.repeat(np.arange(queries), count)}
    columns |= {name: points[..., i].ravel() for i, name in enumerate(problem.coordinates)}
    columns |= {name: values[..., i].ravel() for i, name in enumerate(problem.fields)}
    return pd.DataFrame(columns)
