"""The published validation of a trunk in training: inverse problems trained beside it."""

from collections.abc import Callable, Mapping

import numpy as np
import torch

from ipbasis.estimates.validation import GaussNewtonValidator
from ipbasis.features.quadrature import equispaced
from ipbasis.features.trunk import Trunk, TrunkSettings
from ipbasis.offline.artefact import Basis
from ipbasis.offline.forward import Evaluated, ForwardSettings
from ipbasis.offline.heads import TrainingSettings
from ipbasis.offline.operators import Operators, conditions
from ipbasis.offline.training import Validator
from ipbasis.offline.validation import ForwardValidator, ValidationSettings, fingerprint
from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.published.adam import AdamReadouts, AdamSettings, QuadraticForms
from ipbasis.reference.solutions import solutions


class AdamValidator:
    """The published validation: inverse problems trained beside the trunk, one Adam step for each of its own.

    Their loss is residual + initial values + data, on the collocation points of the training. The score is
    their parameter error at that moment.

    Args:
        problem: the problem.
        trunk_features: number of raw features, the constant included.
        settings: learning rate.
        forward: weight and points of the conditions.
        collocation_points: equispaced points of the residual.
        tasks: unseen tasks.
        points: (n, d) points of observation.
        values: (tasks, n, F) noise-free observations.
        dtype: number type of the trunk.
    """

    def __init__(
        self,
        problem: Problem,
        trunk_features: int,
        settings: ValidationSettings,
        forward: ForwardSettings,
        collocation_points: int,
        tasks: Tasks,
        points: np.ndarray,
        values: np.ndarray,
        dtype: torch.dtype,
    ):
        self._problem = problem
        self.identity = settings.model_dump_json() + fingerprint(tasks.parameters, tasks.initial, points, values)
        search = AdamSettings(
            steps=1,
            learning_rate=settings.learning_rate,
            drop_after=None,
            physics_weight=1.0,
            collocation_points=collocation_points,
        )
        start = torch.as_tensor(problem.parameter_ranges.mean(1))
        self._search = AdamReadouts(
            problem.system, start, len(tasks), trunk_features * len(problem.fields), search, dtype
        )
        self._truth = torch.as_tensor(tasks.parameters, dtype=dtype)
        self._conditions = conditions(problem, forward.condition_points, dtype)
        collocation = equispaced(problem.domain, collocation_points, dtype)
        self._operators = Operators(problem.system, collocation, len(problem.fields))
        self._mean = len(collocation) ** -0.5
        self._observed = torch.as_tensor(points, dtype=dtype)
        self._weight = forward.condition_weight**0.5
        initial = self._conditions.targets(torch.as_tensor(tasks.initial, dtype=dtype))
        data = torch.as_tensor(values, dtype=dtype).transpose(1, 2).flatten(1) * len(points) ** -0.5
        self._targets = torch.cat([data, self._weight * initial], dim=1)
        self._step = 0

    def __call__(self, trunk: Trunk, evaluated: Evaluated, due: bool) -> dict[str, float] | None:
        with torch.no_grad():
            seen = trunk(self._observed)[()] * len(self._observed) ** -0.5
            factor = self._operators.rows(evaluated.features).flatten(1, 2) * self._mean
            data = torch.block_diag(*[seen] * len(self._problem.fields))
            data = torch.cat([data, self._weight * evaluated.condition_rows])
            loss = self._search.step(QuadraticForms(self._problem.system, data, self._targets, factor), self._step)
        self._step += 1
        if not due:
            return None
        error = (self._search.parameters - self._truth).square().mean().item()
        return {"score": error, "validation_loss": loss.mean().item(), "validation_parameter_mse": error}

    def state(self) -> dict:
        return {**self._search.state(), "step": self._step}

    def restore(self, state: Mapping) -> None:
        self._search.restore(state)
        self._step = state["step"]


def make_validator(
    problem: Problem,
    trunk_settings: TrunkSettings,
    training: TrainingSettings,
    forward: ForwardSettings,
    settings: ValidationSettings,
    quadrature_points: int,
    build: Callable[[Trunk], Basis],
    tasks: Tasks,
    truth: np.ndarray | None,
) -> Validator:
    """The validator that the settings ask for.

    Args:
        problem: the problem.
        trunk_settings: size of the trunk.
        training: recipe.
        forward: how the forward problem is posed.
        settings: what the trunk is scored on.
        quadrature_points: points along each coordinate at which the forward problem is scored.
        build: makes a basis of a trunk.
        tasks: unseen tasks.
        truth: (tasks, n, F) their solutions at the quadrature points, or None.

    Raises:
        InputError: if inverse problems are asked for and the problem has no reference solution to observe.
    """
    if settings.observations is None:
        return ForwardValidator(problem, forward, quadrature_points, tasks, truth)
    seen = equispaced(problem.domain, settings.observations, torch.float64).numpy()
    values = solutions(problem, tasks, seen[None])
    if settings.learning_rate is None:
        return GaussNewtonValidator(problem, build, tasks, seen, values)
    features = Trunk(problem.domain, trunk_settings, torch.Generator()).feature_count
    dtype = getattr(torch, trunk_settings.dtype)
    return AdamValidator(problem, features, settings, forward, training.collocation_points, tasks, seen, values, dtype)
