"""What the studies of all problems share: simulated queries of one problem, and the basis that answers them."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ipbasis.evaluation.metrics import cramer_rao
from ipbasis.offline.artefact import Basis
from ipbasis.problem.declaration import Problem
from ipbasis.reference.sensitivities import sensitivities
from pipelines.benchmark import Benchmark, QuerySet
from pipelines.cells import Cell, Observed, observe, points_of, simulate, tasks_of
from pipelines.paths import best_directory


@dataclass(frozen=True)
class Queries:
    """Queries of one problem at one number of observations, free of noise.

    Args:
        benchmark: of the problem, with these queries as its only set.
        simulated: observations in long form.
        truth: one row per query.
    """

    benchmark: Benchmark
    simulated: pd.DataFrame
    truth: pd.DataFrame

    @property
    def problem(self) -> Problem:
        return self.benchmark.problem

    def cell(self, noise: float) -> Cell:
        """The queries at some noise."""
        return Cell(0, self.benchmark.observations.number, noise, {})

    def observed(self, noise: float, draws: int = 1) -> Observed:
        """The queries with some draws of noise of this size."""
        return observe(self.benchmark, self.cell(noise), self.simulated, self.truth, range(draws))


def draw(benchmark: Benchmark, drawn: QuerySet, count: int, number: int, layout: str | None = None) -> Queries:
    """Simulate queries of a problem.

    Args:
        benchmark: of the problem.
        drawn: the ranges to draw from.
        count: of queries.
        number: of observations of each.
        layout: of the points of observation; None for that of the benchmark.
    """
    layout = layout or benchmark.observations.layout
    chosen = benchmark.with_observations(sets=[drawn], number=number, layout=layout)
    return Queries(chosen, *simulate(chosen, 0, count))


def unit_bounds(queries: Queries) -> np.ndarray:
    """(queries, P) Cramér-Rao bounds of the parameters for unit noise, initial values unknown too."""
    tasks, problem = tasks_of(queries.problem, queries.truth), queries.problem
    sensitivity = sensitivities(problem, tasks, points_of(queries.benchmark, queries.simulated, len(tasks)))
    return cramer_rao(sensitivity, np.ones(len(tasks)))[:, : len(problem.parameters)]


def best_basis(name: str) -> Basis:
    """The basis of a problem for real queries."""
    return Basis.load(best_directory(name))
