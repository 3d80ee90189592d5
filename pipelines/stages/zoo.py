"""Stage zoo: every problem that comes along from its equation alone to estimates, against the Cramér-Rao bound."""

import hydra
from omegaconf import DictConfig

from pipelines.common import run_stage
from pipelines.studies.zoo import Zoo, work


@hydra.main(version_base=None, config_path="../../conf", config_name="zoo")
def main(config: DictConfig) -> None:
    run_stage("zoo", config, work, Zoo.parsed)


if __name__ == "__main__":
    main()
