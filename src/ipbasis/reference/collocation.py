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
from functools import cached_property, reduce

import numpy as np
import sympy

from ipbasis.problem.equations import Jet
from ipbasis.reference.axes import Axis
from ipbasis.reference.form import Condition, Form

FUNCTIONS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)  # along an axis, tried in this order
_FIRST = {1: 32}  # by the number of axes, else the least: a narrow pulse must not slip between the points
_ENOUGH = 96  # a failure with fewer functions may be one of too few
_NOISE = float(np.sqrt(np.finfo(float).eps))  # shares below it that no longer fall are rounding in derivatives
_MOST_UNKNOWNS = 3000  # functions of all axes and fields together: matrices of this size take seconds


def stacked(values: Sequence, shape: tuple[int, ...]) -> np.ndarray:
    """(len(values), *shape) numbers and arrays that broadcast to a shape."""
    return np.array([np.broadcast_to(value, shape) for value in values], dtype=float).reshape(len(values), *shape)


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
    counts, best = counts or (_FIRST.get(axes, FUNCTIONS[0]),) * axes, None
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
        if best is not None and tails.max() > best[0] / 2:
            return best[1:]
        if tails.max() <= _NOISE:
            best = tails.max(), coefficients, on
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
        condition: the condition, linear in the fields.
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
        self._factors = self.equations.evaluated(by_jet)
        self._none = [0.0] * len(by_jet)
        self._form = form

    def rows(self, time: float | None, parameters: np.ndarray) -> np.ndarray:
        """(n, fields x functions) the part with the fields."""
        found = self._factors(self._form.coordinates(self.points, time), self._none, parameters)
        pairs = zip(stacked(found, self.points.shape[:1]), self._matrices, strict=True)
        return sum(factor[:, None] * matrix for factor, matrix in pairs)

    def source(self, time: float | None, parameters: np.ndarray, derivatives: int = 0) -> np.ndarray:
        """(n,) the part without the fields, or a derivative of it along time."""
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
