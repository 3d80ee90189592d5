"""Every configuration composes, and every part of it makes the settings it is for."""

from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ipbasis.baselines.least_squares import LeastSquaresSettings
from ipbasis.baselines.pinn import PinnSettings
from ipbasis.basis.compression import CompressionSettings
from ipbasis.basis.forward import ForwardSettings
from ipbasis.basis.heads import TrainingSettings
from ipbasis.basis.network import TrunkSettings
from ipbasis.inverse.estimate import SOLVERS
from ipbasis.inverse.validation import ValidationSettings
from ipbasis.problem import Problem
from pipelines.steps import observation_settings

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"


def names(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize("profile", names("profile"))
@pytest.mark.parametrize("recipe", names("recipe"))
@pytest.mark.parametrize("problem", names("problem"))
def test_composes_and_instantiates(problem, recipe, profile):
    with initialize_config_dir(str(CONF), version_base=None):
        config = compose("config", [f"problem={problem}", f"recipe={recipe}", f"profile={profile}"])

    settings = OmegaConf.to_container(config, resolve=True)
    offline, size = settings["offline"], settings["basis"]
    declared = Problem(**settings["problem"])
    assert declared.name == problem
    TrunkSettings(width=size["width"], depth=size["depth"], dtype=offline["dtype"])
    TrainingSettings(**offline["training"])
    ForwardSettings(**offline["forward"])
    ValidationSettings(**offline["validation"])
    if offline["compression"]:
        CompressionSettings(**offline["compression"])
    SOLVERS[settings["online"]["solver"]](**settings["online"])
    observation_settings(settings)
    for chosen in settings["observations"]["sets"]:
        declared.with_ranges(chosen.get("parameters"), chosen.get("initial"))
    PinnSettings(**settings["baselines"]["pinn"]["settings"])
    LeastSquaresSettings(**settings["baselines"]["least_squares"]["settings"])


def test_parameters_of_the_stages_exist():
    parameters = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert parameters["profile"] in names("profile")
    assert set(parameters["problems"]) <= set(names("problem"))
    for base in parameters["bases"].values():
        assert base["problem"] in parameters["problems"]


def test_no_omegaconf_interpolation_in_files_that_dvc_templates():
    assert "${" not in (ROOT / "params.yaml").read_text()
