"""Validation of a trunk in training by the forward problems of unseen tasks."""

import hashlib
from collections.abc import Mapping
from copy import deepcopy

import numpy as np
from pydantic import PositiveFloat, PositiveInt, model_validator

from ipbasis.features.quadrature import gauss_legendre
from ipbasis.features.trunk import Trunk
from ipbasis.offline.accuracy import measure_accuracy
from ipbasis.offline.forward import Evaluated, ForwardSettings
from ipbasis.problem.declaration import Declared, Problem, Tasks


class ValidationSettings(Declared):
    """Unseen tasks that a trunk is scored on.

    Args:
        queries: number of tasks.
        seed: of the tasks.
        observations: noise-free observations of each, equispaced, from which its parameters are estimated;
            None to score by the forward problem instead, which needs no solver of the inverse problem.
        learning_rate: of Adam, where the inverse problems are solved beside the training, as published.
    """

    queries: PositiveInt
    seed: int
    observations: PositiveInt | None = None
    learning_rate: PositiveFloat | None = None

    @model_validator(mode="after")
    def _check(self) -> "ValidationSettings":
        if self.learning_rate is not None and self.observations is None:
            raise ValueError("learning_rate: applies only where observations are given")
        return self


def fingerprint(*arrays: np.ndarray) -> str:
    """Checksum of some arrays."""
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


class ForwardValidator:
    """Scores a trunk by the relative residual of the forward problem in the span of its raw features, in float64.

    Args:
        problem: the problem.
        forward: how the forward problem is posed.
        quadrature_points: points along each coordinate at which residual and error are taken.
        tasks: unseen tasks.
        truth: (tasks, n, F) their solutions at the quadrature points, or None.
    """

    def __init__(
        self,
        problem: Problem,
        forward: ForwardSettings,
        quadrature_points: int,
        tasks: Tasks,
        truth: np.ndarray | None,
    ):
        self._problem, self._forward, self._count = problem, forward, quadrature_points
        self._tasks, self._truth = tasks, truth
        self.identity = fingerprint(tasks.parameters, tasks.initial, np.array(quadrature_points))

    def __call__(self, trunk: Trunk, evaluated: Evaluated, due: bool) -> dict[str, float] | None:
        if not due:
            return None
        quadrature = gauss_legendre(self._problem.domain, self._count)
        trunk = deepcopy(trunk).double()
        accuracy = measure_accuracy(self._problem, trunk, quadrature, self._forward, self._tasks, self._truth)
        metrics = {"validation_loss": accuracy.residual**2, "validation_worst_residual": accuracy.worst_residual}
        if accuracy.solution is not None:
            metrics |= {"validation_solution_error": accuracy.solution}
        return {"score": accuracy.residual, **metrics}

    def state(self) -> dict:
        return {}

    def restore(self, state: Mapping) -> None:
        pass
