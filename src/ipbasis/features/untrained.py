"""Untrained features: a wide network of one layer, its units spread over the domain, and random Fourier features."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ipbasis.features.interface import Features
from ipbasis.features.quadrature import gauss
from ipbasis.features.trunk import Trunk, TrunkSettings
from ipbasis.problem.equations import MultiIndex


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


class Sinusoids(Features):
    """Random Fourier features ``cos(w z + b)`` on a domain that is [-1, 1] along each coordinate.

    Reference: Rahimi & Recht, NeurIPS 20 (2007).

    Args:
        frequencies: (H, d) w.
        phases: (H,) b.
    """

    def __init__(self, frequencies: Tensor, phases: Tensor):
        super().__init__()
        self.register_buffer("domain", torch.tensor([[-1.0, 1.0]] * frequencies.shape[1], dtype=frequencies.dtype))
        self.register_buffer("frequencies", frequencies)
        self.register_buffer("phases", phases)

    @property
    def feature_count(self) -> int:
        """Number of features."""
        return len(self.phases)

    def forward(self, points: Tensor, indices: Iterable[MultiIndex] = ((),)) -> dict[MultiIndex, Tensor]:
        """For each derivative, of any order, and the value (n, H)."""
        angles = points @ self.frequencies.T + self.phases
        return {
            index: torch.cos(angles + len(index) * torch.pi / 2) * self.frequencies[:, list(index)].prod(1)
            for index in {(), *indices}
        }


def sinusoidal(spread: Spread, width: int) -> Sinusoids:
    """Random Fourier features: their bandwidths, standard deviations of normal frequencies, are the scales."""
    rng = np.random.default_rng(0)
    frequencies = rng.normal(size=(width, len(spread.scales))) * spread.scales
    return Sinusoids(torch.as_tensor(frequencies), torch.as_tensor(rng.uniform(0, 2 * np.pi, width)))
