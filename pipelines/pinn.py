"""Stage pinn: a plain physics-informed network for each of a few queries of the first set."""

import hydra
import torch
from omegaconf import DictConfig

from ipbasis.baselines.pinn import PinnSettings, fit_pinn
from ipbasis.basis.network import TrunkSettings
from ipbasis.problem import Problem
from ipbasis.tracking import Tracker
from pipelines.baselines import fit_one_by_one
from pipelines.common import Settings, run_stage


def work(settings: Settings, tracker: Tracker) -> None:
    torch.set_num_threads(1)  # the products are too small to share
    problem = Problem(**settings["problem"])
    size = settings["basis"]
    baseline = settings["baselines"]["pinn"]
    trunk = TrunkSettings(width=size["width"], depth=size["depth"], dtype=baseline["dtype"])
    chosen = PinnSettings(**baseline["settings"])

    def fit(points, values):
        return fit_pinn(problem, trunk, points, values, chosen)

    fit_one_by_one("pinn", settings, tracker, [0], fit)


@hydra.main(version_base=None, config_path="../conf", config_name="config")
def main(config: DictConfig) -> None:
    run_stage("pinn", config, work)


if __name__ == "__main__":
    main()
