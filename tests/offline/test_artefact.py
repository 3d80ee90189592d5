"""The basis on disk."""

import json

import numpy as np
import pytest
import torch

from ipbasis import Basis, InputError


@pytest.fixture
def saved(basis, tmp_path):
    directory = tmp_path / "basis"
    basis.save(directory)
    return directory


def test_round_trip(basis, saved):
    loaded = Basis.load(saved)
    points = np.linspace(0, 3, 20)
    for derivative in ("", "t", "tt"):
        assert np.array_equal(loaded.functions(points, derivative), basis.functions(points, derivative))
    assert loaded.problem.model_dump() == basis.problem.model_dump()
    assert sorted(p.name for p in saved.iterdir()) == ["basis.json", "basis.safetensors"]


def test_derivatives_agree_with_differences(basis):
    """Central differences: the error falls with the square of the step."""
    times = np.linspace(0.2, 2.8, 30)
    exact = basis.functions(times, "tt")[:, :6]
    errors = []
    for h in (4e-2, 2e-2):
        ahead, here, behind = (basis.functions(times + s)[:, :6] for s in (h, 0, -h))
        errors.append(np.abs((ahead - 2 * here + behind) / h**2 - exact).max())
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.2)


def test_saving_replaces_and_leaves_other_files(basis, saved):
    (saved / "notes.txt").write_text("mine")
    basis.save(saved)
    assert (saved / "notes.txt").read_text() == "mine"
    Basis.load(saved)


@pytest.mark.parametrize("name", ["basis.json", "basis.safetensors"])
def test_incomplete_directory(saved, name):
    (saved / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        Basis.load(saved)


def test_other_format_version(saved):
    path = saved / "basis.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "format_version": 99}))
    with pytest.raises(InputError, match="format version 99; this ipbasis reads version 1"):
        Basis.load(saved)


@pytest.mark.parametrize(
    ("name", "content"),
    [("basis.json", b"not json"), ("basis.json", b"[1]"), ("basis.safetensors", b"\x00" * 20)],
)
def test_damaged_files_are_named(saved, name, content):
    (saved / name).write_bytes(content)
    with pytest.raises(InputError, match=name) as caught:
        Basis.load(saved)
    assert "\n" not in str(caught.value)


def test_weights_that_do_not_fit_the_record(saved):
    path = saved / "basis.json"
    record = json.loads(path.read_text())
    record["trunk"]["width"] = 7
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match="does not fit"):
        Basis.load(saved)


def test_no_pickle_is_read(saved, monkeypatch):
    """Loading must not unpickle, whatever the files hold."""

    def refuse(*_, **__):
        raise AssertionError("pickle was used")

    monkeypatch.setattr("pickle.load", refuse)
    monkeypatch.setattr("pickle.loads", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    Basis.load(saved)


@pytest.mark.parametrize(
    ("points", "derivative"), [(np.zeros((3, 2)), ""), (np.zeros((2, 2, 1)), ""), (np.zeros(3), "x")]
)
def test_faulty_points_are_refused(basis, points, derivative):
    with pytest.raises(InputError):
        basis.functions(points, derivative)
