"""Stage derivatives: how long a training step takes by the way the network is differentiated."""

from collections.abc import Iterator

import hydra
import pandas as pd
import torch
from omegaconf import DictConfig

from ipbasis.baselines.derivatives import METHODS, Size, TimingSettings, laplacian, time_derivatives, warm_up
from ipbasis.evaluation.derivative_figure import plot_derivatives
from ipbasis.problem.declaration import Problem
from ipbasis.tracking import Tracker
from pipelines.common import Settings, run_stage
from pipelines.report.outputs import write_figure, write_table

Case = tuple[Problem, Size, tuple[str, ...]]


def cases(settings: Settings) -> Iterator[Case]:
    """The problems at their sizes, then the Laplacian in several numbers of coordinates and features.

    With the methods to time. Sizes that differ only in more points than are allowed come once, with all methods.
    """
    everything, found = tuple(METHODS), {}
    for size in settings["sizes"]:
        shape = {key: value for key, value in size.items() if key not in ("problem", "methods")}
        found.setdefault((size["problem"], _size(settings, shape)), tuple(size.get("methods", everything)))
    for (name, size), methods in found.items():
        yield Problem(**settings["problems"][name]), size, methods
    sweep = settings["laplacian"]
    for features in sweep["features"]:
        for coordinates in sweep["coordinates"]:
            yield laplacian(coordinates), _size(settings, {**sweep["size"], "features": features}), everything


def _size(settings: Settings, size: Settings) -> Size:
    return Size(**{**size, "points": min(size["points"], settings["most_points"])})


def work(settings: Settings, tracker: Tracker) -> None:
    torch.set_num_threads(settings["threads"])
    timing = TimingSettings(**settings["timing"])
    warm_up()
    table = pd.DataFrame(
        [row for problem, size, methods in cases(settings) for row in time_derivatives(problem, size, timing, methods)]
    )
    step = table[(table["pass"] == "forward_backward") & table["problem"].isin(settings["problems"])]
    tracker.metrics({f"{row.problem}_{row.points}_{row.method}_seconds": row.seconds for row in step.itertuples()})
    write_table(table, "derivatives", tracker)
    write_figure(plot_derivatives(table), "derivatives", tracker)


@hydra.main(version_base=None, config_path="../../conf", config_name="derivatives")
def main(config: DictConfig) -> None:
    run_stage("derivatives", config, work)


if __name__ == "__main__":
    main()
