"""Bases that need no training: Chebyshev polynomials, and the proper orthogonal decomposition of exact solutions."""

import numpy as np
import torch
from torch import Tensor

from ipbasis.features.chebyshev import ChebyshevFeatures

_ROUNDING = 1e-12  # share of the largest below which directions of exact solutions are noise of the solver


def lowest_degrees(features: ChebyshevFeatures, functions: int) -> Tensor:
    """Polynomials of lowest total degree, made orthonormal in the mean over the domain one after the other.

    Returns:
        (features, functions) combinations of the features.
    """
    quadrature = features.quadrature()
    chosen = torch.eye(features.feature_count, functions, dtype=torch.float64)
    weighted = features(quadrature.points)[()][:, :functions] * quadrature.weights.sqrt()[:, None]
    _, triangular = torch.linalg.qr(weighted, mode="r")
    return torch.linalg.solve_triangular(triangular, chosen, upper=True, left=False)


def proper_orthogonal(features: ChebyshevFeatures, values: np.ndarray, functions: int) -> Tensor:
    """Proper orthogonal decomposition (POD) of solutions: the best functions for them in the mean square.

    Each solution counts by its shape alone, scaled to size 1; all fields share the functions.

    Args:
        features: polynomials enough to resolve the solutions.
        values: (tasks, n, F) solutions at the points of `ChebyshevFeatures.quadrature`.
        functions: how many; fewer where the solutions span less.

    Returns:
        (features, functions) combinations of the features, orthonormal in the mean over the domain, best first.
    """
    root = features.quadrature().weights.sqrt().numpy()
    weighted = values * root[:, None]
    snapshots = weighted / np.sqrt(np.square(weighted).sum(axis=(1, 2), keepdims=True))
    modes, strengths, _ = np.linalg.svd(np.concatenate([*snapshots.transpose(2, 1, 0)], axis=1), full_matrices=False)
    kept = min(functions, int((strengths > _ROUNDING * strengths[0]).sum()))
    return torch.as_tensor(features.interpolated(modes[:, :kept] / root[:, None]))
