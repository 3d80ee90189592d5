"""A problem declared anew in other units: coordinates, fields, parameters and equations of any size one likes.

    x = offset + scale x',   u = scale u',   p = scale q  or  p = scale exp(q),   residual = divisor residual'

The formulas are rewritten as text, a name becoming ``(2.5*name)`` or ``(0.1*exp(name))``, so that whatever takes a
problem takes the rescaled one. Names stay; so do the values of constants and unknown terms, in their own units.
"""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from ipbasis.errors import InputError
from ipbasis.problem.declaration import Problem
from ipbasis.problem.declared import Declared
from ipbasis.problem.equations import Jet
from ipbasis.problem.parsing import names_in, with_names
from ipbasis.problem.parts import Prior
from ipbasis.problem.ranges import Interval, Tasks


class CoordinateUnit(NamedTuple):
    """``x = offset + scale x'``."""

    offset: float
    scale: float


class ParameterUnit(NamedTuple):
    """``p = scale q``, or ``p = scale exp(q)`` with the logarithm."""

    scale: float
    logarithm: bool = False


class Units(Declared):
    """What one of each quantity in a rescaled problem is in the original one.

    Args:
        coordinates: offset and scale of each coordinate.
        fields: scale of each field.
        parameters: scale of each parameter, and whether it is its logarithm that is searched.
        equations: divisor of each equation.
        conditions: for each part of the boundary that is not periodic, divisors of its equations.
    """

    coordinates: dict[str, CoordinateUnit]
    fields: dict[str, float]
    parameters: dict[str, ParameterUnit]
    equations: list[float]
    conditions: list[list[float]]

    @classmethod
    def identity(cls, problem: Problem) -> "Units":
        """The units in which a problem stays what it is."""
        parts = [part for part in problem.boundary if part.periodic is None]
        return cls(
            coordinates=dict.fromkeys(problem.coordinates, CoordinateUnit(0.0, 1.0)),
            fields=dict.fromkeys(problem.fields, 1.0),
            parameters=dict.fromkeys(problem.parameters, ParameterUnit(1.0)),
            equations=[1.0] * len(problem.equations),
            conditions=[[1.0] * len(part.equations) for part in parts],
        )

    def with_parts(self, **parts: Mapping | list) -> "Units":
        """The same units but for some parts."""
        return Units(**{**dict(self), **parts})

    @property
    def _scales(self) -> np.ndarray:
        return np.array([unit.scale for unit in self.parameters.values()])

    @property
    def _logarithms(self) -> np.ndarray:
        return np.array([unit.logarithm for unit in self.parameters.values()], dtype=bool)

    def to(self, parameters: np.ndarray) -> np.ndarray:
        """Parameters (..., P) in these units; NaN for one that is not above zero and stands by its logarithm."""
        scaled, logarithms = np.asarray(parameters, dtype=float) / self._scales, self._logarithms
        with np.errstate(all="ignore"):
            return np.where(logarithms, np.log(np.where(logarithms & ~(scaled > 0), np.nan, scaled)), scaled)

    def values(self, scaled: np.ndarray) -> np.ndarray:
        """Parameters (..., P) as declared, from those in these units."""
        scaled, logarithms = np.asarray(scaled, dtype=float), self._logarithms
        return self._scales * np.where(logarithms, np.exp(np.where(logarithms, scaled, 0.0)), scaled)

    def slopes(self, scaled: np.ndarray) -> np.ndarray:
        """(..., P) derivatives of the declared parameters by those in these units: standard errors go by them."""
        values = self.values(scaled)
        return np.where(self._logarithms, values, self._scales)

    def points_to(self, points: np.ndarray) -> np.ndarray:
        """Points (..., d) in these units."""
        offsets, scales = np.array([*self.coordinates.values()]).T
        return (np.asarray(points, dtype=float) - offsets) / scales

    def points_from(self, points: np.ndarray) -> np.ndarray:
        """Points (..., d) as declared, from those in these units."""
        offsets, scales = np.array([*self.coordinates.values()]).T
        return offsets + scales * np.asarray(points, dtype=float)

    @property
    def field_scales(self) -> np.ndarray:
        """(F,) by which fields (..., F) in these units are multiplied."""
        return np.array([*self.fields.values()])

    def jet_scale(self, jet: Jet) -> float:
        """By what a field or a derivative in these units is multiplied."""
        scales = [unit.scale for unit in self.coordinates.values()]
        return [*self.fields.values()][jet.field] / math.prod(scales[i] for i in jet.index)

    def initial_scales(self, jets: Iterable[Jet]) -> np.ndarray:
        """(jets,) their scales; for the free initial values of a problem."""
        return np.array([self.jet_scale(jet) for jet in jets])

    def tasks_to(self, problem: Problem, tasks: Tasks) -> Tasks:
        """Tasks of the declared problem in these units."""
        return Tasks(self.to(tasks.parameters), tasks.initial / self.initial_scales(problem.free_initial))

    def tasks_from(self, problem: Problem, tasks: Tasks) -> Tasks:
        """Tasks of the declared problem, from those in these units."""
        return Tasks(self.values(tasks.parameters), tasks.initial * self.initial_scales(problem.free_initial))


def rescaled(problem: Problem, units: Units) -> Problem:
    """The same problem declared in other units.

    A free initial value stays on its scale, also a logarithmic one; a parameter that stands by its logarithm has a
    linear range, and a lognormal prior becomes a normal one.

    Args:
        problem: the problem as declared.
        units: of its coordinates, fields, parameters and equations.

    Raises:
        InputError: if a range, a prior or a value of a parameter has no logarithm, or the units are of another problem.
    """
    _check_units(problem, units)
    values, texts = problem.model_dump(), _Texts(problem, units)
    values["coordinates"] = {
        name: [_coordinate(units, name, end) for end in interval[:2]] for name, interval in problem.coordinates.items()
    }
    values["parameters"] = {name: _range(units, name, interval) for name, interval in problem.parameters.items()}
    values["equations"] = texts.divided(problem.equations, units.equations)
    values["initial"] = {name: texts.initial(name, given) for name, given in problem.initial.items()}
    divisors = iter(units.conditions)
    for part in values["boundary"]:
        if part["periodic"] is None:
            part["at"] = {name: _coordinate(units, name, value) for name, value in part["at"].items()}
            part["equations"] = texts.divided(part["equations"], next(divisors))
    for term in values["unknown_terms"].values():
        term["truth"] = term["truth"] and texts.rewritten(term["truth"])
    values["bounds"] = {name: _bounds(units, name, ends) for name, ends in problem.bounds.items()}
    values["priors"] = {name: _prior(units, name, prior) for name, prior in problem.priors.items()}
    values["fixed"] = {name: _fixed(problem, units, name, value) for name, value in problem.fixed.items()}
    return Problem(**values)


def _check_units(problem: Problem, units: Units) -> None:
    """Units have one entry for each thing they are of, and no scale is zero or infinite."""
    own = Units.identity(problem)
    same = all(
        list(getattr(own, kind)) == list(getattr(units, kind)) for kind in ("coordinates", "fields", "parameters")
    )
    if not same or [len(own.equations), *map(len, own.conditions)] != [
        len(units.equations),
        *map(len, units.conditions),
    ]:
        raise InputError(f"{problem.name}: these units are of another problem")
    scales = [*units.fields.values(), *units.equations, *(divisor for part in units.conditions for divisor in part)]
    scales += [unit.scale for unit in (*units.coordinates.values(), *units.parameters.values())]
    if not all(0 < scale < math.inf for scale in scales):
        raise InputError(f"{problem.name}: units must be finite numbers above zero")


def _coordinate(units: Units, name: str, value: float) -> float:
    offset, scale = units.coordinates[name]
    return (value - offset) / scale


def _parameter(units: Units, name: str, value: float, kind: str) -> float:
    """A value of a parameter in its unit."""
    scale, logarithm = units.parameters[name]
    if not logarithm:
        return value / scale
    if value <= 0:
        raise InputError(f"{kind}.{name}: {value:g} has no logarithm; above zero is right")
    return math.log(value / scale)


def _range(units: Units, name: str, interval: Interval) -> Interval:
    low, high = (_parameter(units, name, end, "parameters") for end in interval[:2])
    return Interval(low, high, "linear" if units.parameters[name].logarithm else interval.scale)


def _bounds(units: Units, name: str, ends: tuple[float | None, float | None]) -> tuple[float | None, float | None]:
    """Bounds of a parameter in its unit; one at zero or below is no bound of a logarithm."""
    low, high = ends
    if units.parameters[name].logarithm and low is not None and low <= 0:
        low = None
    return tuple(None if end is None else _parameter(units, name, end, "bounds") for end in (low, high))


def _prior(units: Units, name: str, prior: Prior) -> Prior:
    scale, logarithm = units.parameters[name]
    if prior.lognormal:
        median, std = prior.lognormal
        return Prior(normal=(math.log(median / scale), std)) if logarithm else Prior(lognormal=(median / scale, std))
    if logarithm:
        raise InputError(f"priors.{name}: normal, but {name} stands by its logarithm; lognormal is right")
    mean, std = prior.normal
    return Prior(normal=(mean / scale, std / scale))


def _fixed(problem: Problem, units: Units, name: str, value: float) -> float:
    if name in units.parameters:
        return _parameter(units, name, value, "fixed")
    return value / units.jet_scale(problem.notation.jet(name.removeprefix("initial_")))


class _Texts:
    """Formulas of a problem in other units."""

    def __init__(self, problem: Problem, units: Units):
        self._problem, self._units = problem, units

    def rewritten(self, text: str) -> str:
        """A formula with every name in its unit."""
        return with_names(text, {name: self._name(name) for name in names_in(text)})

    def divided(self, texts: Iterable[str], divisors: Iterable[float]) -> list[str]:
        return [_divided(self.rewritten(text), divisor) for text, divisor in zip(texts, divisors, strict=True)]

    def initial(self, name: str, given: Interval | str) -> Interval | str:
        """An initial value by its name."""
        scale = self._units.jet_scale(self._problem.notation.jet(name))
        if isinstance(given, str):
            return _divided(self.rewritten(given), scale)
        return Interval(given.low / scale, given.high / scale, given.scale)

    def _name(self, name: str) -> str:
        units = self._units
        if name in units.coordinates:
            offset, scale = units.coordinates[name]
            return f"({offset!r} + {_scaled(scale, name)})" if offset else _scaled(scale, name)
        if name in units.parameters:
            scale, logarithm = units.parameters[name]
            return _scaled(scale, f"exp({name})" if logarithm else name)
        jet = self._problem.notation.jet(name)
        return name if jet is None else _scaled(units.jet_scale(jet), name)


def _scaled(scale: float, name: str) -> str:
    return name if scale == 1 else f"({scale!r}*{name})"


def _divided(text: str, divisor: float) -> str:
    return text if divisor == 1 else f"({text})/{divisor!r}"
