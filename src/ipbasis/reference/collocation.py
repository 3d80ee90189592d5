"""Equations and conditions of a problem on functions of its space coordinates: tensor products, collocated.

A field is a sum of products of functions, one factor for each space coordinate (`Axis`). Of the n functions of an axis,
m conditions take their share: the equation holds at the n - m zeros of a polynomial of lower degree, the conditions at
the walls. So there are as many rows as unknowns for any order of the equation and any linear conditions.

Along several axes the equation holds at products of these points. The conditions of axis j hold where each axis before
it is at the points of the equation, and each behind it at points as many as its functions; these, too, add up:
Π n_i = Π (n_i - m_i) + Σ_j m_j Π_{i<j} (n_i - m_i) Π_{i>j} n_i.

Reference: T. A. Driscoll, N. Hale, Rectangular spectral collocation, IMA J. Numer. Anal. 36 (2016).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import chain

import numpy as np
import sympy
from scipy.optimize import linear_sum_assignment

from ipbasis.errors import InputError
from ipbasis.problem.declaration import Problem
from ipbasis.problem.equations import Equations, Jet
from ipbasis.reference.axes import Axis

FUNCTIONS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)  # along an axis, tried in this order
_FIRST = {1: 32}  # by the number of axes, else the least: a narrow pulse must not slip between the points
_ENOUGH = 128  # a failure with fewer functions may be one of too few
_MOST_UNKNOWNS = 3000  # functions of all axes and fields together: matrices of this size take seconds


def stacked(values: Sequence, shape: tuple[int, ...]) -> np.ndarray:
    """(len(values), *shape) numbers and arrays that broadcast to a shape."""
    return np.array([np.broadcast_to(value, shape) for value in values], dtype=float).reshape(len(values), *shape)


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


class Collocated:
    """A `Form` on some axes, in the coefficients (fields x functions) of its fields.

    Args:
        form: the equations and conditions.
        axes: one for each space coordinate.
    """

    def __init__(self, form: Form, axes: Sequence[Axis]):
        self.form, self.axes = form, tuple(axes)
        self.fields = len(form.problem.fields)
        self.size = int(np.prod([axis.count for axis in axes]))

    def nodes(self, field: int, axis: int) -> np.ndarray:
        """Where along an axis the equation of a field holds."""
        return self.axes[axis].nodes(self.form.shares(field, axis))

    @cached_property
    def points(self) -> list[np.ndarray]:
        """Per field, (n, space) points where its equation holds."""
        return [_tensor([self.nodes(f, a) for a in range(len(self.axes))]) for f in range(self.fields)]

    def derivatives(self, places: Sequence[np.ndarray], jet: Jet) -> np.ndarray:
        """(points, functions) a derivative of the functions on the tensor product of places along each axis."""
        orders = [jet.index.count(number) for number in self.form.space]
        return reduce(np.kron, [a.functions(p, o) for a, p, o in zip(self.axes, places, orders, strict=True)])

    def at(self, points: np.ndarray) -> np.ndarray:
        """(n, functions) values of the functions at scattered points (n, space)."""
        values = np.ones((len(points), 1))
        for axis, positions in zip(self.axes, points.T, strict=True):
            values = (values[:, :, None] * axis.functions(positions)[:, None]).reshape(len(points), -1)
        return values

    @cached_property
    def matrices(self) -> list[list[np.ndarray]]:
        """Per field, for each jet of its equation, (n, functions) that derivative where the equation holds."""
        return [
            [self.derivatives([self.nodes(f, a) for a in range(len(self.axes))], jet) for jet in equations.jets]
            for f, equations in enumerate(self.form.equations)
        ]

    @cached_property
    def values(self) -> np.ndarray:
        """(points of all fields, fields x functions) values of each field where its equation holds."""
        rows = [self.derivatives([self.nodes(f, a) for a in range(len(self.axes))], Jet(f, ())) for f in self._all]
        whole = np.zeros((sum(map(len, rows)), self.fields * self.size))
        first = 0
        for f, own in enumerate(rows):
            whole[first : first + len(own), f * self.size : (f + 1) * self.size] = own
            first += len(own)
        return whole

    @property
    def _all(self) -> range:
        return range(self.fields)

    @cached_property
    def walls(self) -> list["Wall"]:
        """The conditions on these axes."""
        return [Wall(self, condition) for condition in self.form.conditions]

    def evaluated(self, coefficients: np.ndarray, points: np.ndarray) -> np.ndarray:
        """(n, fields) values at points (n, space) of coefficients (1 or n, fields x functions)."""
        each = coefficients.reshape(len(coefficients), self.fields, self.size)
        return (each @ self.at(points)[:, :, None])[..., 0]

    def tails(self, coefficients: np.ndarray) -> np.ndarray:
        """(axes,) share of the last eighth of the functions of each axis in coefficients (cases, fields x functions).

        The largest over cases and fields, each beside the size of its field in all cases.
        """
        shape = (len(coefficients), self.fields, *(axis.count for axis in self.axes))
        tensor = np.abs(coefficients).reshape(shape)
        sizes = tensor.reshape(len(coefficients), self.fields, -1).max(axis=(0, 2))
        sizes = np.maximum(sizes, np.finfo(float).tiny)
        shares = []
        for number, axis in enumerate(self.axes):
            last = np.take(tensor, range(7 * axis.count // 8, axis.count), axis=2 + number)
            shares.append((last.reshape(len(coefficients), self.fields, -1).max(axis=(0, 2)) / sizes).max())
        return np.array(shares)


def on_axes(form: Form, counts: Sequence[int]) -> Collocated:
    """A form on at least so many functions of each axis."""
    domain = form.problem.domain[list(form.space)]
    return Collocated(
        form, [Axis(*ends, 1, wave).with_count(n) for ends, n, wave in zip(domain, counts, form.periodic, strict=True)]
    )


def resolved(
    solve: Callable[[Collocated], np.ndarray],
    collocated: Callable[[tuple[int, ...]], Collocated],
    form: Form,
    parameters: np.ndarray,
    tolerance: float,
    counts: tuple[int, ...] | None = None,
) -> tuple[np.ndarray, Collocated]:
    """Coefficients of a solution on as many functions as it takes.

    Args:
        solve: gives the coefficients (cases, fields x functions), of which the last are to have no share.
        collocated: gives the form on a number of functions of each axis.
        form: the equations.
        parameters: (P,) for messages.
        tolerance: share of the last functions that is allowed.
        counts: numbers of functions to begin with; None for the least.

    Raises:
        ArithmeticError: if that takes too many, or `solve` fails.
    """
    axes = len(form.space)
    counts = counts or (_FIRST.get(axes, FUNCTIONS[0]),) * axes
    while True:
        on, tails = collocated(counts), np.full(len(counts), np.inf)
        try:
            coefficients = solve(on)
            tails = on.tails(coefficients)
        except ArithmeticError:
            if max(counts) >= _ENOUGH:
                raise
        if (tails <= tolerance).all():
            return coefficients, on
        larger = tuple(n if tail <= tolerance else _more(n) for n, tail in zip(counts, tails, strict=True))
        if None in larger or np.prod(larger) * on.fields > _MOST_UNKNOWNS:
            wrong = ", ".join(f"{n} = {v:g}" for n, v in zip(form.problem.parameters, parameters, strict=True))
            raise ArithmeticError(f"{form.problem.name}: {counts} functions do not resolve the solution at {wrong}")
        counts = larger


def _more(count: int) -> int | None:
    return next((larger for larger in FUNCTIONS if larger > count), None)


class Wall:
    """A condition on some axes, at points of its wall.

    Args:
        collocated: what the axes carry.
        condition: the condition.
    """

    def __init__(self, collocated: "Collocated", condition: Condition):
        form, axis = collocated.form, condition.axis
        places = [
            collocated.nodes(condition.field, other) if other < axis else collocated.axes[other].nodes()
            for other in range(len(collocated.axes))
        ]
        places[axis] = np.array([condition.at])
        self.points = _tensor(places)
        self.equations = condition.equations
        self._matrices = [
            _in_field(collocated.derivatives(places, jet), jet.field, collocated) for jet in self.equations.jets
        ]
        ((by_jet,), _) = self.equations.partials()
        self._coefficients = self.equations.evaluated(by_jet)
        self._residual = self.equations.evaluated(self.equations.residuals)
        self._none = [0.0] * len(by_jet)
        self._form = form

    def rows(self, time: float | None, parameters: np.ndarray, coefficients: np.ndarray | None = None) -> np.ndarray:
        """(n, fields x functions) derivative of the condition by the coefficients, at some of them or at zero."""
        jets = self._none if coefficients is None else [matrix @ coefficients for matrix in self._matrices]
        found = self._coefficients(self._form.coordinates(self.points, time), jets, parameters)
        pairs = zip(stacked(found, self.points.shape[:1]), self._matrices, strict=True)
        return sum(factor[:, None] * matrix for factor, matrix in pairs)

    def residual(self, parameters: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
        """(n,) what a solution without time leaves of the condition."""
        jets = [matrix @ coefficients for matrix in self._matrices]
        values = self._residual(self._form.coordinates(self.points, None), jets, parameters)
        return stacked(values, self.points.shape[:1])[0]

    def source(self, time: float | None, parameters: np.ndarray, derivatives: int = 0) -> np.ndarray:
        """(n,) the part of a linear condition without the fields, or a derivative of it along time."""
        coordinates = self._form.coordinates(self.points, time)
        values = self._sources[derivatives](coordinates, self._none, parameters)
        return stacked(values, self.points.shape[:1])[0]

    @cached_property
    def _sources(self) -> list:
        """The source and its first derivatives along time."""
        (residual,) = self.equations.residuals
        found = [residual.xreplace({self.equations.notation.symbol(jet): sympy.S.Zero for jet in self.equations.jets})]
        for _ in range(self._form.highest_order - 1):
            found.append(sympy.diff(found[-1], self._form.time))
        return [self.equations.evaluated([source]) for source in found]


def _in_field(matrix: np.ndarray, field: int, collocated: Collocated) -> np.ndarray:
    """A matrix on the functions of a field as one on the coefficients of all fields."""
    whole = np.zeros((len(matrix), collocated.fields * collocated.size))
    whole[:, field * collocated.size : (field + 1) * collocated.size] = matrix
    return whole


def _tensor(places: Sequence[np.ndarray]) -> np.ndarray:
    """(n, axes) all combinations of places along each axis, those of the last one next to each other."""
    return np.stack(np.meshgrid(*places, indexing="ij"), axis=-1).reshape(-1, len(places))
