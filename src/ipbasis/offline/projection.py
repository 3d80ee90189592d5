"""What a step of offline training minimises: readouts eliminated by linear algebra, or trained along as published."""

import math
from typing import Literal, Protocol

import numpy as np
import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from scipy.stats import qmc
from torch import Tensor, nn

from ipbasis.errors import InputError
from ipbasis.features.quadrature import Quadrature, equispaced, stratified
from ipbasis.features.trunk import Trunk
from ipbasis.offline.forward import Evaluated, ForwardProblem, ForwardSettings, JetValues
from ipbasis.problem.declaration import Declared, Problem, Tasks
from ipbasis.problem.equations import Jet


class LbfgsSettings(Declared):
    """Second phase of variable projection: L-BFGS in float64 on tasks and points that stay the same for a while.

    Args:
        rounds: at most; after each the state can be saved.
        iterations: of L-BFGS per round.
        redraw: whether every round has tasks and points of its own, and estimates the curvature anew; for
            ranges of so many dimensions that fixed tasks cannot cover them.
        tasks: they cover the ranges, ends included.
        collocation_points: points at which the residual is taken.
        history: steps that the curvature is estimated from.
        validate_every: rounds between two validations.
        patience: validations without a better score after which training stops; None to run all rounds.
    """

    rounds: PositiveInt
    iterations: PositiveInt
    redraw: bool
    tasks: PositiveInt
    collocation_points: PositiveInt
    history: PositiveInt
    validate_every: PositiveInt
    patience: PositiveInt | None


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


class TrainingSettings(Declared):
    """Settings of the offline training.

    Args:
        recipe: ``variable_projection`` draws new tasks every step and eliminates their readouts by linear
            algebra; ``trained_heads`` trains the readouts of a fixed set of tasks along with the trunk, as
            published.
        readouts: tasks per step.
        steps: of the first phase at most; 0 for L-BFGS alone.
        learning_rate: of the first phase; with `decay` it falls to 1 % along a cosine.
        decay: whether the learning rate falls.
        collocation_points: points at which the residual is taken, per step.
        validate_every: steps between two validations.
        patience: validations without a better score after which the first phase stops; None to run all steps.
        seed: of initial weights, tasks and points.
        optimiser: of the first phase; ``muon`` leaves biases and the first layer to Adam.
        warm_up: steps over which the learning rate rises evenly. Large first steps of SOAP can make features so
            steep that solutions jump between collocation points, where no residual is taken.
        lbfgs: a second phase of variable projection; None for the first alone.
        tasks: for trained heads, the fixed tasks: a value per task for each parameter, and for each initial
            value that has a range; None to draw them.
        residual_ramp: for trained heads, how the weight of the residual grows; None for a weight of 1.
    """

    recipe: Literal["variable_projection", "trained_heads"]
    readouts: PositiveInt
    steps: NonNegativeInt
    learning_rate: PositiveFloat
    decay: bool
    collocation_points: PositiveInt
    validate_every: PositiveInt
    patience: PositiveInt | None
    seed: int
    optimiser: Literal["adam", "soap", "muon"] = "adam"
    warm_up: NonNegativeInt = 0
    lbfgs: LbfgsSettings | None = None
    tasks: dict[str, list[float]] | None = None
    residual_ramp: ResidualRamp | None = None

    @model_validator(mode="after")
    def _check(self) -> "TrainingSettings":
        foreign = ("tasks", "residual_ramp") if self.recipe == "variable_projection" else ("lbfgs",)
        for name in foreign:
            if getattr(self, name) is not None:
                raise ValueError(f"{name} does not apply to the recipe {self.recipe}")
        if self.steps == 0 and self.lbfgs is None:
            raise ValueError("steps: 0 leaves nothing to train with")
        return self

    def rate(self, step: int) -> float:
        """The learning rate of the first phase at a step."""
        fall = 0.01 + 0.495 * (1 + math.cos(math.pi * step / self.steps)) if self.decay else 1.0
        return self.learning_rate * fall * min((step + 1) / max(self.warm_up, 1), 1.0)


class Recipe(Protocol):
    """Gives the loss of one step, and the tensors to train besides the trunk."""

    heads: nn.Module

    def loss(self, trunk: Trunk, step: int) -> tuple[dict[str, Tensor], Evaluated]:
        """Terms of the loss at a step, of which ``loss`` is to be minimised, and the features behind it."""


def eliminated_losses(
    forward: ForwardProblem, trunk: Trunk, quadrature: Quadrature, tasks: Tasks, reference: JetValues | None = None
) -> tuple[dict[str, Tensor], Evaluated]:
    """Terms of the loss of each task with the best readouts that the trunk allows, and the features behind them.

    The best readouts w*(R) of the trunk R are found by least squares; by the envelope theorem the gradient
    of a task's loss by R is the one with w* held fixed. That holds only where the residuals are orthogonal to
    the features, and large readouts cancel in them: from the features on everything is in float64, so that
    the gradient is good to a few digits for a trunk in float32, too.

    Args:
        forward: the forward problem.
        trunk: the trunk R.
        quadrature: collocation points, all of the same weight.
        tasks: parameters and initial values.
        reference: what `ForwardProblem.reference` gives for them, if it is at hand.

    Reference: Golub & Pereyra, SIAM J. Numer. Anal. 10 (1973) 413.
    """
    reference = reference or forward.reference(tasks, quadrature.points)
    evaluated = forward.evaluate(trunk, quadrature.points)
    readouts, linearised = forward.solve_fast(evaluated, quadrature, tasks, reference)
    points = quadrature.points.double()
    return forward.losses(evaluated.double(), points, tasks, readouts, linearised, reference), evaluated


def _means(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: values.mean() for name, values in losses.items()}


def _relative(losses: dict[str, Tensor], size: Tensor | float = 1.0) -> dict[str, Tensor]:
    """Means over the tasks, of the loss that of its root relative to the size of the solution.

    Of the losses themselves few hard tasks would hide all others.
    """
    return {**_means(losses), "loss": (losses["loss"] / size).sqrt().mean()}


class VariableProjection:
    """Tasks and points drawn anew each step, readouts eliminated."""

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
        tasks = covering_tasks(self.problem, self.settings.readouts, rng, scramble=True)
        drawn = stratified(self.problem.domain, self.settings.collocation_points, rng, trunk.domain.dtype)
        losses, evaluated = eliminated_losses(self.forward, trunk, self.forward.with_conditions(drawn), tasks)
        return _relative(losses), evaluated


def covering_tasks(problem: Problem, count: int, rng: np.random.Generator, scramble: bool = False) -> Tasks:
    """Tasks that cover the ranges and crowd towards their ends, where the solutions are hardest to span.

    A Latin hypercube with the density of the Chebyshev nodes along each axis.

    Args:
        problem: its ranges are covered.
        count: tasks.
        rng: source of the draw.
        scramble: whether each task lies anywhere in its cell of the hypercube, not at the centre.
    """
    ranges = problem.unknown_ranges
    unit = qmc.LatinHypercube(len(ranges), scramble=scramble, rng=rng).random(count)
    draws = ranges[:, 0] + (ranges[:, 1] - ranges[:, 0]) * (1 - np.cos(np.pi * unit)) / 2
    return Tasks(draws[:, : len(problem.parameters)], draws[:, len(problem.parameters) :])


class CoveringProjection:
    """Readouts eliminated for tasks that cover the ranges; within a round of L-BFGS nothing changes."""

    def __init__(self, problem: Problem, trunk: Trunk, settings: TrainingSettings, forward: ForwardSettings):
        self.problem, self.settings, self._dtype = problem, settings, trunk.domain.dtype
        self.forward = ForwardProblem(problem, forward, self._dtype)

    def draw(self, round_number: int) -> None:
        """Draw the tasks and points of a round."""
        chosen, rng = self.settings.lbfgs, np.random.default_rng([self.settings.seed, round_number])
        self._tasks = covering_tasks(self.problem, chosen.tasks, rng)
        drawn = stratified(self.problem.domain, chosen.collocation_points, rng, self._dtype)
        self._points = self.forward.with_conditions(drawn)
        self._reference = self.forward.reference(self._tasks, self._points.points)
        self._size: Tensor | float = 1.0
        if self._reference is not None:
            values = [self._reference[Jet(field, ())] for field in range(len(self.problem.fields))]
            self._size = sum(value.square().mean(1) for value in values)

    def loss(self, trunk: Trunk) -> tuple[dict[str, Tensor], Evaluated]:
        """Terms of the loss, of which ``loss`` is to be minimised, and the features behind it."""
        losses, evaluated = eliminated_losses(self.forward, trunk, self._points, self._tasks, self._reference)
        return _relative(losses, self._size), evaluated


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
        raise InputError(f"tasks: {len(values[wrong[0]])} values of {wrong[0]} for {count} readouts")
    table = np.array([values[name] for name in names], dtype=float).T
    return Tasks(table[:, : len(problem.parameters)], table[:, len(problem.parameters) :])


class TrainedHeads:
    """The published recipe: fixed tasks, an equispaced grid, readouts trained along with the trunk.

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
        self.forward, self._settings = ForwardProblem(problem, forward, trunk.domain.dtype), settings
        if settings.tasks is None:
            self._tasks = problem.sample_tasks(settings.readouts, np.random.default_rng(settings.seed))
        else:
            self._tasks = given_tasks(problem, settings.tasks, settings.readouts)
        self._points = equispaced(problem.domain, settings.collocation_points, trunk.domain.dtype)
        self._reference = self.forward.data(self._tasks, self._points)
        shape = (settings.readouts, len(problem.fields), trunk.feature_count)
        draw = torch.rand(shape, generator=generator, dtype=torch.float64)
        self.heads = nn.Module()
        self.heads.readouts = nn.Parameter(((trunk.feature_count - 1) ** -0.5 * (2 * draw - 1)).to(trunk.domain.dtype))

    def loss(self, trunk: Trunk, step: int) -> tuple[dict[str, Tensor], Evaluated]:
        evaluated = self.forward.evaluate(trunk, self._points)
        ramp = self._settings.residual_ramp
        weight = 1.0 if ramp is None else ramp.weight(step / self._settings.steps)
        losses = self.forward.losses(
            evaluated, self._points, self._tasks, self.heads.readouts, reference=self._reference, residual_weight=weight
        )
        return _means(losses), evaluated


RECIPES = {"variable_projection": VariableProjection, "trained_heads": TrainedHeads}
