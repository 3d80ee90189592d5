"""What a basis is made with: settings of the forward problem, of training, validation and compression."""

import math
from typing import Literal

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ipbasis.errors import InputError
from ipbasis.features.trunk import TrunkSettings
from ipbasis.problem.declaration import Declared


class ForwardSettings(Declared):
    """How the forward problem is posed: weights of its terms, and how a nonlinear equation is linearised.

    Args:
        condition_weight: weight of squared initial and boundary errors against the mean squared residual.
        condition_points: points along each part of the boundary.
        rank_tolerance: directions of the features below this share of the largest are not used; it keeps
            the readouts from building on rounding errors. One for each number type of the features, or one.
        boundary_weight: weight of the boundary errors, where it differs from that of the initial errors.
        data_weight: weight of the mean squared error against the reference solution; 0 for the equation alone.
        ridge: weight of the sum of squared readouts, by number type of the features. Where features nearly
            coincide it keeps the readouts small, and with them the rounding errors of a training's gradient;
            unlike a cut of directions it leaves that gradient exact.
        linearise: what an equation that is not linear in the fields is linearised about. About the
            ``reference`` solution one linear solve is exact to second order in the error of the span.
        newton_steps: linear solves of a nonlinear equation; those after the first linearise it about the
            solution so far.
    """

    condition_weight: PositiveFloat
    condition_points: PositiveInt
    rank_tolerance: PositiveFloat | dict[Literal["float32", "float64"], PositiveFloat]
    boundary_weight: PositiveFloat | None = None
    data_weight: NonNegativeFloat = 0.0
    ridge: dict[Literal["float32", "float64"], NonNegativeFloat] = {}
    linearise: Literal["reference"] | None = None
    newton_steps: PositiveInt = 1

    def rank_tolerance_of(self, dtype: torch.dtype) -> float:
        """The rank tolerance for features of a number type.

        Raises:
            InputError: if there is none for it.
        """
        if isinstance(self.rank_tolerance, float):
            return self.rank_tolerance
        name = str(dtype).removeprefix("torch.")
        if name not in self.rank_tolerance:
            raise InputError(f"forward.rank_tolerance: no value for {name}")
        return self.rank_tolerance[name]

    def without_training_terms(self) -> "ForwardSettings":
        """The equation and its conditions alone, as the accuracy of a basis is measured."""
        return self.model_copy(update={"data_weight": 0.0, "ridge": {}})


class TrainingSettings(Declared):
    """What all recipes of the offline training share: the budget and the course of the steps along gradients.

    Args:
        readouts: tasks per step.
        steps: at most.
        learning_rate: of the steps; with `decay` it falls to 1 % along a cosine.
        decay: whether the learning rate falls.
        collocation_points: points at which the residual is taken, per step.
        validate_every: steps between two validations.
        patience: validations without a better score after which the steps end; None for all of them.
        seed: of initial weights, tasks and points.
        optimiser: ``muon`` leaves biases and the first layer to Adam.
        warm_up: steps over which the learning rate rises evenly. Large first steps of SOAP can make features so
            steep that solutions jump between collocation points, where no residual is taken.
    """

    readouts: PositiveInt
    steps: PositiveInt
    learning_rate: PositiveFloat
    decay: bool
    collocation_points: PositiveInt
    validate_every: PositiveInt
    patience: PositiveInt | None
    seed: int
    optimiser: Literal["adam", "soap", "muon"] = "adam"
    warm_up: NonNegativeInt = 0

    def rate(self, step: int) -> float:
        """The learning rate at a step."""
        fall = 0.01 + 0.495 * (1 + math.cos(math.pi * step / self.steps)) if self.decay else 1.0
        return self.learning_rate * fall * min((step + 1) / max(self.warm_up, 1), 1.0)


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


class ProjectionSettings(TrainingSettings):
    """Variable projection: tasks drawn anew each step, their readouts eliminated by linear algebra.

    Args:
        recipe: name of the recipe.
        steps: of the first phase at most; 0 for L-BFGS alone.
        lbfgs: a second phase; None for the first alone.
    """

    recipe: Literal["variable_projection"] = "variable_projection"
    steps: NonNegativeInt
    lbfgs: LbfgsSettings | None = None

    @model_validator(mode="after")
    def _check(self) -> "ProjectionSettings":
        if self.steps == 0 and self.lbfgs is None:
            raise ValueError("steps: 0 leaves nothing to train with")
        return self


class CompressionSettings(Declared):
    """How many functions to keep.

    Args:
        tasks: forward solutions that the proper orthogonal decomposition (POD) is taken of.
        tolerance: share of the solutions' size, derivatives included, that may be lost.
        seed: of the tasks.
    """

    tasks: PositiveInt
    tolerance: PositiveFloat
    seed: int


class ValidationSettings(Declared):
    """Unseen tasks that a trunk in training is scored on, and the finished basis is measured on.

    Args:
        queries: number of tasks.
        seed: of the tasks.
        observations: noise-free observations of each, equispaced, for a validator that estimates the parameters
            of the tasks; None to score by the forward problem, which needs no solver of the inverse problem.
    """

    queries: PositiveInt
    seed: int
    observations: PositiveInt | None = None


class BuildSettings(Declared):
    """What a trunk and the basis made of it depend on, however the trunk is trained.

    Args:
        trunk: size and number type as training begins; variable projection ends in float64.
        forward: how the forward problem is posed.
        compression: None to keep the raw features as they are.
        quadrature_points: points along each coordinate at which residuals are taken.
    """

    trunk: TrunkSettings
    forward: ForwardSettings
    compression: CompressionSettings | None
    quadrature_points: PositiveInt


class BasisSettings(BuildSettings):
    """All that decides what `train` makes of a problem.

    Args:
        training: recipe and budget.
        validation: what the trunk is scored on.
        compression: how many functions to keep.
    """

    training: ProjectionSettings
    validation: ValidationSettings
    compression: CompressionSettings
