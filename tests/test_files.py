"""Files appear whole or not at all."""

import pytest

from ipbasis.errors import InputError
from ipbasis.files import replacing_file


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
