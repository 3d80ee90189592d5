"""Weights of data and physics against each other."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ipbasis.offline.artefact import Accuracy
from ipbasis.search.online import Online

# Physics may outweigh the data by this much in the roots: beyond it nothing is gained but rounding errors.
STIFFEST = 1e5


@dataclass(frozen=True)
class Weights:
    """Weights of data and physics (equation and conditions) per query: roots of one over the variances."""

    data: Tensor
    physics: Tensor


def balanced_weight(online: Online, data: Tensor) -> Tensor:
    """(B,) weight of the physics at which it is as large as the data, in the roots; free of units."""
    low, high = online.ranges.T
    thetas = online.physics.thetas(torch.stack([low, (low + high) / 2, high])).abs().amax(0)
    largest = (torch.linalg.matrix_norm(online.physics.factor) * thetas).amax()
    return online.data_size * data / largest


def weights_for(online: Online, std: Tensor, accuracy: Accuracy, physics_weight: float | None) -> Weights:
    """Weights for a noise: physics by the residual that the basis reaches on its own solutions.

    The residual of the best solution in the basis is taken as random with that root mean square in each of
    the N directions that the readouts can change.
    """
    data = 1 / std
    physics = online.size**0.5 / (accuracy.residual * online.amplitude)
    if physics_weight is not None:
        physics = torch.full_like(std, physics_weight**0.5)
    return Weights(data, torch.minimum(physics, STIFFEST * balanced_weight(online, data)))
