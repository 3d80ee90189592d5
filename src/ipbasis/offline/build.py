"""From a trunk to a basis: compressed, and its accuracy measured."""

from collections.abc import Mapping
from math import log

import numpy as np
import torch
from torch import Tensor

from ipbasis.features.quadrature import gauss_legendre
from ipbasis.features.trunk import Trunk, TrunkSettings
from ipbasis.offline.accuracy import measure_accuracy
from ipbasis.offline.artefact import Accuracy, Basis, Record, versions
from ipbasis.offline.compression import CompressionSettings, compress
from ipbasis.offline.forward import ForwardSettings
from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.problem.equations import MultiIndex

_FEWEST = 30  # functions that will do for a first search
_MORE = 1.7  # times as many in the next


def build_basis(
    problem: Problem,
    trunk: Trunk,
    trunk_settings: TrunkSettings,
    forward: ForwardSettings,
    compression: CompressionSettings | None,
    quadrature_points: int,
    tasks: Tasks,
    truth: np.ndarray | None,
    **record: object,
) -> Basis:
    """A basis from a trunk: compressed, and its accuracy measured.

    Args:
        problem: the problem.
        trunk: raw features.
        trunk_settings: of the trunk as its training began; the number type may have changed since.
        forward: how the forward problem is posed.
        compression: None to keep the raw features as they are, as the published recipe does.
        quadrature_points: points along each coordinate at which residuals are taken.
        tasks: unseen tasks on which the accuracy is measured.
        truth: (tasks, n, F) their solutions at the quadrature points, or None.
        record: further entries of the artefact's record.
    """
    quadrature = gauss_legendre(problem.domain, quadrature_points, trunk.domain.dtype)
    with torch.no_grad():
        if compression is None:
            transform = torch.eye(trunk.feature_count, dtype=torch.float64)
        else:
            transform = compress(problem, trunk, quadrature, forward, compression)

    def accuracy(functions: int) -> Accuracy:
        """That of the first functions alone."""

        def leading(points: Tensor, indices: tuple[MultiIndex, ...]) -> Mapping[MultiIndex, Tensor]:
            raw = trunk(points, indices)
            return {index: values.double() @ transform[:, :functions] for index, values in raw.items()}

        return measure_accuracy(problem, leading, quadrature, forward, tasks, truth)

    functions = transform.shape[1]
    stages = [] if compression is None or problem.system.affine is not None else _stages(functions)
    dtype = str(trunk.domain.dtype).removeprefix("torch.")
    described = Record(
        problem=problem,
        trunk=trunk_settings.model_copy(update={"dtype": dtype}),
        functions=functions,
        quadrature_points=quadrature_points,
        accuracy=accuracy(functions),
        leading={stage: accuracy(stage) for stage in stages},
        versions=versions(),
        **record,
    )
    return Basis(trunk, transform, described)


def _stages(functions: int) -> list[int]:
    """Numbers of leading functions that a nonlinear search begins with, none where there are few functions."""
    count = int(log(max(1.0, functions / _FEWEST)) / log(_MORE))
    return [round(functions / _MORE**power) for power in range(count, 0, -1)]
