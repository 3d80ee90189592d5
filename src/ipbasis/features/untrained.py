"""Untrained features: a wide network of one layer, its units spread over the domain."""

from dataclasses import dataclass

import numpy as np
import torch

from ipbasis.features.quadrature import gauss
from ipbasis.features.trunk import Trunk, TrunkSettings


@dataclass(frozen=True)
class Spread:
    """How untrained features vary over a domain that is [-1, 1] along each coordinate.

    Args:
        scales: (d,) the steepest slope of a unit along each coordinate.
        grading: logarithm of how much denser and steeper units are at the low end of the first coordinate than at the
            high end: solutions in time often vary fast at first.
    """

    scales: tuple[float, ...]
    grading: float = 0.0

    def untrained(self, width: int, depth: int = 1, seed: int = 0) -> Trunk:
        """A trunk whose first units are ``tanh(w (z - c))``: w uniform in a box, the centres c in the domain.

        Args:
            width: number of units.
            depth: layers; those after the first as a `Trunk` begins with them.
            seed: of the draw.
        """
        rng, axes = np.random.default_rng(seed), len(self.scales)
        slopes, centres = rng.uniform(-1, 1, (width, axes)) * self.scales, rng.uniform(-1, 1, (width, axes))
        centres[:, 0], stretch = self._graded(centres[:, 0])
        slopes[:, 0] /= stretch
        settings = TrunkSettings(width=width, depth=depth, dtype="float64")
        trunk = Trunk(np.array([[-1.0, 1.0]] * axes), settings, torch.Generator().manual_seed(seed))
        with torch.no_grad():
            trunk.get_parameter("weight0").copy_(torch.as_tensor(slopes))
            trunk.get_parameter("bias0").copy_(torch.as_tensor(-(slopes * centres).sum(1)))
        return trunk.requires_grad_(False)

    def rules(self, points: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Gauss's rule along each coordinate, as dense as the units are; about so many points in their product."""
        nodes, weights = gauss(int(np.ceil(points ** (1 / len(self.scales)))))
        return [(self._graded(nodes)[0], weights), *[(nodes, weights)] * (len(self.scales) - 1)]

    def _graded(self, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where evenly spread places in [-1, 1] of the first coordinate go, and the slope of that map."""
        if self.grading == 0:
            return unit, np.ones_like(unit)
        share, whole = (unit + 1) / 2, np.expm1(self.grading)
        return 2 * np.expm1(self.grading * share) / whole - 1, self.grading * np.exp(self.grading * share) / whole
