"""Validation of a trunk in training, on unseen tasks: their inverse problems, or their forward problems."""

import hashlib
from collections.abc import Callable, Mapping
from copy import deepcopy
from math import log

import numpy as np
import torch
from pydantic import PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from ipbasis.basis.accuracy import measure_accuracy
from ipbasis.basis.artefact import Accuracy, Basis, Record, versions
from ipbasis.basis.compression import CompressionSettings, compress
from ipbasis.basis.forward import Evaluated, ForwardSettings
from ipbasis.basis.heads import TrainingSettings
from ipbasis.basis.network import Trunk, TrunkSettings
from ipbasis.basis.operators import Operators, conditions
from ipbasis.basis.quadrature import equispaced, gauss_legendre
from ipbasis.basis.training import Validator
from ipbasis.equations import MultiIndex
from ipbasis.inverse.adam import AdamReadouts, AdamSettings, QuadraticForms
from ipbasis.inverse.estimate import estimate
from ipbasis.observations import long_table
from ipbasis.problem import Declared, Problem, Tasks
from ipbasis.reference.solutions import solutions

_FEWEST = 30  # functions that will do for a first search
_MORE = 1.7  # times as many in the next


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


def build_basis(
    problem: Problem,
    trunk: Trunk,
    trunk_settings: TrunkSettings,
    forward: ForwardSettings,
    compression: CompressionSettings | None,
    quadrature_points: int,
    tasks: Tasks,
    truth: np.ndarray | None,
    **record: object,
) -> Basis:
    """A basis from a trunk: compressed, and its accuracy measured.

    Args:
        problem: the problem.
        trunk: raw features.
        trunk_settings: of the trunk as its training began; the number type may have changed since.
        forward: how the forward problem is posed.
        compression: None to keep the raw features as they are, as the published recipe does.
        quadrature_points: points along each coordinate at which residuals are taken.
        tasks: unseen tasks on which the accuracy is measured.
        truth: (tasks, n, F) their solutions at the quadrature points, or None.
        record: further entries of the artefact's record.
    """
    quadrature = gauss_legendre(problem.domain, quadrature_points, trunk.domain.dtype)
    with torch.no_grad():
        if compression is None:
            transform = torch.eye(trunk.features, dtype=torch.float64)
        else:
            transform = compress(problem, trunk, quadrature, forward, compression)

    def accuracy(functions: int) -> Accuracy:
        """That of the first functions alone."""

        def leading(points: Tensor, indices: tuple[MultiIndex, ...]) -> Mapping[MultiIndex, Tensor]:
            raw = trunk(points, indices)
            return {index: values.double() @ transform[:, :functions] for index, values in raw.items()}

        return measure_accuracy(problem, leading, quadrature, forward, tasks, truth)

    functions = transform.shape[1]
    stages = [] if compression is None or problem.system.affine is not None else _stages(functions)
    dtype = str(trunk.domain.dtype).removeprefix("torch.")
    described = Record(
        problem=problem,
        trunk=trunk_settings.model_copy(update={"dtype": dtype}),
        functions=functions,
        quadrature_points=quadrature_points,
        accuracy=accuracy(functions),
        leading={stage: accuracy(stage) for stage in stages},
        versions=versions(),
        **record,
    )
    return Basis(trunk, transform, described)


def _stages(functions: int) -> list[int]:
    """Numbers of leading functions that a nonlinear search begins with, none where there are few functions."""
    count = int(log(max(1.0, functions / _FEWEST)) / log(_MORE))
    return [round(functions / _MORE**power) for power in range(count, 0, -1)]


def _fingerprint(*arrays: np.ndarray) -> str:
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
        self.identity = _fingerprint(tasks.parameters, tasks.initial, np.array(quadrature_points))

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
        self.identity = _fingerprint(tasks.parameters, tasks.initial, points, values)
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
        self.identity = settings.model_dump_json() + _fingerprint(tasks.parameters, tasks.initial, points, values)
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
    features = Trunk(problem.domain, trunk_settings, torch.Generator()).features
    dtype = getattr(torch, trunk_settings.dtype)
    return AdamValidator(problem, features, settings, forward, training.collocation_points, tasks, seen, values, dtype)
