"""Stage simulate: noise-free observations and truth of every set of queries."""

import hydra
from omegaconf import DictConfig

from ipbasis.tracking import Tracker
from pipelines.cells import simulate, write_set
from pipelines.common import Settings, run_stage


def work(settings: Settings, tracker: Tracker) -> None:
    for number in range(len(settings["observations"]["sets"])):
        observations, truth = simulate(settings, number, settings["budget"]["queries"])
        tracker.artefact(write_set(settings, number, observations, truth), "truth")
        tracker.metrics({"queries": len(truth), "observations": len(observations)}, step=number)


@hydra.main(version_base=None, config_path="../../conf", config_name="config")
def main(config: DictConfig) -> None:
    run_stage("simulate", config, work)


if __name__ == "__main__":
    main()
