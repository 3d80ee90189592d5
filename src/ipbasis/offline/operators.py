"""Equations and conditions applied to features: the linear forms that all solvers share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import sympy
import torch
from torch import Tensor

from ipbasis.errors import InputError
from ipbasis.features.quadrature import Quadrature
from ipbasis.problem.declaration import Problem
from ipbasis.problem.equations import Equations, Jet, MultiIndex, compile_torch

# What gives features: (points (n, d), derivatives) -> for each derivative (n, K)
FeatureMap = Callable[[Tensor, tuple[MultiIndex, ...]], Mapping[MultiIndex, Tensor]]


def _columns(values: list, like: Tensor) -> Tensor:
    """Stack results of a compiled function, some of them constants, along a new last axis."""
    return torch.stack([torch.as_tensor(v, dtype=like.dtype, device=like.device).expand_as(like) for v in values], -1)


@cache
def _with_slopes(thetas: tuple[sympy.Expr, ...], parameters: tuple[sympy.Symbol, ...]) -> Callable[..., list]:
    """The compiled functions, then the derivatives of each by each parameter in turn."""
    slopes = (sympy.diff(theta, parameter) for theta in thetas for parameter in parameters)
    return compile_torch(parameters, (*thetas, *slopes))


def theta(system: Equations, parameters: Tensor) -> tuple[Tensor, Tensor]:
    """The parameter functions of the affine split and their derivatives.

    Args:
        system: equations with an affine split.
        parameters: (tasks, P).

    Returns:
        values (tasks, Q) and derivatives by the parameters (tasks, Q, P).
    """
    thetas = system.affine.thetas
    stacked = _columns(_with_slopes(thetas, system.parameters)(*parameters.unbind(-1)), parameters[..., 0])
    return stacked[..., : len(thetas)], stacked[..., len(thetas) :].unflatten(-1, (len(thetas), -1))


class Operators:
    """The operators of the affine split on a set of points.

    All of them are combinations of few blocks: a derivative of the features times a function of the
    coordinates. What holds for the blocks, such as a triangular factor, serves every operator.

    Args:
        system: equations with an affine split.
        points: (n, d) where the features are taken.
        fields: number of fields F.
    """

    def __init__(self, system: Equations, points: Tensor, fields: int):
        symbols = tuple(system.notation.coordinates.values())
        coordinates = points.unbind(-1)
        blocks: dict[tuple[MultiIndex, sympy.Expr], int] = {}
        columns: dict[sympy.Expr, int] = {}
        self._shape = (len(system.affine.thetas), len(system.residuals))
        self._fields = fields
        self._terms, self._sources = [], []
        for q, operator in enumerate(system.affine.operators):
            for e, (coefficients, source) in enumerate(zip(operator.coefficients, operator.sources, strict=True)):
                for jet, coefficient in coefficients.items():
                    factor, function = coefficient.as_coeff_Mul()
                    block = blocks.setdefault((jet.index, function), len(blocks))
                    self._terms.append((q, e, jet.field, block, float(factor)))
                if source != 0:
                    factor, function = source.as_coeff_Mul()
                    self._sources.append((q, e, columns.setdefault(function, len(columns)), float(factor)))

        def at_points(expression: sympy.Expr) -> Tensor:
            return _columns(compile_torch(symbols, (expression,))(*coordinates), coordinates[0])

        self._blocks = [(index, None if f == 1 else at_points(f)) for index, f in blocks]
        self._columns = [at_points(f) for f in columns]

    def blocks(self, features: Mapping[MultiIndex, Tensor]) -> Tensor:
        """(n, B K + S) the B blocks that occur, for features (n, K), and the S functions in sources."""
        blocks = [features[index] if f is None else f * features[index] for index, f in self._blocks]
        return torch.cat([*blocks, *self._columns], dim=1)

    def assemble(self, blocks: Tensor) -> Tensor:
        """The operators, from their blocks (m, B K + S) or a factor of them.

        Returns:
            (Q, E, m, F K + 1) for E equations; the last column is the source, so that the residual is
            ``Σ_q θ_q rows_q (w, 1)`` with the readouts of all fields in a row in w.
        """
        width = (blocks.shape[1] - len(self._columns)) // len(self._blocks)
        rows = blocks.new_zeros(*self._shape, len(blocks), self._fields * width + 1)
        for q, e, field, block, factor in self._terms:
            part = rows[q, e, :, field * width : (field + 1) * width]
            part.add_(blocks[:, block * width : (block + 1) * width], alpha=factor)
        for q, e, column, factor in self._sources:
            rows[q, e, :, -1].add_(blocks[:, len(self._blocks) * width + column], alpha=factor)
        return rows

    def rows(self, features: Mapping[MultiIndex, Tensor]) -> Tensor:
        """(Q, E, n, F K + 1) the operators applied to features (n, K), see `assemble`."""
        return self.assemble(self.blocks(features))


def residual_rows(problem: Problem, features: Mapping[MultiIndex, Tensor], quadrature: Quadrature) -> Tensor:
    """As few rows as give the mean squared residual: their number depends on the features, not on the points.

    ``mean residual² = |Σ_q θ_q rows_q (w, 1)|²`` for readouts w. This is the Gram matrix of all operators,
    kept as its root: squaring would cost half of the digits.

    Args:
        problem: a problem with an affine split.
        features: for each derivative that occurs, (n, K) in float64.
        quadrature: where the features were taken.

    Returns:
        (Q, m, F K + 1)
    """
    operators = Operators(problem.system, quadrature.points.double(), len(problem.fields))
    blocks = operators.blocks(features) * quadrature.weights.double().sqrt()[:, None]
    if len(blocks) > blocks.shape[1]:
        _, blocks = torch.linalg.qr(blocks, mode="r")
    return operators.assemble(blocks).flatten(1, 2)


def residual_factor(
    problem: Problem, features: Mapping[MultiIndex, Tensor], quadrature: Quadrature, reduce: Tensor | None = None
) -> Tensor:
    """`residual_rows` of all operators, triangular together, for readouts in the coordinates `reduce`.

    Args:
        problem: a problem with an affine split.
        features: for each derivative that occurs, (n, K) in float64.
        quadrature: where the features were taken.
        reduce: (F K, r) coordinates of the readouts; None for the readouts themselves.

    Returns:
        (Q, m, r + 1)
    """
    rows = residual_rows(problem, features, quadrature)
    if reduce is not None:
        rows = torch.cat([rows[..., :-1] @ reduce, rows[..., -1:]], dim=2)
    _, triangular = torch.linalg.qr(torch.cat([*rows], dim=1), mode="r")
    return triangular.unflatten(1, (len(rows), -1)).transpose(0, 1).contiguous()


@dataclass(frozen=True)
class ConditionRow:
    """One linear condition on a set of points: ``Σ coefficient · features[index]`` for the fields it names.

    Args:
        rows: which of all condition rows it fills.
        at: which of the condition points it is taken at.
        terms: field number, derivative, and (n, 1) coefficient.
    """

    rows: slice
    at: slice
    terms: tuple[tuple[int, MultiIndex, Tensor], ...]


@dataclass(frozen=True)
class Conditions:
    """Initial and boundary conditions as linear rows ``rows(features) w = fixed + selection @ initial``.

    The rows of each condition are scaled so that the sum of their squares is a mean over its points.

    Args:
        points: (c, d) where features are needed.
        indices: derivatives that are needed there.
        parts: what the rows are made of.
        fields: number of fields F.
        fixed: (m,) part of the right-hand side that is the same for every task.
        selection: (m, free initial values) part that takes up the task's initial values.
        initial_rows: how many rows, the first ones, are initial conditions.
    """

    points: Tensor
    indices: tuple[MultiIndex, ...]
    parts: tuple[ConditionRow, ...]
    fields: int
    fixed: Tensor
    selection: Tensor
    initial_rows: int

    def rows(self, features: Mapping[MultiIndex, Tensor]) -> Tensor:
        """(m, F K) rows, for features (c, K) at `points`."""
        value = features[()]
        blocks = [value.new_zeros(0, self.fields * value.shape[1])]
        for part in self.parts:
            by_field = [value.new_zeros(part.rows.stop - part.rows.start, value.shape[1])] * self.fields
            for field, index, coefficient in part.terms:
                by_field[field] = by_field[field] + coefficient * features[index][part.at]
            blocks.append(torch.cat(by_field, dim=1))
        return torch.cat(blocks)

    def targets(self, initial: Tensor) -> Tensor:
        """(tasks, m) right-hand sides for the free initial values (tasks, free)."""
        return self.fixed + initial @ self.selection.T


def boundary_points(
    problem: Problem, known: Mapping[int, float], count: int, dtype: torch.dtype = torch.float64
) -> Tensor:
    """(p, d) points of the part of the boundary where coordinates, by number, have known values.

    Args:
        problem: the problem.
        known: values of coordinates.
        count: equispaced points along each other one.
        dtype: number type.
    """
    axes = [
        torch.tensor([known[i]], dtype=dtype) if i in known else torch.linspace(low, high, count, dtype=dtype)
        for i, (low, high) in enumerate(problem.domain.tolist())
    ]
    return torch.cartesian_prod(*axes).reshape(-1, len(axes))


class _Assembly:
    """Conditions as they are added, one after the other.

    Args:
        problem: the problem.
        count: points along each open coordinate of a part of the boundary.
        dtype: number type of points and coefficients.
    """

    def __init__(self, problem: Problem, count: int, dtype: torch.dtype):
        self._problem, self._count, self._dtype = problem, count, dtype
        self._symbols, self._free = tuple(problem.notation.coordinates.values()), list(problem.free_initial)
        self._points: list[Tensor] = []
        self._parts: list[ConditionRow] = []
        self._fixed: list[Tensor] = []
        self._selections: list[Tensor] = []

    @property
    def rows(self) -> int:
        """How many rows there are so far."""
        return sum(map(len, self._fixed))

    def part(self, known: Mapping[int, float]) -> tuple[Tensor, slice]:
        """Points (p, d) of the part of the boundary where coordinates have known values, and their places."""
        grid = boundary_points(self._problem, known, self._count, self._dtype)
        begin = sum(map(len, self._points))
        self._points.append(grid)
        return grid, slice(begin, begin + len(grid))

    def add(
        self,
        grid: Tensor,
        at: slice,
        terms: Mapping[Jet, sympy.Expr],
        target: sympy.Expr | int,
        initial: Jet | None = None,
    ) -> None:
        """A condition at the points of a part: ``Σ coefficient · jet = target``, plus the task's initial value."""
        scale = len(grid) ** -0.5

        def evaluate(expression: sympy.Expr | int) -> Tensor:
            values = compile_torch(self._symbols, (sympy.sympify(expression),))(*grid.unbind(1))
            return _columns(values, grid[:, 0]) * scale

        begin = self.rows
        coefficients = tuple((jet.field, jet.index, evaluate(c)) for jet, c in terms.items())
        self._parts.append(ConditionRow(slice(begin, begin + len(grid)), at, coefficients))
        self._fixed.append(evaluate(target)[:, 0])
        selection = grid.new_zeros(len(grid), len(self._free))
        if initial is not None:
            selection[:, self._free.index(initial)] = scale
        self._selections.append(selection)

    def finished(self, initial_rows: int) -> Conditions:
        """All of them, of which so many rows are initial conditions."""
        needed = {()} | {index for part in self._parts for _, index, _ in part.terms}
        none = torch.zeros(0, dtype=self._dtype)
        return Conditions(
            points=torch.cat(self._points),
            indices=tuple(sorted(needed, key=lambda index: (len(index), index))),
            parts=tuple(self._parts),
            fields=len(self._problem.fields),
            fixed=torch.cat([none, *self._fixed]),
            selection=torch.cat([none.new_zeros(0, len(self._free)), *self._selections]),
            initial_rows=initial_rows,
        )


def check_plain(problem: Problem) -> None:
    """Refuse conditions that are not the same rows for every task.

    Raises:
        InputError: if a coordinate is periodic, or the conditions hold parameters.
    """
    if parametric_conditions(problem):
        raise InputError(f"{problem.name}: parameters in initial or boundary conditions are not supported here")
    if problem.periodic:
        raise InputError(f"{problem.name}: the periodic coordinate {problem.periodic[0]!r} is not supported here")


def parametric_conditions(problem: Problem) -> list[tuple[dict[int, float], sympy.Expr]]:
    """The conditions that hold parameters: where, as fixed coordinates by number, and what is zero there."""
    parameters, start = set(problem.system.parameters), {0: float(problem.domain[0, 0])}
    held = [(start, problem.notation.symbol(jet) - formula) for jet, formula in problem.fixed_initial.items()]
    held += [(known, residual) for known, system in problem.boundary_systems for residual in system.residuals]
    return [(known, residual) for known, residual in held if residual.free_symbols & parameters]


def with_parametric_conditions(problem: Problem) -> Equations:
    """The equations of a problem, and below them the conditions that hold parameters."""
    own, held = problem.system, parametric_conditions(problem)
    return Equations(own.notation, (*own.residuals, *(residual for _, residual in held)), own.parameters)


def is_affine(problem: Problem) -> bool:
    """Whether equations and conditions are linear, parameters and coordinates apart, see `Equations.affine`."""
    return with_parametric_conditions(problem).affine is not None


def conditions(problem: Problem, count: int, dtype: torch.dtype) -> Conditions:
    """The conditions that hold no parameters on `count` equispaced points of each part of the boundary.

    Args:
        problem: the problem.
        count: points along each open coordinate of a part; an ODE has a single point.
        dtype: number type of points and coefficients.
    """
    assembly, parameters = _Assembly(problem, count, dtype), set(problem.system.parameters)
    grid, at = assembly.part({0: problem.domain[0, 0]})
    for jet in problem.free_initial:
        assembly.add(grid, at, {jet: 1}, 0, jet)
    for jet, formula in problem.fixed_initial.items():
        if not formula.free_symbols & parameters:
            assembly.add(grid, at, {jet: 1}, formula)
    initial_rows = assembly.rows
    for known, system in problem.boundary_systems:
        grid, at = assembly.part(known)
        for residual in system.residuals:
            if not residual.free_symbols & parameters:
                (operator,) = Equations(problem.notation, (residual,), problem.system.parameters).affine.operators
                assembly.add(grid, at, operator.coefficients[0], -operator.sources[0])
    return assembly.finished(initial_rows)
