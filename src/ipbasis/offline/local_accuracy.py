"""Accuracy of a basis as a function of the parameters."""

import numpy as np
from pydantic import PositiveFloat

from ipbasis.problem.declared import Declared


class LocalAccuracy(Declared):
    """How far a basis carries at any parameters, from tasks at which it was measured.

    Logarithms are interpolated between the nearest tasks, weighted by the inverse of their distance to the power of the
    number of unknowns plus one, in shares of the ranges: 0 at the low end of each, 1 at the high end, on its scale.
    Some tasks lie outside of the ranges, where estimates are searched too.

    Args:
        shares: (V, U) of parameters and free initial values.
        residual: (V,) root mean square of the residual of the solution in the basis, over that of the solution.
        error: (V,) relative error of that solution where it is known, else None.
    """

    shares: list[list[float]]
    residual: list[PositiveFloat]
    error: list[PositiveFloat | None]

    def at(self, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Relative residual (B,) and relative error (B,) at parameters and initial values (B, U) by their shares.

        The error is the residual times the ratio of both, which is interpolated between the tasks whose error is known.
        """
        found = np.exp(_interpolated(np.array(self.shares), np.log(self.residual), shares))
        return found, found * self.ratio(shares)

    def ratio(self, shares: np.ndarray) -> np.ndarray:
        """(B,) relative error over relative residual of a solution at parameters and initial values (B, U)."""
        known = np.array([error is not None for error in self.error])
        errors = np.array([error for error in self.error if error is not None])
        ratio = np.log(errors) - np.log(np.array(self.residual)[known])
        return np.exp(_interpolated(np.array(self.shares)[known], ratio, shares))


def _interpolated(places: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(B,) of values (V,) at places (V, U), at other places (B, U)."""
    unknowns = places.shape[1]
    squares = np.square(at[:, None] - places[None]).sum(2)
    nearest = np.argsort(squares, axis=1)[:, : 2 * unknowns + 2]
    # a place where a task lies has its value
    weights = (np.take_along_axis(squares, nearest, 1) + 1e-12) ** (-(unknowns + 1) / 2)
    return (weights * values[nearest]).sum(1) / weights.sum(1)
