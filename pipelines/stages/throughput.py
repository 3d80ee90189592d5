"""Stage throughput: queries per second by batch size and number of observations, against a loop of least squares."""

import hydra
from omegaconf import DictConfig

from pipelines.common import run_stage
from pipelines.studies.throughput import Throughput, work


@hydra.main(version_base=None, config_path="../../conf", config_name="throughput")
def main(config: DictConfig) -> None:
    run_stage("throughput", config, work, Throughput.parsed)


if __name__ == "__main__":
    main()
