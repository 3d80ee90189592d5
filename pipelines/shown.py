"""What the pictures show: which cells, which of their queries, and on which grid."""

import numpy as np
import torch

from ipbasis.features.quadrature import equispaced
from ipbasis.problem.declaration import Problem
from pipelines.benchmark import Benchmark
from pipelines.cells import Cell, cells


def shown_cells(benchmark: Benchmark) -> list[Cell]:
    """The cells whose fits the pictures show: those with the labels that are named, or else the first."""
    found, named = cells(benchmark), benchmark.observations.shown
    if named is None:
        return found[:1]
    return [cell for labels in named for cell in found if labels.items() <= cell.label.items()]


def shown_queries(benchmark: Benchmark) -> list[int]:
    """Numbers of the queries that the pictures show, spread over those that every recipe answers."""
    counts = [recipe.queries for recipe in benchmark.recipes.values()]
    counts += [len(values) for entry in benchmark.observations.sets for values in entry.tasks.values()]
    return np.unique(np.linspace(0, min(counts) - 1, 3).round().astype(int)).tolist()


def shown_points(problem: Problem) -> np.ndarray:
    """(n, d) grid on which the pictures show solutions."""
    per_axis = 200 if len(problem.coordinates) == 1 else 60
    return equispaced(problem.domain, per_axis ** len(problem.coordinates), torch.float64).numpy()
