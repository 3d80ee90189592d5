"""Files larger than memory: chunk by chunk, every query once, also after a kill."""

import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from simulated import simulated

from ipbasis import InputError, estimate
from ipbasis.estimates import stream
from ipbasis.estimates.stream import estimate_file
from ipbasis.observations.long_form import InputWarning

NUMBER = 15  # observations of a query
CHUNK = 120 * NUMBER


@pytest.fixture(scope="module")
def table(oscillator):
    """Observations of 40 queries with 1 % noise."""
    return simulated(oscillator, 40, NUMBER, noise=1)[0]


def written(table, path):
    table.to_csv(path, index=False) if path.suffix == ".csv" else table.to_parquet(path, index=False)
    return path


def read(path):
    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)


def assert_same(found, whole):
    """Up to how far the search of a batch goes, which depends on its other queries: 2 % of an error bar."""
    assert found["query"].astype(int).tolist() == whole["query"].astype(int).tolist()
    assert found["status"].tolist() == whole["status"].tolist()
    for name in ("a1", "a2", "a3"):
        assert ((found[name] - whole[name]).abs() <= 0.02 * whole[f"{name}_std"]).all()
        assert found[f"{name}_std"].to_numpy() == pytest.approx(whole[f"{name}_std"].to_numpy(), rel=0.02)
    assert found["noise_std"].to_numpy() == pytest.approx(whole["noise_std"].to_numpy(), rel=1e-4)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("output", ["e.csv", "e.parquet"])
def test_a_file_in_chunks_gives_what_the_table_gives(basis, table, tmp_path, suffix, output):
    path = written(table, tmp_path / f"o{suffix}")
    summary = estimate_file(basis, path, tmp_path / "new" / output, rows=7 * NUMBER)
    whole, found = estimate(basis, table).table, read(tmp_path / "new" / output)
    assert list(found) == list(whole)
    assert_same(found, whole)
    assert summary.counts == whole["status"].value_counts().to_dict()
    assert summary.head["query"].astype(int).tolist() == list(range(10))
    assert [p.name for p in (tmp_path / "new").iterdir()] == [output]


def test_csv_and_parquet_give_the_same(basis, table, tmp_path):
    for suffix in (".csv", ".parquet"):
        estimate_file(basis, written(table, tmp_path / f"o{suffix}"), tmp_path / f"e{suffix}", rows=200)
    one, other = read(tmp_path / "e.csv").fillna({"message": ""}), read(tmp_path / "e.parquet")
    assert_same(one, other)
    assert one["objective"].to_numpy() == pytest.approx(other["objective"].to_numpy(), rel=1e-5)
    assert one["message"].tolist() == other["message"].tolist()


def test_readouts_are_not_kept(basis, table, tmp_path, monkeypatch):
    """What is kept of a batch is its table: `Estimates` is never made."""
    monkeypatch.setattr("ipbasis.estimates.estimate.Estimates", None)
    estimate_file(basis, written(table, tmp_path / "o.csv"), tmp_path / "e.csv", rows=100)
    assert len(read(tmp_path / "e.csv")) == 40


def command(output):
    options = ["fit", "basis", "o.parquet", "--output", output, "--chunk", str(CHUNK)]
    return [sys.executable, "-m", "ipbasis.cli", *options]


def test_killed_and_started_again_every_query_comes_once(basis, oscillator, tmp_path):
    basis.save(tmp_path / "basis")
    written(simulated(oscillator, 600, NUMBER, noise=1)[0], tmp_path / "o.parquet")
    parts = tmp_path / "e.parquet.parts"
    with subprocess.Popen(command("e.parquet"), cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        while not list(parts.glob("part-*")):
            assert process.poll() is None, "ended before the first chunk"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    done = sorted(parts.glob("part-*"))
    assert 1 <= len(done) < 4
    assert not (tmp_path / "e.parquet").exists()
    first = pd.read_parquet(done[0])
    first.assign(message="kept").to_parquet(done[0], index=False)
    subprocess.run(command("e.parquet"), cwd=tmp_path, check=True, capture_output=True)
    estimate_file(basis, tmp_path / "o.parquet", tmp_path / "whole.parquet", rows=CHUNK)
    found, whole = read(tmp_path / "e.parquet"), read(tmp_path / "whole.parquet")
    assert found["query"].tolist() == list(range(600))
    assert (found["message"] == "kept").sum() == len(first)  # a finished chunk is not estimated again
    assert_same(found, whole)
    assert {p.name for p in tmp_path.iterdir()} == {"basis", "o.parquet", "e.parquet", "whole.parquet"}


@pytest.fixture
def interrupted(basis, table, tmp_path, monkeypatch):
    """A run that was stopped after two chunks."""
    path = written(table, tmp_path / "o.csv")
    chunk = stream._estimated

    def stop(*arguments):
        if len(list((tmp_path / "e.csv.parts").glob("part-*"))) == 2:
            raise KeyboardInterrupt
        return chunk(*arguments)

    monkeypatch.setattr(stream, "_estimated", stop)
    with pytest.raises(KeyboardInterrupt):
        estimate_file(basis, path, tmp_path / "e.csv", rows=100)
    monkeypatch.undo()
    return tmp_path


@pytest.mark.parametrize(
    ("options", "what"),
    [({"noise_std": 0.1}, "other options"), ({"rows": 200}, "other options"), ({"basis": True}, "other basis")],
)
def test_parts_of_other_options_are_refused(interrupted, basis, oscillator, options, what):
    before = sorted(interrupted.rglob("*"))
    if "basis" in options:
        options = {"basis": basis.for_problem(oscillator.with_ranges({"a1": [0, 1]}))}
    with pytest.raises(InputError, match=rf"e\.csv\.parts: holds finished chunks of a run with {what}; .* remove"):
        estimate_file(
            **{"basis": basis, "rows": 100} | options, path=interrupted / "o.csv", output=interrupted / "e.csv"
        )
    assert sorted(interrupted.rglob("*")) == before
    estimate_file(basis, interrupted / "o.csv", interrupted / "e.csv", rows=100)
    assert len(read(interrupted / "e.csv")) == 40


def test_parts_of_changed_observations_are_refused(interrupted, basis, table):
    written(table.assign(u=table["u"] * 2), interrupted / "o.csv")
    with pytest.raises(InputError, match="with other observations"):
        estimate_file(basis, interrupted / "o.csv", interrupted / "e.csv", rows=100)


def test_files_of_others_are_left_alone(basis, table, tmp_path):
    (tmp_path / "e.csv.parts").mkdir()
    (tmp_path / "e.csv.parts" / "part-000000.parquet").write_text("mine")
    with pytest.raises(InputError, match=r"with other run\.json"):
        estimate_file(basis, written(table, tmp_path / "o.csv"), tmp_path / "e.csv", rows=100)
    assert (tmp_path / "e.csv.parts" / "part-000000.parquet").read_text() == "mine"


def test_a_query_that_comes_again_is_refused_and_nothing_written(basis, table, tmp_path):
    again = pd.concat([table, table[table["query"] == 3].head(2)])
    for name, row in (("o.csv", 602), ("o.parquet", 600)):
        path = written(again, tmp_path / name)
        with pytest.raises(InputError, match=rf"{name}: row {row}, column 'query': 3 comes again .* stand together"):
            estimate_file(basis, path, tmp_path / "e.csv", rows=100)
    within = written(pd.concat([table.head(100), table.head(1), table.tail(50)]), tmp_path / "o.csv")
    with pytest.raises(InputError, match="row 102, column 'query': 0 comes again"):
        estimate_file(basis, within, tmp_path / "e.csv", rows=100)
    assert {p.name for p in tmp_path.iterdir()} == {"o.csv", "o.parquet"}


def test_a_fault_at_the_end_is_told_before_anything_is_estimated(basis, table, tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "_estimated", None)
    faulty = table.astype({"u": object})
    faulty.loc[599, "u"] = "high"
    with pytest.raises(InputError, match=r"o\.csv: row 601, column 'u' \(query 39\): 'high' is not a number"):
        estimate_file(basis, written(faulty, tmp_path / "o.csv"), tmp_path / "e.csv", rows=100)
    path = written(table.assign(u_std=0.1), tmp_path / "o.csv")
    with pytest.raises(InputError, match="given twice"):
        estimate_file(basis, path, tmp_path / "e.csv", rows=100, noise_std=0.1)
    assert [p.name for p in tmp_path.iterdir()] == ["o.csv"]


def test_output_that_cannot_be_written(basis, table, tmp_path):
    path = written(table, tmp_path / "o.csv")
    (tmp_path / "e.csv").mkdir()
    with pytest.raises(InputError, match="is a directory"):
        estimate_file(basis, path, tmp_path / "e.csv", rows=100)
    with pytest.raises(InputError, match="cannot be written"):
        estimate_file(basis, path, path / "e.csv", rows=100)


def test_broken_queries_do_not_stop_the_others(basis, table, tmp_path):
    """The first chunk has none, the second some, the third is broken throughout."""
    broken = table[table["query"] < 21].astype({"u": object})
    broken["u"] = broken["u"].mask((broken["query"] == 8) | (broken["query"] >= 14), "nan")
    broken["t"] = broken["t"].mask(broken["query"] == 9, 3.5)
    path = written(broken, tmp_path / "o.csv")
    with pytest.warns(InputWarning, match="120 values are NaN or infinite") as told:
        estimate_file(basis, path, tmp_path / "e.parquet", rows=7 * NUMBER)
    assert len(told) == 1
    found, whole = read(tmp_path / "e.parquet"), estimate(basis, table[table["query"] < 21]).table
    assert found["query"].astype(int).tolist() == list(range(21))
    failed = [8, 9, *range(14, 21)]
    assert found.index[found["status"] == "failed"].tolist() == failed
    assert found.loc[[8, 20], "message"].tolist() == ["no observation in u"] * 2
    assert found.loc[9, "message"] == "row 137, column 't': 3.5 is outside the basis domain [0, 3]"
    others = [i for i in range(21) if i not in failed]
    assert_same(found.loc[others], whole.loc[others])
    assert found.loc[failed, ["a1", "a1_std", "a2_low", "a3_high", "noise_std", "objective"]].isna().all(axis=None)


@pytest.mark.parametrize("output", ["e.csv", "e.parquet"])
def test_a_chunk_without_any_estimate_has_its_place_too(basis, table, tmp_path, output):
    """With further columns asked for, of which such a chunk has none."""
    late = table.assign(t=table["t"].where(table["query"] < 36, 7.0))
    path, options = written(late, tmp_path / "o.parquet"), {"correlations": True, "resimulate": True}
    estimate_file(basis, path, tmp_path / output, rows=4 * NUMBER, **options)
    found, whole = read(tmp_path / output), estimate(basis, late, **options).table
    assert list(found) == list(whole)
    assert found["query"].tolist() == list(range(40))
    assert (found["status"].iloc[36:] == "failed").all()
    assert found["corr_a1_a2"].iloc[36:].isna().all()
    assert found["corr_a1_a2"].iloc[:36].notna().all()


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"queries": 40, "made_with": []}', '{"queries": null}', "[" * 9999]
)
def test_a_damaged_run_file_is_told(interrupted, basis, content):
    (interrupted / "e.csv.parts" / "run.json").write_text(content)
    with pytest.raises(InputError, match=r"holds finished chunks of a run with other run\.json; .* remove"):
        estimate_file(basis, interrupted / "o.csv", interrupted / "e.csv", rows=100)


def test_a_damaged_part_is_told_and_estimated_anew_when_it_is_gone(interrupted, basis):
    part = interrupted / "e.csv.parts" / "part-000001.parquet"
    whole = part.read_bytes()
    other = (interrupted / "e.csv.parts" / "part-000000.parquet").read_bytes()
    middle, value = len(whole) // 2, whole.index(pd.read_parquet(part)["a1"].iloc[3].tobytes())
    flipped = whole[:value] + bytes([whole[value] ^ 1]) + whole[value + 1 :]
    for content in (b"", b"mine", whole[:middle], whole[:8] + bytes(50) + whole[58:], flipped, other):
        part.write_bytes(content)
        with pytest.raises(InputError, match=r"part-000001\.parquet: damaged, or not of this run; remove it") as told:
            estimate_file(basis, interrupted / "o.csv", interrupted / "e.csv", rows=100)
        assert "\n" not in str(told.value)
        assert part.read_bytes() == content
    part.unlink()
    estimate_file(basis, interrupted / "o.csv", interrupted / "e.csv", rows=100)
    assert read(interrupted / "e.csv")["query"].tolist() == list(range(40))


def test_files_of_others_in_the_directory_of_parts_stay(basis, table, tmp_path):
    (tmp_path / "e.csv.parts").mkdir()
    (tmp_path / "e.csv.parts" / "notes.txt").write_text("mine")
    estimate_file(basis, written(table, tmp_path / "o.csv"), tmp_path / "e.csv", rows=100)
    assert {path.name for path in tmp_path.rglob("*")} == {"o.csv", "e.csv", "e.csv.parts", "notes.txt"}
