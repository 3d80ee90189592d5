"""Formulas as text, checked and turned into SymPy.

The text is parsed by Python's own grammar and walked against a whitelist of syntax nodes, functions and names before
SymPy sees it; nothing is evaluated but plain numbers, in floating point, so that none can grow beyond measure.
"""

import ast
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import NamedTuple

import sympy

from ipbasis.errors import InputError
from ipbasis.problem.functions import (
    CONSTANTS,
    FUNCTIONS,
    OF_NUMBERS,
    ONE_ARGUMENT,
    SEVERAL_ARGUMENTS,
    Where,
    piecewise,
)

_LONGEST_TEXT = 20_000
_LONGEST_SHOWN = 100
# Of an expression: SymPy walks through every occurrence of a part that occurs several times, as those of nested
# absolute values do, and recurses some ten times for each level. A plain formula of 20 000 characters has 10 000 parts.
_MOST_PARTS, _MOST_LEVELS = 10_000, 60
_LARGEST_EXPONENT = 20  # keeps SymPy from expanding something like 9**9**9
_LARGEST_NUMBER = 1e300
_COMPARISONS: dict[type, Callable] = {
    ast.Lt: lambda a, b, one, other: Where(b - a, one, other),
    ast.Gt: lambda a, b, one, other: Where(a - b, one, other),
    ast.LtE: lambda a, b, one, other: Where(a - b, other, one),
    ast.GtE: lambda a, b, one, other: Where(b - a, other, one),
}


class _Part(NamedTuple):
    """A part of a formula: its expression, and its value if it is a plain number."""

    expression: sympy.Expr
    number: float | None = None


def exact_number(number: float) -> sympy.Expr:
    """A number for SymPy, whole ones without a point, so that powers by them are polynomials."""
    return sympy.Integer(int(number)) if number == int(number) and abs(number) <= 1e15 else sympy.Float(number)


@dataclass(frozen=True)
class _Parser:
    text: str
    names: Mapping[str, sympy.Expr]
    sizes: dict[sympy.Basic, tuple[int, int]] = field(default_factory=dict)

    def size(self, expression: sympy.Basic) -> tuple[int, int]:
        """Parts of an expression, each as often as it occurs, and their levels."""
        if expression not in self.sizes:
            parts = [self.size(part) for part in expression.args]
            deepest = max((levels for _, levels in parts), default=0)
            self.sizes[expression] = 1 + sum(count for count, _ in parts), 1 + deepest
        return self.sizes[expression]

    def small(self, node: ast.AST, expression: sympy.Expr) -> sympy.Expr:
        """The expression, unless it is too large to work with."""
        parts, levels = self.size(expression)
        if levels > _MOST_LEVELS:
            raise self.refuse(node, f"too deeply nested: {levels} levels; {_MOST_LEVELS} at most are right")
        if parts > _MOST_PARTS:
            what = "absolute values, minima, maxima and conditions within one another multiply"
            raise self.refuse(node, f"grows to {parts} parts; {_MOST_PARTS} at most are right ({what})")
        return expression

    def refuse(self, node: ast.AST, what: str) -> InputError:
        column = getattr(node, "col_offset", 0) + 1 + len(self.text) - len(self.text.lstrip())
        return InputError(f"equation {_shown(self.text)}, position {column}: {what}")

    def part(self, node: ast.AST, expression: sympy.Expr, number: Callable[..., float], *of: _Part) -> _Part:
        """A part made of others; a plain number if they are."""
        if any(part.number is None for part in of):
            return _Part(self.small(node, expression))
        try:
            value = number(*(part.number for part in of))
        except (ArithmeticError, ValueError):
            value = math.nan
        if isinstance(value, complex) or not abs(value) <= _LARGEST_NUMBER:
            raise self.refuse(node, "its value is not a finite real number")
        return _Part(expression, float(value))

    def checked(self, node: ast.AST, build: Callable, number: Callable[..., float], *of: _Part) -> _Part:
        """As `part`, but SymPy builds the expression only after the number is known to be finite."""
        value = self.part(node, sympy.S.Zero, number, *of).number
        return _Part(self.small(node, build(*(part.expression for part in of))), value)

    def convert(self, node: ast.AST) -> _Part:
        match node:
            case ast.Constant(value=bool() | complex() | str() | bytes() | None):
                raise self.refuse(node, f"{ast.unparse(node)} is not a real number")
            case ast.Constant(value=int() | float() as number):
                return self.checked(node, lambda: sympy.sympify(number), lambda: float(number))
            case ast.Name(id=name):
                return self.name(node, name)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.checked(node, lambda a: -a, lambda a: -a, self.convert(operand))
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.convert(operand)
            case ast.BinOp(op=ast.Add() | ast.Sub()):
                return self.sum(node)
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                return self.checked(
                    node, lambda a, b: a * b, lambda a, b: a * b, self.convert(left), self.convert(right)
                )
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                dividend, divisor = self.convert(left), self.convert(right)
                if divisor.expression == 0 or divisor.number == 0:
                    raise self.refuse(right, "division by zero")
                return self.checked(node, lambda a, b: a / b, lambda a, b: a / b, dividend, divisor)
            case ast.BinOp(op=ast.Pow()):
                return self.power(node)
            case ast.Call(func=ast.Name(id="where"), args=[test, one, other], keywords=[]):
                chosen = self.choose(test, self.convert(one).expression, self.convert(other).expression)
                chosen = self.small(node, chosen)
                return _Part(chosen, float(chosen) if chosen.is_number else None)
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in ONE_ARGUMENT:
                return self.checked(node, ONE_ARGUMENT[name], OF_NUMBERS[name], self.convert(argument))
            case ast.Call(func=ast.Name(id=name), args=[_, _, *_] as arguments, keywords=[]) if (
                name in SEVERAL_ARGUMENTS
            ):
                return self.checked(node, SEVERAL_ARGUMENTS[name], OF_NUMBERS[name], *map(self.convert, arguments))
            case ast.Call():
                several = f"{' and '.join(SEVERAL_ARGUMENTS)} of several, where(condition, a, b)"
                known = f"functions of one argument: {', '.join(ONE_ARGUMENT)}; {several}"
                raise self.refuse(node, f"call of {ast.unparse(node.func)!r} is not allowed; {known}")
        raise self.refuse(node, f"{type(node).__name__} is not allowed in an equation")

    def name(self, node: ast.AST, name: str) -> _Part:
        if name in self.names:
            expression = self.names[name]
        elif name in CONSTANTS:
            expression = CONSTANTS[name]
        else:
            raise self.refuse(node, f"unknown symbol {name!r}; known are {', '.join([*self.names, *CONSTANTS])}")
        return _Part(expression, float(expression) if expression.is_number else None)

    def sum(self, node: ast.AST) -> _Part:
        """A chain of sums and differences at once: one by one SymPy takes a time that grows with its square."""
        links, first = [], node
        while isinstance(first, ast.BinOp) and isinstance(first.op, ast.Add | ast.Sub):
            links.append((isinstance(first.op, ast.Add), first.right))
            first = first.left
        parts = [self.convert(first)]
        for added, link in reversed(links):
            part = self.convert(link)
            parts.append(part if added else self.checked(link, lambda a: -a, lambda a: -a, part))
        return self.checked(node, sympy.Add, lambda *numbers: sum(numbers), *parts)

    def power(self, node: ast.BinOp) -> _Part:
        base, exponent = self.convert(node.left), self.convert(node.right)
        if exponent.number is not None and not abs(exponent.number) <= _LARGEST_EXPONENT:
            raise self.refuse(node.right, f"exponent larger than {_LARGEST_EXPONENT}")
        number = base.number
        if number and not 1e-15 <= abs(number) <= 1e15 and not base.expression.has(sympy.Float):
            raise self.refuse(node.left, "power of a number beyond 1e15")
        if exponent.expression.is_Float:
            exponent = exponent._replace(expression=exact_number(exponent.number))
        return self.checked(node, lambda a, b: a**b, lambda a, b: a**b, base, exponent)

    def choose(self, test: ast.AST, one: sympy.Expr, other: sympy.Expr) -> sympy.Expr:
        """`one` where a condition holds, `other` elsewhere."""
        match test:
            case ast.Compare(left=left, ops=operators, comparators=right) if all(
                type(o) in _COMPARISONS for o in operators
            ):
                values = [self.convert(value).expression for value in [left, *right]]
                pairs = list(zip(operators, values[:-1], values[1:], strict=True))
                return reduce(lambda held, pair: _COMPARISONS[type(pair[0])](*pair[1:], held, other), pairs[::-1], one)
            case ast.BoolOp(op=ast.And(), values=values):
                return reduce(lambda held, value: self.choose(value, held, other), values[::-1], one)
            case ast.BoolOp(op=ast.Or(), values=values):
                return reduce(lambda held, value: self.choose(value, one, held), values[::-1], other)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return self.choose(operand, other, one)
        raise self.refuse(test, "a condition such as t < 5 is right; <, <=, >, >=, and, or, not are known")


def parse_expression(text: str, names: Mapping[str, sympy.Expr]) -> sympy.Expr:
    """The SymPy expression of a formula given as text.

    Args:
        text: a formula in Python's notation, such as ``"u_tt + a1*u_t"``.
        names: what each allowed name stands for.

    Raises:
        InputError: for a syntax error, an unknown symbol or a forbidden construct, with its position.
    """
    if not isinstance(text, str):
        raise InputError(f"equation {text!r} is not a text")
    if len(text) > _LONGEST_TEXT:
        raise InputError(f"equation of {len(text)} characters is longer than {_LONGEST_TEXT}")
    indent = len(text) - len(text.lstrip())
    try:
        expression = _Parser(text, names).convert(_tree(text)).expression
    except SyntaxError as error:
        raise InputError(f"equation {_shown(text)}, position {(error.offset or 1) + indent}: {error.msg}") from None
    except (RecursionError, MemoryError, TypeError, OverflowError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"equation {_shown(text)}, position 1: too deeply nested, or no real number") from None
    if expression.has(sympy.zoo, sympy.nan, sympy.oo, sympy.I):
        raise InputError(f"equation {_shown(text)}, position 1: its value is not a finite real number")
    return piecewise(expression)


def _shown(text: str) -> str:
    """A formula in a message."""
    return repr(text) if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]!r}..."


def _tree(text: str) -> ast.expr:
    # a formula may go over several lines
    return ast.parse(re.sub(r"\s", " ", text).strip(), mode="eval").body


def with_names(text: str, replaced: Mapping[str, str]) -> str:
    """A formula with some names replaced by texts; functions keep theirs.

    Args:
        text: a formula that `parse_expression` accepts.
        replaced: for each name, what stands in its place; in brackets where it is more than a name.
    """
    plain = re.sub(r"\s", " ", text).strip()
    tree = ast.parse(plain, mode="eval")
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    places = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id in replaced and id(n) not in called]
    encoded = plain.encode()  # the tree counts bytes
    for node in sorted(places, key=lambda node: -node.col_offset):
        encoded = encoded[: node.col_offset] + replaced[node.id].encode() + encoded[node.end_col_offset :]
    return encoded.decode()


def names_in(text: str) -> set[str]:
    """The names of symbols in a formula that `parse_expression` accepts."""
    tree = _tree(text)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and id(n) not in called} - CONSTANTS.keys()


__all__ = ["CONSTANTS", "FUNCTIONS", "names_in", "parse_expression", "with_names"]
