"""Stage simulate: observations and truth of every set of queries."""

import hydra
from omegaconf import DictConfig

from ipbasis.files import replacing_file
from ipbasis.tracking import Tracker
from pipelines.common import DATA, Settings, run_stage
from pipelines.steps import set_name, simulate


def work(settings: Settings, tracker: Tracker) -> None:
    folder = DATA / "observations" / settings["problem"]["name"]
    for number, chosen in enumerate(settings["observations"]["sets"]):
        observations, truth = simulate(settings, number, settings["profile"]["queries"])
        name = set_name(chosen["label"])
        for suffix, table in (("observations", observations), ("truth", truth)):
            with replacing_file(folder / f"{name}_{suffix}.parquet") as temporary:
                table.to_parquet(temporary, index=False)
        tracker.artefact(folder / f"{name}_truth.parquet", "truth")
        tracker.metrics({"queries": len(truth), "observations": len(observations)}, step=number)


@hydra.main(version_base=None, config_path="../conf", config_name="config")
def main(config: DictConfig) -> None:
    run_stage("simulate", config, work)


if __name__ == "__main__":
    main()
