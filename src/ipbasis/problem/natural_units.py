"""Units in which a problem is of order one, from its declaration and the sizes of its fields."""

import math
from collections.abc import Mapping

import numpy as np

from ipbasis.problem.declaration import Problem
from ipbasis.problem.equations import Equations, Jet
from ipbasis.problem.functions import compile_numpy
from ipbasis.problem.units import CoordinateUnit, ParameterUnit, Units, rescaled

_SAMPLES = 64  # at which the coefficients of an equation are taken; their median is its size
_POINTS = 33  # along each coordinate, at which an initial formula is taken


def natural_units(problem: Problem, field_scales: Mapping[str, float] | None = None) -> Units:
    """Units of order one.

    The first coordinate runs from 0 to 1 if there are initial conditions, every other from -1 to 1. A parameter is
    divided by the larger end of its range; one on a logarithmic scale stands by the logarithm of its ratio to the
    middle of the range. An equation or condition is divided by its largest coefficient: of the slopes by the jets,
    at random points of the domain and the ranges and jets of order one, the median.

    All of this is told from the problem, so that it is the same whatever units the problem is declared in.

    Args:
        problem: the problem as declared.
        field_scales: sizes of the fields by name; where there is none, that of the initial values, or else one.
    """
    sizes = declared_sizes(problem) | dict(field_scales or {})
    units = Units.identity(problem).with_parts(
        coordinates={name: _coordinate(problem, name) for name in problem.coordinates},
        fields={name: sizes[name] for name in problem.fields},
        parameters={name: _parameter(problem, name) for name in problem.parameters},
    )
    plain = rescaled(problem, units)
    return units.with_parts(
        equations=_sizes(plain, plain.system, {}),
        conditions=[_sizes(plain, system, known) for known, system in plain.boundary_systems],
    )


def _coordinate(problem: Problem, name: str) -> CoordinateUnit:
    low, high, _ = problem.coordinates[name]
    if problem.has_time and name == next(iter(problem.coordinates)):
        return CoordinateUnit(low, high - low)
    return CoordinateUnit((low + high) / 2, (high - low) / 2)


def _parameter(problem: Problem, name: str) -> ParameterUnit:
    low, high, _ = problem.parameters[name]
    if problem.parameters[name].logarithmic:
        return ParameterUnit(math.sqrt(low) * math.sqrt(high), True)
    return ParameterUnit(max(abs(low), abs(high)))


def declared_sizes(problem: Problem) -> dict[str, float]:
    """Size of each field as far as its initial value tells: the largest, over ranges and domain; one if it is zero."""
    sizes = dict.fromkeys(problem.fields, 1.0)
    corners = problem.corner_tasks().parameters
    axes = [np.linspace(low, high, _POINTS) for low, high in problem.domain[1:]]
    grid = [axis.ravel()[:, None] for axis in np.meshgrid(*axes)]
    for field, name in enumerate(problem.fields):
        jet, size = Jet(field, ()), 0.0
        if jet in problem.free_initial:
            size = max(map(abs, problem.free_initial[jet][:2]))
        elif jet in problem.fixed_initial:
            symbols = [*problem.notation.coordinates.values()][1:], problem.system.parameters
            with np.errstate(all="ignore"):
                (values,) = compile_numpy(tuple(map(tuple, symbols)), (problem.fixed_initial[jet],))(grid, corners.T)
            size = np.abs(values)[np.isfinite(values)].max(initial=0.0)
        if size:
            sizes[name] = float(size)
    return sizes


def _sizes(problem: Problem, system: Equations, known: Mapping[int, float]) -> list[float]:
    """Size of each equation of a system, at random points where some coordinates, by number, have known values."""
    rng = np.random.default_rng(0)
    coordinates = [
        np.full(_SAMPLES, known[i]) if i in known else rng.uniform(low, high, _SAMPLES)
        for i, (low, high) in enumerate(problem.domain)
    ]
    parameters = problem.sample_tasks(_SAMPLES, rng).parameters.T
    # half of the samples have fields above zero: a concentration may stand under a root or a logarithm
    signs = rng.choice([-1.0, 1.0], (len(system.jets), _SAMPLES))
    for number, jet in enumerate(system.jets):
        signs[number, : _SAMPLES // 2] = 1.0 if jet.index == () else signs[number, : _SAMPLES // 2]
    jets = signs * rng.uniform(0.5, 1.5, signs.shape)
    terms = {problem.notation.others[name]: 1 for name in problem.unknown_terms}
    by_jet, _ = system.partials()
    sizes = []
    for partials in by_jet:
        with np.errstate(all="ignore"):
            values = system.evaluated([partial.xreplace(terms) for partial in partials])(coordinates, jets, parameters)
            largest = np.max([np.broadcast_to(np.abs(value), _SAMPLES) for value in values], axis=0)
        usable = largest[np.isfinite(largest) & (largest > 0)]
        sizes.append(float(np.median(usable)) if len(usable) else 1.0)
    return sizes
