"""The published recipe: the readouts of a fixed set of tasks are trained along with the trunk.

Reference: Manor & Kohandel, arXiv 2509.07245.
"""

from typing import Literal

import numpy as np
import torch
from pydantic import NonNegativeFloat, model_validator
from torch import Tensor, nn

from ipbasis.errors import InputError
from ipbasis.features.quadrature import equispaced
from ipbasis.features.trunk import Trunk
from ipbasis.offline.evaluated import Evaluated
from ipbasis.offline.forward import ForwardProblem
from ipbasis.offline.settings import ForwardSettings, TrainingSettings
from ipbasis.problem.declaration import Declared, Problem, Tasks


class ResidualRamp(Declared):
    """Weight of the residual in the course of a training: 0, then growing evenly, then constant.

    Args:
        begin: share of the steps after which the weight is `low`.
        end: share of the steps from which on it is `high`.
        low: weight at `begin`; it is 0 before.
        high: weight from `end` on.
    """

    begin: NonNegativeFloat
    end: NonNegativeFloat
    low: NonNegativeFloat
    high: NonNegativeFloat

    @model_validator(mode="after")
    def _check(self) -> "ResidualRamp":
        if not self.begin < self.end <= 1:
            raise ValueError(f"begin {self.begin:g}, end {self.end:g}: shares of the steps, begin before end")
        return self

    def weight(self, share: float) -> float:
        """The weight after a share of the steps."""
        if share < self.begin:
            return 0.0
        return self.low + (self.high - self.low) * min((share - self.begin) / (self.end - self.begin), 1.0)


class TrainedHeadsSettings(TrainingSettings):
    """Training of the published recipe.

    Args:
        recipe: name of the recipe.
        tasks: the fixed tasks: a value per task for each parameter, and for each initial value that has a range;
            None to draw them.
        residual_ramp: how the weight of the residual grows; None for a weight of 1.
    """

    recipe: Literal["trained_heads"] = "trained_heads"
    tasks: dict[str, list[float]] | None = None
    residual_ramp: ResidualRamp | None = None


def given_tasks(problem: Problem, values: dict[str, list[float]], count: int) -> Tasks:
    """Tasks whose parameters and free initial values are listed.

    Raises:
        InputError: if a name is missing or unknown, or a list is of another length.
    """
    initial = [problem.notation.jet_name(jet) for jet in problem.free_initial]
    names = [*problem.parameters, *initial]
    if set(values) != set(names):
        raise InputError(f"tasks: {', '.join(values)} given; {problem.name} needs {', '.join(names)}")
    if wrong := [name for name in names if len(values[name]) != count]:
        raise InputError(f"tasks: {len(values[wrong[0]])} values of {wrong[0]} for {count} tasks")
    table = np.array([values[name] for name in names], dtype=float).T
    return Tasks(table[:, : len(problem.parameters)], table[:, len(problem.parameters) :])


class TrainedHeads:
    """Fixed tasks, an equispaced grid, readouts trained along with the trunk.

    Initial readouts are uniform, as `torch.nn.Linear` draws them.

    Args:
        problem: a problem without unknown terms.
        trunk: the trunk to train.
        settings: tasks, points and weights of the loss.
        forward: how the forward problem is posed.
        generator: source of the initial readouts.
    """

    def __init__(
        self,
        problem: Problem,
        trunk: Trunk,
        settings: TrainedHeadsSettings,
        forward: ForwardSettings,
        generator: torch.Generator,
    ):
        self.forward, self._settings = ForwardProblem(problem, forward, trunk.domain.dtype), settings
        if settings.tasks is None:
            self._tasks = problem.sample_tasks(settings.readouts, np.random.default_rng(settings.seed))
        else:
            self._tasks = given_tasks(problem, settings.tasks, settings.readouts)
        self._points = equispaced(problem.domain, settings.collocation_points, trunk.domain.dtype)
        self._reference = self.forward.data(self._tasks, self._points)
        shape = (settings.readouts, len(problem.fields), trunk.feature_count)
        draw = torch.rand(shape, generator=generator, dtype=torch.float64)
        self.trained = nn.Module()
        self.trained.readouts = nn.Parameter(
            ((trunk.feature_count - 1) ** -0.5 * (2 * draw - 1)).to(trunk.domain.dtype)
        )

    def loss(self, trunk: Trunk, step: int) -> tuple[dict[str, Tensor], Evaluated]:
        """Terms of the loss at a step, of which ``loss`` is to be minimised, and the features behind it."""
        evaluated = self.forward.evaluate(trunk, self._points)
        ramp = self._settings.residual_ramp
        weight = 1.0 if ramp is None else ramp.weight(step / self._settings.steps)
        losses = self.forward.losses(
            evaluated,
            self._points,
            self._tasks,
            self.trained.readouts,
            reference=self._reference,
            residual_weight=weight,
        )
        return {name: values.mean() for name, values in losses.items()}, evaluated
