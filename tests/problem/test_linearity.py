"""Linearity and separation told from the structure: right, and without expanding what is large."""

import time

import pytest
import sympy

from ipbasis.problem.declaration import Problem
from ipbasis.problem.linearity import affine_form, degree, expanded_terms, separated
from ipbasis.problem.parsing import parse_expression

NAMES = {name: sympy.Symbol(name, real=True) for name in ("x", "t", "u", "v", "k", "m", "a", "b", "c", "d")}
FIELDS = [NAMES["u"], NAMES["v"]]
COORDINATES, PARAMETERS = [NAMES["x"], NAMES["t"]], [NAMES[n] for n in "kmabcd"]


@pytest.mark.parametrize(
    ("text", "linear"),
    [
        ("k*u + v/m - sin(t)", True),
        ("where(t < 1, u, k*v)", True),
        ("(u + 1)**2 - u**2", True),
        ("(k + u)*(m + x) - exp(k)", True),
        ("((1 + t)**20 + k)**20*u", True),
        ("u*v", False),
        ("u**2", False),
        ("exp(u)", False),
        ("where(u < 1, v, 2)", False),
        ("abs(u)", False),
        ("v/u", False),
        ("u*(1 - u/k)", False),
        ("(1 + k)**20*(2 + m)**20*u*v", False),
    ],
)
def test_linear_or_not(text, linear):
    assert (affine_form(parse_expression(text, NAMES), FIELDS) is not None) == linear


def test_degree_counts_factors():
    assert [degree(parse_expression(text, NAMES), FIELDS) for text in ("k*x", "u + 1", "u*k + v", "u*v*u")] == [
        0,
        1,
        1,
        2,
    ]


@pytest.mark.parametrize("text", ["(a + b + c)**3", "(a + x)*(b + t)*(c + 1)", "a*b + c", "(a + b)**2*(c + d)**2"])
def test_terms_are_at_least_those_of_the_expanded_form(text):
    expression = parse_expression(text, NAMES)
    assert len(sympy.Add.make_args(sympy.expand(expression))) == expanded_terms(expression)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("k*x**2", 1),
        ("(1 + k)**20*(2 + m)**20", 1),
        ("(1 + k)**20*(2 + t)**20", 1),
        ("(k + x)*(m + t)", 4),
        ("(k - x)**2", 3),
        ("k*sin(x) + k*cos(t) + m - k*sin(x) + " + " + ".join(f"k*sin({n}*t)" for n in range(2, 400)), 2),
        ("exp(k + x)", 1),
        ("where(t < 1, k, m*x)", 2),
        ("where(k < 1, x, m)", 2),
        ("(1 + k)**20*where(x < 0, t, k)", 2),
        ("a*where(t < 5, 1, 0)*(x + where(k > 2, b, c*x))", 3),
    ],
)
def test_separated_parts_add_up(text, count):
    expression = parse_expression(text, NAMES)
    parts = separated(expression, PARAMETERS, COORDINATES)
    assert len(parts) == count
    assert all(theta.free_symbols <= set(PARAMETERS) for theta, _ in parts)
    assert all(spatial.free_symbols <= set(COORDINATES) for _, spatial in parts)
    for seed in range(3):
        values = {symbol: 0.3 + 0.41 * ((seed + 2) * n % 7) for n, symbol in enumerate(NAMES.values())}
        total = sum(theta * spatial for theta, spatial in parts)
        assert float(total.subs(values)) == pytest.approx(float(expression.subs(values)), rel=1e-12)


@pytest.mark.parametrize("text", ["sin(k*x)", "where(k < x, 1, 2)", "1/(k + x)", "((1 + t)**20 + k)**20", "k*u"])
def test_what_does_not_separate(text):
    assert separated(parse_expression(text, NAMES), PARAMETERS, COORDINATES) is None


@pytest.mark.parametrize(
    ("equation", "thetas"),
    [
        ("u_tt + a*u*((1 + t)**20 + a)**20", None),
        ("u_tt + (1 + a)**20*(2 + b)**20*u", 2),
        ("u_tt + (a + b + c + d + t)**20*u", None),
        ("u_tt + (1 + t)**20*(a + b + c + d)**20*u + sin(t)", 2),
        ("u_tt + " + "*".join(f"({n} + t + a)" for n in range(1, 21)) + "*u + b", None),
        ("u_tt*(1 + u_t**2)**20 + a", None),
    ],
)
def test_nothing_large_is_expanded(equation, thetas):
    """SymPy takes minutes and more to expand these."""
    held = [name for name in "abcd" if name in equation.replace("tanh", "")]
    begin = time.process_time()
    problem = Problem(
        name="p",
        coordinates={"t": [0, 3]},
        fields=["u"],
        parameters={name: [0, 1] for name in held},
        equations=[equation],
        initial={"u": [-1, 1], "u_t": [-1, 1]},
    )
    split = problem.system.affine
    assert time.process_time() - begin < 5
    assert (split and len(split.thetas)) == thetas
