"""The basis for real queries is one that holds between the points of its training, too."""

import numpy as np
import torch

from ipbasis.features.quadrature import gauss_legendre
from ipbasis.features.trunk import Trunk, TrunkSettings
from ipbasis.offline.build import build_basis
from ipbasis.offline.settings import BuildSettings, CompressionSettings, ForwardSettings
from ipbasis.reference.ode import integrate
from pipelines.report.best import error_between


def test_features_that_are_steep_between_the_points_are_found(oscillator):
    """A first layer a thousand times as steep jumps between any two points of a coarse rule."""
    forward = ForwardSettings(condition_weight=100, condition_points=1, rank_tolerance=1e-12)
    compression = CompressionSettings(tasks=100, tolerance=1e-10, seed=1)
    tasks = oscillator.sample_tasks(20, np.random.default_rng(5))
    truth = integrate(oscillator, tasks, gauss_legendre(oscillator.domain, 60).points[:, 0].numpy())
    errors = []
    for scale in (1, 1000):
        size = TrunkSettings(width=40, depth=4, dtype="float64", first_layer_scale=scale)
        trunk = Trunk(oscillator.domain, size, torch.Generator().manual_seed(0)).requires_grad_(False)
        settings = BuildSettings(trunk=size, forward=forward, compression=compression, quadrature_points=60)
        errors.append(error_between(build_basis(oscillator, trunk, settings, tasks, truth)))
    assert errors[0] < 1e-7
    assert errors[1] > 1e-2
