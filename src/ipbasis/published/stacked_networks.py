"""Small networks of many queries, each with its own weights, evaluated and differentiated all at once."""

from itertools import pairwise

import torch
from torch import Tensor


class StackedNetworks:
    """A tanh network per query, linear in the last layer: inputs (B, in, n) -> (B, out, n).

    Args:
        weights: per layer (B, width out, width in + 1); the last column is the bias.
    """

    def __init__(self, weights: list[Tensor]):
        self.weights = weights

    @classmethod
    def start(cls, sizes: list[int], queries: int, generator: torch.Generator, dtype: torch.dtype) -> "StackedNetworks":
        """Networks with the same initial weights for all queries (uniform, as `torch.nn.Linear` draws them).

        Args:
            sizes: widths from the inputs to the outputs.
            queries: number of queries B.
            generator: source of the weights.
            dtype: number type.
        """
        weights = []
        for inputs, outputs in pairwise(sizes):
            draw = torch.rand(outputs, inputs + 1, generator=generator, dtype=torch.float64)
            weights.append((inputs**-0.5 * (2 * draw - 1)).to(dtype).repeat(queries, 1, 1))
        return cls(weights)

    def __call__(self, inputs: Tensor) -> Tensor:
        """(B, out, n) outputs for inputs (B, in, n)."""
        return self.forward(torch.cat([inputs, torch.ones_like(inputs[:, :1])], dim=1))[0]

    def forward(self, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Outputs for inputs whose last row is ones (B, in + 1, n); and what each layer was given."""
        given = [inputs]
        for weight in self.weights[:-1]:
            queries, width, _ = weight.shape
            following = inputs.new_empty(queries, width + 1, inputs.shape[2])
            # tanh z = 2 σ(2 z) - 1: PyTorch's sigmoid is several times faster than its tanh
            sigmoid = torch.bmm(weight, given[-1]).mul_(2).sigmoid_()
            torch.sub(sigmoid.mul_(2), 1, out=following[:, :-1])
            following[:, -1] = 1
            given.append(following)
        return torch.bmm(self.weights[-1], given[-1]), given

    def backward(self, by_output: Tensor, given: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Gradients by inputs (B, in, n) and weights, given that by the outputs and what `forward` kept."""
        gradients: list[Tensor] = []
        for weight, inputs in zip(reversed(self.weights), reversed(given), strict=True):
            gradients.insert(0, torch.bmm(by_output, inputs.mT))
            by_output = torch.bmm(weight[:, :, :-1].mT, by_output)
            if inputs is not given[0]:
                by_output = torch.ops.aten.tanh_backward(by_output, inputs[:, :-1])
        return by_output, gradients
