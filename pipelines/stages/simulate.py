"""Stage simulate: noise-free observations and truth of every set of queries."""

import hydra
from omegaconf import DictConfig

from ipbasis.tracking import Tracker
from pipelines.benchmark import Benchmark
from pipelines.cells import simulate, write_set
from pipelines.common import run_stage


def work(benchmark: Benchmark, tracker: Tracker) -> None:
    for number in range(len(benchmark.observations.sets)):
        observations, truth = simulate(benchmark, number, benchmark.budget.queries)
        tracker.artefact(write_set(benchmark, number, observations, truth), "truth")
        tracker.metrics({"queries": len(truth), "observations": len(observations)}, step=number)


@hydra.main(version_base=None, config_path="../../conf", config_name="config")
def main(config: DictConfig) -> None:
    run_stage("simulate", config, work)


if __name__ == "__main__":
    main()
