"""Stages depend on the rooms that they import from and on the configuration that they compose, and on nothing else."""

import os
import shutil
import subprocess
import sys

import pytest
import yaml
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo

from pipelines.composition import WHOLE, below
from pipelines.dependencies import ROOT, code, configuration, items, rewritten
from pipelines.dvc_yaml import CODE

PARAMETERS = yaml.safe_load((ROOT / "params.yaml").read_text())
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
ITEMS = {item.name: item for name, stage in STAGES.items() for item in items(name, stage, PARAMETERS)}
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}",
    "DVC_NO_ANALYTICS": "1",
}


@pytest.fixture(scope="module")
def loaded():
    """The stages as DVC expands them, by name."""
    with Repo(ROOT) as repo:
        yield {stage.name: stage for stage in repo.index.stages}


def parameters_of(stage):
    """Configuration of a stage as DVC sees it: keys by file."""
    return {dep.def_path: dep.params or [WHOLE] for dep in stage.deps if isinstance(dep, ParamsDependency)}


def files_of(stage):
    return [dep.def_path for dep in stage.deps if not isinstance(dep, ParamsDependency)]


def test_dvc_yaml_says_what_is_derived():
    text = (ROOT / "dvc.yaml").read_text()
    assert rewritten(text, PARAMETERS) == text, "run python -m pipelines.dependencies --write"


def test_dvc_knows_the_stages_by_the_same_names(loaded):
    assert set(loaded) == set(ITEMS)


@pytest.mark.parametrize("name", ITEMS)
def test_each_stage_depends_on_what_it_imports_from(loaded, name):
    listed = {path for path in files_of(loaded[name]) if path.startswith(CODE)}
    assert listed == set(code(ITEMS[name].command.split()[2]))
    assert "pipelines/common.py" in listed
    assert all((ROOT / path).exists() for path in listed)


@pytest.mark.parametrize("name", ITEMS)
def test_each_stage_depends_on_what_it_composes_value_by_value(loaded, name):
    listed, read = parameters_of(loaded[name]), configuration(ITEMS[name])
    assert set(listed) == {path for path, _ in read}
    for path, key in read:
        assert any(below(key, other) for other in listed[path])
    # what only some problems have in their files is widened to what all have
    siblings = [item for item in ITEMS.values() if item.name.split("@")[0] == name.split("@")[0]]
    read_by_any = {key for item in siblings for _, key in configuration(item)}
    for keys in listed.values():
        assert all(any(below(k, key) for k in read_by_any) for key in keys)
    assert not any(path.startswith("conf") for path in files_of(loaded[name]))


def test_no_stage_depends_on_all_values_of_a_profile(loaded):
    for stage in loaded.values():
        assert parameters_of(stage).get(f"conf/profile/{PARAMETERS['profile']}.yaml") != [WHOLE]


def copied(target):
    """What the dependencies are derived from, to be changed."""
    for name in ("conf", "pipelines", "src"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy2(ROOT / name, target / name)
    return target


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def derived_in(copy):
    """What writes the dependencies of a copy."""
    environment = {**ENVIRONMENT, "PYTHONPATH": str(copy / "src")}
    command = [sys.executable, "-m", "pipelines.dependencies", "--write"]
    return lambda: subprocess.run(command, cwd=copy, env=environment, check=True)


def test_a_new_benchmark_is_two_files_and_a_line_for_each_axis(tmp_path):
    copy, derive = copied(tmp_path), derived_in(tmp_path)
    for group in ("problem", "benchmark"):
        text = (copy / "conf" / group / "lotka_volterra.yaml").read_text()
        (copy / "conf" / group / "prey.yaml").write_text(text.replace("name: lotka_volterra", "name: prey"))
    replace(copy / "params.yaml", "problems:\n", "problems:\n  prey: {basis: prey, table: prey, further: ipbasis}\n")
    replace(copy / "params.yaml", "bases:\n", "bases:\n  prey-10: {problem: prey, readouts: 10}\n")
    derive()
    with Repo(subrepo(copy)) as repo:
        stages = {stage.name: stage for stage in repo.index.stages}
    assert {"train@prey-10", "query@prey", "pinn@prey", "compare@prey"} <= set(stages)
    outs = {name: {out.def_path for out in stage.outs} for name, stage in stages.items()}
    assert "data/observations/prey/sets" in outs["simulate"]
    assert "reports/tables/prey_offline.csv" in outs["offline"]
    assert "problem=prey," in stages["simulate"].cmd
    assert set(stages) - set(ITEMS) == {"train@prey-10", "query@prey", "pinn@prey", "compare@prey"}


def subrepo(copy):
    """A copy as a repository of its own."""
    subprocess.run(["git", "init", "--quiet"], cwd=copy, check=True)
    subprocess.run(["dvc", "init", "--quiet"], cwd=copy, env=ENVIRONMENT, check=True)
    return copy


def test_a_new_import_and_a_new_file_are_noticed(tmp_path):
    copy, derive = copied(tmp_path), derived_in(tmp_path)
    with (copy / "src" / "ipbasis" / "evaluation" / "tables.py").open("a") as file:
        file.write("\n\ndef _planted():\n    from ipbasis.search import priors\n\n    return priors\n")
    added = "  - problem@problems.lotka_volterra_unknown_terms: lotka_volterra_unknown_terms\n  - _self_\n"
    replace(copy / "conf" / "derivatives.yaml", "  - _self_\n", added)
    derive()
    changed = yaml.safe_load((copy / "dvc.yaml").read_text())["stages"]
    assert set(changed["offline"]["deps"]) - set(STAGES["offline"]["deps"]) >= {"src/ipbasis/search"}
    assert changed["simulate"] == STAGES["simulate"]
    files = [set().union(*stages["derivatives"]["params"]) for stages in (changed, STAGES)]
    assert files[0] - files[1] == {"conf/problem/lotka_volterra_unknown_terms.yaml"}


def values(root):
    """What each stage reads of the configuration, by name of the stage and of the file."""
    with Repo(root) as repo:
        return {
            stage.name: {d.def_path: d.read_params() for d in stage.deps if isinstance(d, ParamsDependency)}
            for stage in repo.index.stages
        }


@pytest.fixture(scope="module")
def stages_changed_by(tmp_path_factory):
    """Which stages read something else after a replacement in a file."""
    copy = subrepo(copied(tmp_path_factory.mktemp("copy")))
    before = values(copy)

    def changed(path, old, new):
        text = (copy / path).read_text()
        replace(copy / path, old, new)
        after = values(copy)
        (copy / path).write_text(text)
        return {name for name in before if before[name] != after[name]}

    return changed


def test_a_comment_changes_no_stage(stages_changed_by):
    path = "conf/problem/damped_oscillator.yaml"
    assert stages_changed_by(path, "fields: [u]\n", "fields: [u]    # the displacement\n") == set()


def test_a_range_changes_the_stages_of_its_problem(stages_changed_by):
    path = "conf/problem/damped_oscillator.yaml"
    changed = stages_changed_by(path, "a1: [0, 1.5]", "a1: [0, 2]")
    ours = {name for name in ITEMS if name.split("@")[-1].startswith("damped_oscillator")}
    every = {name for name in ITEMS if "@" not in name} - {"offline"}
    assert changed == ours | every


def test_a_recipe_changes_the_queries(stages_changed_by):
    changed = stages_changed_by("conf/benchmark/_defaults.yaml", "noise_seeds: 1\n", "noise_seeds: 2\n")
    assert changed == {f"{stage}@{problem}" for problem in PARAMETERS["problems"] for stage in ("query", "compare")}


def test_a_budget_changes_the_stage_that_spends_it(stages_changed_by):
    path = "conf/benchmark/damped_oscillator.yaml"
    assert stages_changed_by(path, "paper_queries: 250\n", "paper_queries: 200\n") == {
        "query@damped_oscillator",
        "compare@damped_oscillator",
    }


def test_fresh_clone_can_be_asked_what_it_would_run(tmp_path):
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tmp_path / "clone")], check=True)
    command = ["dvc", "repro", "--dry"]
    done = subprocess.run(command, cwd=tmp_path / "clone", env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for item in ITEMS.values():
        if item.name.startswith(("train", "query")):  # their outputs are not in git
            assert item.command in done.stdout
