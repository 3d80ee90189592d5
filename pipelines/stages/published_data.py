"""Stage published_data: how far the paper's own data is from exact solutions."""

import hydra
from omegaconf import DictConfig

from pipelines.common import run_stage
from pipelines.studies.published_data import PublishedData, work


@hydra.main(version_base=None, config_path="../../conf", config_name="published_data")
def main(config: DictConfig) -> None:
    run_stage("published_data", config, work, PublishedData.parsed)


if __name__ == "__main__":
    main()
