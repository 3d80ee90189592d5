"""Features of a tanh network and their derivatives along its inputs, all in one forward pass.

Each layer carries the derivatives that are asked for and what they are made of; one matrix product per layer
serves all of them. The backward pass is written out too, so that autograd records one node instead of a graph
of small ones. Points are taken in chunks, so that memory holds little besides what is asked for.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ipbasis.features.taylor import Rules, leibniz_rules, streams, tanh, tanh_backward
from ipbasis.problem.equations import MultiIndex

# What one layer carries for a chunk of points: the elementwise passes between two products then find it in the
# cache of the processor. Much smaller chunks lose time to the calls themselves.
_CHUNK_BYTES = 2**20
# What is kept of all layers for the backward pass. Chunks beyond it are computed again there, which takes a third
# more products.
_KEPT_BYTES = 2**28


def chunk_sizes(points: Tensor, streams: int, weights: Sequence[Tensor]) -> tuple[int, int]:
    """Points per chunk, and how many chunks are kept for the backward pass.

    Args:
        points: (n, d).
        streams: how many derivatives are carried.
        weights: per layer (width out, width in).
    """
    per_layer = streams * max(len(weight) for weight in weights) * points.element_size()
    # other devices have no such cache, and calls cost them more: as much at once as is kept
    largest = _CHUNK_BYTES if points.device.type == "cpu" else _KEPT_BYTES // len(weights)
    count = max(1, math.ceil(len(points) * per_layer / largest))
    size = max(1, math.ceil(len(points) / count))
    return size, max(1, _KEPT_BYTES // (size * per_layer * len(weights)))


def _forward(
    points: Tensor, rules: Rules, weights: Sequence[Tensor], biases: Sequence[Tensor], keep: bool
) -> list[Tensor]:
    """The streams behind each layer, (streams, n, width); behind the last one alone unless all are to be kept."""
    coordinates = rules.coordinates
    carried = points.new_zeros(len(rules.order), len(points), len(weights[0]))
    torch.addmm(biases[0], points, weights[0].T, out=carried[0])
    carried[1 : 1 + len(coordinates)] = weights[0].T[coordinates].unsqueeze(1)
    outputs: list[Tensor] = []
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        if layer > 0:
            # into the memory that the layer before is done with: new memory must be mapped first
            product = carried.flatten(0, 1) if carried.shape[2] == len(weight) else None
            carried = torch.mm(outputs[-1].flatten(0, 1), weight.T, out=product).unflatten(0, (len(carried), -1))
            carried[0].add_(bias)
            if not keep:
                outputs.clear()
        outputs.append(torch.empty_like(carried))
        tanh(carried, rules, outputs[-1])
    return outputs


def _backward(
    grad: Tensor,
    points: Tensor,
    rules: Rules,
    outputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    sums: Sequence[Tensor],
) -> None:
    """Adds the gradients of a chunk to the sums, given the one by its last streams, which is overwritten."""
    for layer in range(len(weights) - 1, -1, -1):
        by_weight, by_bias = sums[2 * layer : 2 * layer + 2]
        tanh_backward(grad, outputs[layer], rules)
        by_bias += grad[0].sum(0)
        if layer > 0:
            flat = grad.flatten(0, 1)
            by_weight.addmm_(flat.T, outputs[layer - 1].flatten(0, 1))
            grad = (flat @ weights[layer]).unflatten(0, (len(grad), -1))
    by_weight.addmm_(grad[0].T, points)
    for stream, coordinate in enumerate(rules.coordinates, start=1):
        by_weight[:, coordinate] += grad[stream].sum(0)


class _OnePass(torch.autograd.Function):
    """See `derivatives`; gradients by weights and biases, not by the points."""

    @staticmethod
    def forward(ctx, points: Tensor, rules: Rules, asked: Sequence[int], train: bool, *layers: Tensor):
        weights, biases = layers[::2], layers[1::2]
        size, kept = chunk_sizes(points, len(rules.order), weights)
        found = [points.new_empty(len(points), len(weights[-1]) + 1) for _ in asked]
        for stream, values in zip(asked, found, strict=True):
            values[:, -1] = float(stream == 0)
        ctx.outputs = []
        for number, chunk in enumerate(points.split(size)):
            keep = train and number < kept
            outputs = _forward(chunk, rules, weights, biases, keep)
            for stream, values in zip(asked, found, strict=True):
                values[number * size : (number + 1) * size, :-1] = outputs[-1][stream]
            if keep:
                ctx.outputs.append(outputs)
        ctx.rules, ctx.asked, ctx.size = rules, asked, size
        ctx.save_for_backward(points, *layers)
        ctx.set_materialize_grads(False)
        return tuple(found)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor | None):
        points, *layers = ctx.saved_tensors
        weights, biases = layers[::2], layers[1::2]
        sums = [torch.zeros_like(tensor) for tensor in layers]
        for number, chunk in enumerate(points.split(ctx.size)):
            kept = number < len(ctx.outputs)
            outputs = ctx.outputs[number] if kept else _forward(chunk, ctx.rules, weights, biases, True)
            grad = torch.zeros_like(outputs[-1])
            for stream, by_stream in zip(ctx.asked, grads, strict=True):
                if by_stream is not None:
                    grad[stream] = by_stream[number * ctx.size : (number + 1) * ctx.size, :-1]
            _backward(grad, chunk, ctx.rules, outputs, weights, sums)
        return None, None, None, None, *sums


def derivatives(
    weights: Sequence[Tensor], biases: Sequence[Tensor], points: Tensor, indices: Iterable[MultiIndex]
) -> dict[MultiIndex, Tensor]:
    """Values and derivatives of a network whose every layer is an affine map and tanh, the constant 1 behind them.

    Args:
        weights: per layer (width out, width in).
        biases: per layer (width out,).
        points: (n, d) inputs; no gradient is taken by them.
        indices: the derivatives, up to order 4; the values are always among the results.

    Returns:
        for each derivative (n, width + 1).

    Raises:
        InputError: for a derivative of higher order.
    """
    wanted = {(), *(tuple(sorted(index)) for index in indices)}
    order = streams(tuple(sorted(wanted)))
    asked = [stream for stream, index in enumerate(order) if index in wanted]
    layers = [tensor for layer in zip(weights, biases, strict=True) for tensor in layer]
    train = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in layers)
    found = _OnePass.apply(points, leibniz_rules(order), asked, train, *layers)
    return {order[stream]: values for stream, values in zip(asked, found, strict=True)}
