"""Stage accuracy_limit: errors against the Cramér-Rao bound, coverage of intervals, wrong estimates called ok."""

import hydra
from omegaconf import DictConfig

from pipelines.common import run_stage
from pipelines.studies.accuracy_limit import AccuracyLimit, work


@hydra.main(version_base=None, config_path="../../conf", config_name="accuracy_limit")
def main(config: DictConfig) -> None:
    run_stage("accuracy_limit", config, work, AccuracyLimit.parsed)


if __name__ == "__main__":
    main()
