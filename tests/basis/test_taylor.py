"""One-pass derivatives against nested forward-mode differentiation, the slow and obvious way."""

import numpy as np
import pytest
import torch

from ipbasis.basis.network import Trunk, TrunkSettings
from ipbasis.basis.taylor import streams
from ipbasis.errors import InputError

# name: (domain, derivatives)
CASES = {
    "oscillator": ([[0, 3]], [(0,), (0, 0)]),
    "first order only": ([[0, 10]], [(0,)]),
    "value only": ([[0, 1], [2, 3]], [()]),
    "quantum": ([[0, 1.5], [-5, 5]], [(0,), (1, 1)]),
    "mixed": ([[0, 2], [-1, 1]], [(0, 1)]),
    "all of second order": ([[0, 2], [-1, 1], [1, 4]], [(i, j) for i in range(3) for j in range(i, 3)]),
}


def trunk_and_points(domain, seed=0):
    generator = torch.Generator().manual_seed(seed)
    domain = np.array(domain, dtype=float)
    trunk = Trunk(domain, TrunkSettings(width=12, depth=3, dtype="float64"), generator)
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter.mul_(2)  # away from the linear part of tanh
    unit = torch.rand((9, len(domain)), generator=generator, dtype=torch.float64)
    low, high = torch.as_tensor(domain).T
    return trunk, low + (high - low) * unit


def plain(trunk, parameters, point):
    """The network, written as one would."""
    low, high = trunk.domain.T
    hidden = 2 * (point - low) / (high - low) - 1
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        hidden = torch.tanh(weight @ hidden + bias)
    return torch.cat([hidden, torch.ones(1, dtype=hidden.dtype)])


def nested(trunk, parameters, points, index):
    """A derivative by nested `torch.func.jvp`."""
    function = lambda point: plain(trunk, parameters, point)  # noqa: E731
    for axis in index:
        direction = torch.eye(points.shape[1], dtype=torch.float64)[axis]
        function = lambda point, f=function, d=direction: torch.func.jvp(f, (point,), (d,))[1]  # noqa: E731
    return torch.stack([function(point) for point in points])


@pytest.mark.parametrize("name", CASES)
def test_values_agree_with_nested_jvp(name):
    domain, indices = CASES[name]
    trunk, points = trunk_and_points(domain)
    found = trunk(points, indices)
    for index in indices:
        expected = nested(trunk, list(trunk.parameters()), points, index)
        assert torch.allclose(found[index], expected, rtol=1e-12, atol=1e-12), index


@pytest.mark.parametrize("name", CASES)
def test_gradients_agree_with_autograd_through_nested_jvp(name):
    domain, indices = CASES[name]
    trunk, points = trunk_and_points(domain, seed=1)
    parameters = list(trunk.parameters())
    generator = torch.Generator().manual_seed(2)
    factors = {i: torch.rand((9, 13), generator=generator, dtype=torch.float64) for i in indices}
    found = trunk(points, indices)
    ours = torch.autograd.grad(sum((factors[i] * found[i]).sum() for i in indices), parameters)
    slow = sum((factors[i] * nested(trunk, parameters, points, i)).sum() for i in indices)
    for mine, expected in zip(ours, torch.autograd.grad(slow, parameters), strict=True):
        assert torch.allclose(mine, expected, rtol=1e-11, atol=1e-12)


def test_the_constant_has_no_derivative():
    trunk, points = trunk_and_points([[0, 3]])
    found = trunk(points, [(0, 0)])
    assert (found[()][:, -1] == 1).all()
    assert (found[(0,)][:, -1] == 0).all()
    assert (found[(0, 0)][:, -1] == 0).all()


def test_streams_hold_what_second_derivatives_need_and_no_more():
    assert streams(((0, 0),)) == ((), (0,), (0, 0))
    assert streams(((1, 0),)) == ((), (0,), (1,), (0, 1))
    assert streams(((1,),)) == ((), (1,))


def test_third_order_is_refused():
    with pytest.raises(InputError, match="order 3"):
        streams(((0, 0, 0),))
