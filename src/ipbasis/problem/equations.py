"""Equations as text: checked, turned into SymPy, and compiled for PyTorch and NumPy.

The text is parsed by Python's own grammar and walked against a whitelist of syntax nodes, functions
and names before SymPy sees it; nothing is evaluated.
"""

import ast
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain

import sympy
import torch

from ipbasis.errors import InputError

# A derivative is the sorted tuple of the coordinate numbers it is taken along: () is the value itself,
# (0, 0) the second derivative along the first coordinate.
MultiIndex = tuple[int, ...]

FUNCTIONS: dict[str, Callable] = {
    "sin": sympy.sin,
    "cos": sympy.cos,
    "tan": sympy.tan,
    "exp": sympy.exp,
    "log": sympy.log,
    "sqrt": sympy.sqrt,
    "sinh": sympy.sinh,
    "cosh": sympy.cosh,
    "tanh": sympy.tanh,
}
CONSTANTS = {"pi": sympy.pi}
_OPERATORS = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}
_LONGEST_TEXT = 2000
_LARGEST_EXPONENT = 20  # keeps SymPy from expanding something like 9**9**9


def parse_expression(text: str, names: Mapping[str, sympy.Expr]) -> sympy.Expr:
    """The SymPy expression of a formula given as text.

    Args:
        text: a formula in Python's notation, such as ``"u_tt + a1*u_t"``.
        names: what each allowed name stands for.

    Raises:
        InputError: for a syntax error, an unknown symbol or a forbidden construct, with its position.
    """

    def refuse(node: ast.AST, what: str) -> InputError:
        column = getattr(node, "col_offset", 0) + 1 + len(text) - len(text.lstrip())
        return InputError(f"equation {text!r}, position {column}: {what}")

    def convert(node: ast.AST) -> sympy.Expr:
        match node:
            case ast.Constant(value=bool() | complex() | str() | bytes() | None):
                raise refuse(node, f"{ast.unparse(node)} is not a real number")
            case ast.Constant(value=int() as number):
                return sympy.Integer(number)
            case ast.Constant(value=float() as number):
                return sympy.Float(number)
            case ast.Name(id=name):
                if name in names:
                    return names[name]
                if name in CONSTANTS:
                    return CONSTANTS[name]
                allowed = ", ".join([*names, *CONSTANTS])
                raise refuse(node, f"unknown symbol {name!r}; known are {allowed}")
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -convert(operand)
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return convert(operand)
            case ast.BinOp(left=left, op=ast.Pow(), right=right):
                base, exponent = convert(left), convert(right)
                if exponent.is_number and not abs(exponent) <= _LARGEST_EXPONENT:
                    raise refuse(right, f"exponent larger than {_LARGEST_EXPONENT}")
                if base.is_number and not 1e-15 <= abs(base) <= 1e15 and base != 0:
                    raise refuse(left, "power of a number beyond 1e15")
                return base**exponent
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
                divisor = convert(right)
                if isinstance(operator, ast.Div) and divisor.is_zero:
                    raise refuse(right, "division by zero")
                return _OPERATORS[type(operator)](convert(left), divisor)
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in FUNCTIONS:
                return FUNCTIONS[name](convert(argument))
            case ast.Call():
                called = ast.unparse(node.func)
                known = ", ".join(FUNCTIONS)
                raise refuse(node, f"call of {called!r} is not allowed; functions of one argument: {known}")
        raise refuse(node, f"{type(node).__name__} is not allowed in an equation")

    if not isinstance(text, str):
        raise InputError(f"equation {text!r} is not a text")
    if len(text) > _LONGEST_TEXT:
        raise InputError(f"equation of {len(text)} characters is longer than {_LONGEST_TEXT}")
    indent = len(text) - len(text.lstrip())
    try:
        expression = convert(ast.parse(text.strip(), mode="eval").body)
    except SyntaxError as error:
        raise InputError(f"equation {text!r}, position {(error.offset or 1) + indent}: {error.msg}") from None
    except (RecursionError, MemoryError, TypeError, OverflowError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"equation {text[:60]!r}..., position 1: too deeply nested, or no real number") from None
    if expression.has(sympy.zoo, sympy.nan, sympy.oo, sympy.I):
        raise InputError(f"equation {text!r}, position 1: its value is not a finite real number")
    return expression


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
    """The names an equation may use: coordinates, fields and their derivatives, and parameters.

    ``u_tx`` is the field ``u`` differentiated along ``t`` and ``x``; the order of the letters is free.
    """

    def __init__(self, coordinates: Sequence[str], fields: Sequence[str], others: Iterable[str]):
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
        self._plain = {**notation.coordinates, **notation.others}

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
    def is_linear(self) -> bool:
        """Whether every equation is linear in the fields and their derivatives."""
        symbols = self._jet_symbols
        return all(
            sympy.expand(sympy.diff(r, a, b)) == 0
            for r in self.residuals
            for i, a in enumerate(symbols)
            for b in symbols[i:]
        )

    @cached_property
    def affine(self) -> AffineSplit | None:
        """The affine split, or None where the equations have none.

        It exists if the system is linear in the fields, has no unknown terms, and each coefficient is a sum
        of products of a function of the parameters and a function of the coordinates.
        """
        if not self.is_linear:
            return None
        symbols, count = self._jet_symbols, len(self.residuals)
        coordinates = set(self.notation.coordinates.values())
        terms: dict[sympy.Expr, tuple[list[dict], list[sympy.Expr]]] = {}
        for row, residual in enumerate(self.residuals):
            source = residual.subs(dict.fromkeys(symbols, 0))
            parts = [(jet, sympy.diff(residual, s)) for jet, s in zip(self.jets, symbols, strict=True)]
            for jet, coefficient in [*parts, (None, source)]:
                for summand in sympy.Add.make_args(sympy.expand(coefficient)):
                    spatial, theta = summand.as_independent(*self.parameters, as_Add=False)
                    if summand == 0:
                        continue
                    if theta.free_symbols - set(self.parameters) or spatial.free_symbols - coordinates:
                        return None
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

    def partials(self) -> tuple[list[list[sympy.Expr]], list[list[sympy.Expr]]]:
        """Pointwise partial derivatives of each residual by each jet and by each parameter."""
        by_jet = [[sympy.diff(r, s) for s in self._jet_symbols] for r in self.residuals]
        by_parameter = [[sympy.diff(r, p) for p in self.parameters] for r in self.residuals]
        return by_jet, by_parameter

    @cached_property
    def linearised(self) -> Callable[..., list[torch.Tensor]]:
        """The compiled residuals, then their partials by the jets, then by the parameters, see `compiled`."""
        by_jet, by_parameter = self.partials()
        return self.compiled([*self.residuals, *chain(*by_jet), *chain(*by_parameter)])

    def compiled(self, expressions: Sequence[sympy.Expr]) -> Callable[..., list[torch.Tensor]]:
        """A PyTorch function ``f(coordinates, jets, parameters)`` of expressions in the equations' names.

        Each argument is a sequence of tensors that broadcast against each other, the jets ordered as
        `jets`, the parameters as declared.
        """
        arguments = (tuple(self.notation.coordinates.values()), self._jet_symbols, self.parameters)
        return compile_torch(arguments, tuple(expressions))

    def latex(self) -> list[str]:
        """Each equation in LaTeX, derivatives as partial derivatives."""
        order = list(self.notation.coordinates)
        names = {}
        for jet, symbol in zip(self.jets, self._jet_symbols, strict=True):
            field = sympy.latex(sympy.Symbol(self.notation.fields[jet.field]))
            suffix = "".join(order[i] for i in jet.index)
            names[symbol] = f"{field}_{{{suffix}}}" if suffix else field
        return [f"{sympy.latex(r, symbol_names=names)} = 0" for r in self.residuals]


def _on_tensors_and_numbers(name: str) -> Callable:
    """PyTorch's function of this name; Python's for plain numbers, which PyTorch refuses."""
    of_tensors, of_numbers = getattr(torch, name), getattr(math, name)
    return lambda value: of_tensors(value) if isinstance(value, torch.Tensor) else of_numbers(value)


_TORCH = {name: _on_tensors_and_numbers(name) for name in FUNCTIONS} | {"pi": math.pi}


@cache
def compile_torch(arguments: tuple, expressions: tuple[sympy.Expr, ...]) -> Callable[..., list]:
    """A PyTorch function that evaluates expressions; constants come back as Python numbers.

    Args:
        arguments: symbols, or nested tuples of symbols, in call order.
        expressions: what to evaluate; every free symbol must be among the arguments.
    """
    return sympy.lambdify(arguments, list(expressions), modules=[_TORCH], cse=True)
