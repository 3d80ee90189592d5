"""Confidence intervals from the covariance of an estimate."""

import numpy as np
from scipy.stats import norm, t

_TAIL = 0.975


def intervals(estimates: np.ndarray, std: np.ndarray, freedom: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided 95 % intervals around estimates.

    Args:
        estimates, std: (B, P).
        freedom: (B,) degrees of freedom of the noise estimate: Student's t; None if the noise is known.

    Returns:
        low and high ends (B, P).
    """
    factor = norm.ppf(_TAIL) if freedom is None else t.ppf(_TAIL, np.maximum(freedom, 1))[:, None]
    return estimates - factor * std, estimates + factor * std
