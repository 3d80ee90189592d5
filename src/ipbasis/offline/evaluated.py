"""Features where a forward problem needs them, and coordinates in which its residual is well conditioned."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ipbasis.problem.equations import MultiIndex


@dataclass(frozen=True)
class Evaluated:
    """Features where the forward problem needs them.

    Args:
        features: for each derivative (n, K) at the collocation points.
        condition_rows: (m, F K), see `Conditions`.
    """

    features: Mapping[MultiIndex, Tensor]
    condition_rows: Tensor

    def double(self) -> "Evaluated":
        """The same in float64."""
        features = {index: values.double() for index, values in self.features.items()}
        return Evaluated(features, self.condition_rows.double())

    def detached(self) -> "Evaluated":
        """The same in float64 and without gradients."""
        features = {index: values.detach() for index, values in self.features.items()}
        return Evaluated(features, self.condition_rows.detach()).double()

    def first(self, count: int) -> "Evaluated":
        """The first features alone."""
        by_field = self.condition_rows.unflatten(1, (-1, self.features[()].shape[1]))
        features = {index: values[:, :count] for index, values in self.features.items()}
        return Evaluated(features, by_field[..., :count].flatten(1))


def energy_coordinates(features: Mapping[MultiIndex, Tensor], domain: np.ndarray, tolerance: float) -> Tensor:
    """Combinations of features that are orthonormal in value and derivatives together.

    In these coordinates the residual is well conditioned: it is small only for what nearly solves the
    equation, never for lack of size.

    Args:
        features: for each derivative (n, K), weighted so that the sum over n is a mean.
        domain: (d, 2); derivatives are taken along coordinates scaled to [-1, 1].
        tolerance: directions below this share of the largest are dropped.

    Returns:
        (K, r) with r ≤ K.
    """
    half = (domain[:, 1] - domain[:, 0]) / 2
    blocks = [values * np.prod(half[list(index)]) for index, values in features.items()]
    _, triangular = torch.linalg.qr(torch.cat(blocks), mode="r")
    _, size, directions = torch.linalg.svd(triangular, full_matrices=False)
    keep = size > tolerance * size[0]
    return directions[keep].T / size[keep]
