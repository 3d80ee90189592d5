"""The published validation of a trunk in training: inverse problems trained beside it."""

from collections.abc import Mapping

import torch
from pydantic import PositiveFloat, PositiveInt

from ipbasis.features.quadrature import equispaced
from ipbasis.features.trunk import Trunk
from ipbasis.offline.evaluated import Evaluated
from ipbasis.offline.operators import Operators, check_plain, conditions
from ipbasis.offline.settings import ForwardSettings, ValidationSettings
from ipbasis.offline.validation import fingerprint, observed
from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.published.adam import AdamReadouts, AdamSettings, QuadraticForms


class AdamValidationSettings(ValidationSettings):
    """Unseen tasks whose parameters are estimated beside the training.

    Args:
        observations: noise-free observations of each, equispaced.
        learning_rate: of Adam.
    """

    observations: PositiveInt
    learning_rate: PositiveFloat


class AdamValidator:
    """The published validation: inverse problems trained beside the trunk, one Adam step for each of its own.

    Their loss is residual + initial values + data, on the collocation points of the training. The score is
    their parameter error at that moment.

    Args:
        problem: a problem with a reference solution to observe.
        tasks: unseen tasks.
        settings: observations and learning rate.
        forward: weight and points of the conditions.
        collocation_points: equispaced points of the residual.
        trunk: the trunk in training, for the number and the type of its features.
    """

    def __init__(
        self,
        problem: Problem,
        tasks: Tasks,
        settings: AdamValidationSettings,
        forward: ForwardSettings,
        collocation_points: int,
        trunk: Trunk,
    ):
        self._problem, dtype = problem, trunk.domain.dtype
        points, values = observed(problem, tasks, settings.observations)
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
            problem.system, start, len(tasks), trunk.feature_count * len(problem.fields), search, dtype
        )
        self._truth = torch.as_tensor(tasks.parameters, dtype=dtype)
        check_plain(problem)
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
