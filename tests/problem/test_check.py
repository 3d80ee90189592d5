"""What `ipbasis check` prints: what was understood, and what is likely not meant."""

import re
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from ipbasis.cli import main
from ipbasis.problem.advice import advice
from ipbasis.problem.declaration import Problem, problem_directory
from ipbasis.problem.identifiability import open_changes, unidentified

ROD = """
name: rod
coordinates: {t: [0, 10], x: [0, 70], y: [0, 2]}
fields: [u]
constants: {room: 21.29}
parameters: {phi: [-30, -10], h: {range: [5e-4, 5e-2], scale: log}}
equations: ["u_t - u_xx - u_yy + h*(u - room)"]
initial: {u: "room*exp(-h)"}
boundary:
  - {at: {x: 0}, equations: ["u_x - phi"]}
  - {at: {x: 70}, equations: ["u_x + h*(u - room)"]}
  - {periodic: y}
bounds: {phi: [null, 0]}
priors: {h: {lognormal: [5e-3, 1]}}
"""


def check(path):
    return CliRunner().invoke(main, ["check", str(path)])


def ordinary(parameters, equation, initial="1", **changes):
    values = {
        "name": "p",
        "coordinates": {"t": [0, 1]},
        "fields": ["u"],
        "parameters": parameters,
        "equations": [equation],
        "initial": {"u": initial} if initial else {},
    }
    return Problem(**{**values, **changes})


def test_prints_what_was_understood(tmp_path):
    (tmp_path / "rod.yaml").write_text(ROD)
    done = check(tmp_path / "rod.yaml")
    assert done.exit_code == 0, done.output
    lines = [" ".join(line.split()) for line in done.output.splitlines()]
    assert lines == [
        "problem rod",
        "coordinate t in [0, 10], the time",
        "coordinate x in [0, 70]",
        "coordinate y in [0, 2], periodic",
        "field u, of order 1 along t and 2 along x and 2 along y",
        "equation u_t - u_xx - u_yy + h*(u - room) = 0",
        r"LaTeX: h \left(u - 21.29\right) + u_{t} - u_{xx} - u_{yy} = 0",
        "linear in the fields: yes; in the parameters: no",
        "initial u = room*exp(-h)",
        "at x = 0 u_x - phi = 0",
        "at x = 70 u_x + h*(u - room) = 0",
        "unknown phi in [-30, -10], bounds [open, 0]",
        "unknown h in [0.0005, 0.05] on a logarithmic scale, prior lognormal [0.005, 1]",
        "constant room = 21.29",
    ]


def test_a_fault_is_one_line_with_the_file(tmp_path):
    path = tmp_path / "rod.yaml"
    path.write_text(ROD.replace("boundary:", "bondary:"))
    done = check(path)
    assert done.exit_code == 2
    assert done.output.startswith(f"error: {path}: bondary: no such key; do you mean 'boundary'?")
    assert done.output.count("\n") == 1


@pytest.mark.parametrize("path", sorted(problem_directory().glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_problems_need_no_advice(path):
    done = check(path)
    assert done.exit_code == 0, done.output
    assert "warning" not in done.output


def test_neither_pytorch_nor_pandas_is_imported():
    code = "import sys; from ipbasis.cli import main; main(['check', sys.argv[1]], standalone_mode=False); "
    code += "print([m for m in ('torch', 'pandas') if m in sys.modules])"
    path = problem_directory() / "lotka_volterra.yaml"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("problem", "warnings"),
    [
        (ordinary({"k": [1e-3, 10]}, "u_t + k*u"), ["k: the range spans a factor of 1e+04 on a linear scale"]),
        (ordinary({"k": [1, 2]}, "u_t + k*u", [1, 1000]), ["initial_u: the range spans a factor of 1e"]),
        (ordinary({"k": {"range": [1e-3, 10], "scale": "log"}}, "u_t + k*u"), []),
        (ordinary({"k": [0, 10]}, "u_t + k*u"), []),
        (ordinary({"k": [-1, 10]}, "u_t + u/k"), ["division by k, which reaches zero within the ranges"]),
        (ordinary({"k": [0, 1], "m": [0.5, 2]}, "u_t + u**2/(k - m) + k"), ["division by k - m, which reaches zero"]),
        (ordinary({"k": [0.1, 1], "m": [2, 3]}, "u_t + u**2/(k - m) + k"), []),
        (ordinary({"k": [1, 2]}, "u_t + k*u", constants={"c": 3}), ["constant 'c' occurs in no formula"]),
    ],
)
def test_advice(problem, warnings):
    found = advice(problem)
    assert len(found) == len(warnings)
    assert all(warning in text for warning, text in zip(warnings, found, strict=True))


def test_too_few_walls_are_warned_of():
    walls = [{"at": {"x": 0}, "equations": ["u"]}]
    changes = {"coordinates": {"t": [0, 1], "x": [0, 1]}, "boundary": walls}
    (warning,) = advice(ordinary({"k": [1, 2]}, "u_t - k*u_xx", **changes))
    assert "1 condition at values of x, where the equation is of order 2 along it" in warning
    assert not advice(ordinary({"k": [1, 2]}, "u_t + k*u_x", **changes))


TWO = {"R": [1e3, 1e4], "C": [1e-8, 1e-7]}


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (ordinary(TWO, "R*C*u_t + u - 1"), r"R\*s and C/s, .* of R, C only the product can be found"),
        (ordinary(TWO, "R*u_t + C*u"), r"R\*s and C\*s, .* only the ratio can be found"),
        (ordinary(TWO, "u_t + R**2*u/C"), r"R\*s\*\*0.5 and C\*s, .* only combinations can be found"),
        (ordinary({"k": [1, 2]}, "k*u_t + k*u"), "k changes no solution"),
        (ordinary({"a": [1, 2], "b": [1, 2]}, "u_t + (a + b)*u"), "a, b can be changed together without a change"),
        (ordinary({"a": [1, 2], "b": [1, 2], "c": [1, 2]}, "u_t + a*b*c*u"), "of a, b, c only 1 can be found"),
        (ordinary({"a": [1, 2], "b": [1, 2]}, "u_t + a*u + b*u**2"), None),
        (ordinary({"a": [1, 2], "b": [1, 2]}, "u_t + a*b*u", "a"), None),
        (ordinary({"a": [1, 2], "b": [1, 2]}, "u_t + a*u + (b - a)*u**2"), None),
        (ordinary({"a": [1, 2], "b": [1, 2]}, "u_t + a*b*u + 1e-12*b*sin(t)"), None),
        (ordinary({"a": [1e-30, 2e-30], "b": [1e20, 2e20]}, "u_t + a*u + b"), None),
    ],
)
def test_parameters_that_cannot_be_told_apart(problem, told):
    found = unidentified(problem)
    if told is None:
        assert found is None
    else:
        assert found is not None
        assert re.search(told, found)


def test_conditions_count_for_what_can_be_told_apart():
    """A rod whose conductivity k is unknown beside flux and convection: all three times a factor is the same rod."""
    values = {
        "coordinates": {"t": [0, 70]},
        "initial": None,
        "boundary": [{"at": {"t": 0}, "equations": ["u_t - phi/k"]}, {"at": {"t": 70}, "equations": ["k*u_t + h*u"]}],
    }
    problem = ordinary({"phi": [10, 30], "h": [1e-3, 1e-2], "k": [1, 5]}, "u_tt - 4*h/k*(u - 21)", **values)
    (change,) = open_changes(problem, np.array([20, 5e-3, 2]))
    assert change / change[0] == pytest.approx(np.ones(3))
    assert "phi*s and h*s and k*s" in unidentified(problem)
    values["constants"] = {"k": 3}
    fixed = ordinary({"phi": [10, 30], "h": [1e-3, 1e-2]}, "u_tt - 4*h/k*(u - 21)", **values)
    assert unidentified(fixed) is None
