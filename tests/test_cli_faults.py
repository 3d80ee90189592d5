"""The command line where the machine refuses, a signal comes, or another process is at work: nothing is lost."""

import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from simulated import simulated

from ipbasis.cli import main
from ipbasis.files import claimed

PROBLEM = """name: decay
coordinates: {t: [0, 2]}
fields: [u]
parameters: {k: [0.5, 2]}
equations: ["u_t + k*u"]
initial: {u: [1, 2]}
"""


@pytest.fixture
def place(basis, oscillator, tmp_path, monkeypatch):
    """A directory with a basis, observations and a problem."""
    basis.save(tmp_path / "basis")
    simulated(oscillator, 3, 30)[0].to_csv(tmp_path / "o.csv", index=False)
    (tmp_path / "decay.yaml").write_text(PROBLEM)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(place):
    return {path: path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}


def refused(place, reason, *arguments):
    """Exit code 2, one line, nothing changed."""
    before = contents(place)
    done = CliRunner().invoke(main, [str(a) for a in arguments])
    assert done.exit_code == 2, done.output
    assert [line.startswith("error: ") for line in done.output.splitlines()] == [True]
    assert reason in done.output
    assert contents(place) == before


def test_the_output_is_never_an_input(place):
    (place / "hard.csv").hardlink_to(place / "o.csv")
    (place / "soft.csv").symlink_to("o.csv")
    (place / "record.csv").symlink_to("basis/basis.json")
    (place / "p.csv").write_text("query,k\na,1\n")
    for name in ("o.csv", "hard.csv", "soft.csv", "record.csv"):
        refused(place, "an input", "fit", "basis", "o.csv", "--output", name)
        if name != "record.csv":
            refused(place, "an input", "fit", "basis", "o.csv", "--output", name, "--chunk", 30)
    refused(place, "an input", "simulate", "decay.yaml", "--parameters", "p.csv", "--output", "p.csv")
    refused(place, "the same file", "simulate", "decay.yaml", "--output", "d.csv", "--truth", "./d.csv")
    (place / "out").mkdir()
    (place / "out" / "basis.json").symlink_to(place / "decay.yaml")
    refused(place, "an input", "train", "decay.yaml", "--output", "out")


def test_pictures_never_take_the_place_of_an_input_or_the_estimates(place):
    (place / "figures").mkdir()
    (place / "figures" / "index.csv").symlink_to(place / "o.csv")
    refused(place, "an input", "fit", "basis", "o.csv", "--output", "e.csv", "--figures", "figures")
    (place / "figures" / "index.csv").unlink()
    refused(place, "same file", "fit", "basis", "o.csv", "--output", "figures/index.csv", "--figures", "figures")


def test_observations_among_the_parts_are_refused(place):
    (place / "e.csv.parts").mkdir()
    (place / "o.csv").rename(place / "e.csv.parts" / "o.csv")
    refused(place, "lies in", "fit", "basis", "e.csv.parts/o.csv", "--output", "e.csv", "--chunk", 30)


def test_an_output_that_another_process_writes_is_refused(place):
    with claimed(place / "e.csv"):
        refused(place, "another process is writing it", "fit", "basis", "o.csv", "--output", "e.csv")
        refused(place, "another process is writing it", "fit", "basis", "o.csv", "--output", "e.csv", "--chunk", 30)
        refused(place, "another process is writing it", "simulate", "decay.yaml", "--output", "e.csv")
    with claimed(place / "out" / "basis.json"):
        refused(place, "another process is writing it", "train", "decay.yaml", "--output", "out")
    assert CliRunner().invoke(main, ["fit", "basis", "o.csv", "--output", "e.csv"]).exit_code == 0


def test_a_picture_that_fails_loses_no_estimate(place):
    table = pd.read_csv("o.csv")
    table["query"] = table["query"].map({0: "$^$", 1: ".", 2: "x" * 300})
    table.to_csv("o.csv", index=False)
    (place / "figures" / "query-1.png").mkdir(parents=True)
    done = CliRunner().invoke(main, ["fit", "basis", "o.csv", "--output", "e.csv", "--figures", "figures"])
    assert done.exit_code == 2
    assert "query-1.png: cannot be written (is a directory)" in done.output
    assert len(pd.read_csv("e.csv")) == 3
    (place / "figures" / "query-1.png").rmdir()
    assert (
        CliRunner().invoke(main, ["fit", "basis", "o.csv", "--output", "e.csv", "--figures", "figures"]).exit_code == 0
    )
    assert pd.read_csv("figures/index.csv")["picture"].tolist() == ["query-0.png", "query-1.png", "query-2.png"]


def _small_disk():
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))


def command(*arguments):
    return [sys.executable, "-m", "ipbasis.cli", *map(str, arguments)]


@pytest.mark.parametrize(
    "arguments",
    [
        ("fit", "basis", "o.csv", "--output", "e.csv"),
        ("fit", "basis", "o.csv", "--output", "e.parquet", "--correlations"),
        ("fit", "basis", "o.csv", "--output", "new/e.csv", "--chunk", 30),
        ("simulate", "decay.yaml", "--output", "d.csv", "--truth", "t.csv"),
        ("simulate", "decay.yaml", "--output", "d.parquet"),
        ("train", "decay.yaml", "--output", "out"),
    ],
)
def test_a_file_that_cannot_be_written_whole_is_not_written(place, arguments):
    """A limit on the size of files does what a full disk does, at the same places."""
    before = contents(place)
    done = subprocess.run(command(*arguments), capture_output=True, text=True, preexec_fn=_small_disk, check=False)
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "cannot be written" in errors[0]
    assert "Traceback" not in done.stderr
    after = contents(place)
    kept = {path: content for path, content in after.items() if ".parts" not in str(path)}
    assert kept == before


def test_standard_output_that_is_full_is_one_line(place):
    with open("/dev/full", "w") as full:
        done = subprocess.run(command("show", "basis"), stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["error: No space left on device"]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)], ids=["term", "hup", "int"]
)
def test_signals_leave_nothing_half_written_and_typing_the_command_again_goes_on(place, oscillator, number, code):
    simulated(oscillator, 600, 15, noise=1)[0].to_parquet("o.parquet", index=False)
    before = contents(place)
    arguments = command("fit", "basis", "o.parquet", "--output", "new/e.parquet", "--chunk", 1500)
    parts = place / "new" / "e.parquet.parts"
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        while not list(parts.glob("part-*")):
            assert process.poll() is None, "ended before the first chunk"
            time.sleep(0.005)
        process.send_signal(number)
        told = process.stderr.read()
    assert process.returncode == code
    assert "stopped; finished chunks are kept in new/e.parquet.parts: typing the command again goes on" in told
    assert "Traceback" not in told
    left = {path.name for path in (place / "new").rglob("*") if path.is_file()}
    assert left == {"run.json", *(part.name for part in parts.glob("part-*.parquet"))}
    assert CliRunner().invoke(main, arguments[3:]).exit_code == 0
    assert pd.read_parquet("new/e.parquet")["query"].tolist() == list(range(600))
    assert {path: content for path, content in contents(place).items() if path in before} == before
    assert [path.name for path in (place / "new").iterdir()] == ["e.parquet"]


def test_a_signal_that_is_ignored_stays_so(place, oscillator):
    """As under nohup."""
    simulated(oscillator, 400, 15, noise=1)[0].to_parquet("o.parquet", index=False)
    arguments = command("fit", "basis", "o.parquet", "--output", "e.parquet", "--chunk", 1500)
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    with subprocess.Popen(
        arguments, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, preexec_fn=ignore
    ) as process:
        while not (place / "e.parquet.parts").exists():
            time.sleep(0.005)
        process.send_signal(signal.SIGHUP)
    assert process.returncode == 0
    assert len(pd.read_parquet("e.parquet")) == 400


def test_two_at_once_one_is_refused_and_every_query_is_there(place, oscillator):
    simulated(oscillator, 600, 15, noise=1)[0].to_parquet("o.parquet", index=False)
    arguments = command("fit", "basis", "o.parquet", "--output", "e.parquet", "--chunk", 1500)
    both = [subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) for _ in range(2)]
    told = [process.communicate()[1] for process in both]
    codes = [process.returncode for process in both]
    assert set(codes) <= {0, 2}
    assert 0 in codes
    for code, text in zip(codes, told, strict=True):
        assert code == 0 or "e.parquet: another process is writing it" in text
    assert np.array_equal(pd.read_parquet("e.parquet")["query"], np.arange(600))


def test_names_that_no_terminal_has_letters_for(place):
    name = os.fsdecode(b"e\xff.csv")
    done = subprocess.run(command("fit", "basis", "o.csv", "--output", name), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"written to e\\udcff.csv" in done.stdout
