"""What the studies of all problems share: simulated queries of one problem, and the basis that answers them."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ipbasis.evaluation.metrics import cramer_rao
from ipbasis.offline.artefact import Basis
from ipbasis.problem.declaration import Problem
from ipbasis.reference.sensitivities import sensitivities
from pipelines.cells import Cell, Observed, observe, points_of, simulate, tasks_of
from pipelines.common import MODELS, Settings


@dataclass(frozen=True)
class Queries:
    """Queries of one problem at one number of observations, free of noise.

    Args:
        settings: of the problem, as `pipelines.cells` takes them.
        problem: the problem.
        simulated: observations in long form.
        truth: one row per query.
    """

    settings: Settings
    problem: Problem
    simulated: pd.DataFrame
    truth: pd.DataFrame

    def cell(self, noise: float) -> Cell:
        """The queries at some noise."""
        return Cell(0, self.settings["observations"]["number"], noise, {})

    def observed(self, noise: float, draws: int = 1) -> Observed:
        """The queries with some draws of noise of this size."""
        return observe(self.settings, self.cell(noise), self.simulated, self.truth, range(draws))


def draw(settings: Settings, name: str, drawn: Settings, count: int, number: int, layout: str | None = None) -> Queries:
    """Simulate queries of a problem.

    Args:
        settings: of a study.
        name: of the problem.
        drawn: the ranges to draw from, as an entry of ``observations.sets``.
        count: of queries.
        number: of observations of each.
        layout: of the points of observation; None for that of the problem's benchmark.
    """
    given = settings["observations"][name]
    sampling = {**given, "sets": [drawn], "number": number, "layout": layout or given["layout"]}
    chosen = {**settings, "problem": settings["problems"][name], "observations": sampling}
    return Queries(chosen, Problem(**chosen["problem"]), *simulate(chosen, 0, count))


def unit_bounds(queries: Queries) -> np.ndarray:
    """(queries, P) Cramér-Rao bounds of the parameters for unit noise, initial values unknown too."""
    tasks, problem = tasks_of(queries.problem, queries.truth), queries.problem
    sensitivity = sensitivities(problem, tasks, points_of(queries.settings, queries.simulated, len(tasks)))
    return cramer_rao(sensitivity, np.ones(len(tasks)))[:, : len(problem.parameters)]


def best_basis(name: str) -> Basis:
    """The basis of a problem for real queries."""
    return Basis.load(MODELS / name / "best")
