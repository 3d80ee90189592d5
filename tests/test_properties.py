"""Whatever a file holds: estimates, or one line that says what is wrong; and the files are as they were.

A property of the command line as a user meets it, tried on generated texts and on damaged files.
"""

import faulthandler
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulated import simulated

from ipbasis import InputError, Problem
from ipbasis.cli import main
from ipbasis.problem.summary import summary

# the same examples at every run
FEW = settings(max_examples=30, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
_HANGS = 60  # seconds after which a case counts as hung, and ends the tests with the place where it is


@pytest.fixture(autouse=True)
def _ends():
    faulthandler.dump_traceback_later(20 * _HANGS, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="module")
def saved(basis, oscillator, tmp_path_factory):
    """A basis, and observations of two queries in every kind of file."""
    place = tmp_path_factory.mktemp("saved")
    basis.save(place / "basis")
    table = simulated(oscillator, 2, 12, noise=1)[0].round(4)
    for name in ("o.csv", "o.csv.gz", "o.csv.zip", "o.csv.bz2", "o.csv.xz"):
        table.to_csv(place / name, index=False)
    table.to_parquet(place / "o.parquet", index=False)
    return place


def holds(files: dict[str, bytes], arguments: list[str], outputs: list[str]) -> None:
    """The property: exit code 0 and all outputs, or 2, one line and none of them; inputs as they were."""
    with TemporaryDirectory() as name:
        place = Path(name)
        for file, content in files.items():
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            (place / file).write_bytes(content)
        before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            done = CliRunner().invoke(main, [part.replace("@", name) for part in arguments])
        written = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert {path: content for path, content in written.items() if path in before} == before
        new = {str(path.relative_to(place)) for path in written.keys() - before.keys()}
        assert done.exit_code in (0, 2), done.output
        if done.exit_code == 0:
            assert new == set(outputs)
        else:
            told = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
            assert len(told) == 1, done.stderr
            assert told[0].startswith("error: ")
            assert not new


def damaged(content: bytes, at: int, kind: str, byte: int) -> bytes:
    at %= len(content)
    match kind:
        case "cut":
            return content[:at]
        case "flip":
            return content[:at] + bytes([content[at] ^ (1 << byte % 8)]) + content[at + 1 :]
        case "put":
            return content[:at] + bytes([byte]) + content[at:]
        case "zero":
            return content[:at] + bytes(min(40, len(content) - at)) + content[at + 40 :]
        case "drop":
            return content[:at] + content[at + 1 + byte :]
        case "twice":
            return content[: at + byte] + content[at:]
    raise AssertionError(kind)


DAMAGE = st.tuples(
    st.integers(0, 10**6), st.sampled_from(["cut", "flip", "put", "zero", "drop", "twice"]), st.integers(0, 255)
)


def fit_of(saved: Path, name: str, content: bytes) -> None:
    files = {f"basis/{file.name}": file.read_bytes() for file in (saved / "basis").iterdir()}
    holds(files | {name: content}, ["fit", "@/basis", f"@/{name}", "--output", "@/e.csv"], ["e.csv"])


@pytest.mark.parametrize("name", ["o.csv", "o.csv.gz", "o.csv.zip", "o.csv.bz2", "o.csv.xz", "o.parquet"])
@FEW
@given(st.lists(DAMAGE, min_size=1, max_size=3))
def test_damaged_observations(saved, name, damages):
    content = (saved / name).read_bytes()
    for damage in damages:
        content = damaged(content, *damage) or b"x"
    fit_of(saved, name, content)


NUMBERS = st.one_of(
    st.floats(0, 3).map(lambda x: f"{x:.4g}"),
    st.floats(allow_nan=True, allow_infinity=True).map(repr),
    st.sampled_from(
        ["", "1,5", '"1,5"', "1e400", "-1e-400", "0x10", "1_0", "NaN", "inf", "high", " 1 ", "1;2", "²", "\0"]
    ),
)
IDS = st.one_of(
    st.sampled_from(["a", "b", "007", "", '"a,b"', '"a\nb"', "$^$", ".", "nan", "x" * 300, "ü", '"']),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5).map(
        lambda t: '"' + t.replace('"', '""') + '"'
    ),
)
HEADERS = st.sampled_from(
    [
        *(["query,t,u"] * 5),
        *(
            "query,t,u,u_std",
            "query,t,u,a1",
            "query,t,u,initial_u",
            "query,t,u,note",
            "query,t,u,u",
            "query;t;u",
            "t,u",
        ),
        *("query\tt\tu", "\ufeffquery,t,u", "query, t, u", "Query,t,u", "query,t,u,", '"query","t","u"', ""),
    ]
)


@st.composite
def csv_texts(draw):
    header = draw(HEADERS)
    count = header.count(",") + 1
    rows = [
        ",".join([draw(IDS), *draw(st.lists(NUMBERS, min_size=max(count - 2, 0), max_size=count))])
        for _ in range(draw(st.integers(0, 6)))
    ]
    return draw(st.sampled_from(["\n", "\r\n", "\r"])).join([header, *rows]) + draw(st.sampled_from(["\n", "", "\n\n"]))


@settings(FEW, max_examples=60)
@given(csv_texts())
def test_generated_observations(saved, text):
    fit_of(saved, "o.csv", text.encode())


@FEW
@given(st.sampled_from(["basis.json", "basis.safetensors"]), DAMAGE)
def test_damaged_bases(saved, name, damage):
    files = {f"basis/{file.name}": file.read_bytes() for file in (saved / "basis").iterdir()}
    files[f"basis/{name}"] = damaged(files[f"basis/{name}"], *damage)
    holds(files, ["show", "@/basis"], [])


PROBLEM = """name: wave
coordinates: {t: [0, 2], x: [0, 1]}
fields: [u]
parameters: {c: {range: [0.5, 2], scale: log}, k: [0, 1]}
constants: {g: 9.81}
equations: ["u_tt - c**2*u_xx + k*sin(u) - g*t"]
initial: {u: "sin(pi*x)", u_t: [0, 1]}
boundary:
  - {at: {x: 0}, equations: [u]}
  - {at: {x: 1}, equations: ["u - k"]}
bounds: {k: [0, null]}
priors: {c: {lognormal: [1, 0.5]}}
"""


@settings(FEW, max_examples=60)
@given(st.lists(DAMAGE, min_size=1, max_size=4))
def test_damaged_problems(damages):
    content = PROBLEM.encode()
    for damage in damages:
        content = damaged(content, *damage) or b"x"
    holds({"p.yaml": content}, ["check", "@/p.yaml"], [])


YAML_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.sampled_from(
            ["u", "t", "k", "u_t + k*u", "1e3", "log", "2024-01-01", "~", "*a", "&a x", "!!set {a}", "!x y", "1:30"]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["u", "t", "k", "range", "scale", "at", "equations", "normal"]), inner, max_size=3
        ),
    ),
    max_leaves=6,
)


@settings(FEW, max_examples=60)
@given(st.dictionaries(st.sampled_from(list(Problem.model_fields)), YAML_VALUES, max_size=4))
def test_generated_problems(changes):
    values = {"name": "p", "coordinates": {"t": [0, 3]}, "fields": ["u"], "parameters": {"k": [0, 1]}}
    values |= {"equations": ["u_t + k*u"], "initial": {"u": [1, 2]}} | changes
    text = "".join(f"{key}: {_flow(value)}\n" for key, value in values.items())
    holds({"p.yaml": text.encode()}, ["check", "@/p.yaml"], [])


def _flow(value: object) -> str:
    """A value as YAML writes it in one line; texts as they are, so that they mean what they mean to YAML."""
    match value:
        case list():
            return f"[{', '.join(map(_flow, value))}]"
        case dict():
            return f"{{{', '.join(f'{key}: {_flow(own)}' for key, own in value.items())}}}"
        case None:
            return "null"
    return str(value)


ATOMS = st.sampled_from(["u", "u_t", "u_tt", "a", "t", "2", "0.5", "1e5", "pi", "-1", "1e-9", "20"])


def _compound(inner):
    one = st.sampled_from(["sin", "cos", "tan", "exp", "log", "sqrt", "sinh", "cosh", "tanh", "abs", "heaviside"])
    return st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
        st.tuples(inner, st.sampled_from(["2", "20", "0.5", "-1", "(1/3)", "a", "19", "-20"])).map(
            lambda p: f"({p[0]})**{p[1]}"
        ),
        st.tuples(one, inner).map(lambda p: f"{p[0]}({p[1]})"),
        st.tuples(st.sampled_from(["min", "max"]), inner, inner, inner).map(
            lambda p: f"{p[0]}({p[1]}, {p[2]}, {p[3]})"
        ),
        st.tuples(inner, st.sampled_from(["<", ">=", "< t and u >"]), inner, inner).map(
            lambda p: f"where({p[0]} {p[1]} {p[2]}, {p[3]}, a)"
        ),
    )


FORMULAS = st.recursive(ATOMS, _compound, max_leaves=25)


def declared(equation: str, **initial: list[float]) -> Problem | str:
    """The problem of an equation, or what is said against it."""
    values = {"name": "p", "coordinates": {"t": [0, 3]}, "fields": ["u"], "parameters": {"a": [0, 1]}}
    try:
        return Problem(**values, equations=[equation], initial=initial)
    except InputError as error:
        return str(error)


@settings(FEW, max_examples=60)
@given(FORMULAS, st.sampled_from(["u_tt + a*u + {}", "u_tt*{} + a*u", "{} + a*u + u_tt"]))
def test_generated_formulas(formula, equation):
    problem = declared(equation.format(formula), u=[-1, 1], u_t=[-1, 1])
    if isinstance(problem, str):
        assert "\n" not in problem
        return
    assert problem.system.affine is None or problem.system.is_linear
    problem.system.partials()
    assert summary(problem)


@settings(FEW, max_examples=100)
@given(st.text(max_size=40))
def test_any_text_as_a_formula(text):
    assert declared(text, u=[-1, 1])
