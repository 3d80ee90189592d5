"""SOAP: its steps, and valleys that it follows while Adam crosses them."""

import pytest
import torch

from ipbasis.offline.soap import Soap


def valley(generator):
    """Loss of a matrix and a bias whose curvatures span 1e6 along turned axes; 0 at the minimum."""
    turns = [torch.linalg.qr(torch.randn(8, 8, generator=generator, dtype=torch.float64))[0] for _ in range(2)]
    sizes = torch.logspace(0, -1.5, 8, dtype=torch.float64)
    matrix, bias = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((8, 8), (8,)))
    parameters = [matrix.requires_grad_(), bias.requires_grad_()]

    def loss():
        turned = turns[0] @ matrix @ turns[1]
        return (sizes[:, None] * turned * sizes).square().sum() + (sizes * (turns[0] @ bias)).square().sum()

    return parameters, loss


def descend(optimiser, loss, steps):
    for _ in range(steps):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    return loss().item()


def test_turned_valleys_are_followed():
    """At the same rate the loss ends 20 times lower than Adam's."""
    ends = {}
    for make in (Soap, torch.optim.Adam):
        parameters, loss = valley(torch.Generator().manual_seed(0))
        optimiser = make(parameters, lr=1e-2)
        start = loss().item()
        ends[make] = descend(optimiser, loss, 400) / start
    assert ends[Soap] < 0.05 * ends[torch.optim.Adam]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_step_is_that_of_adam_in_the_eigenbasis(dtype):
    """A gradient of rank one that stays the same: every step is the learning rate along it, once it is measured."""
    one, other = torch.tensor([0.6, 0.8], dtype=dtype), torch.tensor([0.0, 1.0, 0.0], dtype=dtype)
    weight = torch.zeros(2, 3, dtype=dtype, requires_grad=True)
    optimiser = Soap([weight], lr=0.1, refresh=2, eps=1e-3)
    for step in range(6):
        weight.grad = 5 * torch.outer(one, other)
        optimiser.step()
        assert torch.allclose(weight, -0.1 * step * torch.outer(one, other), rtol=1e-3, atol=1e-6)
