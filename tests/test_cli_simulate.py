"""``ipbasis simulate`` as a user meets it."""

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from ipbasis.cli import main


def run(*arguments):
    return CliRunner().invoke(main, ["simulate", *map(str, arguments)])


def test_data_and_truth_are_written(decay_file, tmp_path):
    options = ("--queries", 3, "--points", 7, "--noise", 0, "--fields", "u", "--equispaced")
    done = run(decay_file, "--output", tmp_path / "d.csv", "--truth", tmp_path / "t.parquet", *options)
    assert done.exit_code == 0, done.output
    assert "decay: 3 queries, 7 points each of u" in done.output
    data, truth = pd.read_csv(tmp_path / "d.csv"), pd.read_parquet(tmp_path / "t.parquet")
    assert list(data) == ["query", "t", "u"]
    assert list(truth) == ["query", "k", "initial_u", "u_noise_std"]
    both = data.merge(truth, on="query")
    assert both["u"].to_numpy() == pytest.approx(both["initial_u"] * np.exp(-both["k"] * both["t"]), abs=1e-7)


def test_parameters_come_from_a_table(decay_file, tmp_path):
    (tmp_path / "p.csv").write_text("query,k,initial_u\nslow,0.5,1\nfast,2,\n")
    done = run(decay_file, "--output", tmp_path / "d.csv", "--parameters", tmp_path / "p.csv", "--points", 3)
    assert done.exit_code == 0, done.output
    assert pd.read_csv(tmp_path / "d.csv")["query"].tolist() == ["slow"] * 3 + ["fast"] * 3


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--fields", "u,v"], "decay has no field 'v'; it has u, w"),
        (["--noise", "-1"], "noise -1: a standard deviation"),
        (["--truth", "t.xml"], "t.xml: the name of a table must end in .csv or .parquet"),
        (["--parameters", "none.csv"], "none.csv: no such file"),
        (["--parameters", "p.csv"], "parameters: decay has no 'kk'; it has k, initial_u"),
        (["--points", "0"], "0 is not in the range x>=1"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(decay_file, tmp_path, monkeypatch, options, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.csv").write_text("kk\n1\n")
    before = sorted(tmp_path.rglob("*"))
    done = run(decay_file, "--output", tmp_path / "d.csv", *options)
    assert done.exit_code == 2
    assert reason in done.output
    assert sorted(tmp_path.rglob("*")) == before


def test_a_faulty_problem_or_name_is_told(decay_file, tmp_path):
    done = run(decay_file, "--output", tmp_path / "d.txt")
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert "must end in .csv or .parquet" in done.output
    decay_file.write_text(decay_file.read_text().replace("k*u", "k*v", 1))
    done = run(decay_file, "--output", tmp_path / "d.csv")
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert "decay.yaml" in done.output


def test_ctrl_c_ends_with_130_and_nothing_is_written(decay_file, tmp_path, monkeypatch):
    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("ipbasis.simulation.simulate.simulation", stopped)
    before = sorted(tmp_path.rglob("*"))
    assert run(decay_file, "--output", tmp_path / "d.csv").exit_code == 130
    assert sorted(tmp_path.rglob("*")) == before
