"""Ways to differentiate a network along its inputs, and how long one training step takes with each.

The published recipe differentiates the trunk in reverse mode, one feature after the other; the others are
what PyTorch offers besides, and the one pass of `ipbasis.features.one_pass`. All give the same numbers. The bare
matrix products of that pass tell how far it is from what the processor can do.
"""

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from ipbasis.features.one_pass import chunk_sizes
from ipbasis.features.taylor import streams
from ipbasis.features.trunk import Trunk, TrunkSettings
from ipbasis.problem.declaration import Declared, Problem
from ipbasis.problem.equations import MultiIndex

Derivatives = dict[MultiIndex, Tensor]
Method = Callable[[Trunk, Tensor, tuple[MultiIndex, ...], bool], Derivatives]


def plain_features(trunk: Trunk, points: Tensor) -> Tensor:
    """The features layer by layer, for PyTorch to differentiate: (n, H), without the constant."""
    low, high = trunk.domain.T
    hidden = 2 * (points - low) / (high - low) - 1
    layers = list(trunk.parameters())
    for weight, bias in zip(layers[::2], layers[1::2], strict=True):
        hidden = torch.tanh(nn.functional.linear(hidden, weight, bias))
    return hidden


def _of_order(indices: tuple[MultiIndex, ...], order: int) -> list[MultiIndex]:
    return [index for index in indices if len(index) == order]


def _rows(indices: tuple[MultiIndex, ...]) -> list[int]:
    """Coordinates whose first derivative must be differentiated once more."""
    return sorted({index[0] for index in _of_order(indices, 2)})


def _with_constant(derivatives: Derivatives) -> Derivatives:
    """The constant feature behind the others, as `Trunk.forward` has it."""
    return {
        index: torch.cat([values, values.new_full((len(values), 1), float(index == ()))], dim=1)
        for index, values in derivatives.items()
    }


def reverse_loop(trunk: Trunk, points: Tensor, indices: tuple[MultiIndex, ...], training: bool) -> Derivatives:
    """As published: for each feature one reverse pass, and one more for each row of second derivatives.

    Args:
        trunk: the network.
        points: (n, d).
        indices: the derivatives to give.
        training: whether gradients by the weights will be taken.

    Returns:
        for each derivative (n, H + 1).

    Reference: Manor & Kohandel, arXiv 2509.07245.
    """
    points = points.detach().requires_grad_()
    features = plain_features(trunk, points)
    rows = _rows(indices)
    columns: dict[MultiIndex, list[Tensor]] = {index: [] for index in indices if index}
    for feature in features.unbind(1):
        (first,) = torch.autograd.grad(feature.sum(), points, retain_graph=True, create_graph=training or bool(rows))
        second = {
            row: torch.autograd.grad(first[:, row].sum(), points, retain_graph=True, create_graph=training)[0]
            for row in rows
        }
        for index, column in columns.items():
            column.append(first[:, index[0]] if len(index) == 1 else second[index[0]][:, index[1]])
    found = {(): features} | {index: torch.stack(column, 1) for index, column in columns.items()}
    return _with_constant(found if training else {index: values.detach() for index, values in found.items()})


def reverse_batched(trunk: Trunk, points: Tensor, indices: tuple[MultiIndex, ...], training: bool) -> Derivatives:
    """The same reverse passes for all features at once, by `torch.func.vmap`. See `reverse_loop`."""
    features, rows = plain_features(trunk, points), _rows(indices)

    def of_feature(selector: Tensor) -> Derivatives:
        gradient = torch.func.grad(lambda p: (plain_features(trunk, p) @ selector).sum())
        if not rows:
            first, second = gradient(points), {}
        else:
            first, pull_back = torch.func.vjp(gradient, points)
            second = {row: pull_back(_direction(points, row))[0] for row in rows}
        return {i: first[:, i[0]] if len(i) == 1 else second[i[0]][:, i[1]] for i in indices if i}

    selectors = torch.eye(features.shape[1], dtype=points.dtype)
    return _with_constant({(): features, **torch.func.vmap(of_feature, out_dims=1)(selectors)})


def _direction(points: Tensor, coordinate: int) -> Tensor:
    """(n, d) unit vector of a coordinate at every point."""
    return torch.eye(points.shape[1], dtype=points.dtype)[coordinate].expand_as(points)


def nested_jvp(trunk: Trunk, points: Tensor, indices: tuple[MultiIndex, ...], training: bool) -> Derivatives:
    """Forward mode of PyTorch, nested for second derivatives; lower ones that come along are used.

    See `reverse_loop`.
    """

    def along(index: MultiIndex) -> Callable[[Tensor], Derivatives]:
        """Gives the derivative along an index and those along each part of it."""
        if not index:
            return lambda p: {(): plain_features(trunk, p)}
        *inner, last = index
        before, direction = along(tuple(inner)), _direction(points, last)

        def both(p: Tensor) -> Derivatives:
            values, tangents = torch.func.jvp(before, (p,), (direction,))
            return values | {(*part, last): tangent for part, tangent in tangents.items()}

        return both

    found: Derivatives = {}
    for index in sorted(indices, key=len, reverse=True):
        if index not in found:
            found |= along(index)(points)
    return _with_constant({index: found[index] for index in indices})


def forward(trunk: Trunk, points: Tensor, indices: tuple[MultiIndex, ...], training: bool) -> Derivatives:
    """One pass for the values and all derivatives: `Trunk.forward`. See `reverse_loop`."""
    return trunk(points, indices)


METHODS: dict[str, Method] = {
    "reverse_loop": reverse_loop,
    "reverse_batched": reverse_batched,
    "nested_jvp": nested_jvp,
    "forward": forward,
}
PRODUCTS = "matrix_products"  # in the table, beside the methods
Pass = Literal["forward", "forward_backward"]
PASSES: tuple[Pass, ...] = ("forward", "forward_backward")


class Size(Declared):
    """What is differentiated.

    Args:
        width: of the hidden layers.
        depth: layers.
        features: neurons of the last layer, of which each is differentiated.
        points: collocation points, drawn uniformly from the domain.
        readouts: tasks that read the features.
    """

    width: PositiveInt
    depth: PositiveInt
    features: PositiveInt
    points: PositiveInt
    readouts: PositiveInt


class TimingSettings(Declared):
    """How the seconds are taken: the smallest of several repeats.

    Args:
        repeats: at most.
        longest: seconds after which no further repeat starts.
        dtype: number type of the network.
        seed: of weights, points and tasks.
    """

    repeats: PositiveInt
    longest: PositiveFloat
    dtype: Literal["float32", "float64"]
    seed: int


@dataclass(frozen=True)
class TrainingStep:
    """The residual part of one offline training step with trained readouts.

    Args:
        problem: gives the equations.
        trunk: the network.
        readouts: (tasks, F, H + 1).
        points: (n, d).
        parameters: (tasks, P) of the equations.
    """

    problem: Problem
    trunk: Trunk
    readouts: Tensor
    points: Tensor
    parameters: Tensor

    @classmethod
    def draw(cls, problem: Problem, size: Size, dtype: str, seed: int) -> "TrainingStep":
        """A step of the given size with random weights, points and tasks."""
        generator = torch.Generator().manual_seed(seed)
        trunk = Trunk(problem.domain, TrunkSettings(width=size.width, depth=size.depth, dtype=dtype), generator)
        for kind in ("weight", "bias"):
            name = f"{kind}{size.depth - 1}"
            kept = trunk.get_parameter(name).detach()[: size.features].clone()
            trunk.register_parameter(name, nn.Parameter(kept))
        draw = {"generator": generator, "dtype": trunk.domain.dtype}
        low, high = trunk.domain.T
        tasks = problem.sample_tasks(size.readouts, np.random.default_rng(seed))
        return cls(
            problem,
            trunk,
            readouts=torch.randn((size.readouts, len(problem.fields), size.features + 1), **draw),
            points=low + (high - low) * torch.rand((size.points, len(low)), **draw),
            parameters=torch.as_tensor(tasks.parameters, dtype=trunk.domain.dtype),
        )

    def loss(self, method: Method, training: bool) -> Tensor:
        """Mean squared residual of all tasks, summed over the equations."""
        system = self.problem.system
        derivatives = method(self.trunk, self.points, system.indices, training)
        # one product per derivative serves all fields: (tasks, n) of each
        readouts, tasks = self.readouts.transpose(0, 1).flatten(0, 1), len(self.readouts)
        fields = {index: (readouts @ derivatives[index].T).split(tasks) for index in {j.index for j in system.jets}}
        jets = [fields[jet.index][jet.field] for jet in system.jets]
        parameters = [parameter[:, None] for parameter in self.parameters.unbind(1)]
        residuals = system.compiled(system.residuals)(self.points.unbind(1), jets, parameters)
        return sum(residual.square().mean() for residual in residuals)

    def run(self, method: Method, chosen: Pass) -> tuple[Tensor, ...]:
        """The loss; with the backward pass also its gradients by the weights of the trunk and the readouts.

        Without it the weights are frozen, so that nothing is kept for later.
        """
        training = chosen == "forward_backward"
        trained = [*self.trunk.parameters(), self.readouts]
        for tensor in trained:
            tensor.requires_grad_(training)
        loss = self.loss(method, training)
        return (loss, *torch.autograd.grad(loss, trained)) if training else (loss,)


def matrix_products(step: TrainingStep) -> Callable[[Pass], None]:
    """The matrix products that the one pass cannot do without, in chunks of its own size, and nothing else.

    Forward each layer's; backward those for the gradients by the weights and, but for the first layer, by its input.

    Returns:
        does them, on numbers without meaning.
    """
    points, order = step.points, streams(step.problem.system.indices)
    weights = [tensor.detach() for name, tensor in step.trunk.named_parameters() if name.startswith("weight")]
    size, _ = chunk_sizes(points, len(order), weights)
    shapes = {width: (len(order) * size, width) for width in {len(weight) for weight in weights}}
    inputs = {width: torch.ones(shape, dtype=points.dtype) for width, shape in shapes.items()}
    results = {width: torch.zeros(shape, dtype=points.dtype) for width, shape in shapes.items()}
    gradients = [torch.zeros_like(weight) for weight in weights]

    def run(chosen: Pass) -> None:
        for chunk in points.split(size):
            # the first layer has a product for the values alone: the derivatives of its argument are its weights
            layers = [(chunk, results[len(weights[0])][: len(chunk)])]
            rows = len(order) * len(chunk)
            layers += [(inputs[weight.shape[1]][:rows], results[len(weight)][:rows]) for weight in weights[1:]]
            for weight, (before, behind) in zip(weights, layers, strict=True):
                torch.mm(before, weight.T, out=behind)
            if chosen == "forward":
                continue
            for layer, (before, behind) in reversed(list(enumerate(layers))):
                gradients[layer].addmm_(behind.T, before)
                if layer > 0:
                    torch.mm(behind, weights[layer], out=results[before.shape[1]][:rows])

    return run


def laplacian(coordinates: int) -> Problem:
    """``Δu + k u = 0`` in any number of coordinates: second derivatives along each, none of them mixed."""
    names = [f"x{number}" for number in range(1, coordinates + 1)]
    return Problem(
        name="laplacian",
        coordinates=dict.fromkeys(names, (-1, 1)),
        fields=["u"],
        parameters={"k": (0, 1)},
        equations=[" + ".join(f"u_{name}{name}" for name in names) + " + k*u"],
        boundary=[{"at": {name: end}, "equations": ["u - 1"]} for name in names for end in (-1, 1)],
    )


def warm_up() -> None:
    """Run every method once, tiny: PyTorch imports parts of itself only when they are first used."""
    step = TrainingStep.draw(laplacian(1), Size(width=2, depth=1, features=2, points=2, readouts=1), "float32", 0)
    for method in METHODS.values():
        for chosen in PASSES:
            step.run(method, chosen)


def _smallest(work: Callable[[], object], settings: TimingSettings) -> tuple[float, int]:
    """Seconds of the fastest repeat, and the number of repeats."""
    taken: list[float] = []
    while len(taken) < settings.repeats and sum(taken) < settings.longest:
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken), len(taken)


def time_derivatives(
    problem: Problem, size: Size, settings: TimingSettings, methods: Collection[str] = tuple(METHODS)
) -> Iterator[dict[str, str | float]]:
    """Seconds of one training step with each method, without and with the backward pass.

    Args:
        problem: the problem.
        size: of network, points and tasks.
        settings: how the time is taken.
        methods: which of `METHODS` to time, ``forward`` among them.

    Yields:
        one row of the table per method and pass, the last for the bare matrix products of the one-pass forward
        mode; ``ratio_to_forward`` says how many times the seconds of a step with that mode these are.
    """
    step = TrainingStep.draw(problem, size, settings.dtype, settings.seed)
    products = matrix_products(step)
    for chosen in PASSES:
        works = {name: partial(step.run, METHODS[name], chosen) for name in methods}
        works[PRODUCTS] = partial(products, chosen)
        measured = {name: _smallest(work, settings) for name, work in works.items()}
        for name, (seconds, repeats) in measured.items():
            yield {
                "problem": problem.name,
                "coordinates": len(problem.coordinates),
                "features": size.features,
                "points": size.points,
                "method": name,
                "pass": chosen,
                "seconds": seconds,
                "ratio_to_forward": seconds / measured["forward"][0],
                "readouts": size.readouts,
                "width": size.width,
                "depth": size.depth,
                "repeats": repeats,
            }
