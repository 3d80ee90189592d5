"""Stage derivatives: how long a training step takes by the way the network is differentiated."""

import hydra
from omegaconf import DictConfig

from pipelines.common import run_stage
from pipelines.studies.derivatives import Derivatives, work


@hydra.main(version_base=None, config_path="../../conf", config_name="derivatives")
def main(config: DictConfig) -> None:
    run_stage("derivatives", config, work, Derivatives.parsed)


if __name__ == "__main__":
    main()
