"""Every configuration composes, and every part of it makes the settings it is for."""

from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir

from ipbasis.baselines.least_squares import LeastSquaresSettings
from ipbasis.features.trunk import TrunkSettings
from ipbasis.offline.settings import BasisSettings
from ipbasis.problem.declaration import Problem
from ipbasis.published.pinn import PinnSettings
from ipbasis.published.solvers import ALL
from ipbasis.published.train import PublishedSettings
from pipelines.cells import cells, observation_settings, shown_cells
from pipelines.common import methods, settings_of
from pipelines.smoke import phases as smoke_phases
from pipelines.training import basis_settings

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
PARAMETERS = yaml.safe_load((ROOT / "params.yaml").read_text())
TRAINED = PARAMETERS["trained"].split(",")


def names(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def composed(problem, recipe, profile):
    with initialize_config_dir(str(CONF), version_base=None):
        return settings_of(compose("config", [f"problem={problem}", f"recipe={recipe}", f"profile={profile}"]))


@pytest.mark.parametrize("profile", names("profile"))
@pytest.mark.parametrize("problem", names("problem"))
def test_every_method_of_a_problem_composes_and_instantiates(problem, profile):
    for recipe in methods(composed(problem, "ipbasis", profile)):
        settings = composed(problem, recipe, profile)
        declared = Problem(**settings["problem"])
        assert declared.name == problem
        ALL[settings["online"]["solver"]](**settings["online"])
        observation_settings(settings)
        assert len({cell.name for cell in cells(settings)}) == len(cells(settings))
        assert shown_cells(settings)
        for chosen in settings["observations"]["sets"]:
            declared.with_ranges(chosen.get("parameters"), chosen.get("initial"))
        assert set(settings["observations"].get("known", [])) <= set(declared.parameters)
        PinnSettings(**settings["baselines"]["pinn"]["settings"])
        TrunkSettings(**settings["baselines"]["pinn"]["trunk"])
        LeastSquaresSettings(**settings["baselines"]["least_squares"]["settings"])
        assert set(settings["report"]) >= {"table", "x", "x_text"}


@pytest.mark.parametrize("profile", names("profile"))
@pytest.mark.parametrize("problem", TRAINED)
def test_every_training_composes_and_instantiates(problem, profile):
    for recipe in ("ipbasis", "paper_recipe"):
        settings = composed(problem, recipe, profile)
        kind = BasisSettings if recipe == "ipbasis" else PublishedSettings
        assert isinstance(basis_settings(settings), kind)


def test_parameters_of_the_stages_agree_with_the_configurations():
    assert PARAMETERS["profile"] in names("profile")
    assert set(PARAMETERS["problems"]) == set(PARAMETERS["every"].split(",")) == set(names("problem"))
    for problem, chosen in PARAMETERS["problems"].items():
        settings = composed(problem, "ipbasis", "standard")
        assert chosen == {"basis": settings["basis"]["problem"], "table": settings["report"]["table"]}
        assert chosen["basis"] in TRAINED
    assert {base["problem"] for base in PARAMETERS["bases"].values()} == set(TRAINED)
    published = {path.stem for path in (ROOT / "data" / "published").glob("*.csv")}
    written = {f"{problem}_offline" for problem in TRAINED}
    written |= {f"{c['table']}_{kind}" for c in PARAMETERS["problems"].values() for kind in ("online", "pinn")}
    assert published <= written


def test_stages_that_do_all_problems_write_for_each_of_them():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert set(stages["least_squares"]["outs"]) == {f"data/estimates/{p}/least_squares" for p in PARAMETERS["problems"]}
    tables = [path for out in stages["offline"]["outs"] for path in out if path.endswith(".csv")]
    assert set(tables) == {f"reports/tables/{problem}_offline.csv" for problem in TRAINED}
    budgets = stages["simulate"]["params"][-1]["conf/profile/${profile}.yaml"]
    assert set(budgets) == {f"problems.{problem}.queries" for problem in PARAMETERS["problems"]}


def test_smoke_runs_every_stage():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    listed = [name for phase in smoke_phases(PARAMETERS) for part in phase for name in part]
    expected = [name for name, stage in stages.items() if "foreach" not in stage]
    for name, stage in stages.items():
        if "foreach" in stage:
            expected += [f"{name}@{key}" for key in PARAMETERS[stage["foreach"].strip("${}")]]
    assert sorted(listed) == sorted(expected)


def test_no_omegaconf_interpolation_in_files_that_dvc_templates():
    assert "${" not in (ROOT / "params.yaml").read_text()


def test_every_variant_of_the_training_differs_from_the_base_and_instantiates():
    study = yaml.safe_load((CONF / "study" / "training.yaml").read_text())["hydra"]["sweeper"]["params"]
    swept = [name.strip() for name in study["+variant"].split(",")]
    assert swept[0] == "base"
    assert sorted(swept) == names("variant")
    chosen, labels = {}, set()
    for name in swept:
        with initialize_config_dir(str(CONF), version_base=None):
            overrides = ["study=training", "problem=quantum_oscillator", f"+variant={name}"]
            settings = settings_of(compose("config", overrides))
        basis_settings(settings)
        chosen[name] = settings["offline"]
        labels.add(settings["study"]["label"])
    assert chosen["base"] == composed("quantum_oscillator", "ipbasis", "standard")["offline"]
    assert all(chosen[name] != chosen["base"] for name in swept[1:])
    assert len(labels) == len(swept)
    full = yaml.safe_load((CONF / "study" / "training_full.yaml").read_text())["hydra"]["sweeper"]["params"]
    assert set(full["+variant"].split(",")) < set(swept)
