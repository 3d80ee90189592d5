"""Stage train: one basis for each recipe, at one number of readouts."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import hydra
import pandas as pd
from omegaconf import DictConfig

from ipbasis.files import replacing_file
from ipbasis.tracking import Tracker
from pipelines.benchmark import Benchmark
from pipelines.common import run_stage
from pipelines.paths import basis_directory, checkpoint, training_directory
from pipelines.training import offline_row, train_basis


def work(benchmark: Benchmark, tracker: Tracker) -> None:
    problem, readouts = benchmark.name, benchmark.basis.readouts
    configurations = {recipe: benchmark.with_recipe(recipe) for recipe in benchmark.trained_recipes}
    # side by side: each training takes one core
    with ProcessPoolExecutor(len(configurations), get_context("spawn")) as workers:
        running = {
            source: workers.submit(train_basis, chosen, checkpoint(problem, readouts, source), tracker, position)
            for position, (source, chosen) in enumerate(configurations.items())
        }
        done = {source: future.result() for source, future in running.items()}
    rows, folder = [], training_directory(problem, readouts)
    for source, (basis, history) in done.items():
        directory = basis_directory(problem, readouts, source)
        basis.save(directory)
        rows.append(offline_row(configurations[source], basis, history))
        if history:
            with replacing_file(folder / f"{source}_history.csv") as temporary:
                pd.DataFrame(history).to_csv(temporary, index=False)
        tracker.metrics({f"{source}_{key}": value for key, value in rows[-1].items()})
        tracker.artefact(directory / "basis.json", f"basis/{source}")
        tracker.artefact(directory / "basis.safetensors", f"basis/{source}")
    with replacing_file(folder / "offline.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    tracker.artefact(folder, "training")


@hydra.main(version_base=None, config_path="../../conf", config_name="config")
def main(config: DictConfig) -> None:
    run_stage("train", config, work)


if __name__ == "__main__":
    main()
