"""From raw features to a small orthonormal basis, best functions first."""

import numpy as np
import torch
from torch import Tensor

from ipbasis.features.quadrature import Quadrature
from ipbasis.offline.evaluated import energy_coordinates
from ipbasis.offline.forward import ForwardProblem
from ipbasis.offline.operators import FeatureMap
from ipbasis.offline.settings import CompressionSettings, ForwardSettings
from ipbasis.problem.declaration import Problem


def compress(
    problem: Problem,
    features: FeatureMap,
    quadrature: Quadrature,
    forward: ForwardSettings,
    settings: CompressionSettings,
) -> Tensor:
    """Combinations of features that span the forward solutions of many tasks.

    POD of the solutions, each scaled to size 1, in a norm of the value and of every derivative in the
    equation, so that what is dropped is small in the residual too. The functions kept are then made
    orthonormal over the domain (mean of products), each to those of larger share in the solutions.

    Returns:
        (H, K) float64, so that ``features @ result`` are the K functions.
    """
    solver = ForwardProblem(problem, forward.model_copy(update={"ridge": {}}), quadrature.points.dtype)
    with torch.no_grad():
        evaluated = solver.evaluate(features, quadrature.points).detached()
    root = quadrature.weights.double().sqrt()[:, None]
    weighted = {index: values * root for index, values in evaluated.features.items()}
    energy = energy_coordinates(weighted, problem.domain, forward.rank_tolerance_of(quadrature.points.dtype))
    tasks = problem.sample_tasks(settings.tasks, np.random.default_rng(settings.seed))
    readouts = solver.solve(evaluated, quadrature, tasks).readouts
    inside = torch.linalg.lstsq(energy, readouts.flatten(0, 1).T, driver="gelsd").solution  # (r, tasks F)
    sizes = inside.unflatten(1, readouts.shape[:2]).square().sum((0, 2), keepdim=True).sqrt()
    snapshots = (inside.unflatten(1, readouts.shape[:2]) / sizes).flatten(1)
    directions, strengths, _ = torch.linalg.svd(snapshots, full_matrices=False)
    lost = strengths.square().flip(0).cumsum(0).flip(0).sqrt() / strengths.norm()
    kept = int((lost > settings.tolerance).sum())
    transform = energy @ directions[:, :kept]

    for _ in range(2):  # a second time: the first loses digits where functions nearly coincide
        _, triangular = torch.linalg.qr(weighted[()] @ transform, mode="r")
        transform = torch.linalg.solve_triangular(triangular, transform, upper=True, left=False)
    return transform.contiguous()
