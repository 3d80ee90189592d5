"""Stage pinn: a plain physics-informed network for each of a few queries, and its time to accuracy.

Where the configuration has ``as_published``, the same queries are also trained with the published optimiser;
those tables carry ``published_`` before their names.
"""

import hydra
from omegaconf import DictConfig

from ipbasis.tracking import Tracker
from pipelines.baselines import chosen_queries, fit_all, write_tables
from pipelines.benchmark import Benchmark
from pipelines.common import run_stage
from pipelines.pinn import SOURCE, fit, optimisers, training_tables


def work(benchmark: Benchmark, tracker: Tracker) -> None:
    baseline = benchmark.baselines.pinn
    chosen, queries = optimisers(baseline), chosen_queries(benchmark, SOURCE)
    jobs = [(optimiser, known) for optimiser in chosen.values() for known in queries]
    fitted = fit_all(fit, jobs, min(baseline.workers, len(jobs)), SOURCE)
    tables = {}
    for number, prefix in enumerate(chosen):
        of_optimiser = fitted[number * len(queries) : (number + 1) * len(queries)]
        tables |= training_tables(benchmark, of_optimiser, tracker, prefix)
    write_tables(benchmark, tracker, SOURCE, fitted[: len(queries)], tables)


@hydra.main(version_base=None, config_path="../../conf", config_name="config")
def main(config: DictConfig) -> None:
    run_stage("pinn", config, work)


if __name__ == "__main__":
    main()
