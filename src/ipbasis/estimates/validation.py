"""Validation of a trunk in training by the inverse problems of unseen tasks."""

from collections.abc import Mapping
from functools import partial

from ipbasis.errors import InputError
from ipbasis.estimates.estimate import estimate
from ipbasis.features.trunk import Trunk
from ipbasis.observations.simulate import long_table
from ipbasis.offline.build import build_basis
from ipbasis.offline.evaluated import Evaluated
from ipbasis.offline.settings import BasisSettings
from ipbasis.offline.validation import fingerprint, observed, unseen_tasks
from ipbasis.problem.declaration import Problem


class GaussNewtonValidator:
    """Scores a trunk by the parameter error of Gauss-Newton on the compressed basis.

    Args:
        problem: a problem with a reference solution to observe.
        settings: of the basis; its validation says how many observations of how many unseen tasks.

    Raises:
        InputError: if the settings give no number of observations.
    """

    def __init__(self, problem: Problem, settings: BasisSettings):
        if settings.validation.observations is None:
            raise InputError("validation.observations: how many there are of each unseen task is not given")
        tasks, truth = unseen_tasks(problem, settings.validation, settings.quadrature_points)
        points, values = observed(problem, tasks, settings.validation.observations)
        self._names, self._parameters = list(problem.parameters), tasks.parameters
        self._build = partial(build_basis, problem, settings=settings, tasks=tasks, truth=truth)
        self._observations = long_table(problem, points[None], values)
        self.identity = settings.model_dump_json() + fingerprint(tasks.parameters, tasks.initial, points, values)

    def __call__(self, trunk: Trunk, evaluated: Evaluated, due: bool) -> dict[str, float] | None:
        if not due:
            return None
        basis = self._build(trunk)
        errors = estimate(basis, self._observations).table[self._names].to_numpy() - self._parameters
        error = float((errors**2).mean())
        return {
            "score": error,
            "validation_loss": basis.record.accuracy.residual**2,
            "validation_parameter_mse": error,
            "functions": float(basis.record.functions),
        }

    def state(self) -> dict:
        return {}

    def restore(self, state: Mapping) -> None:
        pass
