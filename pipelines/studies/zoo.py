"""All problems that come along, each from its equation alone: training, simulated data sets, estimates, a table."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from ipbasis.errors import InputError
from ipbasis.evaluation.zoo_figure import plot_zoo
from ipbasis.offline.train import train
from ipbasis.problem.declaration import Declared, Problem
from ipbasis.simulation.simulate import simulation
from ipbasis.tracking import Tracker
from pipelines.common import side_by_side
from pipelines.report.outputs import write_figure, write_table
from pipelines.studies.problems import ProblemsStudy
from pipelines.studies.zoo_scores import answered, basis_error, scores


class Size(Declared):
    """Queries of a problem.

    Args:
        tasks: that are different.
        draws: of the noise, for each.
    """

    tasks: PositiveInt
    draws: PositiveInt


class Zoo(ProblemsStudy):
    """Settings of the study, see ``conf/zoo.yaml``.

    Args:
        sizes: by number of coordinates.
        points: of observation, of each query.
        noise: its standard deviation, relative to the root mean square of each field of a query.
        observed: by problem, the fields that are observed, where it is not all of them.
        unseen: tasks on which the error of a basis is taken.
        wrong: error bars that an estimate must be off to count as wrong.
        bars: what is aimed at.
    """

    sizes: dict[int, Size]
    points: PositiveInt
    noise: NonNegativeFloat
    observed: dict[str, list[str]]
    unseen: PositiveInt
    wrong: PositiveFloat
    bars: dict[str, float]

    @property
    def named(self) -> Mapping[str, Iterable[str]]:
        return {**super().named, "observed": self.observed}

    @property
    def name(self) -> str:
        """In the place of a problem's."""
        return "zoo"

    def size(self, problem: Problem) -> Size:
        """Queries of a problem."""
        return self.sizes[len(problem.coordinates)]


def row(study: Zoo, name: str) -> dict[str, Any]:
    """A row of the table: one problem, trained, simulated, estimated and judged."""
    torch.set_num_threads(1)
    problem = study.problems[name]
    fields = study.observed.get(name, problem.fields)
    about = {
        "problem": name,
        "coordinates": len(problem.coordinates),
        "fields": len(problem.fields),
        "observed": len(fields),
        "parameters": len(problem.parameters),
        "free_initial_values": len(problem.free_initial),
    }
    started = time.perf_counter()
    try:
        basis = train(problem, study.accuracy, study.minutes)
    except InputError as error:
        return {**about, "note": str(error)}
    trained = {
        "kind": getattr(basis.record.features, "kind", "trained"),
        "functions": basis.record.functions,
        "train_seconds": time.perf_counter() - started,
        "accuracy_told": basis.record.accuracy.floor,
        "accuracy": basis_error(basis, study.unseen, study.seed),
    }
    size = study.size(problem)
    data = simulation(
        problem, points=study.points, noise=study.noise, queries=size.tasks, fields=fields, seed=study.seed
    )
    judged = answered(basis, data, size.draws, study.seed)
    return {**about, **trained, **scores(judged, study.wrong), "note": ""}


def work(study: Zoo, tracker: Tracker) -> None:
    table = pd.DataFrame(side_by_side(row, [(study, name) for name in study.ordered], study.threads, "zoo"))
    table = table.sort_values("problem", ignore_index=True)
    write_table(table, "zoo", tracker)
    write_figure(plot_zoo(table, study.bars), "zoo", tracker)
    tracker.metrics(_metrics(table))
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3g}"))


def _metrics(table: pd.DataFrame) -> Mapping[str, float]:
    """The figures that are aimed at."""
    if "error_over_cramer_rao" not in table:
        return {}
    ratios = table["error_over_cramer_rao"]
    return {
        "median_error_over_cramer_rao": ratios.median(),
        "worst_error_over_cramer_rao": ratios.max(),
        "worst_coverage": table["coverage"].min(),
        "wrong_ok": table["wrong_ok"].max(),
    }
