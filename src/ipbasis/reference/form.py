"""What a problem with coordinates of space says, apart from any grid: equations and conditions, each with its field."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import sympy
from scipy.optimize import linear_sum_assignment

from ipbasis.errors import InputError
from ipbasis.problem.declaration import Problem
from ipbasis.problem.equations import Equations


@dataclass(frozen=True)
class Condition:
    """One condition at a wall.

    Args:
        axis: number of the space coordinate that is fixed.
        at: its value.
        field: whose functions the condition takes its share of.
        equations: the residual as a system of one equation.
    """

    axis: int
    at: float
    field: int
    equations: Equations


class Form:
    """What a problem says, apart from any grid: equations, each with its field, and conditions, each with its field.

    Args:
        problem: every term known.
        equations: one for each field, in their order: that field is found from it.
        space: numbers of the coordinates that the functions depend on.
    """

    def __init__(self, problem: Problem, equations: Sequence[Equations], space: Sequence[int]):
        self.problem, self.equations, self.space = problem, tuple(equations), tuple(space)
        names = list(problem.coordinates)
        self.periodic = tuple(names[number] in problem.periodic for number in self.space)
        self.conditions = tuple(chain(*(self._conditions(axis) for axis in range(len(self.space)))))
        count = sum(len(system.residuals) for _, system in problem.boundary_systems)
        if count != len(self.conditions):
            raise self.refuse("conditions must fix one coordinate of space each")

    @property
    def time(self) -> sympy.Symbol | None:
        """The coordinate that the functions do not depend on, if there is one."""
        symbols = list(self.problem.notation.coordinates.values())
        return symbols[0] if 0 not in self.space else None

    @property
    def highest_order(self) -> int:
        """Of the derivatives along time, or 1."""
        return max(self.problem.orders) if self.time is not None else 1

    def coordinates(self, points: np.ndarray, time: float | None) -> list:
        """Arguments of compiled expressions at points (n, space)."""
        return [*([] if time is None else [time]), *points.T]

    def refuse(self, what: str) -> InputError:
        return InputError(f"{self.problem.name}: no reference solution: {what}")

    def order(self, field: int, axis: int) -> int:
        """Highest derivative of a field along an axis."""
        jets = [jet for equations in self.equations for jet in equations.jets if jet.field == field]
        return max((jet.index.count(self.space[axis]) for jet in jets), default=0)

    def shares(self, field: int, axis: int) -> int:
        """Conditions that a field has along an axis."""
        return sum(condition.field == field and condition.axis == axis for condition in self.conditions)

    def _conditions(self, axis: int) -> list[Condition]:
        """The conditions along an axis, none of a field more than the order of its equation."""
        problem, number = self.problem, self.space[axis]
        own = [
            (at[number], Equations(problem.notation, (residual,), system.parameters))
            for at, system in problem.boundary_systems
            if set(at) == {number}
            for residual in system.residuals
        ]
        slots = [field for field in range(len(problem.fields)) for _ in range(self.order(field, axis))]
        if self.periodic[axis] and own:
            raise self.refuse(f"conditions at the ends of a periodic coordinate {list(problem.coordinates)[number]!r}")
        if len(own) > len(slots):
            raise self.refuse(f"more conditions along {list(problem.coordinates)[number]!r} than its derivatives allow")
        if not own:
            return []
        # a condition goes to the field whose highest derivative it holds
        cost = [[-_height(equations, field) for field in slots] for _, equations in own]
        _, columns = linear_sum_assignment(cost)
        return [Condition(axis, at, slots[c], equations) for (at, equations), c in zip(own, columns, strict=True)]


def _height(equations: Equations, field: int) -> float:
    """1 + the highest derivative of a field in some equations; far below zero where it does not occur."""
    return max((1 + len(jet.index) for jet in equations.jets if jet.field == field), default=-1000)


def steady_equations(problem: Problem) -> list[Equations]:
    """The equations of a problem without time in an order such that each may be taken for the field of its number."""
    truth = problem.truth
    single = [Equations(problem.notation, (residual,), truth.parameters) for residual in truth.residuals]
    fields = range(len(problem.fields))
    if len(single) != len(fields):
        raise InputError(f"{problem.name}: no reference solution: needs as many equations as fields")
    rows, columns = linear_sum_assignment([[-_height(equations, field) for field in fields] for equations in single])
    return [single[row] for _, row in sorted(zip(columns, rows, strict=True))]
