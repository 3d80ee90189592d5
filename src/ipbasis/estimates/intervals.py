"""Confidence intervals from the covariance of an estimate."""

import numpy as np
from scipy.stats import norm, t


def half_widths(queries: int, freedom: np.ndarray | None, confidence: float = 0.95) -> np.ndarray:
    """(B,) standard deviations from the estimate to either end of its interval.

    Args:
        queries: their number B.
        freedom: (B,) degrees of freedom of the noise estimate: Student's t; None if the noise is known.
        confidence: probability that the interval holds the true value.
    """
    quantile = (1 + confidence) / 2
    return np.full(queries, norm.ppf(quantile)) if freedom is None else t.ppf(quantile, np.maximum(freedom, 1))


def intervals(
    estimates: np.ndarray, std: np.ndarray, freedom: np.ndarray | None, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided intervals around estimates.

    Args:
        estimates, std: (B, P).
        freedom: (B,) degrees of freedom of the noise estimate: Student's t; None if the noise is known.
        confidence: probability with which an interval is to hold the true value.

    Returns:
        low and high ends (B, P).
    """
    factor = half_widths(len(estimates), freedom, confidence)[:, None]
    return estimates - factor * std, estimates + factor * std


def correlations(covariance: np.ndarray) -> np.ndarray:
    """(B, P, P) correlations of a covariance (B, P, P); NaN where a variance is zero, as of known parameters."""
    std = np.sqrt(np.einsum("bpp->bp", covariance))
    with np.errstate(invalid="ignore"):
        return covariance / (std[:, :, None] * std[:, None])
