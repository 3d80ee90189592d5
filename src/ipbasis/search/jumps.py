"""Jumps in the residuals of a fit: an outlier, or an event that no solution of the equation has."""

import numpy as np
from scipy.stats import t

_SIGNIFICANCE = 1e-6
_FEWEST = 10  # differences, below which their median tells too little
_ROUNDING = 1e-9  # of the observations: residuals below it are those of the search, and of files with nine digits
_MEDIAN = 1.4826  # times the median of |d|: the standard deviation of normal d
# Variance of that estimate is 1 / (0.74 m) of its square for m independent differences, those of Student's t with 0.37
# m degrees of freedom; neighbouring differences share an observation, which counts for a third of them.
_FREEDOM = 0.37 / 1.5


def jumps(points: np.ndarray, residual: np.ndarray, size: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """(B,) largest difference of neighbouring residuals, in units of what chance allows; 0 where that is not known.

    A residual that is smooth, as where the equation holds only about, has none: its differences are alike.

    Args:
        points: (B, n) coordinates.
        residual: (B, n, F) in units of their standard deviations.
        size: (B,) root mean square of the observations in these units.
        observed: (B, n, F) which of them there are.
    """
    found = np.zeros(len(points))
    for query, (own, values, there) in enumerate(zip(points, residual, observed, strict=True)):
        least = _ROUNDING * size[query]
        for field in range(values.shape[1]):
            rows = np.flatnonzero(there[:, field])
            steps = np.abs(np.diff(values[rows[np.argsort(own[rows], kind="stable")], field]))
            count = len(steps)
            scale = _MEDIAN * np.median(steps) if count >= _FEWEST else 0.0
            if scale > least:
                most = t.isf(_SIGNIFICANCE / (2 * count), _FREEDOM * count)
                found[query] = max(found[query], steps.max() / scale / most)
    return found
