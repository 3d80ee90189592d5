"""The README's way from an equation of one's own to estimates is what happens."""

import re
import shlex
from pathlib import Path

import pandas as pd
from click.testing import CliRunner

from ipbasis.cli import main

TEXT = (Path(__file__).parents[1] / "README.md").read_text()
SECTION = TEXT.split("## Your own equation")[1].split("\n## ")[0]


def block(kind):
    return re.search(rf"```{kind}\n(.*?)```", SECTION, re.DOTALL)[1]


def test_an_equation_of_one_s_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "growth.yaml").write_text(block("yaml"))
    commands = re.findall(r"^    ipbasis (.*?)(?:#.*)?$", SECTION, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["check", "train", "simulate", "fit"]
    for command in commands:
        done = CliRunner().invoke(main, shlex.split(command))
        assert done.exit_code == 0, done.output
    assert (pd.read_csv("estimates.csv")["status"] == "ok").all()
    values = {}
    exec(block("python"), values)
    assert len(values["estimates"]) == 100
