"""Files appear whole or not at all."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from ipbasis.errors import InputError
from ipbasis.files import claimed, refuse_inputs, replacing_file


def test_replaces_when_all_went_well(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with replacing_file(path) as temporary:
        temporary.write_text("one")
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


def test_keeps_the_old_when_something_failed(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError), replacing_file(path) as temporary:
        fail(temporary)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_says_what_cannot_be_written(tmp_path):
    (tmp_path / "plain").write_text("")
    with pytest.raises(InputError, match="cannot be written"), replacing_file(tmp_path / "plain" / "file"):
        pass
    with pytest.raises(InputError, match="is a directory"), replacing_file(tmp_path):
        pass


def test_a_full_disk_is_told_and_nothing_is_left(tmp_path):
    def fail(temporary):
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    path = tmp_path / "new" / "file.txt"
    reason = r"file\.txt: cannot be written \(No space left on device\)"
    with pytest.raises(InputError, match=reason), replacing_file(path) as temporary:
        fail(temporary)
    assert list(tmp_path.iterdir()) == []


def test_a_null_character_in_a_name(tmp_path):
    for use in (replacing_file, claimed):
        with pytest.raises(InputError, match="a null character"), use(tmp_path / "a\0b.csv"):
            pass


def test_an_output_is_never_an_input(tmp_path):
    data = tmp_path / "data.csv"
    data.write_text("mine")
    (tmp_path / "hard.csv").hardlink_to(data)
    (tmp_path / "soft.csv").symlink_to("data.csv")
    (tmp_path / "to").symlink_to(tmp_path)
    for name in ("data.csv", "hard.csv", "soft.csv", "to/data.csv", "none/../data.csv"):
        with pytest.raises(InputError, match=r"an input.*; another name for the output is right"):
            refuse_inputs([tmp_path / name], [tmp_path / "other.csv", data])
    with pytest.raises(InputError, match=r"the same file as .*; a name of its own for each output is right"):
        refuse_inputs([tmp_path / "e.csv", tmp_path / "to" / "e.csv"], [data])
    refuse_inputs([tmp_path / "e.csv"], [data])


def test_a_claim_is_of_one_at_a_time_and_leaves_nothing(tmp_path):
    path = tmp_path / "new" / "e.csv"
    with claimed(path):
        for _ in range(2):
            with pytest.raises(InputError, match=r"e\.csv: another process is writing it"), claimed(path):
                pass
        with claimed(tmp_path / "new" / "other.csv"):
            pass
    assert list(tmp_path.iterdir()) == []
    with claimed(path):
        path.write_text("whole")
    assert list(path.parent.iterdir()) == [path]


def test_a_claim_ends_with_its_process(tmp_path):
    path = tmp_path / "e.csv"
    code = "import os, sys; from pathlib import Path; from ipbasis.files import claimed\n"
    code += "with claimed(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    assert (tmp_path / ".e.csv.lock").exists()
    with claimed(path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_of_many_that_want_the_same_file_one_has_it_at_a_time(tmp_path):
    """Each that gets the claim finds the file as the one before left it."""
    path = tmp_path / "count.txt"
    path.write_text("0")

    def add(_):
        added = 0
        for _ in range(50):
            try:
                with claimed(path):
                    number = int(path.read_text())
                    path.write_text(str(number + 1))
                    added += 1
            except InputError:
                pass
        return added

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(add, range(4))) == int(path.read_text())
    assert list(tmp_path.iterdir()) == [path]
