"""How one training step gets its readouts: eliminated by linear algebra, or trained along as published."""

from typing import Literal, Protocol

import numpy as np
import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from ipbasis.basis.forward import Evaluated, ForwardProblem, ForwardSettings
from ipbasis.basis.network import Trunk
from ipbasis.basis.quadrature import equispaced, stratified
from ipbasis.problem import Declared, Problem


class TrainingSettings(Declared):
    """Settings of the offline training.

    Args:
        recipe: ``variable_projection`` draws new tasks every step and eliminates their readouts by linear
            algebra; ``trained_heads`` trains the readouts of a fixed set of tasks along with the trunk, as
            published.
        readouts: tasks per step.
        steps: Adam steps at most.
        learning_rate: of Adam; with `decay` it falls to 1 % along a cosine.
        decay: whether the learning rate falls.
        collocation_points: points at which the residual is taken, per step.
        validate_every: steps between two validations.
        patience: validations without a better score after which training stops; None to run all steps.
        seed: of initial weights, tasks and points.
    """

    recipe: Literal["variable_projection", "trained_heads"]
    readouts: PositiveInt
    steps: PositiveInt
    learning_rate: PositiveFloat
    decay: bool
    collocation_points: PositiveInt
    validate_every: PositiveInt
    patience: PositiveInt | None
    seed: int


class Recipe(Protocol):
    """Gives the loss of one step, and the tensors to train besides the trunk."""

    heads: nn.Module

    def loss(self, trunk: Trunk, step: int) -> tuple[dict[str, Tensor], Evaluated]:
        """Terms of the loss at a step, of which ``loss`` is to be minimised, and the features behind it."""


class VariableProjection:
    """Tasks and points drawn anew each step, readouts eliminated.

    For each task the best readout w*(R) of the trunk R is found by least squares; by the envelope theorem
    the gradient of the task's loss by R is the one with w* held fixed.

    Reference: Golub & Pereyra, SIAM J. Numer. Anal. 10 (1973) 413.
    """

    def __init__(
        self,
        problem: Problem,
        trunk: Trunk,
        settings: TrainingSettings,
        forward: ForwardSettings,
        generator: torch.Generator,
    ):
        self.problem, self.settings = problem, settings
        self.forward = ForwardProblem(problem, forward, trunk.domain.dtype)
        self.heads = nn.Module()

    def loss(self, trunk: Trunk, step: int) -> tuple[dict[str, Tensor], Evaluated]:
        rng = np.random.default_rng([self.settings.seed, step])
        tasks = self.problem.sample_tasks(self.settings.readouts, rng)
        drawn = stratified(self.problem.domain, self.settings.collocation_points, rng, trunk.domain.dtype)
        evaluated = self.forward.evaluate(trunk, drawn.points)
        reference = self.forward.reference(tasks, drawn.points)
        readouts, linearised = self.forward.solve_fast(evaluated, drawn, tasks, reference)
        readouts = readouts.to(trunk.domain.dtype)
        loss = self.forward.loss(evaluated, drawn.points, tasks, readouts, linearised, reference)
        return loss, evaluated


class TrainedHeads:
    """The published recipe: tasks drawn once, an equispaced grid, readouts trained along with the trunk.

    Initial readouts are uniform, as `torch.nn.Linear` draws them.

    Reference: Manor & Kohandel, arXiv 2509.07245.
    """

    def __init__(
        self,
        problem: Problem,
        trunk: Trunk,
        settings: TrainingSettings,
        forward: ForwardSettings,
        generator: torch.Generator,
    ):
        self.forward = ForwardProblem(problem, forward, trunk.domain.dtype)
        self._tasks = problem.sample_tasks(settings.readouts, np.random.default_rng(settings.seed))
        self._points = equispaced(problem.domain, settings.collocation_points, trunk.domain.dtype)
        shape = (settings.readouts, len(problem.fields), trunk.features)
        draw = torch.rand(shape, generator=generator, dtype=torch.float64)
        self.heads = nn.Module()
        self.heads.readouts = nn.Parameter(((trunk.features - 1) ** -0.5 * (2 * draw - 1)).to(trunk.domain.dtype))

    def loss(self, trunk: Trunk, step: int) -> tuple[dict[str, Tensor], Evaluated]:
        evaluated = self.forward.evaluate(trunk, self._points)
        return self.forward.loss(evaluated, self._points, self._tasks, self.heads.readouts), evaluated


RECIPES = {"variable_projection": VariableProjection, "trained_heads": TrainedHeads}
