"""Parsing of equations: what is let through, what is refused, and what is derived."""

import numpy as np
import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st

from ipbasis.errors import InputError
from ipbasis.problem.declaration import Problem
from ipbasis.problem.equations import Notation, parse_expression

U = {"u": sympy.Symbol("u", real=True)}


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("u + b", 5, "unknown symbol 'b'"),
        ("__import__('os').system('true')", 1, "not allowed"),
        ("u.real", 1, "Attribute is not allowed"),
        ("[u for u in (1,)]", 1, "ListComp is not allowed"),
        ("lambda: u", 1, "Lambda is not allowed"),
        ("u if u else 1", 1, "IfExp is not allowed"),
        ("u < 1", 1, "Compare is not allowed"),
        ("u % 2", 1, "BinOp is not allowed"),
        ("u == u", 1, "Compare is not allowed"),
        ("sin(u, u)", 1, "not allowed"),
        ("sin(x=u)", 1, "not allowed"),
        ("open(u)", 1, "not allowed"),
        ("'u'", 1, "not a real number"),
        ("2j*u", 1, "not a real number"),
        ("True*u", 1, "not a real number"),
        ("2**99*u", 4, "exponent larger"),
        ("9**9**9", 4, "exponent larger"),
        ("(9**20)**20", 2, "beyond 1e15"),
        ("  u + b", 7, "unknown symbol 'b'"),
        ("u/0", 3, "division by zero"),
        ("sqrt(-1)*u", 1, "not a finite real number"),
        ("log(0)*u", 1, "not a finite real number"),
    ],
)
def test_refuses_with_position(text, position, reason):
    with pytest.raises(InputError, match="position") as caught:
        parse_expression(text, U)
    assert f"position {position}:" in str(caught.value)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["u +", "(u", "", "u u", "1 +* u"])
def test_refuses_syntax_errors(text):
    with pytest.raises(InputError, match="position"):
        parse_expression(text, U)


@pytest.mark.parametrize("text", ["-" * 1500 + "u", "u**(1e999 - 1e999)", "(" * 300 + "u" + ")" * 300])
def test_odd_texts_end_in_one_line(text):
    with pytest.raises(InputError, match="position") as caught:
        parse_expression(text, U)
    assert "\n" not in str(caught.value)


def test_refuses_overlong_text():
    with pytest.raises(InputError, match="longer than"):
        parse_expression("u" + " + u" * 6000, U)


_numbers = st.floats(min_value=-3, max_value=3, allow_nan=False).map(lambda v: f"({v!r})")
_formulas = st.recursive(
    st.sampled_from(["u", "pi"]) | _numbers,
    lambda inner: (
        st.builds(lambda a, op, b: f"({a} {op} {b})", inner, st.sampled_from("+-*"), inner)
        | st.builds(lambda name, a: f"{name}({a})", st.sampled_from(["sin", "cos", "tanh"]), inner)
    ),
    max_leaves=8,
)


@given(text=_formulas, value=st.floats(min_value=-2, max_value=2))
def test_value_agrees_with_python(text, value):
    """The parsed formula has the value that Python's own arithmetic gives the same text."""
    functions = {"sin": np.sin, "cos": np.cos, "tanh": np.tanh, "pi": np.pi}
    expected = eval(text, {"__builtins__": {}}, {**functions, "u": value})
    parsed = parse_expression(text, U)
    assert float(parsed.subs(U["u"], value)) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_derivatives_are_read_in_any_order_of_letters():
    notation = Notation(["t", "x"], ["u"], [])
    assert notation.jet("u_tx") == notation.jet("u_xt")
    assert notation.jet("u_xxt").index == (0, 1, 1)
    assert notation.jet("u_z") is None
    assert notation.jet("v_x") is None


def test_affine_split_of_the_oscillator(oscillator):
    split = oscillator.system.affine
    assert {str(theta) for theta in split.thetas} == {"1", "a1", "a2", "a3"}
    a3 = split.operators[[str(t) for t in split.thetas].index("a3")]
    assert a3.sources == (1,)
    assert a3.coefficients == ({},)


def test_affine_split_reassembles_the_residual(quantum_oscillator):
    system = quantum_oscillator.system
    for row, residual in enumerate(system.residuals):
        total = sum(
            theta * (sum(c * system.notation.symbol(jet) for jet, c in op.coefficients[row].items()) + op.sources[row])
            for theta, op in zip(system.affine.thetas, system.affine.operators, strict=True)
        )
        assert sympy.expand(total - residual) == 0


def test_no_affine_split_where_there_is_none():
    tangled = Problem(
        name="wave",
        coordinates={"x": [0, 1]},
        fields=["u"],
        parameters={"k": [0, 1]},
        equations=["u_xx + sin(k*x)*u"],
        initial={"u": [0, 1], "u_x": [0, 1]},
    )
    assert tangled.system.is_linear
    assert tangled.system.affine is None
    nonlinear = Problem(
        name="decay",
        coordinates={"t": [0, 1]},
        fields=["u"],
        parameters={"k": [0, 1]},
        equations=["u_t + k*u**2"],
        initial={"u": [0, 1]},
    )
    assert not nonlinear.system.is_linear
    assert nonlinear.system.affine is None


def test_partials_agree_with_autograd(lotka_volterra):
    """Symbolic partials by fields and parameters against PyTorch's."""
    system = lotka_volterra.truth
    generator = torch.Generator().manual_seed(1)
    jets = [torch.rand((), generator=generator, dtype=torch.float64, requires_grad=True) for _ in system.jets]
    parameters = [torch.rand((), generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    time = [torch.zeros((), dtype=torch.float64)]
    by_jet, by_parameter = system.partials()
    residuals = system.compiled(system.residuals)(time, jets, parameters)
    for row, residual in enumerate(residuals):
        gradients = torch.autograd.grad(residual, [*jets, *parameters], retain_graph=True, allow_unused=True)
        symbolic = system.compiled([*by_jet[row], *by_parameter[row]])(time, jets, parameters)
        for gradient, value in zip(gradients, symbolic, strict=True):
            expected = 0.0 if gradient is None else gradient.item()
            assert float(torch.as_tensor(value).detach()) == pytest.approx(expected, abs=1e-14)


def test_latex(oscillator):
    (line,) = oscillator.system.latex()
    assert "u_{tt}" in line
    assert line.endswith("= 0")
