"""Chebyshev polynomials as features."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.polynomial import chebyshev
from torch import Tensor

from ipbasis.features.interface import Features
from ipbasis.features.quadrature import Quadrature, gauss_legendre
from ipbasis.problem.equations import MultiIndex


class ChebyshevFeatures(Features):
    """Products of Chebyshev polynomials of each coordinate, those of low total degree first.

    Stands where a `Trunk` does. The coordinates are scaled to [-1, 1] first.

    Args:
        domain: (d, 2) lower and upper end of each coordinate.
        count: polynomials of each coordinate, so that there are ``count ** d`` features.
    """

    def __init__(self, domain: np.ndarray, count: int):
        super().__init__()
        self.register_buffer("domain", torch.as_tensor(domain))
        self.count = count
        degrees = np.indices([count] * len(domain)).reshape(len(domain), -1)
        self._degrees = degrees[:, np.lexsort((*degrees, degrees.sum(axis=0)))]

    @property
    def feature_count(self) -> int:
        """Number of features."""
        return self._degrees.shape[1]

    def forward(self, points: Tensor, indices: Iterable[MultiIndex] = ((),)) -> dict[MultiIndex, Tensor]:
        """Features and their derivatives in the problem's own units: for each derivative (n, features).

        Args:
            points: (n, d) coordinates in the problem's own units.
            indices: which derivatives, of any order; the value is always among the results.
        """
        low, high = self.domain.numpy().T
        unit = 2 * (points.numpy() - low) / (high - low) - 1

        def along(axis: int, order: int) -> np.ndarray:
            """(n, features) the factor of each product that depends on one coordinate."""
            series = chebyshev.chebder(np.eye(self.count), order, scl=2 / (high - low)[axis])
            return (chebyshev.chebvander(unit[:, axis], len(series) - 1) @ series)[:, self._degrees[axis]]

        values = {}
        for index in {(), *indices}:
            values[index] = along(0, index.count(0))
            for axis in range(1, len(low)):
                values[index] *= along(axis, index.count(axis))
        return {index: torch.as_tensor(value) for index, value in values.items()}

    def quadrature(self) -> Quadrature:
        """A grid of as many points as there are features; values on it determine every combination of them."""
        return gauss_legendre(self.domain.numpy(), self.count)

    def interpolated(self, values: np.ndarray) -> np.ndarray:
        """(features, m) coefficients of m functions, from their values (features, m) on the grid of `quadrature`."""
        axes = len(self.domain)
        nodes, _ = np.polynomial.legendre.leggauss(self.count)
        inverse = np.linalg.inv(chebyshev.chebvander(nodes, self.count - 1))
        tensor = values.reshape(*[self.count] * axes, -1)
        for axis in range(axes):
            tensor = np.moveaxis(np.tensordot(inverse, tensor, (1, axis)), 0, axis)
        return tensor[tuple(self._degrees)]
