"""The forward problem within the span of features: for known parameters, the readout by least squares."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from ipbasis.basis.operators import FeatureMap, conditions, residual_factor, theta
from ipbasis.basis.quadrature import Quadrature
from ipbasis.equations import MultiIndex
from ipbasis.errors import InputError
from ipbasis.problem import Declared, Problem, Tasks


class ForwardSettings(Declared):
    """How the conditions enter the forward problem.

    Args:
        condition_weight: weight of squared initial and boundary errors against the mean squared residual.
        condition_points: points along each part of the boundary.
        rank_tolerance: directions of the features below this share of the largest are not used; it keeps
            the readouts from building on rounding errors.
    """

    condition_weight: PositiveFloat
    condition_points: PositiveInt
    rank_tolerance: PositiveFloat


@dataclass(frozen=True)
class Evaluated:
    """Features where the forward problem needs them.

    Args:
        features: for each derivative (n, K) at the collocation points.
        condition_rows: (m, F K), see `Conditions`.
    """

    features: Mapping[MultiIndex, Tensor]
    condition_rows: Tensor

    def detached(self) -> "Evaluated":
        """The same in float64 and without gradients."""
        features = {index: values.detach().double() for index, values in self.features.items()}
        return Evaluated(features, self.condition_rows.detach().double())


@dataclass(frozen=True)
class ForwardSolutions:
    """Readouts of tasks and how well they meet the equation.

    Args:
        readouts: (tasks, F, K).
        residual_mse: (tasks,) mean over the points of the squared residual, summed over the equations.
        condition_mse: (tasks,) mean squared error of the conditions, summed over them.
    """

    readouts: Tensor
    residual_mse: Tensor
    condition_mse: Tensor


def energy_coordinates(features: Mapping[MultiIndex, Tensor], domain: np.ndarray, tolerance: float) -> Tensor:
    """Combinations of features that are orthonormal in value and derivatives together.

    In these coordinates the residual is well conditioned: it is small only for what nearly solves the
    equation, never for lack of size.

    Args:
        features: for each derivative (n, K), weighted so that the sum over n is a mean.
        domain: (d, 2); derivatives are taken along coordinates scaled to [-1, 1].
        tolerance: directions below this share of the largest are dropped.

    Returns:
        (K, r) with r ≤ K.
    """
    half = (domain[:, 1] - domain[:, 0]) / 2
    blocks = [values * np.prod(half[list(index)]) for index, values in features.items()]
    _, triangular = torch.linalg.qr(torch.cat(blocks), mode="r")
    _, size, directions = torch.linalg.svd(triangular)
    keep = size > tolerance * size[0]
    return directions[keep].T / size[keep]


class ForwardProblem:
    """Finds and scores the readouts of tasks with known parameters.

    Args:
        problem: a problem with an affine split.
        settings: weight and number of points of the conditions.
        dtype: number type of the features.

    Raises:
        InputError: if the problem has no affine split.
    """

    def __init__(self, problem: Problem, settings: ForwardSettings, dtype: torch.dtype):
        if problem.system.affine is None:
            raise InputError(f"{problem.name}: a basis for equations without an affine split is not supported yet")
        self.problem, self.settings = problem, settings
        self._conditions = conditions(problem, settings.condition_points, dtype)
        self._residuals = problem.system.compiled(problem.system.residuals)

    def evaluate(self, features: FeatureMap, points: Tensor) -> Evaluated:
        """Features at collocation points (n, d) and at the points of the conditions, in one pass."""
        indices = self.problem.system.indices
        needed = tuple(dict.fromkeys([*indices, *self._conditions.indices]))
        values = features(torch.cat([points, self._conditions.points]), needed)
        inside = {index: values[index][: len(points)] for index in indices}
        rows = self._conditions.rows({index: value[len(points) :] for index, value in values.items()})
        return Evaluated(inside, rows)

    def solve(self, evaluated: Evaluated, quadrature: Quadrature, tasks: Tasks) -> ForwardSolutions:
        """Readouts that minimise mean squared residual + condition_weight × squared condition errors.

        In float64 by QR, without gradients.

        Args:
            evaluated: features at the points of `quadrature`.
            quadrature: points and weights that form the mean over the domain.
            tasks: parameters and initial values.
        """
        evaluated = evaluated.detached()
        root = quadrature.weights.double().sqrt()[:, None]
        weighted = {index: values * root for index, values in evaluated.features.items()}
        energy = energy_coordinates(weighted, self.problem.domain, self.settings.rank_tolerance)
        reduce = torch.block_diag(*[energy] * len(self.problem.fields))
        factor = residual_factor(self.problem, evaluated.features, quadrature, reduce)
        thetas, _ = theta(self.problem.system, torch.as_tensor(tasks.parameters))
        combined = torch.einsum("tq,qmk->tmk", thetas, factor)
        rows = evaluated.condition_rows @ reduce
        targets = self.targets(tasks).double()
        weight = self.settings.condition_weight**0.5
        matrix = torch.cat([combined[..., :-1], weight * rows.expand(len(tasks), -1, -1)], dim=1)
        right = torch.cat([-combined[..., -1], weight * targets], dim=1)
        if matrix.shape[1] < matrix.shape[2]:
            raise InputError(f"{len(quadrature.points)} collocation points are too few for {energy.shape[1]} features")
        orthogonal, upper = torch.linalg.qr(matrix)
        solution = torch.linalg.solve_triangular(upper, orthogonal.mT @ right[..., None], upper=True)
        misfit = (matrix @ solution).squeeze(-1) - right
        return ForwardSolutions(
            readouts=(reduce @ solution).squeeze(-1).unflatten(1, (len(self.problem.fields), -1)),
            residual_mse=misfit[:, : combined.shape[1]].square().sum(1),
            condition_mse=misfit[:, combined.shape[1] :].square().sum(1) / self.settings.condition_weight,
        )

    def targets(self, tasks: Tasks) -> Tensor:
        """(tasks, m) right-hand sides of the conditions."""
        return self._conditions.targets(torch.as_tensor(tasks.initial).to(self._conditions.fixed.dtype))

    def loss(self, evaluated: Evaluated, points: Tensor, tasks: Tasks, readouts: Tensor) -> dict[str, Tensor]:
        """Mean squared residual + condition_weight × squared condition errors, mean over the tasks.

        Gradients flow to features and readouts.

        Args:
            evaluated: features at `points`.
            points: (n, d) collocation points of equal weight.
            tasks: parameters and initial values.
            readouts: (tasks, F, K).
        """
        jets = [evaluated.features[jet.index] @ readouts[:, jet.field].T for jet in self.problem.system.jets]
        parameters = torch.as_tensor(tasks.parameters, dtype=points.dtype).unbind(1)
        residuals = self._residuals([axis[:, None] for axis in points.unbind(1)], jets, parameters)
        residual = sum(r.square().mean() for r in residuals)
        errors = readouts.flatten(1) @ evaluated.condition_rows.T - self.targets(tasks)
        condition = errors.square().sum(1).mean()
        loss = residual + self.settings.condition_weight * condition
        return {"loss": loss, "residual_loss": residual, "condition_loss": condition}
