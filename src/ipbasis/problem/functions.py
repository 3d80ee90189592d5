"""Functions that a formula may call, and their values in NumPy and PyTorch."""

import math
from collections.abc import Callable
from functools import cache, reduce
from typing import Any

import numpy as np
import sympy


class Where(sympy.Function):
    """``where(c > 0, a, b)``: a where c is above zero, b elsewhere.

    It is differentiated piece by piece; the jump between the pieces counts for nothing, so that derivatives are
    functions again, with no delta in them. Every other piecewise function is made of it.
    """

    nargs = 3

    @classmethod
    def eval(cls, condition: sympy.Expr, one: sympy.Expr, other: sympy.Expr) -> sympy.Expr | None:
        if one == other:
            return one
        if condition.is_number:
            return one if float(condition) > 0 else other
        return None

    def _eval_derivative(self, symbol: sympy.Symbol) -> sympy.Expr:
        condition, one, other = self.args
        return Where(condition, one.diff(symbol), other.diff(symbol))

    def _latex(self, printer: Any) -> str:
        condition, one, other = (printer.doprint(part) for part in self.args)
        return rf"\begin{{cases}} {one} & \text{{if }} {condition} > 0 \\ {other} & \text{{otherwise}} \end{{cases}}"


def heaviside(value: sympy.Expr) -> sympy.Expr:
    """0 below zero, 1 from zero on."""
    return Where(-value, 0, 1)


def absolute(value: sympy.Expr) -> sympy.Expr:
    """The absolute value, its derivative the sign."""
    return Where(-value, -value, value)


def minimum(*values: sympy.Expr) -> sympy.Expr:
    """The least of several values."""
    return reduce(lambda a, b: Where(b - a, a, b), values)


def maximum(*values: sympy.Expr) -> sympy.Expr:
    """The largest of several values."""
    return reduce(lambda a, b: Where(a - b, a, b), values)


ONE_ARGUMENT: dict[str, Callable] = {
    "sin": sympy.sin,
    "cos": sympy.cos,
    "tan": sympy.tan,
    "exp": sympy.exp,
    "log": sympy.log,
    "sqrt": sympy.sqrt,
    "sinh": sympy.sinh,
    "cosh": sympy.cosh,
    "tanh": sympy.tanh,
    "abs": absolute,
    "heaviside": heaviside,
}
SEVERAL_ARGUMENTS: dict[str, Callable] = {"min": minimum, "max": maximum}
# names that no symbol may have; `where` is parsed apart, for it takes a condition
FUNCTIONS: dict[str, Callable] = ONE_ARGUMENT | SEVERAL_ARGUMENTS | {"where": Where}
CONSTANTS = {"pi": sympy.pi}
_SMOOTH = [name for name, function in ONE_ARGUMENT.items() if hasattr(math, name)]

# values of functions of plain numbers
OF_NUMBERS: dict[str, Callable] = {name: getattr(math, name) for name in _SMOOTH} | {
    "abs": abs,
    "heaviside": lambda value: float(value >= 0),
    "min": min,
    "max": max,
}


def piecewise(expression: sympy.Expr) -> sympy.Expr:
    """The expression with absolute values, which SymPy makes of roots of squares, as `Where`."""
    if not expression.has(sympy.Abs):
        return expression
    return expression.replace(sympy.Abs, absolute)


@cache
def _of_torch() -> dict[str, Any]:
    import torch

    def tensor_or_number(name: str) -> Callable:
        """PyTorch's function of this name; Python's for plain numbers, which PyTorch refuses."""
        of_tensors, of_numbers = getattr(torch, name), getattr(math, name)
        return lambda value: of_tensors(value) if isinstance(value, torch.Tensor) else of_numbers(value)

    def where(condition: Any, one: Any, other: Any) -> Any:
        if not isinstance(condition, torch.Tensor):
            return one if condition > 0 else other
        like = {"dtype": condition.dtype, "device": condition.device}
        return torch.where(condition > 0, torch.as_tensor(one, **like), torch.as_tensor(other, **like))

    return {name: tensor_or_number(name) for name in _SMOOTH} | {"pi": math.pi, "Where": where}


@cache
def compile_torch(arguments: tuple, expressions: tuple[sympy.Expr, ...]) -> Callable[..., list]:
    """A PyTorch function that evaluates expressions; constants come back as Python numbers.

    Args:
        arguments: symbols, or nested tuples of symbols, in call order.
        expressions: what to evaluate; every free symbol must be among the arguments.
    """
    return sympy.lambdify(arguments, list(expressions), modules=[_of_torch()], cse=True)


@cache
def compile_numpy(arguments: tuple, expressions: tuple[sympy.Expr, ...]) -> Callable[..., list]:
    """A NumPy function that evaluates expressions, see `compile_torch`."""
    where = {"Where": lambda condition, one, other: np.where(condition > 0, one, other)}
    return sympy.lambdify(arguments, list(expressions), modules=[where, "numpy"], cse=True)


@cache
def compile_numbers(arguments: tuple, expressions: tuple[sympy.Expr, ...]) -> Callable[..., list]:
    """A function of plain numbers, many times faster than NumPy's on them; it raises where a value is not finite."""
    where = {"Where": lambda condition, one, other: one if condition > 0 else other}
    return sympy.lambdify(arguments, list(expressions), modules=[where, "math"], cse=True)
