"""Stage convergence_basin: how many queries reach the global optimum, without a guess and from bad ones."""

import hydra
from omegaconf import DictConfig

from pipelines.common import run_stage
from pipelines.studies.convergence_basin import ConvergenceBasin, work


@hydra.main(version_base=None, config_path="../../conf", config_name="convergence_basin")
def main(config: DictConfig) -> None:
    run_stage("convergence_basin", config, work, ConvergenceBasin.parsed)


if __name__ == "__main__":
    main()
