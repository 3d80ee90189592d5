"""Functions of one coordinate that carry reference solutions: Chebyshev polynomials, or waves where it is periodic."""

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev


@dataclass(frozen=True)
class Axis:
    """The first functions of a coordinate, the smoothest first.

    Args:
        low, high: ends of the coordinate.
        count: of functions; odd if periodic: the constant, then a cosine and a sine of each frequency.
        periodic: whether both ends are the same point.
    """

    low: float
    high: float
    count: int
    periodic: bool = False

    def functions(self, positions: np.ndarray, order: int = 0) -> np.ndarray:
        """(n, count) values of the functions, or of their derivatives, at positions (n,)."""
        return (self._waves if self.periodic else self._polynomials)(positions, order)

    def _polynomials(self, positions: np.ndarray, order: int) -> np.ndarray:
        factor = 2 / (self.high - self.low)
        derived = chebyshev.chebder(np.eye(self.count), order, scl=factor)
        return chebyshev.chebvander(factor * (positions - self.low) - 1, len(derived) - 1) @ derived

    def _waves(self, positions: np.ndarray, order: int) -> np.ndarray:
        rates = 2 * np.pi / (self.high - self.low) * np.arange(1, self.count // 2 + 1)
        angles = rates * (positions[:, None] - self.low) + order * np.pi / 2
        pairs = np.stack([np.cos(angles), np.sin(angles)], axis=-1) * rates[:, None] ** order
        constant = np.full((len(positions), 1), float(order == 0))
        return np.hstack([constant, pairs.reshape(len(positions), -1)])

    def nodes(self, conditions: int = 0) -> np.ndarray:
        """Points, as many as functions less conditions: equispaced if periodic, else the zeros of a polynomial."""
        if self.periodic:
            return self.low + (self.high - self.low) * np.arange(self.count) / self.count
        unit = chebyshev.chebpts1(self.count - conditions)
        return self.low + (self.high - self.low) * (1 + unit) / 2

    def with_count(self, count: int) -> "Axis":
        """The same coordinate with at least so many functions."""
        return Axis(self.low, self.high, count + self.periodic * (1 - count % 2), self.periodic)
