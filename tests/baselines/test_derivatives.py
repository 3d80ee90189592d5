"""All ways of differentiating give the same numbers, without and with the backward pass."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ipbasis.baselines.derivatives import (
    METHODS,
    PASSES,
    PRODUCTS,
    Size,
    TimingSettings,
    TrainingStep,
    laplacian,
    matrix_products,
    time_derivatives,
    warm_up,
)
from ipbasis.baselines.derivatives import forward as one_pass
from ipbasis.features import one_pass as one_pass_module
from ipbasis.problem.declaration import Problem, problem_directory

SIZE = Size(width=8, depth=3, features=8, points=7, readouts=3)


def mixed() -> Problem:
    """Pure and mixed second derivatives, a first derivative that none of them brings along, two fields."""
    return Problem(
        name="mixed",
        coordinates={"x": (-1, 2), "y": (0, 3), "z": (0, 1)},
        fields=["u", "v"],
        parameters={"k": (0, 1)},
        equations=["u_xy + u_xx + k*v_z", "v_yy - u*v"],
        boundary=[{"at": {name: 0}, "equations": ["u", "v"]} for name in "xyz"],
    )


def shipped(name: str) -> Problem:
    return Problem.from_yaml(problem_directory() / f"{name}.yaml")


# name: (problem, size)
CASES = {
    "damped oscillator": (lambda: shipped("damped_oscillator"), SIZE),
    "first order, nonlinear": (lambda: shipped("lotka_volterra"), SIZE),
    "two coordinates, two fields": (lambda: shipped("quantum_oscillator"), SIZE),
    "mixed": (mixed, SIZE),
    "laplacian of one feature": (lambda: laplacian(2), SIZE.model_copy(update={"features": 1})),
    "laplacian in four coordinates": (lambda: laplacian(4), SIZE.model_copy(update={"features": 3})),
    "one layer": (lambda: laplacian(1), SIZE.model_copy(update={"depth": 1})),
}
OTHERS = sorted(set(METHODS) - {"forward"})


def draw(case):
    problem, size = CASES[case]
    return TrainingStep.draw(problem(), size, "float64", seed=3), size


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("method", OTHERS)
@pytest.mark.parametrize("case", CASES)
def test_derivatives_agree_with_one_pass(case, method, training):
    step, size = draw(case)
    indices = step.problem.system.indices
    expected = one_pass(step.trunk, step.points, indices, training)
    found = METHODS[method](step.trunk, step.points, indices, training)
    assert set(found) == set(indices)
    for index in indices:
        assert found[index].shape == (size.points, size.features + 1)
        assert torch.allclose(found[index], expected[index], rtol=1e-11, atol=1e-12), index


@pytest.mark.parametrize("method", OTHERS)
@pytest.mark.parametrize("case", CASES)
def test_gradients_by_all_weights_agree_with_one_pass(case, method):
    step, size = draw(case)
    expected = step.run(one_pass, "forward_backward")
    found = step.run(METHODS[method], "forward_backward")
    assert len(found) == 1 + 2 * size.depth + 1  # the loss, then weights and biases, then readouts
    for mine, theirs in zip(found, expected, strict=True):
        assert theirs.abs().max() > 0
        assert torch.allclose(mine, theirs, rtol=1e-10, atol=1e-11 * theirs.abs().max().item())


@pytest.mark.parametrize("method", METHODS)
def test_forward_alone_gives_the_same_loss_and_keeps_no_graph(method):
    step, _ = draw("two coordinates, two fields")
    with_backward, *_ = step.run(METHODS[method], "forward_backward")
    (alone,) = step.run(METHODS[method], "forward")
    assert not alone.requires_grad
    assert alone.item() == pytest.approx(with_backward.item(), rel=1e-12)


def test_the_loss_is_the_residual_of_the_equation():
    """One tanh feature in two coordinates, differentiated by hand: y = tanh z, y'' = -2 y (1 - y²) w²."""
    step = TrainingStep.draw(laplacian(2), Size(width=1, depth=1, features=1, points=5, readouts=1), "float64", 0)
    weight, bias = step.trunk.parameters()
    value = torch.tanh(step.points @ weight[0] + bias)  # the domain is [-1, 1] already
    factor, constant = step.readouts[0, 0]
    curvature = -2 * value * (1 - value**2) * weight.square().sum()
    residual = factor * curvature + step.parameters[0, 0] * (factor * value + constant)
    assert step.run(one_pass, "forward")[0].item() == pytest.approx(residual.square().mean().item(), rel=1e-12)


def test_laplacian_needs_unmixed_second_derivatives_only():
    assert laplacian(3).system.indices == ((), (0, 0), (1, 1), (2, 2))


def test_rows_of_the_table():
    settings = TimingSettings(repeats=2, longest=1000, dtype="float32", seed=0)
    warm_up()
    rows = list(time_derivatives(laplacian(2), SIZE, settings))
    expected = ["problem", "coordinates", "features", "points", "method", "pass", "seconds"]
    assert all(list(row)[: len(expected)] == expected for row in rows)
    assert [(row["pass"], row["method"]) for row in rows] == [(p, m) for p in PASSES for m in (*METHODS, PRODUCTS)]
    for row in rows:
        same_pass = {other["method"]: other["seconds"] for other in rows if other["pass"] == row["pass"]}
        assert row["ratio_to_forward"] == pytest.approx(row["seconds"] / same_pass["forward"])
        assert row["repeats"] == 2
        assert (row["coordinates"], row["features"], row["points"]) == (2, SIZE.features, SIZE.points)


def test_only_the_methods_asked_for_are_timed():
    settings = TimingSettings(repeats=1, longest=1000, dtype="float32", seed=0)
    rows = time_derivatives(laplacian(2), SIZE, settings, ["nested_jvp", "forward"])
    assert [row["method"] for row in rows] == 2 * ["nested_jvp", "forward", PRODUCTS]


class ProductsOf(TorchDispatchMode):
    """Counts the matrix products that are done, by the sizes of their factors."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_):
            left, right = [tensor for tensor in args if tensor.ndim == 2][-2:]
            self.found[len(left), *right.shape] += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("case", ["mixed", "laplacian in four coordinates", "first order, nonlinear"])
def test_bare_products_are_those_of_the_pass(case, training, monkeypatch):
    step, _ = draw(case)
    monkeypatch.setattr(one_pass_module, "_CHUNK_BYTES", 512)  # four points of two streams
    indices = step.problem.system.indices
    with ProductsOf() as bare:
        matrix_products(step)("forward_backward" if training else "forward")
    for parameter in step.trunk.parameters():
        parameter.requires_grad_(training)
    with ProductsOf() as done:
        loss = sum(values.sum() for values in one_pass(step.trunk, step.points, indices, training).values())
        if training:
            loss.backward()
    assert done.found == bare.found
    per_chunk = 3 + (3 + 2 if training else 0)
    assert done.found.total() >= 2 * per_chunk
    assert done.found.total() % per_chunk == 0


def test_what_takes_long_is_not_repeated():
    settings = TimingSettings(repeats=50, longest=1e-9, dtype="float32", seed=0)
    assert {row["repeats"] for row in time_derivatives(laplacian(1), SIZE, settings)} == {1}
