"""Equations in the names of a problem, with everything the numerics need of them."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import sympy

from ipbasis.errors import InputError
from ipbasis.problem.functions import CONSTANTS, FUNCTIONS, Where, compile_numpy, compile_torch
from ipbasis.problem.linearity import affine_form, separated
from ipbasis.problem.parsing import exact_number, parse_expression

if TYPE_CHECKING:
    import torch

__all__ = [
    "CONSTANTS",
    "FUNCTIONS",
    "AffineSplit",
    "Equations",
    "Jet",
    "LinearOperator",
    "MultiIndex",
    "Notation",
    "compile_numpy",
    "compile_torch",
    "parse_expression",
]

# A derivative is the sorted tuple of the coordinate numbers it is taken along: () is the value itself,
# (0, 0) the second derivative along the first coordinate.
MultiIndex = tuple[int, ...]


@dataclass(frozen=True)
class Jet:
    """A field or one of its derivatives, as it stands in an equation.

    Args:
        field: number of the field.
        index: coordinates it is differentiated along.
    """

    field: int
    index: MultiIndex


class Notation:
    """The names an equation may use: coordinates, fields and their derivatives, parameters, and constants.

    ``u_tx`` is the field ``u`` differentiated along ``t`` and ``x``; the order of the letters is free.

    Args:
        coordinates, fields: their names.
        others: names of parameters and unknown terms.
        constants: numbers by name; a formula has the number where it has the name.
    """

    def __init__(
        self,
        coordinates: Sequence[str],
        fields: Sequence[str],
        others: Iterable[str],
        constants: Mapping[str, float] | None = None,
    ):
        self.constants = {name: exact_number(value) for name, value in (constants or {}).items()}
        self.coordinates = {name: sympy.Symbol(name, real=True) for name in coordinates}
        self.fields = tuple(fields)
        self.others = {name: sympy.Symbol(name, real=True) for name in others}
        self._jets: dict[sympy.Symbol, Jet] = {}
        letters = "|".join(sorted(map(re.escape, coordinates), key=len, reverse=True))
        self._suffix = re.compile(f"(?:{letters})+")
        self._letter = re.compile(letters)

    def index(self, suffix: str) -> MultiIndex:
        """The multi-index of a suffix such as ``"tx"``; the empty suffix is the value itself."""
        if suffix and not self._suffix.fullmatch(suffix):
            raise InputError(f"derivative {suffix!r}: the letters must be coordinates, {', '.join(self.coordinates)}")
        order = list(self.coordinates)
        return tuple(sorted(order.index(letter) for letter in self._letter.findall(suffix)))

    def jet_name(self, jet: Jet) -> str:
        order = list(self.coordinates)
        suffix = "".join(order[i] for i in jet.index)
        return self.fields[jet.field] + (f"_{suffix}" if suffix else "")

    def symbol(self, jet: Jet) -> sympy.Symbol:
        """The SymPy symbol that stands for a field or a derivative of it."""
        symbol = sympy.Symbol(self.jet_name(jet), real=True)
        self._jets[symbol] = jet
        return symbol

    def jet(self, name: str) -> Jet | None:
        """The field or derivative a name means, or None if it means neither."""
        field, _, suffix = name.partition("_")
        if field not in self.fields or (name != field and not self._suffix.fullmatch(suffix)):
            return None
        return Jet(self.fields.index(field), self.index(suffix))

    def jets_in(self, expressions: Iterable[sympy.Expr]) -> tuple[Jet, ...]:
        """The fields and derivatives that occur, in a fixed order."""
        found = {self._jets[s] for e in expressions for s in e.free_symbols if s in self._jets}
        return tuple(sorted(found, key=lambda jet: (jet.field, len(jet.index), jet.index)))

    def parse(self, text: str) -> sympy.Expr:
        """Parse a formula in these names (see `parse_expression`)."""
        return parse_expression(text, _Names(self))


class _Names(Mapping):
    """Looks names up in a `Notation`: the derivatives are too many to list beforehand."""

    def __init__(self, notation: Notation):
        self._notation = notation
        self._plain = {**notation.coordinates, **notation.others, **notation.constants}

    def __contains__(self, name: object) -> bool:
        return name in self._plain or self._notation.jet(str(name)) is not None

    def __getitem__(self, name: str) -> sympy.Expr:
        if name in self._plain:
            return self._plain[name]
        jet = self._notation.jet(name)
        if jet is None:
            raise KeyError(name)
        return self._notation.symbol(jet)

    def __iter__(self):
        yield from self._notation.fields
        yield from self._plain

    def __len__(self) -> int:
        return len(self._notation.fields) + len(self._plain)


@dataclass(frozen=True)
class LinearOperator:
    """``A[u] = Σⱼ coefficientⱼ(x) jetⱼ(x) + source(x)``, for each equation of a system.

    Args:
        coefficients: per equation, the coefficient of each jet, an expression in the coordinates.
        sources: per equation, the part without the fields.
    """

    coefficients: tuple[dict[Jet, sympy.Expr], ...]
    sources: tuple[sympy.Expr, ...]


@dataclass(frozen=True)
class AffineSplit:
    """``residual(u, p) = Σ_q θ_q(p) A_q[u]``: parameters and fields apart.

    Args:
        thetas: expressions in the parameters alone.
        operators: one `LinearOperator` per theta.
    """

    thetas: tuple[sympy.Expr, ...]
    operators: tuple[LinearOperator, ...]


@dataclass(frozen=True)
class Equations:
    """A system of equations, each equal to zero, with everything the numerics need of it.

    Args:
        notation: names in use.
        residuals: left-hand sides.
        parameters: the parameters in their order.
    """

    notation: Notation
    residuals: tuple[sympy.Expr, ...]
    parameters: tuple[sympy.Symbol, ...]

    @cached_property
    def jets(self) -> tuple[Jet, ...]:
        """Fields and derivatives that occur in any equation."""
        return self.notation.jets_in(self.residuals)

    @cached_property
    def indices(self) -> tuple[MultiIndex, ...]:
        """The derivatives a basis must provide."""
        return tuple(sorted({jet.index for jet in self.jets} | {()}, key=lambda i: (len(i), i)))

    @cached_property
    def _jet_symbols(self) -> tuple[sympy.Symbol, ...]:
        return tuple(self.notation.symbol(jet) for jet in self.jets)

    @cached_property
    def _linear(self) -> tuple[sympy.Expr, ...] | None:
        """The residuals, affine in the jets as they stand; None if one is not linear."""
        forms = [affine_form(residual, self._jet_symbols) for residual in self.residuals]
        return None if any(form is None for form in forms) else tuple(forms)

    @property
    def is_linear(self) -> bool:
        """Whether every equation is linear in the fields and their derivatives."""
        return self._linear is not None

    @cached_property
    def affine(self) -> AffineSplit | None:
        """The affine split, or None where the equations have none.

        It exists if the system is linear in the fields, has no unknown terms, and each coefficient is a sum
        of products of a function of the parameters and a function of the coordinates.
        """
        if self._linear is None:
            return None
        symbols, count = self._jet_symbols, len(self.residuals)
        terms: dict[sympy.Expr, tuple[list[dict], list[sympy.Expr]]] = {}
        for row, residual in enumerate(self._linear):
            source = residual.xreplace(dict.fromkeys(symbols, sympy.S.Zero))
            parts = [(jet, sympy.diff(residual, s)) for jet, s in zip(self.jets, symbols, strict=True)]
            for jet, coefficient in [*parts, (None, source)]:
                pairs = separated(coefficient, self.parameters, self.notation.coordinates.values())
                if pairs is None:
                    return None
                for theta, spatial in pairs:
                    coefficients, sources = terms.setdefault(
                        theta, ([{} for _ in range(count)], [sympy.Integer(0)] * count)
                    )
                    if jet is None:
                        sources[row] += spatial
                    else:
                        coefficients[row][jet] = coefficients[row].get(jet, 0) + spatial
        return AffineSplit(
            thetas=tuple(terms),
            operators=tuple(LinearOperator(tuple(c), tuple(s)) for c, s in terms.values()),
        )

    def solved_for(self, jets: Sequence[Jet]) -> tuple[sympy.Expr, ...] | None:
        """Each of as many jets as there are equations, by the others; None where the equations do not determine them.

        They are determined by equations linear in them, which are solved by elimination; nothing is expanded.
        """
        symbols = [self.notation.symbol(jet) for jet in jets]
        forms = [affine_form(residual, symbols) for residual in self.residuals]
        if any(form is None for form in forms):
            return None
        rest = sympy.Matrix([form.xreplace(dict.fromkeys(symbols, sympy.S.Zero)) for form in forms])
        matrix = sympy.Matrix([[sympy.diff(form, symbol) for symbol in symbols] for form in forms])
        return _eliminated(matrix, -rest)

    def jumps(self, coordinate: int) -> tuple[float, ...]:
        """Values of one coordinate where a condition in it alone, such as ``t < 5``, changes over; in their order.

        Conditions are found that are linear in the coordinate; others, and those that hold parameters or fields, have
        no place that is the same for every task.
        """
        symbol = list(self.notation.coordinates.values())[coordinate]
        conditions = {part.args[0] for residual in self.residuals for part in residual.atoms(Where)}
        found = set()
        for condition in conditions:
            slope = sympy.diff(condition, symbol)
            if condition.free_symbols == {symbol} and slope.is_number and slope != 0:
                found.add(float(-condition.xreplace({symbol: sympy.S.Zero}) / slope))
        return tuple(sorted(found))

    def partials(self) -> tuple[list[list[sympy.Expr]], list[list[sympy.Expr]]]:
        """Pointwise partial derivatives of each residual by each jet and by each parameter."""
        by_jet = [[sympy.diff(r, s) for s in self._jet_symbols] for r in self.residuals]
        by_parameter = [[sympy.diff(r, p) for p in self.parameters] for r in self.residuals]
        return by_jet, by_parameter

    @cached_property
    def linearised(self) -> "Callable[..., list[torch.Tensor]]":
        """The compiled residuals, then their partials by the jets, then by the parameters, see `compiled`."""
        by_jet, by_parameter = self.partials()
        return self.compiled([*self.residuals, *chain(*by_jet), *chain(*by_parameter)])

    def compiled(self, expressions: Sequence[sympy.Expr]) -> "Callable[..., list[torch.Tensor]]":
        """A PyTorch function ``f(coordinates, jets, parameters)`` of expressions in the equations' names.

        Each argument is a sequence of tensors that broadcast against each other, the jets ordered as
        `jets`, the parameters as declared.
        """
        return compile_torch(self._arguments, tuple(expressions))

    def evaluated(self, expressions: Sequence[sympy.Expr]) -> Callable[..., list[np.ndarray]]:
        """The NumPy function of `compiled`, of arrays that broadcast against each other."""
        return compile_numpy(self._arguments, tuple(expressions))

    @property
    def _arguments(self) -> tuple:
        return tuple(self.notation.coordinates.values()), self._jet_symbols, self.parameters

    def latex(self) -> list[str]:
        """Each equation in LaTeX, derivatives as partial derivatives."""
        order = list(self.notation.coordinates)
        names = {}
        for jet, symbol in zip(self.jets, self._jet_symbols, strict=True):
            field = sympy.latex(sympy.Symbol(self.notation.fields[jet.field]))
            suffix = "".join(order[i] for i in jet.index)
            names[symbol] = f"{field}_{{{suffix}}}" if suffix else field
        return [f"{sympy.latex(r, symbol_names=names)} = 0" for r in self.residuals]


def _eliminated(matrix: sympy.Matrix, right: sympy.Matrix) -> tuple[sympy.Expr, ...] | None:
    """Solution of linear equations; each equation that holds a single unknown is solved for it first, without a sum."""
    size = matrix.shape[0]
    if matrix.shape[1] != size:
        return None
    found: dict[int, sympy.Expr] = {}
    rows = set(range(size))
    while len(found) < size:
        single = [(r, held) for r in sorted(rows) if len(held := _open(matrix, r, found)) == 1]
        if not single:
            break
        row, (column,) = single[0]
        known = sum((matrix[row, c] * value for c, value in found.items()), sympy.S.Zero)
        found[column] = (right[row] - known) / matrix[row, column]
        rows.remove(row)
    if len(found) < size:
        columns = [c for c in range(size) if c not in found]
        rest = [right[r] - sum((matrix[r, c] * v for c, v in found.items()), sympy.S.Zero) for r in sorted(rows)]
        block = matrix.extract(sorted(rows), columns)
        if any(not _open(block, r, {}) for r in range(len(columns))) or block.rank() < len(columns):
            return None
        found |= dict(zip(columns, block.LUsolve(sympy.Matrix(rest)), strict=True))
    return tuple(found[column] for column in range(size))


def _open(matrix: sympy.Matrix, row: int, found: Mapping[int, sympy.Expr]) -> list[int]:
    """Columns of a row that hold an unknown not yet found."""
    return [c for c in range(matrix.shape[1]) if c not in found and matrix[row, c] != 0]
