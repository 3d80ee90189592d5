"""Stage calibration: whether intervals and statuses hold what they promise, over problems and designs."""

import hydra
from omegaconf import DictConfig

from pipelines.common import run_stage
from pipelines.studies.calibration import Calibration, work


@hydra.main(version_base=None, config_path="../../conf", config_name="calibration")
def main(config: DictConfig) -> None:
    run_stage("calibration", config, work, Calibration.parsed)


if __name__ == "__main__":
    main()
