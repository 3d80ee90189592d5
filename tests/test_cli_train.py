"""``ipbasis train`` as a user meets it."""

from dataclasses import replace

import pytest
from click.testing import CliRunner

from ipbasis import Basis
from ipbasis.cli import main
from ipbasis.offline import train as home


def run(*arguments):
    return CliRunner().invoke(main, ["train", *map(str, arguments)])


def test_a_basis_is_trained_and_what_it_reached_is_told(decay_file, tmp_path):
    done = run(decay_file, "--output", tmp_path / "basis")
    assert done.exit_code == 0, done.output
    assert "relative error of unseen solutions" in done.output
    assert "asked for 0.001" in done.output
    assert Basis.load(tmp_path / "basis").record.accuracy.floor < 1e-3


def test_ctrl_c_keeps_the_best_basis_so_far_and_says_how_to_go_on(decay_file, tmp_path, monkeypatch):
    own = home.train

    def interrupted(*arguments, **options):
        basis = own(*arguments, **options)
        return replace(basis, record=basis.record.model_copy(update={"figures": {"interrupted": 1.0}}))

    monkeypatch.setattr(home, "train", interrupted)
    done = run(decay_file, "--output", tmp_path / "basis")
    assert done.exit_code == 130
    assert done.output.splitlines()[-1] == "stopped: the same command again goes on"
    assert Basis.load(tmp_path / "basis").problem.name == "decay"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--accuracy", "2"], "accuracy 2: a relative error between 0 and 1 is right"),
        (["--minutes", "0"], "minutes 0: a time above zero is right"),
    ],
)
def test_wrong_options_end_in_one_line(decay_file, tmp_path, options, reason):
    done = run(decay_file, "--output", tmp_path / "basis", *options)
    assert done.exit_code == 2
    assert reason in done.output
    assert len(done.output.splitlines()) == 1
    assert not (tmp_path / "basis").exists()
