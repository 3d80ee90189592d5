"""Validation of a trunk in training by the inverse problems of unseen tasks."""

from collections.abc import Mapping

import numpy as np

from ipbasis.estimates.estimate import estimate
from ipbasis.features.trunk import Trunk
from ipbasis.observations.simulate import long_table
from ipbasis.offline.artefact import Accuracy
from ipbasis.offline.forward import Evaluated
from ipbasis.offline.validation import fingerprint
from ipbasis.problem.declaration import Problem, Tasks


class GaussNewtonValidator:
    """Scores a trunk by the parameter error of Gauss-Newton on the compressed basis.

    Args:
        problem: the problem.
        build: makes a basis of a trunk.
        tasks: unseen tasks.
        points: (n, d) points of observation.
        values: (tasks, n, F) noise-free observations.
    """

    def __init__(self, problem: Problem, build, tasks: Tasks, points: np.ndarray, values: np.ndarray):
        self._problem, self._build, self._tasks = problem, build, tasks
        self.identity = fingerprint(tasks.parameters, tasks.initial, points, values)
        self._observations = long_table(problem, points[None], values)

    def __call__(self, trunk: Trunk, evaluated: Evaluated, due: bool) -> dict[str, float] | None:
        if not due:
            return None
        basis = self._build(trunk)
        table = estimate(basis, self._observations).table
        errors = table[list(self._problem.parameters)].to_numpy() - self._tasks.parameters
        accuracy: Accuracy = basis.record.accuracy
        error = float((errors**2).mean())
        return {
            "score": error,
            "validation_loss": accuracy.residual**2,
            "validation_parameter_mse": error,
            "functions": float(basis.record.functions),
        }

    def state(self) -> dict:
        return {}

    def restore(self, state: Mapping) -> None:
        pass
