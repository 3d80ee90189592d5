"""Stage basis_quality: what the trained functions are worth beside bases that need no training."""

import hydra
from omegaconf import DictConfig

from pipelines.common import run_stage
from pipelines.studies.basis_quality import BasisQuality, work


@hydra.main(version_base=None, config_path="../../conf", config_name="basis_quality")
def main(config: DictConfig) -> None:
    run_stage("basis_quality", config, work, BasisQuality.parsed)


if __name__ == "__main__":
    main()
