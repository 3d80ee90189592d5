"""Confidence intervals from the covariance of an estimate."""

import numpy as np
from scipy.stats import norm, t

_TAIL = 0.975


def half_widths(queries: int, freedom: np.ndarray | None) -> np.ndarray:
    """(B,) standard deviations from the estimate to either end of its 95 % interval.

    Args:
        queries: their number B.
        freedom: (B,) degrees of freedom of the noise estimate: Student's t; None if the noise is known.
    """
    return np.full(queries, norm.ppf(_TAIL)) if freedom is None else t.ppf(_TAIL, np.maximum(freedom, 1))


def intervals(estimates: np.ndarray, std: np.ndarray, freedom: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided 95 % intervals around estimates.

    Args:
        estimates, std: (B, P).
        freedom: (B,) degrees of freedom of the noise estimate: Student's t; None if the noise is known.

    Returns:
        low and high ends (B, P).
    """
    factor = half_widths(len(estimates), freedom)[:, None]
    return estimates - factor * std, estimates + factor * std


def correlations(covariance: np.ndarray) -> np.ndarray:
    """(B, P, P) correlations of a covariance (B, P, P); NaN where a variance is zero, as of known parameters."""
    std = np.sqrt(np.einsum("bpp->bp", covariance))
    with np.errstate(invalid="ignore"):
        return covariance / (std[:, :, None] * std[:, None])
