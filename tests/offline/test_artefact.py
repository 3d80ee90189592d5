"""The basis on disk."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import TRUNK

from ipbasis import Basis, InputError
from ipbasis.features.piecewise import Piecewise, PiecewiseSettings
from ipbasis.features.trunk import TrunkSettings
from ipbasis.offline.settings import BasisSettings, ProjectionSettings

ROOT = Path(__file__).parents[2]


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
    with pytest.raises(InputError, match="format version 99; this ipbasis reads the versions 1 to 3"):
        Basis.load(saved)


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*/best")), ids=lambda path: path.parent.name)
def test_bases_of_the_repository_have_typed_settings(path):
    """Whether written in format 1, whose settings were groups of the pipeline, or since; plain where none trained."""
    values, record = json.loads((path / "basis.json").read_text()), Basis.load(path).record
    assert record.provenance.keys() == {"source", "profile", "readouts"}
    if not isinstance(record.features, TrunkSettings):
        assert record.settings["features"] == "chebyshev"
        return
    assert isinstance(record.settings, BasisSettings)
    assert record.settings.quadrature_points == record.quadrature_points
    assert record.settings.trunk.width == record.features.width
    if values["format_version"] == 1:
        groups = values["settings"]
        assert record.provenance["profile"] == groups["profile"]["name"]
        for part in ("training", "forward", "validation"):
            given = getattr(record.settings, part).model_dump(include=set(groups["offline"][part]))
            assert given == groups["offline"][part]


GROUPS = {
    "basis": {"problem": "damped_oscillator", "readouts": 10, "width": 40, "depth": 4, "quadrature_points": 200},
    "offline": {
        "dtype": "float64",
        "first_layer_scale": 1,
        "training": {
            "recipe": "variable_projection", "readouts": 10, "steps": 1000, "learning_rate": 0.001, "decay": True,
            "collocation_points": 100, "validate_every": 100, "patience": 5, "seed": 0,
        },
        "forward": {"condition_weight": 100, "condition_points": 1, "rank_tolerance": 1e-12},
        "compression": {"tasks": 500, "tolerance": 1e-10, "seed": 1},
        "validation": {"queries": 100, "observations": 100, "seed": 2},
    },
    "recipe": {"source": "ipbasis", "queries": 1000},
    "profile": {"name": "standard", "problems": {}},
}  # fmt: skip


def in_format_1(saved, settings):
    path = saved / "basis.json"
    record = json.loads(path.read_text())
    del record["provenance"], record["rounding"], record["checksum"]
    trunk = {name: value for name, value in record.pop("features").items() if name != "kind"}
    path.write_text(json.dumps({**record, "format_version": 1, "settings": settings, "trunk": trunk}))
    return Basis.load(saved).record


def test_format_1_is_read_and_written_anew(basis, saved):
    record = in_format_1(saved, GROUPS)
    assert record.settings.training == ProjectionSettings(**GROUPS["offline"]["training"])
    assert record.settings.trunk == TRUNK
    assert record.provenance == {"source": "ipbasis", "profile": "standard", "readouts": "10"}
    Basis.load(saved).save(saved)
    assert json.loads((saved / "basis.json").read_text())["format_version"] == 3
    assert Basis.load(saved).record == record


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"made": "by hand"},
        {**GROUPS, "offline": {**GROUPS["offline"], "training": {"recipe": "trained_heads"}, "compression": None}},
    ],
)
def test_format_1_with_settings_of_another_room_is_read(basis, saved, settings):
    record = in_format_1(saved, settings)
    assert record.settings == settings
    assert record.functions == basis.record.functions


@pytest.mark.parametrize(
    ("name", "content"),
    [("basis.json", b"not json"), ("basis.json", b"[1]"), ("basis.safetensors", b"\x00" * 20)],
)
def test_damaged_files_are_named(saved, name, content):
    (saved / name).write_bytes(content)
    with pytest.raises(InputError, match=name) as caught:
        Basis.load(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["basis.json", "basis.safetensors"])
def test_a_flipped_bit_is_refused(saved, name):
    whole = (saved / name).read_bytes()
    for place in np.linspace(0, len(whole) - 1, 40).astype(int):
        flipped = bytearray(whole)
        flipped[place] ^= 1
        (saved / name).write_bytes(flipped)
        if name == "basis.json" and chr(whole[place]) in " \n":  # white space between values may be any
            continue
        with pytest.raises(InputError) as caught:
            Basis.load(saved)
        assert "\n" not in str(caught.value)
    (saved / name).write_bytes(whole)
    Basis.load(saved)


def without_checksum(saved, tensors=None, **record):
    """A basis as it was written before it had a checksum, changed."""
    values = json.loads((saved / "basis.json").read_text()) | record
    del values["checksum"]
    (saved / "basis.json").write_text(json.dumps(values))
    changed = safetensors.torch.load_file(saved / "basis.safetensors") | (tensors or {})
    (saved / "basis.safetensors").write_bytes(safetensors.torch.save(changed))
    return saved


def test_a_basis_without_a_checksum_is_read(basis, saved):
    assert Basis.load(without_checksum(saved)).record == basis.record


def test_a_basis_is_checked_where_there_is_no_checksum(basis, saved):
    count = basis.record.functions
    changes = [
        ({"transform": basis.transform * torch.nan}, {}, "transform holds what is no finite number"),
        ({"transform": basis.transform[:, :5].contiguous()}, {}, r"a transform of shape \(41, 5\); \(41, .* is right"),
        ({}, {"functions": count - 1}, rf"a transform of shape \(41, {count}\)"),
        ({"features.domain": basis.features.domain * 10}, {}, r"the domain of the features is \[\[0.0, 30.0\]\]"),
        ({"features.bias9": basis.features.bias0}, {}, "layers of"),
        ({"more": basis.transform}, {}, "more"),
        ({"solved.parameters": torch.ones(3, 1)}, {}, "missing"),
    ]
    for tensors, record, reason in changes:
        basis.save(saved)
        with pytest.raises(InputError, match=f"does not fit basis.json: .*{reason}"):
            Basis.load(without_checksum(saved, tensors, **record))


def test_features_of_any_size_are_refused_before_they_are_made(basis, saved):
    for width, depth in ((10**9, 4), (40, 10**9)):
        basis.save(saved)
        features = TRUNK.model_dump() | {"width": width, "depth": depth}
        with pytest.raises(InputError, match="layers of 40, 40, 40, 40 features"):
            Basis.load(without_checksum(saved, features=features))


@pytest.fixture
def piecewise(basis):
    """The functions of the oscillator on six cells."""
    features = Piecewise(PiecewiseSettings(breakpoints=(tuple(np.linspace(0, 3, 7)),), degrees=(9,)))
    nodes, weights = np.polynomial.legendre.leggauss(10)
    times = torch.tensor((np.arange(6)[:, None] + (nodes + 1) / 2).reshape(-1, 1) / 2)
    shares = torch.tensor(np.tile(weights, 6) / 12)
    transform = (features(times)[()] * shares[:, None]).T @ basis.function_map(times)[()]
    return replace(basis, features=features, transform=transform, record=described(basis, features))


def described(basis, features):
    return basis.record.model_copy(update={"features": features.settings})


def test_piecewise_functions_are_kept(basis, piecewise, tmp_path):
    piecewise.save(tmp_path)
    loaded = Basis.load(tmp_path)
    points = np.linspace(0, 3, 50)
    for derivative in ("", "t", "tt"):
        assert np.array_equal(loaded.functions(points, derivative), piecewise.functions(points, derivative))
    assert np.abs(loaded.functions(points) - basis.functions(points))[:, :5].max() < 1e-9
    assert loaded.record == piecewise.record


def test_a_basis_may_be_its_features_and_holds_no_identity(basis, tmp_path):
    features = Piecewise(PiecewiseSettings(breakpoints=((0, 1, 3),), degrees=(4,)))
    record = described(basis, features).model_copy(update={"functions": 10})
    Basis(features, None, record).save(tmp_path)
    loaded = Basis.load(tmp_path)
    points = np.linspace(0, 3, 50)
    expected = features(torch.tensor(points)[:, None], ((0,),))[(0,)]
    assert np.array_equal(loaded.functions(points, "t"), expected.numpy())
    assert (tmp_path / "basis.safetensors").stat().st_size < 100


def test_weights_that_do_not_fit_the_record(saved):
    path = saved / "basis.json"
    record = json.loads(path.read_text())
    record["features"]["width"] = 7
    del record["checksum"]
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
