"""How long a training step takes by the way the network is differentiated."""

from collections.abc import Iterator

import pandas as pd
import torch
from pydantic import PositiveInt

from ipbasis.baselines.derivatives import METHODS, Size, TimingSettings, laplacian, time_derivatives, warm_up
from ipbasis.evaluation.derivative_figure import plot_derivatives
from ipbasis.problem.declaration import Declared, Problem
from ipbasis.tracking import Tracker
from pipelines.report.outputs import write_figure, write_table
from pipelines.studies.study import Study

Case = tuple[Problem, Size, tuple[str, ...]]


class TimedSize(Declared):
    """A problem at one size.

    Args:
        problem: its name.
        size: of the network.
        methods: that are timed; None for all.
    """

    problem: str
    size: Size
    methods: list[str] | None = None


class LaplacianSweep(Declared):
    """Second derivatives along every coordinate, for the break point between the modes.

    Args:
        coordinates: numbers of coordinates.
        features: numbers of features, each with each of those.
        width: of the network.
        depth: of the network.
        points: of a step.
        readouts: tasks of a step.
    """

    coordinates: list[PositiveInt]
    features: list[PositiveInt]
    width: PositiveInt
    depth: PositiveInt
    points: PositiveInt
    readouts: PositiveInt

    def size(self, features: int) -> Size:
        """One of the sizes."""
        return Size(**self.model_dump(exclude={"coordinates", "features"}), features=features)


class Derivatives(Study):
    """Settings of the benchmark, see ``conf/derivatives.yaml``.

    Args:
        problems: by name.
        sizes: at which they are timed.
        laplacian: the sweep behind them.
        most_points: of a step.
        timing: how the seconds are taken.
        threads: of PyTorch.
    """

    problems: dict[str, Problem]
    sizes: list[TimedSize]
    laplacian: LaplacianSweep
    most_points: PositiveInt
    timing: TimingSettings
    threads: PositiveInt


def cases(study: Derivatives) -> Iterator[Case]:
    """The problems at their sizes, then the Laplacian in several numbers of coordinates and features.

    With the methods to time. Sizes that differ only in more points than are allowed come once, with all methods.
    """
    everything, found = tuple(METHODS), {}
    for timed in study.sizes:
        size = _at_most(study.most_points, timed.size)
        found.setdefault((timed.problem, size), tuple(timed.methods or everything))
    for (name, size), methods in found.items():
        yield study.problems[name], size, methods
    sweep = study.laplacian
    for features in sweep.features:
        for coordinates in sweep.coordinates:
            yield laplacian(coordinates), _at_most(study.most_points, sweep.size(features)), everything


def _at_most(points: int, size: Size) -> Size:
    """A size with fewer points if it has more."""
    return size.model_copy(update={"points": min(size.points, points)})


def work(study: Derivatives, tracker: Tracker) -> None:
    torch.set_num_threads(study.threads)
    warm_up()
    table = pd.DataFrame(
        [
            row
            for problem, size, methods in cases(study)
            for row in time_derivatives(problem, size, study.timing, methods)
        ]
    )
    step = table[(table["pass"] == "forward_backward") & table["problem"].isin(study.problems)]
    tracker.metrics({f"{row.problem}_{row.points}_{row.method}_seconds": row.seconds for row in step.itertuples()})
    write_table(table, "derivatives", tracker)
    write_figure(plot_derivatives(table), "derivatives", tracker)
