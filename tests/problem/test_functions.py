"""Piecewise functions: their values in NumPy and PyTorch, and derivatives that are functions again."""

import numpy as np
import pytest
import sympy
import torch

from ipbasis.errors import InputError
from ipbasis.problem.functions import compile_numpy, compile_torch
from ipbasis.problem.parsing import parse_expression

T, U, K = (sympy.Symbol(name, real=True) for name in "tuk")
NAMES = {"t": T, "u": U, "k": K}

# formula: the same in NumPy
CASES = {
    "where(t < 1, u, k)": lambda t, u, k: np.where(t < 1, u, k),
    "where(t <= 1, u, 2)": lambda t, u, k: np.where(t <= 1, u, 2),
    "where(t > 1, 0, 1)": lambda t, u, k: np.where(t > 1, 0, 1),
    "where(t >= 1, u**2, -k*t)": lambda t, u, k: np.where(t >= 1, u**2, -k * t),
    "where(0 < t < 1, u, k)": lambda t, u, k: np.where((t > 0) & (t < 1), u, k),
    "where(t < 0 or u > k, u, k)": lambda t, u, k: np.where((t < 0) | (u > k), u, k),
    "where(t > 0 and u > 0 and not k < 1, u, k)": lambda t, u, k: np.where((t > 0) & (u > 0) & (k >= 1), u, k),
    "where(t < 0, 1, where(t < 1, 2, 3))": lambda t, u, k: np.where(t < 0, 1, np.where(t < 1, 2, 3)),
    "heaviside(t - 1)*u": lambda t, u, k: np.where(t >= 1, u, 0),
    "min(u, k)": lambda t, u, k: np.minimum(u, k),
    "max(u, k, 2*t)": lambda t, u, k: np.maximum(np.maximum(u, k), 2 * t),
    "abs(u - k)": lambda t, u, k: np.abs(u - k),
    "sqrt((u - k)**2)": lambda t, u, k: np.abs(u - k),
    "abs(u)**3*exp(-t)": lambda t, u, k: np.abs(u) ** 3 * np.exp(-t),
}


@pytest.fixture
def points():
    """(3, n) values of t, u and k; some of them at the very ends of the pieces."""
    drawn = np.random.default_rng(0).uniform(-2, 2, (3, 60))
    drawn[:, :3] = 1
    drawn[:, 3:6] = 0
    return drawn


@pytest.mark.parametrize("text", CASES)
def test_values(text, points):
    expression, expected = parse_expression(text, NAMES), CASES[text](*points)
    (by_numpy,) = compile_numpy((T, U, K), (expression,))(*points)
    (by_torch,) = compile_torch((T, U, K), (expression,))(*map(torch.tensor, points))
    assert np.allclose(by_numpy, expected, rtol=1e-14)
    assert by_torch.dtype == torch.float64
    assert np.allclose(by_torch, expected, rtol=1e-14)


@pytest.mark.parametrize("text", CASES)
@pytest.mark.parametrize("symbol", [T, U, K])
def test_derivatives_are_those_of_the_pieces(text, symbol, points):
    """Against central differences, away from the ends of the pieces; the second derivative compiles too."""
    inside, step = points[:, 6:], 1e-6
    expression = parse_expression(text, NAMES)
    first, second = expression.diff(symbol), expression.diff(symbol, 2)
    assert not second.has(sympy.DiracDelta, sympy.Derivative, sympy.Subs, sympy.sign)
    value, *_ = np.broadcast_arrays(*compile_numpy((T, U, K), (first, second))(*inside), inside[0])
    shift = step * np.array([[s is symbol] for s in (T, U, K)])
    expected = (CASES[text](*(inside + shift)) - CASES[text](*(inside - shift))) / (2 * step)
    assert np.allclose(value, expected, atol=1e-7)


@pytest.mark.parametrize("number", [0.5, 1.0, 1.5])
def test_conditions_on_numbers_are_decided(number):
    names = {**NAMES, "c": sympy.Float(number)}
    assert parse_expression("where(c < 1, u, k)", names) == (U if number < 1 else K)
    assert float(parse_expression("heaviside(c - 1)", names)) == (number >= 1)
    assert float(parse_expression("min(c, 1)*max(2, c)", names)) == min(number, 1) * 2


def test_the_value_of_a_plain_number_needs_no_tensor():
    (value,) = compile_torch((T,), (parse_expression("where(t < 1, 2, 3)", NAMES),))(0.5)
    assert value == 2


def test_latex_has_the_pieces():
    assert r"\begin{cases} u & \text{if } 1 - t > 0" in sympy.latex(parse_expression("where(t < 1, u, k)", NAMES))


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("where(u, 1, 2)", 7, "a condition such as t < 5 is right"),
        ("where(t == 1, 1, 2)", 7, "a condition such as t < 5 is right"),
        ("where(t < 1, 1)", 1, "where(condition, a, b)"),
        ("1 + heaviside(t, 1)", 5, "not allowed"),
        ("min(t)", 1, "min and max of several"),
        ("exp(exp(exp(exp(2))))*u", 5, "not a finite real number"),
        ("u**exp(exp(exp(1)))", 4, "exponent larger than 20"),
        ("1e999*u", 1, "not a finite real number"),
        ("u + (0 - 1)**0.5", 5, "not a finite real number"),
    ],
)
def test_refuses_with_position(text, position, reason):
    with pytest.raises(InputError) as caught:
        parse_expression(text, NAMES)
    assert f"position {position}:" in str(caught.value)
    assert reason in str(caught.value)
