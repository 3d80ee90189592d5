"""Derivatives of a tanh network along its inputs, all in one forward pass.

Each layer carries the value, the first tangents and the second tangents that are asked for (truncated
multivariate Taylor polynomials, "hyper-dual numbers"); one matrix product per layer serves all of them.
The backward pass is written out too, so that autograd records one node instead of a graph of small ones.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ipbasis.equations import MultiIndex
from ipbasis.errors import InputError

HIGHEST_ORDER = 2


@lru_cache
def streams(indices: tuple[MultiIndex, ...]) -> tuple[MultiIndex, ...]:
    """The derivatives to carry so that the given ones can be formed: value, first, then second order.

    Raises:
        InputError: for a derivative of higher order than 2.
    """
    needed: set[MultiIndex] = {()}
    for index in indices:
        if len(index) > HIGHEST_ORDER:
            raise InputError(f"derivatives of order {len(index)} are not supported, at most {HIGHEST_ORDER}")
        needed |= {tuple(sorted(index)), *((i,) for i in index)}
    return tuple(sorted(needed, key=lambda index: (len(index), index)))


@lru_cache
def _second_order(order: tuple[MultiIndex, ...]) -> tuple[tuple[int, int, int], ...]:
    """For each second derivative: its stream and the streams of its two first derivatives."""
    return tuple((k, order.index(i[:1]), order.index(i[1:])) for k, i in enumerate(order) if len(i) == 2)


def _tanh(carried: Tensor, order: tuple[MultiIndex, ...]) -> tuple[Tensor, Tensor]:
    """tanh of a Taylor polynomial, and its slope 1 - tanh².

    y = tanh z,  yᵢ = s zᵢ,  yᵢⱼ = s (zᵢⱼ - 2 y zᵢ zⱼ)  with  s = 1 - y².
    """
    value = torch.tanh(carried[0])
    slope = torch.rsub(value.square(), 1)
    out = carried * slope
    out[0] = value
    seconds = _second_order(order)
    if seconds:
        streams = out.unbind()
        tangents = carried.unbind()
        for k, i, j in seconds:
            # stream i of the result already holds s zᵢ
            streams[k].addcmul_(streams[i] * tangents[j], value, value=-2)
    return out, slope


def _tanh_backward(
    grad: Tensor, carried: Tensor, value: Tensor, slope: Tensor, order: tuple[MultiIndex, ...]
) -> Tensor:
    """Gradient by the argument of `_tanh`, given the gradient by its result.

    ∂y/∂z = s,  ∂yᵢ/∂z = -2 y s zᵢ,  ∂yᵢⱼ/∂z = s (-2 y zᵢⱼ - 2 (1 - 3 y²) zᵢ zⱼ),
    ∂yᵢ/∂zᵢ = s,  ∂yᵢⱼ/∂zᵢ = -2 y s zⱼ,  ∂yᵢⱼ/∂zᵢⱼ = s.
    """
    out = grad.clone()
    if len(order) == 1:
        return out.mul_(slope)
    results, grads, tangents = out.unbind(), grad.unbind(), carried.unbind()
    by_slope = (grad[1:] * carried[1:]).sum(0)
    for k, i, j in _second_order(order):
        weighted = grads[k] * value
        results[i].addcmul_(weighted, tangents[j], value=-2)
        results[j].addcmul_(weighted, tangents[i], value=-2)
        # -2 (1 - 3 y²) zᵢ zⱼ in two parts: 6 y² zᵢ zⱼ = -2 y (-3 y zᵢ zⱼ), and -2 zᵢ zⱼ
        by_slope.addcmul_(weighted * tangents[i], tangents[j], value=-3)
        results[0].addcmul_(grads[k] * tangents[i], tangents[j], value=-2)
    results[0].addcmul_(by_slope, value, value=-2)
    return out.mul_(slope)


class _TanhNetwork(torch.autograd.Function):
    """See `tanh_network`; gradients by weights and biases, not by the points."""

    @staticmethod
    def forward(ctx, points: Tensor, order: tuple[MultiIndex, ...], *layers: Tensor) -> Tensor:
        weights, biases = layers[::2], layers[1::2]
        firsts = [index[0] for index in order if len(index) == 1]
        carried = points.new_zeros(len(order), len(points), weights[0].shape[0])
        torch.addmm(biases[0], points, weights[0].T, out=carried[0])
        carried[1 : 1 + len(firsts)] = weights[0].T[firsts].unsqueeze(1)
        inputs, preactivations, slopes = [], [carried], []
        out, slope = _tanh(carried, order)
        for weight, bias in zip(weights[1:], biases[1:], strict=True):
            if any(ctx.needs_input_grad):
                inputs.append(out)
                slopes.append(slope)
            carried = (out.flatten(0, 1) @ weight.T).view(len(order), len(points), -1)
            carried[0] += bias
            if any(ctx.needs_input_grad):
                preactivations.append(carried)
            out, slope = _tanh(carried, order)
        if any(ctx.needs_input_grad):
            ctx.order, ctx.firsts = order, firsts
            ctx.inputs, ctx.preactivations, ctx.slopes = inputs, preactivations, [*slopes, slope]
            ctx.save_for_backward(points, out, *weights[1:])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        points, out, *weights = ctx.saved_tensors
        outputs = [*ctx.inputs, out]
        grads: list[Tensor] = []
        for layer in range(len(weights), -1, -1):
            grad = _tanh_backward(grad, ctx.preactivations[layer], outputs[layer][0], ctx.slopes[layer], ctx.order)
            if layer == 0:
                break
            flat, inputs = grad.flatten(0, 1), outputs[layer - 1].flatten(0, 1)
            grads[:0] = [flat.T @ inputs, grad[0].sum(0)]
            grad = (flat @ weights[layer - 1]).view(len(grad), len(points), -1)
        by_weight = grad[0].T @ points
        for stream, coordinate in enumerate(ctx.firsts, start=1):
            by_weight[:, coordinate] += grad[stream].sum(0)
        return None, None, by_weight, grad[0].sum(0), *grads


def tanh_network(
    weights: Sequence[Tensor], biases: Sequence[Tensor], points: Tensor, order: tuple[MultiIndex, ...]
) -> Tensor:
    """Value and derivatives of a network whose every layer is an affine map followed by tanh.

    Args:
        weights: per layer (width out, width in).
        biases: per layer (width out,).
        points: (n, d) inputs; no gradient is taken by them.
        order: the derivatives to carry, from `streams`.

    Returns:
        (streams, n, width) in the given order.
    """
    layers = [tensor for layer in zip(weights, biases, strict=True) for tensor in layer]
    return _TanhNetwork.apply(points, order, *layers)
