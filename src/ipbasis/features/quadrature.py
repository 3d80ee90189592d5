"""Points and weights over the domain of a problem."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy.stats import qmc
from torch import Tensor


@dataclass(frozen=True)
class Quadrature:
    """Points and weights of a mean over the domain.

    Args:
        points: (n, d) in the problem's own units.
        weights: (n,), with sum 1.
    """

    points: Tensor
    weights: Tensor


@cache
def gauss(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in [-1, 1] and weights of sum 1 of the Gauss-Legendre rule."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return nodes, weights / 2


def gauss_legendre(domain: np.ndarray, count: int, dtype: torch.dtype = torch.float64) -> Quadrature:
    """Tensor product of Gauss-Legendre rules with `count` points along each coordinate."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    axes = [torch.as_tensor(low + (high - low) * (nodes + 1) / 2) for low, high in domain]
    points = torch.cartesian_prod(*axes).reshape(-1, len(domain))
    product = torch.cartesian_prod(*[torch.as_tensor(weights / 2)] * len(domain)).reshape(-1, len(domain)).prod(1)
    return Quadrature(points.to(dtype), product.to(dtype))


def equispaced(domain: np.ndarray, count: int, dtype: torch.dtype) -> Tensor:
    """(n, d) grid of about `count` points, the ends included, as many along each coordinate."""
    per_axis = round(count ** (1 / len(domain)))
    axes = [torch.linspace(low, high, per_axis, dtype=dtype) for low, high in domain.tolist()]
    return torch.cartesian_prod(*axes).reshape(-1, len(domain))


def stratified(domain: np.ndarray, count: int, rng: np.random.Generator, dtype: torch.dtype) -> Quadrature:
    """Random points, evenly spread: a Latin hypercube of `count` points, all of the same weight."""
    unit = qmc.LatinHypercube(len(domain), rng=rng).random(count)
    points = torch.as_tensor(domain[:, 0] + (domain[:, 1] - domain[:, 0]) * unit, dtype=dtype)
    return Quadrature(points, torch.full((count,), 1 / count, dtype=dtype))
