"""Stage query: every cell of a problem on the bases of all numbers of readouts."""

import hydra
import pandas as pd
from omegaconf import DictConfig

from ipbasis.files import replacing_file
from ipbasis.tracking import Tracker
from pipelines.answering import answered, ideal
from pipelines.benchmark import Benchmark
from pipelines.common import run_stage, side_by_side
from pipelines.paths import estimates_directory, trained_readouts


def work(benchmark: Benchmark, tracker: Tracker) -> None:
    sensitivity = {number: ideal(benchmark, number) for number in range(len(benchmark.observations.sets))}
    one_thread = benchmark.model_copy(update={"threads": 1})
    jobs = [
        (one_thread.with_recipe(recipe).with_readouts(readouts), sensitivity)
        for readouts in trained_readouts(benchmark.basis.problem)
        for recipe in benchmark.recipes
    ]
    done = side_by_side(answered, jobs, benchmark.threads, "query")
    for (chosen, _), (rows, _) in zip(jobs, done, strict=True):
        history = [{**row, "step": step} for step, row in enumerate(rows)]
        tracker.history(history, prefix=f"{chosen.recipe}_readouts_{chosen.basis.readouts}_")
    folder = estimates_directory(benchmark.name, "online")
    for number, name in enumerate(("online", "crossed")):
        with replacing_file(folder / f"{name}.csv") as temporary:
            pd.DataFrame([row for tables in done for row in tables[number]]).to_csv(temporary, index=False)
    tracker.artefact(folder, "estimates")


@hydra.main(version_base=None, config_path="../../conf", config_name="config")
def main(config: DictConfig) -> None:
    run_stage("query", config, work)


if __name__ == "__main__":
    main()
