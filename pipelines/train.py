"""Stage train: one basis for each recipe, at one number of readouts."""

import hydra
import pandas as pd
from omegaconf import DictConfig

from ipbasis.files import replacing_file
from ipbasis.tracking import Tracker
from pipelines.common import DATA, ROOT, Settings, recipe_directory, recipe_settings, run_stage
from pipelines.steps import offline_row, train_basis


def work(settings: Settings, tracker: Tracker) -> None:
    problem = settings["problem"]["name"]
    place = f"readouts-{settings['basis']['readouts']}"
    rows = []
    for recipe in settings["recipes"]:
        composed = recipe_settings(recipe)
        source = composed["recipe"]["source"]
        checkpoint = ROOT / "checkpoints" / f"{problem}_{place}_{source}.pt"
        basis, trained = train_basis(composed, checkpoint, tracker)
        directory = recipe_directory(problem, settings["basis"]["readouts"], source)
        basis.save(directory)
        rows.append(offline_row(composed, basis, trained))
        with replacing_file(DATA / "training" / problem / place / f"{source}_history.csv") as temporary:
            pd.DataFrame(trained.history).to_csv(temporary, index=False)
        tracker.metrics({f"{source}_{key}": value for key, value in rows[-1].items()})
        tracker.artefact(directory / "basis.json", f"basis/{source}")
        tracker.artefact(directory / "basis.safetensors", f"basis/{source}")
    table = DATA / "training" / problem / place / "offline.csv"
    with replacing_file(table) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    tracker.artefact(table.parent, "training")


@hydra.main(version_base=None, config_path="../conf", config_name="config")
def main(config: DictConfig) -> None:
    run_stage("train", config, work)


if __name__ == "__main__":
    main()
