"""Stage least_squares: the classical baseline on a few queries of each set."""

import hydra
from omegaconf import DictConfig

from ipbasis.baselines.least_squares import LeastSquaresSettings, fit_least_squares
from ipbasis.problem import Problem
from ipbasis.tracking import Tracker
from pipelines.baselines import fit_one_by_one
from pipelines.common import Settings, run_stage


def work(settings: Settings, tracker: Tracker) -> None:
    problem = Problem(**settings["problem"])
    chosen = LeastSquaresSettings(**settings["baselines"]["least_squares"]["settings"])

    def fit(points, values):
        return fit_least_squares(problem, points[:, 0], values, chosen)

    fit_one_by_one("least_squares", settings, tracker, list(range(len(settings["observations"]["sets"]))), fit)


@hydra.main(version_base=None, config_path="../conf", config_name="config")
def main(config: DictConfig) -> None:
    run_stage("least_squares", config, work)


if __name__ == "__main__":
    main()
