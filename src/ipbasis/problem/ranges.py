"""Ranges of what differs from task to task, on a linear or a logarithmic scale, and tasks that cover them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import PlainSerializer, PlainValidator

_MOST_CORNERS = 32
LARGEST = 1e100  # of a number that is given: its cube is still one of double precision


def within_reach(value: float) -> bool:
    """Whether a number is zero or neither larger nor smaller than what can be computed with."""
    return value == 0 or 1 / LARGEST <= abs(value) <= LARGEST


class Interval(NamedTuple):
    """A range, and the scale on which it is covered: ``log`` for equal shares of every power of ten."""

    low: float
    high: float
    scale: Literal["linear", "log"] = "linear"

    def __str__(self) -> str:
        return f"[{self.low:g}, {self.high:g}]" + (" on a logarithmic scale" if self.logarithmic else "")

    @property
    def logarithmic(self) -> bool:
        return self.scale == "log"

    @property
    def widened(self) -> tuple[float, float]:
        """Where a value is searched that is trained in the interval, unless bounds are given.

        Half of its width further on either side, on the logarithm if that is its scale. What is above zero, or below,
        stays so, and within a tenth of the nearer end.
        """
        low, high, further = self.low, self.high, (self.high - self.low) / 2
        if self.logarithmic:
            return low / (high / low) ** 0.5, high * (high / low) ** 0.5
        return (
            max(low - further, low / 10) if low > 0 else low - further,
            min(high + further, high / 10) if high < 0 else high + further,
        )

    @property
    def declared(self) -> list[float] | dict[str, Any]:
        """As it stands in a file."""
        ends = [self.low, self.high]
        return {"range": ends, "scale": "log"} if self.logarithmic else ends


def as_interval(given: Any) -> Interval:
    """An interval from ``[low, high]`` or ``{range: [low, high], scale: log}``.

    Raises:
        ValueError: if it is neither, not finite, not increasing, or touches zero on a logarithmic scale.
    """
    scale = "linear"
    if isinstance(given, Interval):
        given, scale = given[:2], given.scale
    elif isinstance(given, Mapping):
        if unknown := given.keys() - {"range", "scale"}:
            raise ValueError(f"no key {unknown.pop()!r} in a range; {{range: [low, high], scale: log}} is right")
        given, scale = given.get("range"), given.get("scale", "linear")
    if scale not in ("linear", "log"):
        raise ValueError(f"scale {scale!r}: linear or log is right")
    try:
        if isinstance(given, str):
            raise TypeError
        low, high = (_number(end) for end in given)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{given!r} is not a range; [low, high] is right, both numbers") from None
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"range [{low:g}, {high:g}]: low must be below high, both finite")
    if not all(map(within_reach, (low, high, high - low))):
        raise ValueError(f"range [{low:g}, {high:g}]: sizes of {1 / LARGEST:g} to {LARGEST:g} are right")
    if scale == "log" and low <= 0:
        raise ValueError(f"range [{low:g}, {high:g}]: on a logarithmic scale low must be above zero")
    return Interval(low, high, scale)


def _number(value: Any) -> float:
    """A number from a file, where YAML takes ``1e-3`` for a text."""
    if isinstance(value, bool):
        raise TypeError
    return float(value)


def as_range_or_formula(given: Any) -> Interval | str:
    """An interval, or a formula as text; a plain number is a formula."""
    if isinstance(given, str):
        return given
    if isinstance(given, int | float) and not isinstance(given, bool):
        return repr(given)
    return as_interval(given)


def _declared(value: Interval | str) -> Any:
    return value.declared if isinstance(value, Interval) else value


Range = Annotated[Interval, PlainValidator(as_interval), PlainSerializer(_declared)]
RangeOrFormula = Annotated[Interval | str, PlainValidator(as_range_or_formula), PlainSerializer(_declared)]


@dataclass(frozen=True)
class Tasks:
    """Instances of a problem: one row per task.

    Args:
        parameters: (tasks, parameters), in the problem's order.
        initial: (tasks, free initial values), in the order of `Problem.free_initial`.
    """

    parameters: np.ndarray
    initial: np.ndarray

    def __len__(self) -> int:
        return len(self.parameters)

    def __getitem__(self, rows: slice | np.ndarray) -> "Tasks":
        return Tasks(self.parameters[rows], self.initial[rows])


@dataclass(frozen=True)
class Ranges:
    """The ranges of several unknowns together.

    Args:
        intervals: one per unknown.
    """

    intervals: Sequence[Interval]

    @property
    def ends(self) -> np.ndarray:
        """(U, 2) low and high ends."""
        return np.array([interval[:2] for interval in self.intervals], dtype=float).reshape(-1, 2)

    @property
    def logarithmic(self) -> np.ndarray:
        """(U,) which of them are on a logarithmic scale."""
        return np.array([interval.logarithmic for interval in self.intervals], dtype=bool)

    def to_scale(self, values: np.ndarray) -> np.ndarray:
        """Values (..., U) as they are covered: logarithms where the scale is logarithmic."""
        return np.where(self.logarithmic, np.log(np.where(self.logarithmic, values, 1.0)), values)

    def from_scale(self, values: np.ndarray) -> np.ndarray:
        """The inverse of `to_scale`."""
        return np.where(self.logarithmic, np.exp(np.where(self.logarithmic, values, 0.0)), values)

    @property
    def scaled_ends(self) -> tuple[np.ndarray, np.ndarray]:
        """(U,) low and (U,) high ends, logarithms where the scale is logarithmic."""
        low, high = self.to_scale(self.ends.T)
        return low, high

    def drawn(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """(count, U) values drawn uniformly on the scale of each."""
        return self._within(rng.uniform(*self.scaled_ends, size=(count, len(self.intervals))))

    def at(self, unit: np.ndarray) -> np.ndarray:
        """(..., U) values at shares between 0 and 1 of the ranges, on the scale of each."""
        low, high = self.scaled_ends
        return self._within(low + (high - low) * unit)

    def shares(self, values: np.ndarray) -> np.ndarray:
        """The inverse of `at`: where in the ranges values (..., U) lie, 0 at the low end, 1 at the high."""
        low, high = self.scaled_ends
        return (self.to_scale(values) - low) / (high - low)

    def _within(self, scaled: np.ndarray) -> np.ndarray:
        values = self.from_scale(scaled)
        # an exponential may lie beyond the end by rounding
        return np.where(self.logarithmic, np.clip(values, *self.ends.T), values)

    def sobol(self, count: int, seed: int) -> np.ndarray:
        """(count, U) values of a scrambled Sobol sequence: they cover the ranges evenly, whatever the count."""
        from scipy.stats import qmc

        sampler = qmc.Sobol(len(self.intervals), rng=np.random.default_rng(seed))
        return self.at(sampler.random_base2(max(count - 1, 0).bit_length())[:count])

    def corners(self) -> np.ndarray:
        """(corners, U) values at the ends of the ranges.

        All 2^U corners for up to five unknowns; for more, 2 m of them, m the least power of two above U: a two-level
        design in which the ends of any two unknowns meet in every combination equally often, and so do those of any
        three (the rows of a Hadamard matrix and their mirror images).
        """
        count = len(self.intervals)
        if 2**count <= _MOST_CORNERS:
            unit = np.array(list(product([0.0, 1.0], repeat=count)))
        else:
            from scipy.linalg import hadamard

            half = hadamard(1 << count.bit_length())[:, 1 : count + 1]
            unit = (np.concatenate([half, -half]) + 1) / 2
        return self.at(unit)
