"""Texts of problems that mean more than they seem: one line each, and soon."""

import faulthandler

import pytest

from ipbasis import InputError, Problem
from ipbasis.problem.advice import advice
from ipbasis.problem.summary import summary

GOOD = """name: decay
coordinates: {t: [0, 3]}
fields: [u]
parameters: {a: [0, 1]}
equations: ["u_t + a*u"]
initial: {u: [1, 2]}
"""


@pytest.fixture(autouse=True)
def _ends():
    """What hangs ends the tests with the place where it hung."""
    faulthandler.dump_traceback_later(60, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def read(tmp_path, text):
    (tmp_path / "p.yaml").write_text(text)
    return Problem.from_yaml(tmp_path / "p.yaml")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("[0, 3]", "[0, 1:30]"), "coordinates.t: .*'1:30'.* is not a range"),
        (("[0, 3]", "[0, 0x10]"), "coordinates.t: .*'0x10'.* is not a range"),
        (("[0, 3]", "[2024-01-01, 3]"), "coordinates.t: .*'2024-01-01'"),
        (("[0, 3]", f"[0, {'9' * 400}]"), "coordinates.t: .* is not a range"),
        (("[0, 3]", f"[0, {'9' * 5000}]"), "not YAML: .*5000 digits"),
        (("[0, 3]", "[0, 1e101]"), "sizes of 1e-100 to 1e[+]100 are right"),
        (("[0, 1]", "!!bool 3"), "not YAML"),
        (("[u]", "!!python/object/apply:os.system ['ls']"), "line 3, column 9: could not determine a constructor"),
        (("[u]", "&x [u]\nmore: *x"), "line 4, column 7: an alias such as .*name; the value itself is right"),
        (("[u]", "&x [*x]"), "line 3, column 13: an alias"),
        (("[u]", "[" * 5000), "not YAML: maximum recursion depth"),
        (("name: decay", "? [a]\n: b"), "unhashable key"),
        (("decay", "de\0cay"), "not YAML: unacceptable character"),
        (("decay", "decay #" + "x" * 1_000_000), "characters; a problem of 1000000 at most is right"),
    ],
)
def test_odd_yaml_is_one_line(tmp_path, change, told):
    with pytest.raises(InputError, match=rf"p\.yaml: .*{told}|p\.yaml: {told}") as caught:
        read(tmp_path, GOOD.replace(*change))
    assert "\n" not in str(caught.value)


def test_numbers_are_decimal_and_dates_are_names(tmp_path):
    problem = read(tmp_path, GOOD.replace("decay", "2024-13-45").replace("[0, 3]", "[-1e-1, 010]"))
    assert problem.name == "2024-13-45"
    assert problem.coordinates["t"][:2] == (-0.1, 10)


def nested(form, levels, inner="u"):
    for _ in range(levels):
        inner = form.format(inner)
    return inner


@pytest.mark.parametrize(
    ("term", "told"),
    [
        (nested("abs({})", 12), "grows to .* parts; 10000 at most are right"),
        ("max(u, " + ", ".join(f"{n}*t" for n in range(30)) + ")", "grows to .* parts"),
        ("where(" + " and ".join(f"u > {n}*t" for n in range(30)) + ", a, u)", None),
        ("where(" + " < ".join(["u", "a*t"] * 20) + ", a, u)", None),
        (nested("where({} > t, t, u)", 15), None),
        (nested("exp({})", 80), "too deeply nested"),
        (nested("(1 + u/{})", 40, "t"), "too deeply nested: .* levels; 60 at most are right"),
        (nested("({} + t)**20", 8), None),
        ("u*((1 + t)**20 + a)**20", None),
        ("(u + t)**20*(u - a)**20", None),
        ("u**" + nested("exp({})", 30, "1"), "not a finite real number"),
        ("u/tan(log(log(log(t - 5))))", None),
    ],
)
def test_short_formulas_that_grow_are_refused_or_done_with(term, told):
    values = {"name": "p", "coordinates": {"t": [0, 3]}, "fields": ["u"], "parameters": {"a": [0, 1]}}
    values |= {"equations": [f"u_t + a*u + {term}"], "initial": {"u": [1, 2]}}
    if told:
        with pytest.raises(InputError, match=rf"equations: equation .*, position \d+: .*{told}"):
            Problem(**values)
    else:
        problem = Problem(**values)
        assert problem.system.affine is None or problem.system.is_linear
        assert summary(problem)
        advice(problem)


@pytest.mark.parametrize("equation", ["sin(u_t) + a*u", "u_t**3*sin(u_t) + a*u", "(u_t + a*u + t)**20*(u_t - u)**20"])
def test_equations_that_are_not_linear_in_the_highest_derivative_are_not_solved_for_it(equation):
    values = {"name": "p", "coordinates": {"t": [0, 3]}, "fields": ["u"], "parameters": {"a": [0, 1]}}
    declared = Problem(**values, equations=[equation], initial={"u": [1, 2]})
    assert declared.truth.solved_for([declared.notation.jet("u_t")]) is None
