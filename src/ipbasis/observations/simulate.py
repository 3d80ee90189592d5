"""Simulated observations: where they are taken, and the noise on them."""

from typing import Literal

import numpy as np
import pandas as pd
from pydantic import NonNegativeFloat, PositiveInt
from scipy.stats import qmc

from ipbasis.problem.declaration import Declared, Problem


class ObservationSettings(Declared):
    """How observations are simulated.

    Args:
        number: observations per query.
        layout: ``equispaced`` points, the same for all queries; ``common`` random points, the same for
            all; ``own`` random points for each query.
        noise: size of the noise: standard deviation (gaussian) or half-width (uniform).
        noise_unit: ``percent`` of the largest modulus of the query's noise-free values, or ``absolute``.
        noise_kind: distribution of the noise.
        seed: of points and noise.
        truth: what the noise is added to: ``exact`` solutions, or ``published_tolerance``, those of the paper with
            the faults of its data (see `ipbasis.reference.solutions.TRUTHS`).
    """

    number: PositiveInt
    layout: Literal["equispaced", "common", "own"]
    noise: NonNegativeFloat
    noise_unit: Literal["percent", "absolute"]
    noise_kind: Literal["gaussian", "uniform"]
    seed: int
    truth: Literal["exact", "published_tolerance"] = "exact"

    def points(self, problem: Problem, queries: int) -> np.ndarray:
        """(queries, number, d) points of observation, or (1, number, d) if they are the same for all."""
        domain, dimension = problem.domain, len(problem.coordinates)
        if self.layout == "equispaced":
            per_axis = round(self.number ** (1 / dimension))
            grids = np.meshgrid(*[np.linspace(low, high, per_axis) for low, high in domain], indexing="ij")
            return np.stack(grids, axis=-1).reshape(1, -1, dimension)
        sampler = np.random.default_rng([self.seed, 0])
        unit = sampler.random((1 if self.layout == "common" else queries, self.number, dimension))
        if self.layout == "common":
            unit[0] = qmc.LatinHypercube(dimension, rng=sampler).random(self.number)
        points = domain[:, 0] + (domain[:, 1] - domain[:, 0]) * unit
        return np.sort(points, axis=1) if dimension == 1 else points

    def disturb(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values (queries, n, F) with noise added, and its standard deviation per query."""
        modulus = np.sqrt((values**2).sum(axis=2)).max(axis=1)
        size = self.noise * (modulus / 100 if self.noise_unit == "percent" else np.ones_like(modulus))
        generator = np.random.default_rng([self.seed, 1])
        if self.noise_kind == "gaussian":
            unit, std = generator.standard_normal(values.shape), 1.0
        else:
            unit, std = generator.uniform(-1, 1, values.shape), 3**-0.5
        return values + size[:, None, None] * unit, size * std


def long_table(problem: Problem, points: np.ndarray, values: np.ndarray) -> pd.DataFrame:
    """A table of observations from arrays.

    Args:
        problem: gives the names of the columns.
        points: (queries or 1, n, d).
        values: (queries, n, F).
    """
    queries, count, _ = values.shape
    points = np.broadcast_to(points, (queries, count, points.shape[2]))
    columns = {"query": np.repeat(np.arange(queries), count)}
    columns |= {name: points[..., i].ravel() for i, name in enumerate(problem.coordinates)}
    columns |= {name: values[..., i].ravel() for i, name in enumerate(problem.fields)}
    return pd.DataFrame(columns)
