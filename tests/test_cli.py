"""The command line as a user meets it: what it writes, and one line for every kind of bad input."""

import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from simulated import simulated

from ipbasis.cli import main


@pytest.fixture
def place(basis, oscillator, tmp_path):
    """A directory with a basis and observations."""
    basis.save(tmp_path / "basis")
    simulated(oscillator, 3, 30)[0].to_csv(tmp_path / "o.csv", index=False)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_fit_writes_estimates_and_figures(place):
    done = run("fit", place / "basis", place / "o.csv", "--output", place / "e.csv", "--figures", place / "figures")
    assert done.exit_code == 0, done.output
    table = pd.read_csv(place / "e.csv")
    assert list(table["query"]) == [0, 1, 2]
    assert (table["status"] == "ok").all()
    assert len(list((place / "figures").glob("*.png"))) == 3
    assert "3 queries: 3 ok" in done.output


def test_fit_writes_parquet(place):
    assert run("fit", place / "basis", place / "o.csv", "--output", place / "e.parquet").exit_code == 0
    assert len(pd.read_parquet(place / "e.parquet")) == 3


def test_fit_takes_kinds_of_noise_and_loss(place):
    table = pd.read_csv(place / "o.csv")
    table.assign(u=table["u"].abs() + 1).to_csv(place / "o.csv", index=False)
    options = ["--noise", "lognormal", "--loss", "huber", "--noise-std", "u=0.25"]
    done = run("fit", place / "basis", place / "o.csv", "--output", place / "e.csv", *options)
    assert done.exit_code == 0, done.output
    assert pd.read_csv(place / "e.csv")["noise_std"].to_numpy() == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--noise-std", "much"], "--noise-std 'much': a number such as 0.1 is right"),
        (["--noise-std", "u=0.1", "--noise-std", "0.2"], "one number for all fields is right"),
        (["--noise-std", "v=0.1"], "'v' is not a field"),
        (["--noise", "poisson"], "there are gaussian, lognormal"),
        (["--loss", "absolute"], "there are squares, huber"),
    ],
)
def test_bad_noise_is_told(place, options, reason):
    done = run("fit", place / "basis", place / "o.csv", "--output", place / "e.csv", *options)
    assert done.exit_code == 2
    assert reason in done.output
    assert not (place / "e.csv").exists()


def test_figures_leave_other_files_alone(place):
    (place / "figures").mkdir()
    (place / "figures" / "mine.txt").write_text("keep")
    run("fit", place / "basis", place / "o.csv", "--output", place / "e.csv", "--figures", place / "figures")
    assert (place / "figures" / "mine.txt").read_text() == "keep"


def rewrite(path, **columns):
    table = pd.read_csv(path)
    for name, value in columns.items():
        table[name] = value
    table.to_csv(path, index=False)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda p: (p / "o.csv").unlink(), "o.csv: no such file"),
        (lambda p: rewrite(p / "o.csv", u="high"), "row 2, column 'u' (query 0): 'high' is not a number"),
        (lambda p: pd.read_csv(p / "o.csv").drop(columns="t").to_csv(p / "o.csv"), "column 't' is missing"),
        (lambda p: rewrite(p / "o.csv", t=np.nan), "column 't' (query 0): a coordinate must be a finite number"),
        (lambda p: rewrite(p / "o.csv", u_std=0), "column 'u_std' (query 0): a standard deviation must be above zero"),
        (lambda p: (p / "basis" / "basis.json").unlink(), "basis.json is missing"),
        (lambda p: shutil.rmtree(p / "basis"), "basis.json is missing"),
    ],
)
def test_bad_input_is_one_line_exit_2_and_nothing_written(place, spoil, reason):
    spoil(place)
    before = sorted(place.rglob("*"))
    done = run("fit", place / "basis", place / "o.csv", "--output", place / "e.csv", "--figures", place / "figures")
    assert done.exit_code == 2
    lines = [line for line in done.output.splitlines() if not line.startswith("warning:")]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert reason in lines[0]
    assert sorted(place.rglob("*")) == before


def test_broken_queries_fail_alone_and_get_no_picture(place):
    table = pd.read_csv(place / "o.csv")
    table.loc[table["query"] == 1, "t"] += 2
    table.to_csv(place / "o.csv", index=False)
    done = run("fit", place / "basis", place / "o.csv", "--output", place / "e.csv", "--figures", place / "figures")
    assert done.exit_code == 0, done.output
    assert "3 queries: 2 ok, 1 failed" in done.output
    found = pd.read_csv(place / "e.csv").set_index("query")
    assert found.loc[1, "message"] == "row 42, column 't': 3.03448 is outside the basis domain [0, 3]"
    assert np.isnan(found.loc[1, "a1"])
    assert {p.name for p in (place / "figures").iterdir()} == {"index.csv", "query_0.png", "query_2.png"}


def test_a_file_of_several_chunks(place):
    arguments = ("fit", place / "basis", place / "o.csv", "--chunk", 40)
    done = run(*arguments, "--output", place / "e.csv")
    assert done.exit_code == 0, done.output
    assert "3 queries: 3 ok" in done.output
    assert pd.read_csv(place / "e.csv")["query"].tolist() == [0, 1, 2]
    before = sorted(place.rglob("*"))
    refused = run(*arguments, "--output", place / "new" / "e.csv", "--figures", place / "figures")
    assert refused.exit_code == 2
    assert "--figures" in refused.output
    assert sorted(place.rglob("*")) == before


def test_options_of_the_reference_and_of_correlations(place):
    arguments = ("fit", place / "basis", place / "o.csv", "--output", place / "e.csv")
    done = run(*arguments, "--polish", "--correlations")
    assert done.exit_code == 0, done.output
    table = pd.read_csv(place / "e.csv")
    assert (table["resimulation_rms"] < 1e-6).all()
    assert list(table)[-3:] == ["corr_a1_a2", "corr_a1_a3", "corr_a2_a3"]
    assert run(*arguments, "--resimulate", "--profile").exit_code == 0
    profiled = pd.read_csv(place / "e.csv")
    assert list(profiled) == list(table)[:-3]
    assert not profiled["a1_low"].equals(table["a1_low"])


def test_what_is_known_of_parameters(place):
    arguments = ("fit", place / "basis", place / "o.csv", "--output", place / "e.csv")
    known = ("--fix", "a3=0.25", "--bounds", "a1=0:", "--prior", "a2=normal:0.5,1e-6")
    done = run(*arguments, *known, "--noise-std", 0.5)  # so large that the data hardly count against the prior
    assert done.exit_code == 0, done.output
    table = pd.read_csv(place / "e.csv")
    assert (table["a3"] == 0.25).all()
    assert (table["a3_std"] == 0).all()
    assert (table["a1"] >= 0).all()
    assert (table["a2"] - 0.5).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--fix", "a9=1"], "fixed: there is no 'a9'; there are a1, a2, a3, initial_u, initial_u_t"),
        (["--fix", "a1"], "--fix 'a1': expected NAME=VALUE"),
        (["--fix", "a1=x"], "--fix 'a1=x': expected NAME=VALUE"),
        (["--bounds", "a1=1"], "--bounds 'a1=1': expected NAME=LOW:HIGH"),
        (["--bounds", "a1=3:4"], "leaves no start: it must overlap the range [0, 1.5]"),
        (["--prior", "a9=normal:0,1"], "priors: there is no 'a9'"),
        (["--prior", "a1=uniform:0,1"], "--prior 'a1=uniform:0,1': expected NAME=normal:MEAN,STD"),
        (["--prior", "a1=normal:0,1", "--polish"], "polish knows no bounds and no priors"),
        (["--polish", "--profile"], "exclude each other"),
        (["--profile", "--solver", "adam"], "for the solver"),
    ],
)
def test_faulty_options_are_told_and_nothing_is_written(place, options, reason):
    done = run("fit", place / "basis", place / "o.csv", "--output", place / "e.csv", *options)
    assert done.exit_code == 2
    assert reason in done.output
    assert not (place / "e.csv").exists()


@pytest.mark.parametrize(
    ("output", "reason"),
    [("o.csv/e.csv", "cannot be written"), ("basis.csv", "is a directory"), ("e.txt", "must end in .csv or .parquet")],
)
def test_output_that_cannot_be_written(place, output, reason):
    (place / "basis.csv").mkdir()
    before = sorted(place.rglob("*"))
    done = run("fit", place / "basis", place / "o.csv", "--output", place / output)
    assert done.exit_code == 2
    assert reason in done.output
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--output", "new/dir/e.csv", "--solver", "newton"],
        ["--output", "new/dir/e.csv", "--noise-std", "-1"],
        ["--output", "e.csv", "--figures", "o.csv/figures"],
    ],
)
def test_nothing_is_left_behind_after_bad_options(place, monkeypatch, arguments):
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    done = run("fit", "basis", "o.csv", *arguments)
    assert done.exit_code == 2, done.output
    assert sorted(place.rglob("*")) == before


def test_earlier_estimates_survive_bad_input(place):
    (place / "e.csv").write_text("earlier")
    rewrite(place / "o.csv", u="high")
    assert run("fit", place / "basis", place / "o.csv", "--output", place / "e.csv").exit_code == 2
    assert (place / "e.csv").read_text() == "earlier"


def test_unknown_solver(place):
    done = run("fit", place / "basis", place / "o.csv", "--output", place / "e.csv", "--solver", "newton")
    assert done.exit_code == 2
    assert "gauss_newton, free_form" in done.output


def test_usage_errors_exit_2():
    assert run("fit").exit_code == 2
    assert run("nonsense").exit_code == 2


@pytest.mark.filterwarnings("default")
def test_warnings_are_one_line(place):
    rewrite(place / "o.csv", room=1)
    done = run("fit", place / "basis", place / "o.csv", "--output", place / "e.csv")
    assert done.exit_code == 0
    assert any("warning:" in line and "room" in line for line in done.output.splitlines())


def test_show(place):
    done = run("show", place / "basis")
    assert done.exit_code == 0
    assert "damped_oscillator" in done.output
    assert "a1 trained in [0, 1.5]" in done.output
    assert "in the quarters of the range of initial_u" in done.output
    assert run("show", place).exit_code == 2


def test_problems():
    done = run("problems")
    assert done.exit_code == 0
    assert "u_tt + a1*u_t + a2*u + a3 = 0" in done.output
    assert "fisher_kpp\n    Fisher-KPP: cells (u, per mm^2) invade a gap of 2 mm" in done.output
    assert "ka in [0.6, 4] on a logarithmic scale" in done.output


@pytest.fixture
def with_terms(tmp_path, lotka_volterra_basis, lotka_volterra):
    """A directory with a basis for unknown terms and observations of two queries."""
    lotka_volterra_basis.for_problem(lotka_volterra).save(tmp_path / "basis")
    table, _, _ = simulated(lotka_volterra, 2, 80, known=["alpha", "gamma"])
    table.to_csv(tmp_path / "o.csv", index=False)
    return tmp_path


def test_unknown_terms_come_out_as_formulas(with_terms):
    arguments = ("fit", with_terms / "basis", with_terms / "o.csv", "--output", with_terms / "e.csv")
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    table = pd.read_csv(with_terms / "e.csv")
    assert table["f"].str.contains("x*y", regex=False).all()
    assert table["f"].iloc[0] in done.output
    done = run(*arguments, "--degree", "1", "--library", "x*y", "--library", "x/(1 + x)")
    assert done.exit_code == 0, done.output
    assert {"f_x1x", "f_xy", "f_x"} <= set(pd.read_csv(with_terms / "e.csv"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--library", "x**"], "error: library: equation 'x**', position"),
        (["--library", "sin(z)"], "unknown symbol 'z'"),
        (["--degree", "2", "--solver", "free_form"], "are for the solver 'library', not 'free_form'"),
    ],
)
def test_a_faulty_library_is_one_line_and_nothing_is_written(with_terms, options, reason):
    done = run("fit", with_terms / "basis", with_terms / "o.csv", "--output", with_terms / "e.csv", *options)
    assert done.exit_code == 2
    assert reason in done.output
    assert len(done.output.strip().splitlines()) == 1
    assert not (with_terms / "e.csv").exists()


def test_help_does_not_wait_for_what_commands_need():
    """Seconds are in the imports: none of these is needed to say what there is."""
    slow = ("torch", "scipy", "sympy", "pandas", "matplotlib", "pydantic")
    code = f"import sys, ipbasis.cli; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there():
    import ipbasis

    assert all(getattr(ipbasis, name).__name__ == name for name in ipbasis.__all__)
    with pytest.raises(AttributeError, match="no attribute 'estimates_of'"):
        ipbasis.estimates_of  # noqa: B018
