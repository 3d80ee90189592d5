"""A problem on a box: points, sides and initial conditions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain

import numpy as np
import sympy
import torch
from torch import Tensor

from ipbasis.features.interface import Features
from ipbasis.offline.collocation import Box, Part
from ipbasis.offline.fading import Arguments, faded_conditions
from ipbasis.problem.declaration import Problem
from ipbasis.problem.equations import Equations, Jet
from ipbasis.problem.functions import compile_torch

# Conditions against equations in the roots. Of 17 equations solved in tanh features, errors change by less than 3 times
# between 10 and 100; at 1 they are 3 to 5 times as large.
_CONDITIONS = 10.0

# Points and weights of sum 1 along one coordinate of the box
Rule = tuple[np.ndarray, np.ndarray]


def box_of(problem: Problem, features: Features, rules: Sequence[Rule], faded: bool, whole: bool = False) -> Box:
    """Equations and conditions of a problem on a box.

    Args:
        problem: the problem.
        features: on [-1, 1] along each coordinate.
        rules: points along each coordinate, at which equations and conditions are taken.
        faded: whether conditions that do not fit the initial state are faded, see `faded_conditions`.
        whole: whether the box is the whole domain, and so begins by the initial conditions of the task; else it begins
            by values that are given.

    Returns:
        the box; what it takes as parameters are those of the task, its free initial values, and the rate at which
        conditions are faded.
    """

    def part(
        jets: tuple[Jet, ...],
        function: Callable,
        count: int,
        fixed: Mapping[int, float],
        weight: float,
        slopes: Callable[[], Callable] = lambda: _nothing,
    ) -> Part:
        points, shares = _product(rules, fixed)
        values = features(points, tuple({jet.index for jet in jets}))
        return Part(points, shares.sqrt() * weight, values, jets, function, count, slopes)

    arguments = Arguments(problem)

    def of(system: Equations, residuals: Sequence[sympy.Expr], fixed: Mapping[int, float], weight: float) -> Part:
        by_jet, _ = system.partials()
        symbols = (arguments.coordinates, tuple(map(problem.notation.symbol, system.jets)), arguments.task)
        function = compile_torch(symbols, (*residuals, *chain(*by_jet)))
        slopes = partial(_slopes, symbols, tuple(residuals), arguments.task)
        return part(system.jets, function, len(residuals), fixed, weight, slopes)

    low, high = problem.domain.T
    parts = [of(problem.system, problem.system.residuals, {}, 1.0)]
    for fixed, system in problem.boundary_systems:
        unit = {axis: 2 * (value - low[axis]) / (high - low)[axis] - 1 for axis, value in fixed.items()}
        residuals = faded_conditions(arguments, system, fixed) if faded else system.residuals
        parts.append(of(system, residuals, unit, _CONDITIONS))
    for name in problem.periodic:
        axis = list(problem.coordinates).index(name)
        jets = _matched(problem, axis)
        below, above = (part(jets, _themselves(len(jets)), len(jets), {axis: end}, _CONDITIONS) for end in (-1.0, 1.0))
        difference = {index: above.values[index] - below.values[index] for index in above.values}
        parts.append(replace(below, values=difference))
    given, start = (*problem.free_initial, *problem.fixed_initial), None
    if given and whole:
        states = tuple(problem.notation.symbol(jet) - state for jet, state in arguments.states.items())
        initial = Equations(problem.notation, states, problem.system.parameters)
        parts.append(of(initial, states, {0: -1.0}, _CONDITIONS))
    elif given:
        start = part(given, _themselves(len(given)), len(given), {0: -1.0}, _CONDITIONS)
    systems = [problem.system, *(system for _, system in problem.boundary_systems)]
    partials = [expression for system in systems for by_jet in system.partials()[0] for expression in by_jet]
    return Box(
        features,
        tuple(parts),
        start,
        linear=all(system.is_linear for system in systems),
        autonomous=all(arguments.coordinates[0] not in expression.free_symbols for expression in partials),
    )


def in_time(problem: Problem) -> bool:
    """Whether the first coordinate is time: there are initial conditions, and no others at one time."""
    return problem.has_time and not any(0 in fixed for fixed, _ in problem.boundary_systems)


def _product(rules: Sequence[Rule], fixed: Mapping[int, float]) -> tuple[Tensor, Tensor]:
    """Points (n, d) and weights (n,) of the product of rules, some coordinates held fixed."""
    chosen = [(np.array([fixed[axis]]), np.ones(1)) if axis in fixed else rule for axis, rule in enumerate(rules)]
    grids = [torch.cartesian_prod(*map(torch.as_tensor, part)) for part in zip(*chosen, strict=True)]
    points, weights = (grid.reshape(-1, len(rules)) for grid in grids)
    return points, weights.prod(1)


def _themselves(count: int) -> Callable[..., list]:
    """The same for equations that are the jets themselves."""
    partials = np.eye(count).flatten().tolist()
    return lambda coordinates, jets, parameters: [*jets, *partials]


def _slopes(symbols: tuple, residuals: tuple[sympy.Expr, ...], task: Sequence[sympy.Symbol]) -> Callable[..., list]:
    """The compiled partials of each residual by what differs from task to task, the rate of the fading apart."""
    return compile_torch(symbols, tuple(sympy.diff(residual, one) for residual in residuals for one in task[:-1]))


def _nothing(coordinates: Sequence, jets: Sequence, parameters: Sequence) -> list[float]:
    """The same of equations that no parameter stands in."""
    return [0.0] * (len(jets) * (len(parameters) - 1))


def _matched(problem: Problem, axis: int) -> tuple[Jet, ...]:
    """What is equal on both ends of a periodic coordinate: the derivatives of each field below the highest."""
    jets: list[Jet] = []
    for field in range(len(problem.fields)):
        highest = max((jet.index.count(axis) for jet in problem.system.jets if jet.field == field), default=0)
        jets += [Jet(field, (axis,) * order) for order in range(highest)]
    return tuple(jets)
