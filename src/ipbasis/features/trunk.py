"""The trunk: a network from coordinates to features, shared by all fields and tasks."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from ipbasis.features.interface import Features
from ipbasis.features.one_pass import derivatives
from ipbasis.problem.declaration import Declared
from ipbasis.problem.equations import MultiIndex


class TrunkSettings(Declared):
    """Size and number type of a trunk, and how fast its untrained features vary.

    Args:
        width: neurons per layer, which is the number of features.
        depth: layers.
        dtype: number type.
        first_layer_scale: factor on the initial weights and biases of the first layer; above 1 for
            solutions that vary several times within the domain.
    """

    kind: Literal["trunk"] = "trunk"
    width: PositiveInt
    depth: PositiveInt
    dtype: Literal["float32", "float64"]
    first_layer_scale: PositiveFloat = 1.0

    @property
    def words(self) -> str:
        """For a reader."""
        return f"trunk {self.width} x {self.depth}"


class Trunk(Features):
    """A tanh network ``R: coordinates -> (H features, 1)``, tanh after the last layer too.

    The coordinates are scaled to [-1, 1] first. The last feature is the constant 1, so that a readout
    holds the bias of its task as one more weight.

    Args:
        domain: (d, 2) lower and upper end of each coordinate.
        settings: the width is the number of features H, too.
        generator: source of the initial weights: uniform, as `torch.nn.Linear` draws them, those of the
            first layer times `first_layer_scale`.
    """

    def __init__(self, domain: np.ndarray, settings: TrunkSettings, generator: torch.Generator):
        super().__init__()
        dtype, width = getattr(torch, settings.dtype), settings.width
        domain = torch.as_tensor(domain, dtype=dtype)
        self.register_buffer("domain", domain)
        for layer, inputs in enumerate([len(domain)] + [width] * (settings.depth - 1)):
            bound = inputs**-0.5 * (settings.first_layer_scale if layer == 0 else 1)
            for name, shape in ((f"weight{layer}", (width, inputs)), (f"bias{layer}", (width,))):
                draw = torch.rand(shape, generator=generator, dtype=torch.float64)
                self.register_parameter(name, nn.Parameter((bound * (2 * draw - 1)).to(dtype)))

    @property
    def feature_count(self) -> int:
        """Number of features, the constant included (H + 1)."""
        return len(self.get_parameter("bias0")) + 1

    def forward(self, points: Tensor, indices: Iterable[MultiIndex] = ((),)) -> dict[MultiIndex, Tensor]:
        """Features and their derivatives in the problem's own units.

        Args:
            points: (n, d) coordinates in the problem's own units.
            indices: which derivatives; the value is always among the results.

        Returns:
            for each derivative (n, H + 1).
        """
        low, high = self.domain.T
        scale = 2 / (high - low)
        weight, bias, *layers = self.parameters()
        # folded into the first layer, the scaling leaves the derivatives in the problem's own units
        layers = [weight * scale, bias - weight @ (1 + low * scale), *layers]
        return derivatives(layers[::2], layers[1::2], points, indices)
