"""Stage query: every set of queries on the bases of one number of readouts."""

import hydra
import pandas as pd
from omegaconf import DictConfig

from ipbasis.basis.artefact import Basis
from ipbasis.files import replacing_file
from ipbasis.tracking import Tracker
from pipelines.common import DATA, MODELS, Settings, recipe_settings, run_stage
from pipelines.steps import query, set_name


def work(settings: Settings, tracker: Tracker) -> None:
    problem = settings["problem"]["name"]
    place = f"readouts-{settings['basis']['readouts']}"
    folder = DATA / "estimates" / problem / place
    rows = []
    for recipe in settings["recipes"]:
        composed = recipe_settings(recipe)
        source = composed["recipe"]["source"]
        directory = MODELS / problem / place
        basis = Basis.load(directory if source == "ipbasis" else directory / source)
        for number, chosen in enumerate(settings["observations"]["sets"]):
            name = set_name(chosen["label"])
            observations, truth = (
                pd.read_parquet(DATA / "observations" / problem / f"{name}_{part}.parquet")
                for part in ("observations", "truth")
            )
            row, estimates = query(composed, basis, observations, truth, chosen["label"])
            rows.append(row)
            with replacing_file(folder / f"{source}_{name}.parquet") as temporary:
                estimates.table.to_parquet(temporary, index=False)
            tracker.metrics({f"{source}_{key}": value for key, value in row.items() if key != "source"}, step=number)
    with replacing_file(folder / "online.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    tracker.artefact(folder, "estimates")


@hydra.main(version_base=None, config_path="../conf", config_name="config")
def main(config: DictConfig) -> None:
    run_stage("query", config, work)


if __name__ == "__main__":
    main()
