"""Boundary conditions that do not fit the initial conditions at the corner where both hold, made to fit.

Such a condition ``B = 0`` becomes ``B - m exp(-rate (t - t0)) = 0`` with its value m at the initial state: what does
not fit is faded out. Without it a jump at the corner, or a kink, spoils the solution about it however fine it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import sympy

from ipbasis.problem.declaration import Problem
from ipbasis.problem.equations import Equations, Jet
from ipbasis.problem.functions import piecewise

_ROUNDING = 1e-12  # of conditions and initial values of order one: a number this small is none


@dataclass(frozen=True)
class Arguments:
    """Symbols of everything that equations and faded conditions depend on, jets apart.

    Args:
        problem: the problem.
    """

    problem: Problem

    @cached_property
    def coordinates(self) -> tuple[sympy.Symbol, ...]:
        """One per coordinate."""
        return tuple(self.problem.notation.coordinates.values())

    @cached_property
    def initial(self) -> dict[Jet, sympy.Symbol]:
        """Of each free initial value."""
        name = self.problem.notation.jet_name
        return {jet: sympy.Symbol(f"initial value of {name(jet)}", real=True) for jet in self.problem.free_initial}

    @cached_property
    def rate(self) -> sympy.Symbol:
        """Of the fading."""
        return sympy.Symbol("rate of fading", positive=True)

    @property
    def task(self) -> tuple[sympy.Symbol, ...]:
        """What differs from task to task, and the rate."""
        return (*self.problem.system.parameters, *self.initial.values(), self.rate)

    @property
    def states(self) -> Mapping[Jet, sympy.Expr]:
        """Formulas of all initial conditions."""
        return {**self.initial, **self.problem.fixed_initial}


def faded_conditions(arguments: Arguments, system: Equations, fixed: Mapping[int, float]) -> tuple[sympy.Expr, ...]:
    """The conditions of a side of the domain, those that do not fit the initial state faded.

    Args:
        arguments: symbols in use.
        system: the conditions.
        fixed: values of the coordinates, by number, where they hold.
    """
    time, begin = arguments.coordinates[0], float(arguments.problem.domain[0, 0])
    corner = {time: begin, **{arguments.coordinates[axis]: value for axis, value in fixed.items()}}
    fading = sympy.exp(-arguments.rate * (time - begin))
    return tuple(residual - _misfit(arguments, system, residual, corner) * fading for residual in system.residuals)


def _misfit(arguments: Arguments, system: Equations, residual: sympy.Expr, corner: Mapping) -> sympy.Expr:
    """Value of a condition at the initial state; zero where the initial conditions do not tell it."""
    values = {}
    for jet in system.notation.jets_in([residual]):
        along_time = jet.index.count(0)
        state = arguments.states.get(Jet(jet.field, (0,) * along_time))
        if state is None:
            return sympy.Integer(0)
        symbols = [arguments.coordinates[axis] for axis in jet.index[along_time:]]
        values[system.notation.symbol(jet)] = sympy.diff(state, *symbols) if symbols else state
    value = piecewise(residual.xreplace(values).subs(corner))
    return sympy.Integer(0) if value.is_number and abs(value) < _ROUNDING else value


def is_faded(problem: Problem) -> bool:
    """Whether any condition of a problem in time may not fit the initial state."""
    arguments = Arguments(problem)
    return any(
        faded_conditions(arguments, system, fixed) != system.residuals for fixed, system in problem.boundary_systems
    )
