"""Every way to get a problem wrong is told in one line, with its key and what would be right."""

import re

import pytest

from ipbasis.errors import InputError
from ipbasis.problem.declaration import Problem

ORDINARY = {
    "name": "p",
    "coordinates": {"t": [0, 1]},
    "fields": ["u"],
    "parameters": {"a": [0.5, 1]},
    "equations": ["u_t + a*u"],
    "initial": {"u": [0, 1]},
}
HEAT = {
    "name": "heat",
    "coordinates": {"t": [0, 1], "x": [0, 2]},
    "fields": ["u"],
    "parameters": {"a": [0.5, 1]},
    "equations": ["u_t - a*u_xx"],
    "initial": {"u": "sin(pi*x)"},
    "boundary": [{"at": {"x": 0}, "equations": ["u"]}, {"at": {"x": 2}, "equations": ["u"]}],
}
WALL = {"at": {"x": 0}, "equations": ["u"]}
PLANE = {**HEAT, "coordinates": {"t": [0, 1], "x": [0, 2], "y": [0, 1]}, "equations": ["u_t - a*(u_xx + u_yy)"]}


def refused(base, changes, reason):
    with pytest.raises(InputError, match=reason) as caught:
        Problem(**{key: value for key, value in {**base, **changes}.items() if value is not None})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"parametrs": {}}, "parametrs: no such key; do you mean 'parameters'.* there are name, coordinates"),
        ({"boundary": [{"at": {"t": 1}, "equation": ["u"]}]}, r"boundary\.0\.equation: .*do you mean 'equations'"),
        ({"boundary": [{"at": {"t": 1}}]}, r"boundary\.0: either \{at: \{x: 0\}, equations: \[u\]\} or \{periodic: x"),
        ({"boundary": [{"at": {"t": 1}, "equations": ["u"], "periodic": "t"}]}, r"boundary\.0: either"),
        ({"equations": None}, r'equations: missing; equations: \["u_t \+ k\*u"\] is right'),
        ({"equations": "u_t"}, r"equations: input should be a valid list; equations: \["),
        ({"parameters": {"a": 1}}, r"parameters\.a: 1 is not a range; \[low, high\] is right"),
        ({"parameters": {"a": [0, float("inf")]}}, r"parameters\.a: range \[0, inf\]: .*both finite"),
        ({"parameters": {"a": {"range": [0, 1], "scale": "log"}}}, r"parameters\.a: .*low must be above zero"),
        ({"initial": {"u": [None, 1]}}, r"initial\.u: \[None, 1\] is not a range"),
        ({"coordinates": {"t": {"range": [1, 2], "scale": "log"}}}, r"coordinates\.t: .*no logarithmic scale"),
        ({"constants": {"c": float("nan")}}, r"constants\.c: nan is not a finite number"),
        ({"constants": {"a": 1}}, "parameters and constants: name 'a' is used twice"),
        ({"constants": {"u_t": 1}}, "constants: name 'u_t' reads as a derivative"),
        ({"constants": {"a_std": 1}}, "constants: 'a_std' cannot be a name: .*column of tables for parameter 'a'"),
        ({"constants": {"u_noise": 1}}, "column of tables for field 'u'"),
        ({"constants": {"initial_u": 1}}, "column of tables for the initial value"),
        ({"constants": {"lambda": 1}}, "constants: 'lambda' cannot be a name"),
        ({"constants": {"where": 1}}, "constants: 'where' cannot be a name"),
        ({"fields": ["u", "u"], "equations": ["u_t", "u_t + a"]}, "fields: name 'u' is used twice"),
        ({"equations": ["u_t + a*u", "a - 1"]}, "equations: 'a - 1' holds no field; u or a derivative is right"),
        ({"equations": ["u_t + a*u", "u_t"]}, r"equations: 2 equations for 1 field \(u\); as many"),
        ({"fields": ["u", "v"]}, r"equations: 1 equation for 2 fields \(u, v\)"),
        ({"fields": ["u", "v"], "equations": ["u_t", "u_t + a"]}, "fields: 'v' occurs in no equation"),
        ({"equations": ["u_ttttt + a"]}, "equations: u_ttttt is a derivative of order 5; up to order 4 is right"),
        ({"equations": ["u_t + b*u"]}, "equations: .*position 7: unknown symbol 'b'"),
        ({"initial": {"u_t": [0, 1]}}, r"initial\.u_t: the equations are of order 1 in 'u' along 't'; u is right"),
        ({"initial": {"u": "b"}}, r"initial\.u: equation 'b', position 1: unknown symbol"),
        ({"equations": ["u_tt + a*u"]}, r"too few: 1 condition .* order 2 \(u: 2\); 2 are right, .* of u_t"),
        ({"boundary": [{"at": {"t": 1}, "equations": ["u"]}]}, r"too many: 2 conditions .* 1 \(u: 1\); 1 are right"),
        ({"boundary": [{"at": {"x": 1}, "equations": ["u"]}]}, "boundary: 'x' is not a coordinate; there are t"),
        ({"boundary": [{"at": {"t": 1}, "equations": ["a - 1"]}]}, "boundary: 'a - 1': conditions must be linear"),
        ({"boundary": [{"periodic": "t"}]}, "'t' has initial conditions; either of the two"),
        ({"priors": {"a": {"normal": [1, 1]}}, "parameters": {"a": {"range": [1, 2], "scale": "log"}}}, "lognormal: "),
        ({"fixed": {"a": -1}, "parameters": {"a": {"range": [1, 2], "scale": "log"}}}, r"fixed\.a: .*above zero"),
        ({"parameters": {"a": [0, 1], "q": [0, 1]}}, "parameters: parameter 'q' occurs in no equation and in no cond"),
    ],
)  # fmt: skip
def test_ordinary_equations(changes, reason):
    refused(ORDINARY, changes, reason)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"equations": ["u_tt - a*u_xx"]}, "initial: too few: .*order 2 in 'u' along 't'; .* for u_t is right"),
        ({"boundary": [*HEAT["boundary"], {"at": {"x": 0}, "equations": ["u_x"]}]}, "too many: 3 conditions .* of x"),
        ({"boundary": []}, "boundary: too few: nothing is said at the ends of x"),
        ({"boundary": [{"periodic": "z"}]}, "periodic: 'z' is not a coordinate; there are t, x"),
        ({"boundary": [{"periodic": "x"}, {"periodic": "x"}]}, "'x' stands there twice"),
        ({"boundary": [{"periodic": "x"}, WALL]}, "x is periodic, but there are conditions at values of it"),
        ({"initial": {"u_x": "0"}}, "initial: 'u_x' is not a field or a derivative of one along 't'"),
        ({"initial": {"u": "u_x + x"}}, r"initial\.u: 'u_x' is neither a coordinate nor a parameter nor a constant"),
        ({"coordinates": {"t": [0, 1], "x": [0, 2], "tx": [0, 1]}}, "'tx' reads as several other coordinates"),
    ],
)  # fmt: skip
def test_partial_equations(changes, reason):
    refused(HEAT, changes, reason)


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        (HEAT, {"boundary": [{"periodic": "x"}]}),
        (HEAT, {"boundary": [WALL, {"at": {"x": 2}, "equations": ["a*u_x + u - a*t"]}]}),
        (HEAT, {"initial": {"u": "a*x"}}),
        (HEAT, {"initial": {"u": 0}}),
        (HEAT, {"equations": ["u_t - x*(2 - x)*u_xx*a"], "boundary": []}),  # degenerate at both ends
        (HEAT, {"equations": ["u_t + a*u_xxxx"], "boundary": [
            {"at": {"x": end}, "equations": ["u", "u_xx"]} for end in (0, 2)]}),
        (HEAT, {"initial": None, "boundary": [*HEAT["boundary"], {"at": {"t": 0}, "equations": ["u - sin(x)"]}]}),
        (HEAT, {"initial": None, "equations": ["u_tt + u_xx - a"], "boundary": [
            {"at": {c: e}, "equations": ["u"]} for c, ends in (("t", (0, 1)), ("x", (0, 2))) for e in ends]}),
        (PLANE, {"boundary": [{"periodic": "x"}, {"periodic": "y"}]}),
        (PLANE, {"boundary": [*HEAT["boundary"], {"at": {"y": 0}, "equations": ["u_y - a"]}]}),
        (ORDINARY, {"initial": None, "boundary": [{"at": {"t": 1}, "equations": ["u - a"]}]}),
        (ORDINARY, {"initial": None, "boundary": [{"periodic": "t"}], "equations": ["u_t + a*u - sin(2*pi*t)"]}),
        (ORDINARY, {"equations": ["u_tt + a*u"], "boundary": [{"at": {"t": 1}, "equations": ["u"]}]}),
        # an algebraic equation needs no condition
        (ORDINARY, {"fields": ["u", "v"], "equations": ["u_t + a*v", "v - u**2"]}),
        # a pendulum in Cartesian coordinates: fewer conditions than the orders say
        (ORDINARY, {"fields": ["x", "y", "s"], "equations": ["x_tt + s*x", "y_tt + s*y - a", "x*x + y*y - 1"],
                    "initial": {"x": [0, 1], "x_t": [0, 1]}}),
        (ORDINARY, {"constants": {"c": 2, "n": "1e-3"}, "equations": ["u_t + a*c*u**c + n"]}),
    ],
)  # fmt: skip
def test_what_is_right_is_accepted(base, changes):
    problem = Problem(**{key: value for key, value in {**base, **changes}.items() if value is not None})
    assert Problem.model_validate_json(problem.model_dump_json()).model_dump() == problem.model_dump()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name: !!timestamp 2024-13-45", "not YAML: month must be in 1..12"),
        ("parameters: {a: [0, 1], a: [0, 2]}", "line 1, column 25: key 'a' stands there twice"),
        (
            "fields: [u]\nparameters: {no: [0, 1]}",
            "line 2, column 14: key 'no' means true or false .*in quotes is right",
        ),
        ("name: p\ncoordinates: {t: [0, 1]}\nfield: [u]", "field: no such key; do you mean 'fields'|fields: missing"),
        (
            "name: p\ncoordinates: {1: [0, 1]}\nfields: [u]\nparameters: {a: [0, 1]}\nequations: [u]",
            "coordinates.1: .*string",
        ),
    ],
)
def test_faulty_files(tmp_path, text, reason):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(InputError, match=reason) as caught:
        Problem.from_yaml(tmp_path / "p.yaml")
    assert re.match(rf"{re.escape(str(tmp_path / 'p.yaml'))}: (?!Problem)", str(caught.value))


def test_numbers_without_a_point_and_formulas_over_several_lines(tmp_path):
    (tmp_path / "p.yaml").write_text(
        "name: p\ncoordinates: {t: [0, 1e1]}\nfields: [u]\nconstants: {N: 7.9e6}\n"
        "parameters: {a: {range: [1e-3, 1e2], scale: log}}\n"
        "equations:\n  - |\n    u_t\n      + a*u/N\ninitial: {u: 1e-3}\n"
    )
    problem = Problem.from_yaml(tmp_path / "p.yaml")
    assert problem.parameters["a"] == (1e-3, 100, "log")
    assert problem.constants["N"] == 7.9e6
    assert str(problem.system.residuals[0]) in ("a*u/7900000 + u_t", "u_t + a*u/7900000")
    assert [float(value) for value in problem.fixed_initial.values()] == [1e-3]
