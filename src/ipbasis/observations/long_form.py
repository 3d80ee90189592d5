"""Observations in long form: one row per query and point."""

import re
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from ipbasis.errors import InputError
from ipbasis.observations.readers import column_names, read_pieces, run_starts
from ipbasis.problem.declaration import Problem
from ipbasis.problem.ranges import LARGEST

_ROWS_AT_ONCE = 250_000


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
        initial: (B, free initial values) given ones, NaN for those that the data are to tell.
    """

    queries: np.ndarray
    points: np.ndarray
    values: np.ndarray
    observed: np.ndarray
    std: np.ndarray | None
    known: np.ndarray
    initial: np.ndarray

    def select(self, rows: np.ndarray) -> "Batch":
        """The queries in `rows`."""
        parts = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return Batch(**{name: None if part is None else part[rows] for name, part in parts.items()})


@dataclass(frozen=True)
class Observations:
    """A checked table of observations.

    Args:
        problem: what the coordinates, fields and parameters are.
        table: columns ``query``, the coordinates, the fields, and where given ``<field>_std``, known parameters,
            and known initial values as ``initial_<name>``; NaN where not observed. Two rows of one query with the
            same coordinates are two observations.
        unusable: queries that cannot be estimated, each with the reason.
        spoiled: number of values that were NaN or infinite and count as not observed.
    """

    problem: Problem
    table: pd.DataFrame
    unusable: Mapping[Hashable, str] = field(default_factory=dict)
    spoiled: int = 0

    @cached_property
    def _coded(self) -> tuple[np.ndarray, np.ndarray]:
        return _coded(self.table["query"])

    @property
    def queries(self) -> np.ndarray:
        """Ids in the order of their first row."""
        return self._coded[1]

    @cached_property
    def usable(self) -> np.ndarray:
        """(queries,) which of them can be estimated."""
        if not self.unusable:
            return np.ones(len(self.queries), dtype=bool)
        return np.array([query not in self.unusable for query in self.queries])

    @property
    def longest(self) -> int:
        """Largest number of rows of a query."""
        return int(np.bincount(self._coded[0]).max())

    def batches(self, size: int) -> Iterator[Batch]:
        """Usable queries in batches of at most `size`."""
        (codes, queries), table = self._coded, self.table
        if not self.usable.all():
            kept = self.usable[codes]
            codes, queries = (np.cumsum(self.usable) - 1)[codes[kept]], queries[self.usable]
            table = table[kept]
        if (np.diff(codes) < 0).any():  # rows of one query stand apart
            order = np.argsort(codes, kind="stable")
            codes, table = codes[order], table.iloc[order]
        ends = np.searchsorted(codes, np.arange(0, len(queries) + size, size))
        for start, stop, first in zip(ends[:-1], ends[1:], range(0, len(queries), size), strict=False):
            yield self._batch(table.iloc[start:stop], codes[start:stop] - first, queries[first : first + size])

    def _batch(self, table: pd.DataFrame, codes: np.ndarray, queries: np.ndarray) -> Batch:
        problem = self.problem
        counts = np.bincount(codes, minlength=len(queries))
        shape = (len(queries), counts.max())
        filled = np.arange(shape[1]) < counts[:, None]

        def padded(columns: list[str], fill: float) -> np.ndarray:
            out = np.full((*shape, len(columns)), fill)
            for number, column in enumerate(columns):
                out[filled, number] = table[column].to_numpy()
            return out

        values = padded(problem.fields, np.nan)
        points = padded(list(problem.coordinates), 0.0)
        points[~filled] = problem.domain[:, 0]
        deviations = [f"{field}_std" for field in problem.fields]
        std = padded(deviations, np.nan) if set(deviations) <= set(table) else None
        names = problem.known_names
        given = np.tile([problem.fixed.get(name, np.nan) for name in names], (len(queries), 1))
        for column, name in enumerate(names):
            if name in table:
                cells = table[name].to_numpy(dtype=float)
                given[codes, column] = np.where(np.isnan(cells), given[codes, column], cells)
        observed, count = np.isfinite(values), len(problem.parameters)
        return Batch(
            queries, points, np.where(observed, values, 0.0), observed, std, given[:, :count], given[:, count:]
        )


def _coded(ids: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Number of each row's query, and the ids by number, in the order of their first row.

    Raises:
        InputError: if they are lists and the like.
    """
    try:
        starts = run_starts(ids)
        codes, queries = pd.factorize(ids.iloc[starts])
    except (TypeError, ValueError):
        raise InputError("column 'query': ids that are no texts and no numbers") from None
    return np.repeat(codes, np.diff(starts, append=len(ids))), np.asarray(queries)


def read_observations(path: str | Path, problem: Problem) -> Observations:
    """Read observations from a CSV or Parquet file (by its suffix) and check them.

    Raises:
        InputError: names file, row and column of the first fault.
    """
    path = Path(path)
    columns = used_columns(column_names(path), problem, str(path))
    pieces = list(read_pieces(path, columns, _ROWS_AT_ONCE)) or [pd.DataFrame(columns=columns)]
    return check_observations(pd.concat(pieces), problem, str(path))


def used_columns(names: Sequence[str], problem: Problem, source: str) -> list[str]:
    """Which columns of a table are meant for a problem, ``query`` first; warns of the others.

    Raises:
        InputError: if one is missing or stands there twice.
    """
    names = list(map(str, names))
    fields = [name for name in problem.fields if name in names]
    for column in ["query", *problem.coordinates, *(() if fields else problem.fields[:1])]:
        if column not in names:
            raise InputError(f"{source}: column {column!r} is missing; there are {', '.join(names)}")
    if duplicate := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{source}: column {duplicate[0]!r} stands there twice")
    deviations = [f"{name}_std" for name in fields if f"{name}_std" in names]
    if deviations and len(deviations) < len(fields):
        missing = next(name for name in fields if f"{name}_std" not in names)
        raise InputError(f"{source}: column '{missing}_std' is missing, but there is {deviations[0]!r}")
    known = [name for name in problem.known_names if name in names]
    used = ["query", *problem.coordinates, *fields, *deviations, *known]
    if ignored := [name for name in names if name not in used]:
        warnings.warn(f"{source}: columns ignored: {', '.join(ignored)}", InputWarning, stacklevel=2)
    return used


def warn_of_spoiled(values: int, source: str) -> None:
    """Tell how many values were passed over, if any."""
    if values:
        warnings.warn(f"{source}: {values} values are NaN or infinite and count as not observed", InputWarning, 2)


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
        InputError: names source, row and column of the first fault: a column is missing, a cell is no number, a
            standard deviation not above zero. A query that merely cannot be estimated is told in
            `Observations.unusable`.
    """
    observations = check_rows(table[used_columns(table.columns, problem, source)], problem, source)
    warn_of_spoiled(observations.spoiled, source)
    return observations


def check_rows(table: pd.DataFrame, problem: Problem, source: str) -> Observations:
    """`check_observations` of a table with the columns of `used_columns` and no others, without a warning."""
    if table.empty:
        raise InputError(f"{source}: no rows")

    def first(rows: np.ndarray, column: str) -> str:
        row = int(np.argmax(rows))
        return f"{source}: row {table.index[row]}, column {column!r} (query {table['query'].iloc[row]})"

    missing = np.asarray(table["query"].isna() | (table["query"] == ""), dtype=bool)
    if missing.any():
        raise InputError(f"{source}: row {table.index[int(np.argmax(missing))]}, column 'query': empty")
    codes, queries = _coded(table["query"])
    unusable: dict[Hashable, str] = {}

    def set_aside(rows: np.ndarray, reason: Callable[[int], str]) -> None:
        """Queries with one of these rows, by the first of them."""
        positions = np.flatnonzero(rows)
        numbers, places = np.unique(codes[positions], return_index=True)
        for number, row in zip(numbers, positions[places], strict=True):
            unusable.setdefault(queries[number], reason(row))

    columns: dict[str, np.ndarray] = {"query": table["query"].array}
    spoiled, seen = 0, np.zeros(len(queries), dtype=bool)
    fields = [name for name in problem.fields if name in table]
    for column in table.columns.drop("query"):
        numbers, empty, text = _numbers(table[column])
        if text.any():
            value = table[column].iloc[int(np.argmax(text))]
            right = f"; {value.replace(',', '.')} is right" if re.fullmatch(r"-?\d+,\d+", str(value)) else ""
            raise InputError(f"{first(text, column)}: {value!r} is not a number{right}")
        if column in fields:
            finite = np.isfinite(numbers)
            unreadable = ~finite & ~empty
            spoiled += int(unreadable.sum())
            numbers = np.where(finite, numbers, np.nan)
            seen[codes[finite]] = True
            set_aside(*_too_large(column, numbers, table.index))
        elif column in problem.coordinates:
            if (unset := ~np.isfinite(numbers)).any():
                raise InputError(f"{first(unset, column)}: a coordinate must be a finite number")
            set_aside(*_outside(problem, column, numbers, table.index))
        elif (infinite := np.isinf(numbers)).any():
            raise InputError(f"{first(infinite, column)}: must be a finite number")
        elif column in problem.known_names:
            set_aside(*_too_large(column, numbers, table.index))
            set_aside(*_several(column, numbers, codes, table.index))
        columns[column] = numbers
    for name in fields:
        if f"{name}_std" in columns:
            wrong = ~np.isnan(columns[name]) & ~(columns[f"{name}_std"] > 0)
            if wrong.any():
                what = "a standard deviation must be above zero where there is a value"
                raise InputError(f"{first(wrong, f'{name}_std')}: {what}")
            given = np.where(np.isnan(columns[name]), np.nan, columns[f"{name}_std"])
            set_aside(*_too_large(f"{name}_std", given, table.index))
            set_aside(*_too_small(f"{name}_std", given, table.index))
    sizes = np.full(len(queries), 0.0)
    for name in fields:
        np.maximum.at(sizes, codes, np.nan_to_num(np.abs(columns[name])))
    for query in queries[(sizes > 0) & (sizes < 1 / LARGEST)]:
        unusable.setdefault(query, f"values of {', '.join(fields)} below {1 / LARGEST:g}; other units would help")
    for query in queries[~seen]:
        unusable.setdefault(query, f"no observation in {', '.join(fields)}")
    deviations = any(f"{name}_std" in columns for name in fields)
    for name in problem.fields:
        for column in (name, f"{name}_std") if deviations else (name,):
            columns.setdefault(column, np.full(len(table), np.nan))
    return Observations(problem, pd.DataFrame(columns, copy=False), unusable, spoiled)


def _outside(
    problem: Problem, column: str, numbers: np.ndarray, names: pd.Index
) -> tuple[np.ndarray, Callable[[int], str]]:
    """Which rows have a coordinate outside the domain, and how to tell it of one."""
    low, high, _ = problem.coordinates[column]
    slack = 1e-9 * (high - low)
    outside = (numbers < low - slack) | (numbers > high + slack)
    domain = f"outside the basis domain [{low:g}, {high:g}]"
    return outside, lambda row: f"row {names[row]}, column {column!r}: {numbers[row]:g} is {domain}"


def _too_large(column: str, numbers: np.ndarray, names: pd.Index) -> tuple[np.ndarray, Callable[[int], str]]:
    """Which rows have a number too large to compute with, and how to tell it of one."""
    right = f"numbers up to {LARGEST:g} can be computed with"
    return np.abs(numbers) > LARGEST, lambda row: f"row {names[row]}, column {column!r}: {numbers[row]:g}; {right}"


def _too_small(column: str, numbers: np.ndarray, names: pd.Index) -> tuple[np.ndarray, Callable[[int], str]]:
    """Which rows have a number too small to divide by, and how to tell it of one."""
    right = f"numbers from {1 / LARGEST:g} on can be divided by"
    return numbers < 1 / LARGEST, lambda row: f"row {names[row]}, column {column!r}: {numbers[row]:g}; {right}"


def _several(
    column: str, numbers: np.ndarray, codes: np.ndarray, names: pd.Index
) -> tuple[np.ndarray, Callable[[int], str]]:
    """Which rows have another value of a parameter than the first row of their query, and how to tell it of one."""
    first = np.empty(codes.max() + 1, dtype=int)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    expected = numbers[first[codes]]
    different = ~((numbers == expected) | (np.isnan(numbers) & np.isnan(expected)))
    return different, lambda row: f"row {names[row]}, column {column!r}: a second value; one per query is right"
