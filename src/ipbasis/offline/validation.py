"""Validation of a trunk in training by the forward problems of unseen tasks."""

import hashlib
from collections.abc import Mapping
from copy import deepcopy

import numpy as np
import torch

from ipbasis.features.quadrature import equispaced, gauss_legendre
from ipbasis.features.trunk import Trunk
from ipbasis.offline.accuracy import measure_accuracy
from ipbasis.offline.evaluated import Evaluated
from ipbasis.offline.settings import ForwardSettings, ValidationSettings
from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.reference.solutions import has_reference, solutions


def unseen_tasks(
    problem: Problem, validation: ValidationSettings, quadrature_points: int
) -> tuple[Tasks, np.ndarray | None]:
    """The tasks that a trunk is scored on, and the finished basis is measured on.

    Returns:
        the tasks, and their solutions (tasks, n, F) at the quadrature points; None without a reference.
    """
    tasks = problem.sample_tasks(validation.queries, np.random.default_rng(validation.seed))
    if not has_reference(problem):
        return tasks, None
    points = gauss_legendre(problem.domain, quadrature_points).points.numpy()
    return tasks, solutions(problem, tasks, points[None])


def observed(problem: Problem, tasks: Tasks, count: int) -> tuple[np.ndarray, np.ndarray]:
    """About `count` equispaced points (n, d) and the noise-free solutions (tasks, n, F) there.

    Raises:
        InputError: if the problem has no reference solution to observe.
    """
    points = equispaced(problem.domain, count, torch.float64).numpy()
    return points, solutions(problem, tasks, points[None])


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
