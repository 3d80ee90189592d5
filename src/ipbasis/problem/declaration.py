"""A parametric differential equation, declared as data."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import sympy
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator

from ipbasis.errors import InputError
from ipbasis.problem.equations import CONSTANTS, FUNCTIONS, Equations, Jet, Notation


def _increasing(interval: tuple[float, float]) -> tuple[float, float]:
    low, high = interval
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"range [{low:g}, {high:g}]: low must be below high, both finite")
    return interval


# columns of the tables of observations and estimates
_RESERVED = ("query", "noise_std", "objective", "iterations", "status", "message", "resimulation_rms")

Range = Annotated[tuple[float, float], AfterValidator(_increasing)]


class Declared(BaseModel):
    """Settings read from a file: frozen, no unknown keys, the first fault told in one line."""

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(str(part) for part in fault["loc"])
            what = fault["msg"].removeprefix("Value error, ")
            if fault["type"] == "extra_forbidden":
                what = f"no such key; there are {', '.join(type(self).model_fields)}"
            raise InputError(f"{type(self).__name__}: {where + ': ' if where else ''}{what}") from None


class Boundary(Declared):
    """Conditions on part of the boundary: ``equations`` hold where the coordinates in ``at`` have these values."""

    at: dict[str, float]
    equations: list[str]


class UnknownTerm(Declared):
    """A term whose form is not known: a function of the fields ``of``; ``truth`` is used to simulate only."""

    of: list[str]
    truth: str | None = None


class Prior(Declared):
    """Distribution of a parameter before any data: ``normal`` by mean and standard deviation, or ``lognormal`` by
    median and standard deviation of the logarithm."""

    normal: tuple[float, float] | None = None
    lognormal: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _check(self) -> "Prior":
        if (self.normal is None) == (self.lognormal is None):
            raise ValueError("a prior is either normal: [mean, std] or lognormal: [median, std of the logarithm]")
        first, std = self.normal or self.lognormal
        if not (np.isfinite(first) and np.isfinite(std) and std > 0):
            raise ValueError(f"[{first:g}, {std:g}]: both finite and the standard deviation above zero")
        if self.lognormal and first <= 0:
            raise ValueError(f"lognormal [{first:g}, {std:g}]: the median must be above zero")
        return self


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


class Problem(Declared):
    """One parametric differential equation with its domain, parameter ranges and conditions.

    Args:
        name: name of the problem.
        coordinates: range of each coordinate. Initial conditions hold at the low end of the first one.
        fields: names of the unknown functions.
        parameters: range of each parameter, from which training tasks are drawn.
        equations: formulas that equal zero. Derivatives are written ``u_t``, ``u_tx``.
        initial: for a field or a derivative of it along the first coordinate, either a range (differs from
            task to task) or a formula in the coordinates (the same for every task).
        boundary: further conditions, linear in the fields.
        unknown_terms: names in the equations that stand for functions of the fields yet to be found.
        bounds: low and high end that estimates of a parameter keep to; None for an open end.
        priors: distributions of parameters.
        fixed: given values of parameters, and of initial values under the names ``initial_<name>``.

    Raises:
        InputError: if the declaration contradicts itself; says where and how.
    """

    name: str
    coordinates: dict[str, Range]
    fields: list[str]
    parameters: dict[str, Range]
    equations: list[str]
    initial: dict[str, Range | str] = {}
    boundary: list[Boundary] = []
    unknown_terms: dict[str, UnknownTerm] = {}
    bounds: dict[str, tuple[float | None, float | None]] = {}
    priors: dict[str, Prior] = {}
    fixed: dict[str, float] = {}

    @classmethod
    def from_yaml(cls, path: str | Path) -> "Problem":
        """Read a problem from a YAML file with the keys of the class."""
        try:
            values = yaml.safe_load(Path(path).read_text())
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
        if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
            raise InputError(f"{path}: a problem is a mapping with the keys {', '.join(cls.model_fields)}")
        try:
            return cls(**values)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    @model_validator(mode="after")
    def _check(self) -> "Problem":
        names = [*self.coordinates, *self.fields, *self.parameters, *self.unknown_terms]
        for name in names:
            if not re.fullmatch(r"[A-Za-z]\w*", name) or name in FUNCTIONS or name in CONSTANTS:
                raise ValueError(f"{name!r} cannot be a name: use letters and digits, and no function or constant")
            if "_" in name and name in self.fields:
                raise ValueError(f"field {name!r}: no underscore in the name of a field, it marks derivatives")
            if name in (*_RESERVED, *(f"{field}_noise" for field in self.fields)):
                raise ValueError(f"{name!r} cannot be a name: tables have a column of that name")
            if names.count(name) > 1:
                raise ValueError(f"name {name!r} is used twice")
        for name in [*self.parameters, *self.unknown_terms]:
            if self.notation.jet(name):
                raise ValueError(f"name {name!r} reads as a derivative; choose another")
        for kind in ("coordinates", "fields", "parameters", "equations"):
            if not getattr(self, kind):
                raise ValueError(f"{kind}: at least one is needed")
        if not self.initial and not self.boundary:
            raise ValueError("no initial and no boundary conditions: no solution is determined")
        for name, term in self.unknown_terms.items():
            if wrong := [f for f in term.of if f not in self.fields]:
                raise ValueError(f"unknown_terms.{name}: {wrong[0]!r} is not a field; fields are {self.fields}")
        for name in self.initial:
            jet = self.notation.jet(name)
            if jet is None or set(jet.index) - {0}:
                first = next(iter(self.coordinates))
                raise ValueError(f"initial: {name!r} is not a field or a derivative of one along {first!r}")
        for condition in self.boundary:
            for coordinate, value in condition.at.items():
                low, high = self.coordinates.get(coordinate, (np.nan, np.nan))
                if not low <= value <= high:
                    raise ValueError(f"boundary: {coordinate} = {value:g} is not in the domain [{low:g}, {high:g}]")
        try:
            _ = self.system, self.truth, self.fixed_initial, self.boundary_systems
        except InputError as error:
            raise ValueError(str(error)) from None
        used = {s for residual in (self.truth or self.system).residuals for s in residual.free_symbols}
        for name in self.parameters:
            if self.notation.others[name] not in used:
                raise ValueError(f"parameter {name!r} occurs in no equation")
        self._check_knowledge()
        return self

    def _check_knowledge(self) -> None:
        """Bounds, priors and fixed values name parameters, and leave the search a place to start."""
        for kind, names in (("bounds", self.parameters), ("priors", self.parameters), ("fixed", self.known_names)):
            for name in getattr(self, kind):
                if name not in names:
                    raise ValueError(f"{kind}: there is no {name!r}; there are {', '.join(names)}")
        for name, (low, high) in self.bounds.items():
            low, high = -np.inf if low is None else low, np.inf if high is None else high
            first, last = self.parameters[name]
            if not low < high:
                raise ValueError(f"bounds.{name}: [{low:g}, {high:g}]: low must be below high")
            if low >= last or high <= first:
                given = f"bounds.{name}: [{low:g}, {high:g}]"
                raise ValueError(f"{given} leaves no start: it must overlap the range [{first:g}, {last:g}]")
        for name, prior in self.priors.items():
            high = self.bounds.get(name, (None, None))[1]
            if prior.lognormal and high is not None and high <= 0:
                raise ValueError(f"priors.{name}: lognormal, but bounds end at {high:g}; it must be above zero")
        for name, value in self.fixed.items():
            if not np.isfinite(value):
                raise ValueError(f"fixed.{name}: {value:g} is not a finite number")
            if name in self.priors or name in self.bounds:
                raise ValueError(f"fixed.{name}: it cannot have bounds or a prior as well")

    @property
    def known_names(self) -> list[str]:
        """Names under which values can be given: the parameters, and ``initial_<name>`` of free initial values."""
        return [*self.parameters, *(f"initial_{self.notation.jet_name(jet)}" for jet in self.free_initial)]

    @cached_property
    def notation(self) -> Notation:
        return Notation(self.coordinates, self.fields, [*self.parameters, *self.unknown_terms])

    def _system(self, equations: list[str], substitute: Mapping | None = None) -> Equations:
        notation = self.notation
        residuals = tuple(notation.parse(text).subs(substitute or {}) for text in equations)
        return Equations(notation, residuals, tuple(notation.others[name] for name in self.parameters))

    @cached_property
    def system(self) -> Equations:
        """The equations as they are solved, unknown terms as symbols."""
        return self._system(self.equations)

    @cached_property
    def truth(self) -> Equations | None:
        """The equations as they are simulated, or None if an unknown term has no ``truth``."""
        if any(term.truth is None for term in self.unknown_terms.values()):
            return None
        notation = self.notation
        terms = {notation.others[name]: notation.parse(term.truth) for name, term in self.unknown_terms.items()}
        return self._system(self.equations, terms)

    @cached_property
    def boundary_systems(self) -> list[tuple[dict[int, float], Equations]]:
        """For each boundary part: the fixed coordinates (by number) and the conditions."""
        order = list(self.coordinates)
        parts = [({order.index(c): v for c, v in b.at.items()}, self._system(b.equations)) for b in self.boundary]
        for _, system in parts:
            if system.affine is None or system.affine.thetas != (1,):
                raise InputError("boundary: conditions must be linear in the fields, with no parameter in them")
        return parts

    @cached_property
    def free_initial(self) -> dict[Jet, tuple[float, float]]:
        """Initial values that differ from task to task, with their ranges."""
        return {self.notation.jet(k): v for k, v in self.initial.items() if not isinstance(v, str)}

    @cached_property
    def fixed_initial(self) -> dict[Jet, sympy.Expr]:
        """Initial values that are the same for every task, as expressions in the coordinates."""
        fixed = {self.notation.jet(k): self.notation.parse(v) for k, v in self.initial.items() if isinstance(v, str)}
        coordinates = set(self.notation.coordinates.values())
        for jet, expression in fixed.items():
            if foreign := expression.free_symbols - coordinates:
                name = self.notation.jet_name(jet)
                raise InputError(f"initial: {name}: {foreign.pop()} is not a coordinate")
        return fixed

    @property
    def domain(self) -> np.ndarray:
        """(coordinates, 2) lower and upper end of each coordinate."""
        return np.array(list(self.coordinates.values()), dtype=float)

    @property
    def parameter_ranges(self) -> np.ndarray:
        """(parameters, 2) lower and upper end of each parameter."""
        return np.array(list(self.parameters.values()), dtype=float)

    @property
    def unknown_ranges(self) -> np.ndarray:
        """(parameters + free initial values, 2) lower and upper end of everything that differs from task to task."""
        return np.array([*self.parameters.values(), *self.free_initial.values()], dtype=float)

    def with_ranges(self, parameters: Mapping | None = None, initial: Mapping | None = None) -> "Problem":
        """The same problem with other ranges for some parameters or initial values."""
        values = self.model_dump()
        for kind, ranges in (("parameters", parameters or {}), ("initial", initial or {})):
            for name, interval in ranges.items():
                if name not in values[kind]:
                    raise InputError(f"{self.name} has no {kind} {name!r}; it has {', '.join(values[kind])}")
                values[kind][name] = tuple(interval)
        return Problem(**values)

    def with_knowledge(
        self, bounds: Mapping | None = None, priors: Mapping | None = None, fixed: Mapping | None = None
    ) -> "Problem":
        """The same problem with bounds, priors or fixed values added to those that are declared."""
        values = self.model_dump()
        for kind, given in (("bounds", bounds), ("priors", priors), ("fixed", fixed)):
            values[kind] |= given or {}
        return Problem(**values)

    def sample_tasks(self, count: int, rng: np.random.Generator) -> Tasks:
        """Draw tasks uniformly from the ranges of parameters and free initial values."""
        ranges = self.unknown_ranges
        draws = rng.uniform(ranges[:, 0], ranges[:, 1], size=(count, len(ranges)))
        return Tasks(draws[:, : len(self.parameters)], draws[:, len(self.parameters) :])


def problem_directory() -> Path:
    """Where the problems that come with ipbasis are declared."""
    installed = Path(__file__).parents[1] / "problems"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "conf" / "problem"
