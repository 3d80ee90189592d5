"""The search on another device: nothing of it may stay behind on the CPU, tried without such a device."""

from dataclasses import fields, replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from simulated import simulated
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from ipbasis.errors import InputError
from ipbasis.estimates.estimate import estimate
from ipbasis.features.interface import Features
from ipbasis.observations.long_form import check_observations
from ipbasis.offline.artefact import Basis
from ipbasis.published.solvers import PublishedAdam
from ipbasis.search import joint
from ipbasis.search.assemble import assemble
from ipbasis.search.gauss_newton import gauss_newton
from ipbasis.search.joint import joint_gauss_newton
from ipbasis.search.physics import AffinePhysics
from ipbasis.search.reduce import reduce_physics
from ipbasis.search.settings import GaussNewtonSettings
from ipbasis.search.solution import Solution


class Elsewhere(torch.Tensor):
    """A tensor as if on another device: no operation takes it together with a tensor of the CPU that has axes."""

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), options=None):
        tensors = [leaf for leaf in tree_leaves((arguments, options or {})) if isinstance(leaf, torch.Tensor)]
        if function is torch.Tensor.cpu:
            return arguments[0].as_subclass(torch.Tensor)
        if function is torch.Tensor.numpy:
            raise TypeError("numpy() of a tensor that is not on the CPU")
        if any(not isinstance(tensor, Elsewhere) and tensor.ndim for tensor in tensors):
            raise TypeError(f"{function.__name__}: tensors on two devices")
        return super().__torch_function__(function, types, arguments, options)


class MadeElsewhere(TorchFunctionMode):
    """Within it tensors are made as if on the other device, as within a `torch.device`."""

    makers = {
        *(torch.arange, torch.as_tensor, torch.empty, torch.eye, torch.full, torch.linspace, torch.ones, torch.rand),
        *(torch.tensor, torch.zeros, torch.tril_indices, torch.triu_indices),
    }

    def __torch_function__(self, function, types, arguments=(), options=None):
        made = function(*arguments, **(options or {}))
        brought = function is torch.Tensor.to and isinstance(arguments[1], torch.device)
        return moved(made, Elsewhere) if brought or function in self.makers else made


def moved(value, kind):
    """Tensors of a value, of a class given by `kind`."""
    return tree_map(lambda leaf: leaf.as_subclass(kind) if isinstance(leaf, torch.Tensor) else leaf, value)


class FeaturesElsewhere:
    """Gives features as if they were on the other device."""

    combined = Features.combined

    def __init__(self, features):
        self.features, self.domain, self.dtype = features, features.domain.as_subclass(Elsewhere), features.dtype

    def __call__(self, points, indices=((),)):
        assert isinstance(points, Elsewhere)
        return moved(self.features(points.as_subclass(torch.Tensor), indices), Elsewhere)


@pytest.mark.parametrize("name", ["basis", "lotka_volterra_basis"])
@pytest.mark.parametrize("layout", ["common", "own"])
@pytest.mark.parametrize("given", [False, True])
def test_nothing_of_the_search_stays_on_the_cpu(name, layout, given, request):
    """Each query has noise of its own if it is given, a prior and a known initial value."""
    basis = request.getfixturevalue(name)
    parameter = next(iter(basis.problem.parameters))
    problem = basis.problem.with_knowledge(priors={parameter: {"normal": [1.0, 1.0]}}, bounds={parameter: [0, None]})
    basis = basis.for_problem(problem)
    table, tasks, _ = simulated(problem, 6, 40, std=0.01, layout=layout)
    table["initial_" + problem.fields[0]] = tasks.initial[table["query"], 0]
    batch = next(check_observations(table, problem).batches(6))
    settings = GaussNewtonSettings()

    def found(basis: Basis) -> Solution:
        std = torch.as_tensor(np.full_like(batch.values, 0.01)) if given else None
        noise = torch.ones(6, dtype=torch.float64) if given else None
        physics = reduce_physics(basis)
        assembled = partial(assemble, basis, batch=batch, std=std)
        if isinstance(physics, AffinePhysics):
            return gauss_newton(assembled(physics), basis.record.accuracy, settings, noise)
        return joint_gauss_newton(assembled, physics, settings, noise)

    here = found(basis)
    vars(joint._memory).clear()  # scratch memory of the CPU
    with MadeElsewhere():
        transform = basis.transform.as_subclass(Elsewhere)
        there = found(replace(basis, features=FeaturesElsewhere(basis.features), transform=transform))
    vars(joint._memory).clear()
    for part in fields(there):
        assert isinstance(getattr(there, part.name), Elsewhere), part.name
    assert np.array(there.parameters.tolist()) == pytest.approx(here.parameters.numpy(), rel=1e-6)


def test_two_devices_are_told_apart():
    """The pretence itself."""
    with MadeElsewhere():
        there = torch.zeros(3)
    with pytest.raises(TypeError, match="two devices"):
        torch.add(there, torch.ones(3))
    with pytest.raises(TypeError, match="not on the CPU"):
        there.numpy()


def test_estimates_come_back(basis):
    """On another device of the same kind, the result is the same."""
    table, _, _ = simulated(basis.problem, 3, 30)
    here, there = estimate(basis, table), estimate(basis, table, device="cpu:0")
    assert there.table["a1"].to_numpy() == pytest.approx(here.table["a1"].to_numpy(), rel=1e-6)
    assert (there.table["status"] == "ok").all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["basis", "lotka_volterra_basis"])
def test_estimates_on_a_gpu(name, request):
    basis = request.getfixturevalue(name)
    table, _, _ = simulated(basis.problem, 20, 60, std=0.01)
    here, there = estimate(basis, table).table, estimate(basis, table, device="cuda").table
    for parameter in basis.problem.parameters:
        difference = (here[parameter] - there[parameter]).abs()
        assert (difference < 0.05 * here[f"{parameter}_std"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "abacus"}, "device 'abacus' is not to be had here .*; 'cpu' always is"),
        (
            {"device": "cuda", "solver": PublishedAdam()},
            "device 'cuda' is for the solvers 'gauss_newton' and 'library'",
        ),
    ],
)
def test_a_device_that_will_not_do_is_told(basis, options, message):
    with pytest.raises(InputError, match=message):
        estimate(basis, pd.DataFrame(), **options)
