"""Stage train: one basis for each recipe, at one number of readouts."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import hydra
import pandas as pd
from omegaconf import DictConfig

from ipbasis.files import replacing_file
from ipbasis.tracking import Tracker
from pipelines.common import DATA, ROOT, Settings, composed, recipe_directory, run_stage
from pipelines.training import offline_row, train_basis


def work(settings: Settings, tracker: Tracker) -> None:
    problem = settings["problem"]["name"]
    place = f"readouts-{settings['basis']['readouts']}"
    configurations = {recipe: composed(recipe=recipe) for recipe in settings["recipes"]}
    # side by side: each training takes one core
    with ProcessPoolExecutor(len(configurations), get_context("spawn")) as workers:
        running = {
            source: workers.submit(
                train_basis, chosen, ROOT / "checkpoints" / f"{problem}_{place}_{source}.pt", tracker, position
            )
            for position, (source, chosen) in enumerate(configurations.items())
        }
        done = {source: future.result() for source, future in running.items()}
    rows = []
    for source, (basis, history) in done.items():
        directory = recipe_directory(problem, settings["basis"]["readouts"], source)
        basis.save(directory)
        rows.append(offline_row(configurations[source], basis, history))
        with replacing_file(DATA / "training" / problem / place / f"{source}_history.csv") as temporary:
            pd.DataFrame(history).to_csv(temporary, index=False)
        tracker.metrics({f"{source}_{key}": value for key, value in rows[-1].items()})
        tracker.artefact(directory / "basis.json", f"basis/{source}")
        tracker.artefact(directory / "basis.safetensors", f"basis/{source}")
    table = DATA / "training" / problem / place / "offline.csv"
    with replacing_file(table) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    tracker.artefact(table.parent, "training")


@hydra.main(version_base=None, config_path="../../conf", config_name="config")
def main(config: DictConfig) -> None:
    run_stage("train", config, work)


if __name__ == "__main__":
    main()
