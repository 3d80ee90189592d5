"""Parameters to start from, found without a guess."""

from dataclasses import replace

import torch
from torch import Tensor

from ipbasis.offline.artefact import Accuracy
from ipbasis.search.elimination import eliminate
from ipbasis.search.online import Online
from ipbasis.search.settings import GaussNewtonSettings
from ipbasis.search.weights import Weights, balanced_weight, weights_for

_SMALL_NOISE = 1e-4  # relative to the observations: at a large one the equation would be traded against the data
_SMOOTHINGS = (1e-5, 1e-1)  # physics against data, in the roots
_COVERING = 16  # starts over the ranges, where the conditions determine the solution


def candidates(online: Online, weights: Weights) -> list[Tensor]:
    """Parameters to start from, found without a guess.

    The middle of the ranges, and least squares on the residual of fits to the data that are smoothed little
    or much by the physics at that middle (exact for clean data where the parameters enter linearly).
    """
    low, high = online.ranges.T
    middle = online.priors.clip(torch.where(online.priors.std.isfinite(), online.priors.mode, (low + high) / 2))
    middle = torch.where(online.known.isnan(), middle, online.known)
    thetas = online.physics.thetas(middle)
    starts = [middle]
    balance = balanced_weight(online, weights.data)
    for smoothing in _SMOOTHINGS:
        smooth = eliminate(online, middle, replace(weights, physics=smoothing * balance))
        residual = online.physics.apply(thetas, smooth.coordinates[:, None]).squeeze(1) + online.physics.source(thetas)
        slope = online.physics.operator_slope(middle, smooth.coordinates) * online.free[:, None] * (high - low)
        ridge = torch.diag_embed(1e-12 * slope.abs().amax((1, 2))[:, None] + 1 - online.free)
        rows = torch.cat([slope, ridge], dim=1)
        right = torch.cat([-residual, torch.zeros_like(middle)], dim=1)
        # the default driver of the CPU reads memory that it has not set, and its bits differ from time to time
        driver = None if rows.is_cuda else "gelsd"
        step = torch.linalg.lstsq(rows, right[..., None], driver=driver).solution.squeeze(2)
        moved = middle + step.nan_to_num(0.0, 0.0, 0.0).clamp(-1, 1) * (high - low) * online.free
        starts.append(torch.where(online.free > 0, online.priors.clip(moved), middle))
    return starts


def best_start(online: Online, accuracy: Accuracy, settings: GaussNewtonSettings) -> tuple[Tensor, Tensor]:
    """The best start (B, P), and the noise (B,) to search with at first.

    Where the readouts are free the start of the lowest objective is taken, at a small noise: at a large one
    the equation would be traded against the data. Where the conditions determine the solution, points that
    cover the ranges are tried too, and the data decide alone, by the misfit of their solutions: it is the
    noise at first, for a smaller one would trust noisy data more than the equation.
    """
    noise = _SMALL_NOISE * online.amplitude
    weights = weights_for(online, noise.maximum(accuracy.floor * online.amplitude), accuracy, settings.physics_weight)
    starts = candidates(online, weights)
    if online.physics.determined:
        low, high = online.ranges.T
        covering = torch.quasirandom.SobolEngine(len(low)).draw(_COVERING, dtype=low.dtype)
        covered = [online.priors.clip(low + (high - low) * unit) for unit in covering]
        starts += [torch.where(online.known.isnan(), at, starts[0]) for at in covered]
        weights = replace(weights, data=torch.zeros_like(noise))
    points = [eliminate(online, start, weights) for start in starts]
    if online.physics.determined:
        target = online.data_target.flatten(1)
        misfits = [online.observed(point.coordinates[:, None]).squeeze(1) - target for point in points]
        values = torch.stack([misfit.square().sum(1) for misfit in misfits]) + online.data_rest.sum(1)
    else:
        values = torch.stack([point.objective for point in points])
    lowest, chosen = values.nan_to_num(torch.inf).min(0)
    if online.physics.determined:
        noise = (lowest / online.counts.sum(1)).sqrt()
    return torch.stack(starts)[chosen, torch.arange(len(online))], noise
