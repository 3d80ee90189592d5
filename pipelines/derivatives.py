"""Stage derivatives: how long a training step takes by the way the network is differentiated."""

from collections.abc import Iterator

import hydra
import pandas as pd
import torch
from omegaconf import DictConfig

from ipbasis.baselines.derivatives import Size, TimingSettings, laplacian, time_derivatives, warm_up
from ipbasis.evaluation.derivative_figure import plot_derivatives
from ipbasis.problem import Problem
from ipbasis.tracking import Tracker
from pipelines.common import Settings, run_stage
from pipelines.outputs import write_figure, write_table


def cases(settings: Settings) -> Iterator[tuple[Problem, Size]]:
    """The problems at their sizes, then the Laplacian in several numbers of coordinates and features."""
    for name, size in settings["sizes"].items():
        yield Problem(**settings["problems"][name]), _size(settings, size)
    sweep = settings["laplacian"]
    for features in sweep["features"]:
        for coordinates in sweep["coordinates"]:
            yield laplacian(coordinates), _size(settings, {**sweep["size"], "features": features})


def _size(settings: Settings, size: Settings) -> Size:
    return Size(**{**size, "points": min(size["points"], settings["most_points"])})


def work(settings: Settings, tracker: Tracker) -> None:
    torch.set_num_threads(settings["threads"])
    timing = TimingSettings(**settings["timing"])
    warm_up()
    table = pd.DataFrame([row for case in cases(settings) for row in time_derivatives(*case, timing)])
    step = table[(table["pass"] == "forward_backward") & table["problem"].isin(settings["problems"])]
    tracker.metrics({f"{row.problem}_{row.method}_seconds": row.seconds for row in step.itertuples()})
    write_table(table, "derivatives", tracker)
    write_figure(plot_derivatives(table), "derivatives", tracker)


@hydra.main(version_base=None, config_path="../conf", config_name="derivatives")
def main(config: DictConfig) -> None:
    run_stage("derivatives", config, work)


if __name__ == "__main__":
    main()
