"""From a trunk to a basis: compressed, and its accuracy measured."""

from collections.abc import Mapping
from math import log

import numpy as np
import torch
from torch import Tensor

from ipbasis.features.interface import rounding_error
from ipbasis.features.quadrature import Quadrature, gauss_legendre
from ipbasis.features.trunk import Trunk
from ipbasis.offline.accuracy import measure_accuracy
from ipbasis.offline.artefact import Accuracy, Basis, Record, versions
from ipbasis.offline.compression import compress
from ipbasis.offline.settings import BasisSettings, BuildSettings
from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.problem.equations import MultiIndex

# Stages of a nonlinear search: functions that will do for the first, and how many times as many in the next. On
# Lotka-Volterra (95 functions, 200 queries with 5 % noise) the stages (33, 56) that follow take 2.0 s of a core, all
# functions at once 5.2 s, 33 alone before all 3.6 s, (24, 40, 70) 1.6 s, (12, 20, 33, 56) 5.0 s; the median error of
# the parameters is 0.0056 with each, but for the last, 0.0057.
_FEWEST, _MORE = 30, 1.7


def build_basis(
    problem: Problem,
    trunk: Trunk,
    settings: BuildSettings,
    tasks: Tasks,
    truth: np.ndarray | None,
    figures: Mapping[str, float] | None = None,
) -> Basis:
    """A basis from a trunk: compressed, and its accuracy measured.

    Args:
        problem: the problem.
        trunk: raw features; their number type may have changed in training.
        settings: what the basis is made with; they go into its record.
        tasks: unseen tasks on which the accuracy is measured.
        truth: (tasks, n, F) their solutions at the quadrature points, or None.
        figures: of the training, for the record.
    """
    quadrature = gauss_legendre(problem.domain, settings.quadrature_points, trunk.domain.dtype)
    transform = _transform(problem, trunk, quadrature, settings)

    def accuracy(functions: int) -> Accuracy:
        """That of the first functions alone."""

        def leading(points: Tensor, indices: tuple[MultiIndex, ...]) -> Mapping[MultiIndex, Tensor]:
            return trunk.combined(points, indices, transform[:, :functions])

        return measure_accuracy(problem, leading, quadrature, settings.forward, tasks, truth)

    functions = transform.shape[1]
    stages = [] if settings.compression is None or problem.system.affine is not None else stages_of(functions)
    dtype = str(trunk.domain.dtype).removeprefix("torch.")
    record = Record(
        problem=problem,
        features=settings.trunk.model_copy(update={"dtype": dtype}),
        functions=functions,
        quadrature_points=settings.quadrature_points,
        accuracy=accuracy(functions),
        rounding=rounding_error(trunk, transform, quadrature.points),
        leading={stage: accuracy(stage) for stage in stages},
        settings=settings if isinstance(settings, BasisSettings) else settings.model_dump(mode="json"),
        versions=versions(),
        figures=figures or {},
    )
    return Basis(trunk, transform, record)


@torch.no_grad()
def _transform(problem: Problem, trunk: Trunk, quadrature: Quadrature, settings: BuildSettings) -> Tensor:
    """(H + 1, K) combinations of the raw features that are the functions."""
    if settings.compression is None:
        return torch.eye(trunk.feature_count, dtype=torch.float64)
    return compress(problem, trunk, quadrature, settings.forward, settings.compression)


def stages_of(functions: int) -> list[int]:
    """Numbers of leading functions that a nonlinear search begins with, none where there are few functions."""
    count = int(log(max(1.0, functions / _FEWEST)) / log(_MORE))
    return [round(functions / _MORE**power) for power in range(count, 0, -1)]
