"""Confidence intervals from the covariance of an estimate."""

import numpy as np
from scipy.stats import norm, t


def intervals(
    estimates: np.ndarray, std: np.ndarray, freedom: np.ndarray | None, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided intervals around estimates.

    Args:
        estimates, std: (B, P).
        freedom: (B,) degrees of freedom of the noise estimate: Student's t; None if the noise is known.
        level: probability with which an interval is to hold the true value.

    Returns:
        low and high ends (B, P).
    """
    quantile = (1 + level) / 2
    factor = norm.ppf(quantile) if freedom is None else t.ppf(quantile, np.maximum(freedom, 1))[:, None]
    return estimates - factor * std, estimates + factor * std
