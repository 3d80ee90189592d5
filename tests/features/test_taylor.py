"""One-pass derivatives against nested forward-mode differentiation, the slow and obvious way."""

import subprocess
import sys
from itertools import combinations_with_replacement

import numpy as np
import pytest
import torch

from ipbasis.errors import InputError
from ipbasis.features import one_pass
from ipbasis.features.taylor import streams
from ipbasis.features.trunk import Trunk, TrunkSettings

BOX = [[0, 2], [-1, 1], [1, 4]]


def all_up_to(order, coordinates):
    """Every derivative, the mixed ones included."""
    return [i for size in range(order + 1) for i in combinations_with_replacement(range(coordinates), size)]


# name: (domain, derivatives)
CASES = {
    "oscillator": ([[0, 3]], [(0,), (0, 0)]),
    "first order only": ([[0, 10]], [(0,)]),
    "value only": ([[0, 1], [2, 3]], [()]),
    "quantum": ([[0, 1.5], [-5, 5]], [(0,), (1, 1)]),
    "mixed": ([[0, 2], [-1, 1]], [(0, 1)]),
    "all of second order": (BOX, all_up_to(2, 3)),
    "third order": ([[0, 3]], [(0, 0, 0)]),
    "beam": ([[0, 1], [0, 2]], [(0, 0), (1, 1, 1, 1)]),
    "mixed fourth": (BOX, [(0, 1, 2, 2), (0, 0, 1)]),
    "all of one coordinate": (BOX[:1], all_up_to(4, 1)),
    "all of two coordinates": (BOX[:2], all_up_to(4, 2)),
    "all of three coordinates": (BOX, all_up_to(4, 3)),
}


def trunk_and_points(domain, seed=0, dtype="float64", points=9):
    generator = torch.Generator().manual_seed(seed)
    domain = np.array(domain, dtype=float)
    trunk = Trunk(domain, TrunkSettings(width=12, depth=3, dtype=dtype), generator)
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter.mul_(2)  # away from the linear part of tanh
    low, high = trunk.domain.T
    return trunk, low + (high - low) * torch.rand((points, len(domain)), generator=generator, dtype=trunk.domain.dtype)


def plain(trunk, points):
    """The network, written as one would."""
    low, high = trunk.domain.T
    hidden = 2 * (points - low) / (high - low) - 1
    parameters = list(trunk.parameters())
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        hidden = torch.tanh(hidden @ weight.T + bias)
    return torch.cat([hidden, torch.ones(len(points), 1, dtype=hidden.dtype)], dim=1)


def nested(trunk, points, index):
    """A derivative by nested `torch.func.jvp`."""
    function = lambda points: plain(trunk, points)  # noqa: E731
    for axis in index:
        direction = torch.eye(points.shape[1], dtype=points.dtype)[axis].expand_as(points)
        function = lambda points, f=function, d=direction: torch.func.jvp(f, (points,), (d,))[1]  # noqa: E731
    return function(points)


@pytest.mark.parametrize("name", CASES)
def test_values_agree_with_nested_jvp(name):
    domain, indices = CASES[name]
    trunk, points = trunk_and_points(domain)
    found = trunk(points, indices)
    assert set(found) == {(), *indices}
    for index in indices:
        expected = nested(trunk, points, index)
        scale = expected.abs().max().item() + 1e-300
        assert torch.allclose(found[index], expected, rtol=0, atol=1e-12 * scale), index


def weighted_sum(derivatives, indices, seed=2):
    """A number that every derivative has a share in, each of about the same size."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for index in indices:
        values = derivatives(index)
        factors = torch.rand(values.shape, generator=generator, dtype=values.dtype)
        parts.append((factors * values).sum() / (1 + values.detach().abs().max()))
    return sum(parts)


@pytest.mark.parametrize("name", CASES)
def test_gradients_agree_with_autograd_through_nested_jvp(name):
    domain, indices = CASES[name]
    trunk, points = trunk_and_points(domain, seed=1)
    parameters = list(trunk.parameters())
    ours = torch.autograd.grad(weighted_sum(trunk(points, indices).get, indices), parameters)
    slow = weighted_sum(lambda index: nested(trunk, points, index), indices)
    for mine, expected in zip(ours, torch.autograd.grad(slow, parameters), strict=True):
        assert torch.allclose(mine, expected, rtol=1e-10, atol=1e-12 * expected.abs().max().item())


@pytest.mark.parametrize("name", ["quantum", "mixed fourth", "all of one coordinate"])
def test_gradients_agree_with_finite_differences(name):
    domain, indices = CASES[name]
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, len(domain)), (4, len(domain)), (4,), (3, 4), (3,)]
    points, *layers = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)

    def values(*layers):
        return tuple(one_pass.derivatives(layers[::2], layers[1::2], points, indices).values())

    assert torch.autograd.gradcheck(values, [layer.requires_grad_() for layer in layers])


@pytest.mark.parametrize("kept_bytes", [2**28, 1, 20_000])
@pytest.mark.parametrize("name", ["first order only", "all of second order", "mixed fourth"])
def test_chunks_kept_or_computed_again_give_the_same(name, kept_bytes, monkeypatch):
    domain, indices = CASES[name]
    trunk, points = trunk_and_points(domain, points=23)
    parameters = list(trunk.parameters())

    def run():
        found = trunk(points, indices)
        return [*found.values(), *torch.autograd.grad(weighted_sum(found.get, indices), parameters)]

    whole = run()
    count = len(streams(tuple(indices)))
    monkeypatch.setattr(one_pass, "_CHUNK_BYTES", 6 * count * 12 * 8)  # six points
    monkeypatch.setattr(one_pass, "_KEPT_BYTES", kept_bytes)
    for mine, expected in zip(run(), whole, strict=True):
        assert torch.allclose(mine, expected, rtol=1e-12, atol=1e-13 * expected.abs().max().item())


def test_only_what_exceeds_the_memory_is_computed_again(monkeypatch):
    trunk, points = trunk_and_points(CASES["quantum"][0], points=24)
    calls = []
    forward = one_pass._forward
    monkeypatch.setattr(
        one_pass, "_forward", lambda chunk, *others: calls.append(len(chunk)) or forward(chunk, *others)
    )

    def run():
        calls.clear()
        sum(values.sum() for values in trunk(points, [(0,), (1, 1)]).values()).backward()
        return list(calls)

    assert run() == [24]
    layer = 4 * 12 * 8  # bytes of the streams behind one layer, per point
    monkeypatch.setattr(one_pass, "_CHUNK_BYTES", 6 * layer)
    assert run() == [6] * 4
    monkeypatch.setattr(one_pass, "_KEPT_BYTES", 3 * 6 * 3 * layer)
    assert run() == [6] * 5
    with torch.no_grad():
        calls.clear()
        trunk(points, [(0,), (1, 1)])
    assert calls == [6] * 4


def test_a_second_backward_pass_gives_the_same():
    trunk, points = trunk_and_points(CASES["quantum"][0])
    loss = weighted_sum(trunk(points, [(0,), (1, 1)]).get, [(0,), (1, 1)])
    once = torch.autograd.grad(loss, list(trunk.parameters()), retain_graph=True)
    twice = torch.autograd.grad(loss, list(trunk.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))


def test_single_precision_agrees_with_double():
    """Its tanh is another formula."""
    domain, indices = CASES["quantum"]
    single, points = trunk_and_points(domain, dtype="float32", points=200)
    double, _ = trunk_and_points(domain)
    found, expected = single(points, indices), double(points.double(), indices)
    for index in indices:
        error = (found[index] - expected[index]).abs().max() / expected[index].abs().max()
        assert error < 1e-5, index  # rounding of three layers of width 12


MEMORY = """
import torch
from ipbasis.features.trunk import Trunk, TrunkSettings
settings = TrunkSettings(width=100, depth=5, dtype="float32")
trunk = Trunk(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), settings, torch.Generator())
sum(v.square().mean() for v in trunk(torch.rand(100_000, 2), [(0, 0), (0, 1), (1, 1)]).values()).backward()
# KiB, of this program alone: the peak that getrusage tells is that of the parent, if it was higher
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_peak_memory_is_bounded():
    """Forward and backward pass at 100 000 points: all streams of all layers would take 1.2 GB alone."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2 * 2**20


def test_the_constant_has_no_derivative():
    trunk, points = trunk_and_points([[0, 3]])
    found = trunk(points, [(0,), (0, 0)])
    assert (found[()][:, -1] == 1).all()
    assert (found[(0,)][:, -1] == 0).all()
    assert (found[(0, 0)][:, -1] == 0).all()


def test_streams_hold_what_the_derivatives_need_and_no_more():
    assert streams(((0, 0),)) == ((), (0,), (0, 0))
    assert streams(((1, 0),)) == ((), (0,), (1,), (0, 1))
    assert streams(((1,),)) == ((), (1,))
    assert streams(((1, 1, 1, 1),)) == ((), (1,), (1, 1), (1, 1, 1), (1, 1, 1, 1))
    assert streams(((0, 1, 1),)) == ((), (0,), (1,), (0, 1), (1, 1), (0, 1, 1))


def test_the_order_of_the_coordinates_does_not_matter():
    trunk, points = trunk_and_points(BOX)
    found = trunk(points, [(2, 0, 1)])
    assert torch.equal(found[(0, 1, 2)], trunk(points, [(0, 1, 2)])[(0, 1, 2)])


def test_fifth_order_is_refused():
    with pytest.raises(InputError, match="order 5"):
        streams(((0, 0, 0, 0, 0),))
