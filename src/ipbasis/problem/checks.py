"""What a declared problem must be free of: each fault with its key, what is wrong, and what would be right."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from keyword import iskeyword
from typing import TYPE_CHECKING

import numpy as np

from ipbasis.errors import InputError
from ipbasis.problem.conditions import check_conditions
from ipbasis.problem.equations import Equations, Jet
from ipbasis.problem.functions import CONSTANTS, FUNCTIONS, Where
from ipbasis.problem.linearity import affine_form
from ipbasis.problem.ranges import LARGEST

if TYPE_CHECKING:
    from ipbasis.problem.declaration import Problem

HIGHEST_ORDER = 4  # of derivatives, as far as features have them

# columns of the tables of observations and estimates
_RESERVED = ("query", "noise_std", "objective", "iterations", "status", "message", "resimulation_rms")
_OF_PARAMETERS = ("std", "low", "high")


def check_problem(problem: "Problem") -> None:
    """Refuse a problem that contradicts itself.

    Raises:
        InputError: the first fault.
    """
    for name, value in problem.constants.items():
        if not np.isfinite(value):
            raise InputError(f"constants.{name}: {value:g} is not a finite number")
    _check_names(problem)
    for kind in ("coordinates", "fields", "parameters", "equations"):
        if not getattr(problem, kind):
            raise InputError(f"{kind}: at least one is needed")
    for name, interval in problem.coordinates.items():
        if interval.logarithmic:
            raise InputError(f"coordinates.{name}: a coordinate has no logarithmic scale; [low, high] is right")
    if not problem.initial and not problem.boundary:
        raise InputError("no initial and no boundary conditions: no solution is determined")
    for name, term in problem.unknown_terms.items():
        if wrong := [f for f in term.of if f not in problem.fields]:
            raise InputError(f"unknown_terms.{name}: {wrong[0]!r} is not a field; fields are {problem.fields}")
    _check_equations(problem)
    _check_initial(problem)
    _check_boundary(problem)
    check_conditions(problem)
    used = {s for residual in (problem.truth or problem.system).residuals for s in residual.free_symbols}
    for name in problem.parameters:
        if problem.notation.others[name] not in used and name not in problem.used_parameters:
            raise InputError(f"parameters: parameter {name!r} occurs in no equation and in no condition")
    _check_knowledge(problem)


@contextmanager
def _in(key: str) -> Iterator[None]:
    """Faults of formulas are told with the key that they stand under."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{key}: {error}") from None


def _check_names(problem: "Problem") -> None:
    kinds = ("coordinates", "fields", "parameters", "constants", "unknown_terms")
    homes = [(name, kind) for kind in kinds for name in getattr(problem, kind)]
    names = [name for name, _ in homes]
    columns = {f"{p}_{end}": f"parameter {p!r}" for p in problem.parameters for end in _OF_PARAMETERS}
    columns |= {f"{field}_{end}": f"field {field!r}" for field in problem.fields for end in ("std", "noise")}
    for name, kind in homes:
        if (
            not re.fullmatch(r"[A-Za-z]\w*", name)
            or name in {*FUNCTIONS, *CONSTANTS, Where.__name__}
            or iskeyword(name)
        ):
            what = "use letters and digits, and no function, constant or word of Python"
            raise InputError(f"{kind}: {name!r} cannot be a name: {what}")
        if "_" in name and kind == "fields":
            raise InputError(f"{kind}: field {name!r}: no underscore in the name of a field, it marks derivatives")
        if name in _RESERVED:
            raise InputError(f"{kind}: {name!r} cannot be a name: tables have a column of that name")
        if name in columns:
            raise InputError(f"{kind}: {name!r} cannot be a name: it is a column of tables for {columns[name]}")
        if names.count(name) > 1:
            where = dict.fromkeys(kind for other, kind in homes if other == name)
            raise InputError(f"{' and '.join(where)}: name {name!r} is used twice; choose another")
        others = "|".join(re.escape(other) for other in problem.coordinates if other != name)
        if kind == "coordinates" and others and re.fullmatch(f"(?:{others})+", name):
            raise InputError(f"coordinates: {name!r} reads as several other coordinates in a row; choose another")
    for name, kind in homes:
        if kind != "fields" and problem.notation.jet(name):
            raise InputError(f"{kind}: name {name!r} reads as a derivative; choose another")


def _check_orders(problem: "Problem", system: Equations) -> None:
    for jet in system.jets:
        if len(jet.index) > HIGHEST_ORDER:
            name = problem.notation.jet_name(jet)
            raise InputError(f"{name} is a derivative of order {len(jet.index)}; up to order {HIGHEST_ORDER} is right")


def _check_equations(problem: "Problem") -> None:
    with _in("equations"):
        system = problem.system
        _check_orders(problem, system)
    with _in("unknown_terms"):
        _ = problem.truth
    for text, residual in zip(problem.equations, system.residuals, strict=True):
        if not problem.notation.jets_in([residual]):
            raise InputError(
                f"equations: {text!r} holds no field; {', '.join(problem.fields)} or a derivative is right"
            )
    count, fields = len(problem.equations), problem.fields
    if count != len(fields):
        given = f"{count} equation{'s' * (count > 1)} for {len(fields)} field{'s' * (len(fields) > 1)}"
        raise InputError(f"equations: {given} ({', '.join(fields)}); as many equations as fields are right")
    held = {jet.field for jet in (problem.truth or system).jets}
    if absent := [name for number, name in enumerate(fields) if number not in held]:
        raise InputError(f"fields: {absent[0]!r} occurs in no equation")


def _check_initial(problem: "Problem") -> None:
    notation, first = problem.notation, next(iter(problem.coordinates))
    for name in problem.initial:
        jet = notation.jet(name)
        if jet is None or set(jet.index) - {0}:
            raise InputError(f"initial: {name!r} is not a field or a derivative of one along {first!r}")
        order = problem.orders[jet.field]
        if len(jet.index) >= order:
            below = ", ".join(notation.jet_name(Jet(jet.field, (0,) * n)) for n in range(order))
            what = f"the equations are of order {order} in {problem.fields[jet.field]!r} along {first!r}"
            raise InputError(f"initial.{name}: {what}; {below or 'no condition for it'} is right")
    for name in problem.known_names[len(problem.parameters) :]:
        if name in {*problem.coordinates, *problem.parameters, *problem.constants, *problem.unknown_terms}:
            raise InputError(f"{name!r} cannot be a name: it is a column of tables for the initial value")
    for name, given in problem.initial.items():
        with _in(f"initial.{name}"):
            _ = notation.parse(given) if isinstance(given, str) else given
    allowed = {*notation.coordinates.values(), *(notation.others[name] for name in problem.parameters)}
    for jet, expression in problem.fixed_initial.items():
        if foreign := sorted(map(str, expression.free_symbols - allowed)):
            where = f"initial.{notation.jet_name(jet)}"
            raise InputError(f"{where}: {foreign[0]!r} is neither a coordinate nor a parameter nor a constant")


def _check_boundary(problem: "Problem") -> None:
    names = list(problem.coordinates)
    for condition in problem.boundary:
        for coordinate, value in condition.at.items():
            if coordinate not in names:
                raise InputError(f"boundary: {coordinate!r} is not a coordinate; there are {', '.join(names)}")
            low, high, _ = problem.coordinates[coordinate]
            if not low <= value <= high:
                raise InputError(f"boundary: {coordinate} = {value:g} is not in the domain [{low:g}, {high:g}]")
    with _in("boundary"):
        parts = problem.boundary_systems
        for _, system in parts:
            _check_orders(problem, system)
    for (_, system), part in zip(parts, [b for b in problem.boundary if b.periodic is None], strict=True):
        symbols = [problem.notation.symbol(jet) for jet in system.jets]
        terms = {problem.notation.others[name] for name in problem.unknown_terms}
        for text, residual in zip(part.equations, system.residuals, strict=True):
            held = residual.free_symbols & set(symbols)
            if not held or residual.free_symbols & terms or affine_form(residual, symbols) is None:
                what = "must be linear in the fields, without unknown terms, and hold a field"
                raise InputError(f"boundary: {text!r}: conditions {what}; such as u_x - 1 is right")
    for coordinate in problem.periodic:
        if coordinate not in names:
            raise InputError(f"boundary: periodic: {coordinate!r} is not a coordinate; there are {', '.join(names)}")
        if problem.periodic.count(coordinate) > 1:
            raise InputError(f"boundary: periodic: {coordinate!r} stands there twice")
        if any(coordinate in part.at for part in problem.boundary):
            what = "it has no walls; either the conditions at them or periodic is right"
            raise InputError(f"boundary: {coordinate} is periodic, but there are conditions at values of it: {what}")
        if coordinate == names[0] and problem.has_time:
            raise InputError(f"boundary: periodic: {coordinate!r} has initial conditions; either of the two is right")


def _check_knowledge(problem: "Problem") -> None:
    """Bounds, priors and fixed values name parameters, and leave the search a place to start."""
    for kind, names in (("bounds", problem.parameters), ("priors", problem.parameters), ("fixed", problem.known_names)):
        for name in getattr(problem, kind):
            if name not in names:
                raise InputError(f"{kind}: there is no {name!r}; there are {', '.join(names)}")
    for name, (low, high) in problem.bounds.items():
        if any(end is not None and not abs(end) <= LARGEST for end in (low, high)):
            what = f"numbers up to {LARGEST:g} are right, or null for an end that is left open"
            raise InputError(f"bounds.{name}: [{low}, {high}]: {what}")
        low, high = -np.inf if low is None else low, np.inf if high is None else high
        first, last, _ = problem.parameters[name]
        if not low < high:
            raise InputError(f"bounds.{name}: [{low:g}, {high:g}]: low must be below high")
        if low >= last or high <= first:
            given = f"bounds.{name}: [{low:g}, {high:g}]"
            raise InputError(f"{given} leaves no start: it must overlap the range [{first:g}, {last:g}]")
    for name, prior in problem.priors.items():
        high = problem.bounds.get(name, (None, None))[1]
        if prior.lognormal and high is not None and high <= 0:
            raise InputError(f"priors.{name}: lognormal, but bounds end at {high:g}; it must be above zero")
        if prior.normal and problem.parameters[name].logarithmic:
            right = "lognormal: [median, std of the logarithm] is right"
            raise InputError(f"priors.{name}: normal, but {name} is searched on a logarithmic scale; {right}")
    for name, value in problem.fixed.items():
        if not np.isfinite(value):
            raise InputError(f"fixed.{name}: {value:g} is not a finite number")
        if abs(value) > LARGEST:
            raise InputError(f"fixed.{name}: {value:g}; numbers up to {LARGEST:g} are right")
        if name in problem.parameters and problem.parameters[name].logarithmic and value <= 0:
            raise InputError(f"fixed.{name}: {value:g}, but {name} is on a logarithmic scale; it must be above zero")
        if name in problem.priors or name in problem.bounds:
            raise InputError(f"fixed.{name}: it cannot have bounds or a prior as well")
