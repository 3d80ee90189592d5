"""Stage least_squares: the classical baseline on a few queries of each cell."""

import hydra
import pandas as pd
from omegaconf import DictConfig

from ipbasis.baselines.fit import BaselineFit
from ipbasis.baselines.least_squares import LeastSquaresSettings, fit_least_squares
from ipbasis.tracking import Tracker
from pipelines.baselines import KnownQuery, chosen_queries, fit_all, query_row, write_tables
from pipelines.benchmark import Benchmark
from pipelines.common import run_stage

SOURCE = "least_squares"


def fit(settings: LeastSquaresSettings, known: KnownQuery) -> BaselineFit:
    """Fit one query."""
    return fit_least_squares(known.problem, known.query, settings)


def work(benchmark: Benchmark, tracker: Tracker) -> None:
    baseline = benchmark.baselines.least_squares
    settings = LeastSquaresSettings(**baseline.settings)
    jobs = [(settings, known) for known in chosen_queries(benchmark, SOURCE)]
    fitted = fit_all(fit, jobs, baseline.workers, SOURCE)
    by_query = pd.DataFrame([query_row(benchmark, SOURCE, *one) for one in fitted])
    write_tables(benchmark, tracker, SOURCE, fitted, {"queries": by_query})


@hydra.main(version_base=None, config_path="../../conf", config_name="config")
def main(config: DictConfig) -> None:
    run_stage("least_squares", config, work)


if __name__ == "__main__":
    main()
