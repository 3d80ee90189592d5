"""Stage offline: the trainings of all recipes in the table of the paper, and their figure."""

import hydra
import pandas as pd
from omegaconf import DictConfig

from ipbasis.evaluation.comparison_figures import plot_training
from ipbasis.evaluation.tables import combine
from ipbasis.tracking import Tracker
from pipelines.benchmark import Benchmark
from pipelines.common import run_stage
from pipelines.paths import trained_readouts, training_directory
from pipelines.report.outputs import published, read_all, write_figure, write_table


def work(benchmark: Benchmark, tracker: Tracker) -> None:
    problem = benchmark.name
    table = combine(
        published(f"{problem}_offline"), read_all(f"training/{problem}/readouts-*/offline.csv"), ["readouts"]
    )
    write_table(table, f"{problem}_offline", tracker)
    histories = {}
    for readouts in trained_readouts(problem):
        for path in sorted(training_directory(problem, readouts).glob("*_history.csv")):
            histories[path.name.removesuffix("_history.csv"), readouts] = pd.read_csv(path)
    write_figure(plot_training(dict(sorted(histories.items()))), f"{problem}_training", tracker)


@hydra.main(version_base=None, config_path="../../conf", config_name="config")
def main(config: DictConfig) -> None:
    run_stage("offline", config, work)


if __name__ == "__main__":
    main()
