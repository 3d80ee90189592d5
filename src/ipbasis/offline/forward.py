"""The forward problem within the span of features: for known parameters, the readout by least squares."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from ipbasis.errors import InputError
from ipbasis.features.quadrature import Quadrature
from ipbasis.offline.operators import FeatureMap, conditions, residual_rows, theta
from ipbasis.problem.declaration import Declared, Problem, Tasks
from ipbasis.problem.equations import Jet, MultiIndex
from ipbasis.reference.solutions import has_reference, jets, solutions

# Exact or approximate values (tasks, n) of fields and their derivatives
JetValues = Mapping[Jet, Tensor]


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


@dataclass(frozen=True)
class Evaluated:
    """Features where the forward problem needs them.

    Args:
        features: for each derivative (n, K) at the collocation points.
        condition_rows: (m, F K), see `Conditions`.
    """

    features: Mapping[MultiIndex, Tensor]
    condition_rows: Tensor

    def double(self) -> "Evaluated":
        """The same in float64."""
        features = {index: values.double() for index, values in self.features.items()}
        return Evaluated(features, self.condition_rows.double())

    def detached(self) -> "Evaluated":
        """The same in float64 and without gradients."""
        features = {index: values.detach() for index, values in self.features.items()}
        return Evaluated(features, self.condition_rows.detach()).double()

    def first(self, count: int) -> "Evaluated":
        """The first features alone."""
        by_field = self.condition_rows.unflatten(1, (-1, self.features[()].shape[1]))
        features = {index: values[:, :count] for index, values in self.features.items()}
        return Evaluated(features, by_field[..., :count].flatten(1))


@dataclass(frozen=True)
class Linearised:
    """Residuals to first order: ``residual_e = Σ_j coefficients_ej jet_j + sources_e``.

    Args:
        coefficients: (tasks, E, n, J) for E equations and the J jets of the system.
        sources: (tasks, E, n).
    """

    coefficients: Tensor
    sources: Tensor

    def residuals(self, values: list[Tensor]) -> Tensor:
        """(tasks, E, n) residuals for the values (tasks, n) of each jet."""
        coefficients = self.coefficients.to(values[0].dtype)
        terms = [coefficients[..., j] * value[:, None] for j, value in enumerate(values)]
        return sum(terms) + self.sources.to(values[0].dtype)


@dataclass(frozen=True)
class ForwardSolutions:
    """Readouts of tasks and how well they meet the equation.

    Args:
        readouts: (tasks, F, K).
        residual_mse: (tasks,) mean over the points of the squared residual, summed over the equations.
        condition_mse: (tasks,) mean squared error of the conditions, summed over them.
        linearised: the residuals that were minimised, where the equation has no affine split.
    """

    readouts: Tensor
    residual_mse: Tensor
    condition_mse: Tensor
    linearised: Linearised | None = None


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
    _, size, directions = torch.linalg.svd(triangular, full_matrices=False)
    keep = size > tolerance * size[0]
    return directions[keep].T / size[keep]


@dataclass(frozen=True)
class _Posed:
    """The forward problem of a batch of tasks in the energy coordinates of the features.

    Args:
        evaluated: the features in float64.
        energy: (K, r) the coordinates.
        residuals: (Q, m, F r + 1) operators of the affine split; where there is none, for each derivative
            (n, r) features times the root of the weights.
        root: (n,) root of the weights.
        rows: (m, F r) conditions and data, weighted.
        targets: (tasks, m) their right-hand sides.
    """

    evaluated: Evaluated
    energy: Tensor
    residuals: Tensor | Mapping[MultiIndex, Tensor]
    root: Tensor
    rows: Tensor
    targets: Tensor

    def readouts(self, solution: Tensor) -> Tensor:
        """(tasks, F, K) readouts of a solution (tasks, F r)."""
        return solution.unflatten(1, (-1, self.energy.shape[1])) @ self.energy.T


class ForwardProblem:
    """Finds and scores the readouts of tasks with known parameters.

    Args:
        problem: a problem whose terms are all known; if it is nonlinear, one with a reference solution.
        settings: how the forward problem is posed.
        dtype: number type of the features.

    Raises:
        InputError: if the equations leave terms open, or if they are nonlinear and the settings or the
            lack of a reference solution leave nothing to linearise them about.
    """

    def __init__(self, problem: Problem, settings: ForwardSettings, dtype: torch.dtype):
        system = problem.system
        if problem.unknown_terms:
            raise InputError(f"{problem.name}: a basis is trained for equations without unknown terms")
        if not system.is_linear:
            if settings.linearise is None:
                raise InputError(f"{problem.name}: nonlinear equations need forward.linearise: reference")
            if not has_reference(problem):
                raise InputError(f"{problem.name}: nonlinear equations need a reference solution to linearise about")
        self.problem, self.settings = problem, settings
        self._rank_tolerance = settings.rank_tolerance_of(dtype)
        self._ridge = settings.ridge.get(str(dtype).removeprefix("torch."), 0.0)
        self._conditions = conditions(problem, settings.condition_points, dtype)
        weight = settings.condition_weight
        self._weights = torch.full((len(self._conditions.fixed),), weight, dtype=dtype)
        self._weights[self._conditions.initial_rows :] = settings.boundary_weight or weight
        self._residuals = system.compiled(system.residuals)
        by_jet, _ = system.partials()
        self._expansion = system.compiled([*system.residuals, *(partial for row in by_jet for partial in row)])
        self._solves = 1 if system.is_linear else settings.newton_steps

    def with_conditions(self, drawn: Quadrature) -> Quadrature:
        """Drawn points and those of the conditions, all of the same weight.

        Training needs the residual there as well: otherwise a trunk learns features that fall from the
        initial values to zero before the first drawn point, and a zero residual with them.
        """
        points = torch.cat([drawn.points, self._conditions.points])
        return Quadrature(points, torch.full_like(points[:, 0], 1 / len(points)))

    def evaluate(self, features: FeatureMap, points: Tensor) -> Evaluated:
        """Features at collocation points (n, d) and at the points of the conditions, in one pass."""
        indices = self.problem.system.indices
        needed = tuple(dict.fromkeys([*indices, *self._conditions.indices]))
        count = len(self._conditions.points)
        # points from `with_conditions` end with those of the conditions already
        together = torch.equal(points[-count:], self._conditions.points)
        values = features(points if together else torch.cat([points, self._conditions.points]), needed)
        inside = {index: values[index][: len(points)] for index in indices}
        rows = self._conditions.rows({index: value[-count:] for index, value in values.items()})
        return Evaluated(inside, rows)

    def reference(self, tasks: Tasks, points: Tensor) -> JetValues | None:
        """What the forward problem needs of the exact solutions at points (n, d); None if nothing."""
        if self.problem.system.is_linear:
            return self.data(tasks, points)
        values = jets(self.problem, tasks, points.double().numpy()[None])
        return {jet: torch.as_tensor(value) for jet, value in values.items()}

    def data(self, tasks: Tasks, points: Tensor) -> JetValues | None:
        """Exact values of the fields at points (n, d), for the data term of the loss; None if it has none."""
        if not self.settings.data_weight:
            return None
        values = torch.as_tensor(solutions(self.problem, tasks, points.double().numpy()[None]))
        return {Jet(field, ()): value for field, value in enumerate(values.unbind(2))}

    def solve(
        self, evaluated: Evaluated, quadrature: Quadrature, tasks: Tasks, reference: JetValues | None = None
    ) -> ForwardSolutions:
        """Readouts that minimise mean squared residual + weighted squared errors of conditions and data.

        In float64 by QR, without gradients.

        Args:
            evaluated: features at the points of `quadrature`.
            quadrature: points and weights that form the mean over the domain.
            tasks: parameters and initial values.
            reference: as `reference` gives it, if it is at hand.
        """
        reference = reference or self.reference(tasks, quadrature.points)
        posed, about = self._pose(evaluated, quadrature, tasks, reference), reference
        for _ in range(self._solves):
            linearised = self._linearise(about, quadrature.points, tasks)
            found = self._minimise(posed, self._residual_rows(posed, tasks, linearised))
            about = dict(zip(self.problem.system.jets, self.jets(posed.evaluated, found.readouts), strict=True))
        return replace(found, linearised=linearised)

    def solve_fast(
        self, evaluated: Evaluated, quadrature: Quadrature, tasks: Tasks, reference: JetValues | None = None
    ) -> tuple[Tensor, Linearised | None]:
        """The readouts of `solve` by the normal equations: in a fraction of the time, to half of the digits.

        Returns:
            readouts (tasks, F, K), and the residuals that were minimised where the equations have no affine split.
        """
        reference = reference or self.reference(tasks, quadrature.points)
        posed, about = self._pose(evaluated, quadrature, tasks, reference), reference
        for _ in range(self._solves):
            linearised = self._linearise(about, quadrature.points, tasks)
            normal = self._normal(posed, tasks, linearised)
            factor, failed = torch.linalg.cholesky_ex(normal[:, :-1, :-1])
            if failed.any():
                solved = self.solve(evaluated, quadrature, tasks, reference)
                return solved.readouts, solved.linearised
            readouts = posed.readouts(torch.cholesky_solve(-normal[:, :-1, -1:], factor).squeeze(-1))
            about = dict(zip(self.problem.system.jets, self.jets(posed.evaluated, readouts), strict=True))
        return readouts, linearised

    def _pose(self, evaluated: Evaluated, quadrature: Quadrature, tasks: Tasks, reference: JetValues | None) -> _Posed:
        evaluated, fields = evaluated.detached(), len(self.problem.fields)
        root = quadrature.weights.double().sqrt()
        weighted = {index: values * root[:, None] for index, values in evaluated.features.items()}
        energy = energy_coordinates(weighted, self.problem.domain, self._rank_tolerance)
        weight = self._weights.double().sqrt()
        conditions = (evaluated.condition_rows.unflatten(1, (fields, -1)) @ energy).flatten(1)
        rows, targets = [weight[:, None] * conditions], [weight * self.targets(tasks).double()]
        if self.settings.data_weight:
            scale = self.settings.data_weight**0.5
            truth = torch.stack([reference[Jet(f, ())] * root for f in range(fields)], dim=1)
            # the triangular factor stands for the values: as many rows as features, not as points
            orthogonal, upper = torch.linalg.qr(weighted[()] @ energy)
            rows.append(scale * torch.block_diag(*[upper] * fields))
            targets.append(scale * (truth @ orthogonal).flatten(1))
        if self._ridge:
            rows.append(self._ridge**0.5 * torch.block_diag(*[energy] * fields))
            targets.append(torch.zeros(len(tasks), len(rows[-1]), dtype=torch.float64))
        if self.problem.system.affine is not None:
            reduced = {index: values @ energy for index, values in evaluated.features.items()}
            residuals = residual_rows(self.problem, reduced, quadrature)
        else:
            residuals = {index: values @ energy for index, values in weighted.items()}
        return _Posed(evaluated, energy, residuals, root, torch.cat(rows), torch.cat(targets, dim=1))

    def _linearise(self, about: JetValues | None, points: Tensor, tasks: Tasks) -> Linearised | None:
        """Residuals to first order about given values, or about zero; None where the affine split serves."""
        system = self.problem.system
        if system.affine is not None:
            return None
        zero = torch.zeros(len(tasks), len(points), dtype=torch.float64)
        values = [zero if about is None or system.is_linear else about[jet] for jet in system.jets]
        parameters = torch.as_tensor(tasks.parameters)[..., None].unbind(1)
        found = self._expansion([axis[None] for axis in points.double().unbind(1)], values, parameters)
        found = torch.stack([torch.as_tensor(part, dtype=torch.float64).expand_as(zero) for part in found], dim=1)
        equations = len(system.residuals)
        coefficients = found[:, equations:].unflatten(1, (equations, -1)).transpose(2, 3)
        at_values = (coefficients * torch.stack(values, dim=-1)[:, None]).sum(-1)
        return Linearised(coefficients, found[:, :equations] - at_values)

    def _residual_rows(self, posed: _Posed, tasks: Tasks, linearised: Linearised | None) -> Tensor:
        """(tasks, m, F r + 1) rows whose product with (solution, 1) has the mean squared residual as its square."""
        if linearised is None:
            thetas, _ = theta(self.problem.system, torch.as_tensor(tasks.parameters))
            return torch.einsum("tq,qmk->tmk", thetas, posed.residuals)
        width = posed.energy.shape[1]
        shape = (*linearised.sources.shape, len(self.problem.fields) * width + 1)
        rows = torch.zeros(shape, dtype=torch.float64)
        for number, jet in enumerate(self.problem.system.jets):
            part = rows[..., jet.field * width : (jet.field + 1) * width]
            part.addcmul_(linearised.coefficients[..., number, None], posed.residuals[jet.index])
        rows[..., -1] = linearised.sources * posed.root
        return rows.flatten(1, 2)

    def _normal(self, posed: _Posed, tasks: Tasks, linearised: Linearised | None) -> Tensor:
        """(tasks, F r + 1, F r + 1) matrix of the normal equations, the right-hand side in its last column."""
        if linearised is None:
            thetas, _ = theta(self.problem.system, torch.as_tensor(tasks.parameters))
            operators = torch.cat([*posed.residuals], dim=1)
            shape = (len(posed.residuals), -1)
            gram = (operators.T @ operators).unflatten(1, shape).unflatten(0, shape)
            normal = torch.einsum("tq,ts,qasb->tab", thetas, thetas, gram)
        else:
            rows = self._residual_rows(posed, tasks, linearised)
            normal = rows.mT @ rows
        normal[:, :-1, :-1] += posed.rows.T @ posed.rows
        normal[:, :-1, -1] -= posed.targets @ posed.rows
        return normal

    def _minimise(self, posed: _Posed, residuals: Tensor) -> ForwardSolutions:
        """Least squares by QR for rows as `_residual_rows` gives them."""
        count, size = residuals.shape[1], residuals.shape[2] - 1
        further = torch.cat([posed.rows.expand(len(residuals), -1, -1), -posed.targets[..., None]], dim=2)
        rows = torch.cat([residuals, further], dim=1)
        if rows.shape[1] < size:
            raise InputError(f"{len(posed.root)} collocation points are too few for {posed.energy.shape[1]} features")
        # the triangular factor of matrix and right-hand side together holds all of the solution
        _, upper = torch.linalg.qr(rows, mode="r")
        solution = -torch.linalg.solve_triangular(upper[:, :size, :size], upper[:, :size, size:], upper=True)
        misfit = ((rows[..., :-1] @ solution).squeeze(-1) + rows[..., -1]).square()
        condition = misfit[:, count : count + len(self._weights)] / self._weights
        return ForwardSolutions(
            readouts=posed.readouts(solution.squeeze(-1)),
            residual_mse=misfit[:, :count].sum(1),
            condition_mse=condition.sum(1),
        )

    def targets(self, tasks: Tasks) -> Tensor:
        """(tasks, m) right-hand sides of the conditions."""
        return self._conditions.targets(torch.as_tensor(tasks.initial).to(self._conditions.fixed.dtype))

    def jets(self, evaluated: Evaluated, readouts: Tensor) -> list[Tensor]:
        """(tasks, n) values of each jet of the system for readouts (tasks, F, K)."""
        return [readouts[:, jet.field] @ evaluated.features[jet.index].T for jet in self.problem.system.jets]

    def losses(
        self,
        evaluated: Evaluated,
        points: Tensor,
        tasks: Tasks,
        readouts: Tensor,
        linearised: Linearised | None = None,
        reference: JetValues | None = None,
        residual_weight: float = 1.0,
    ) -> dict[str, Tensor]:
        """Mean squared residual + weighted squared errors of conditions and data of each task.

        Gradients flow to features and readouts.

        Args:
            evaluated: features at `points`.
            points: (n, d) collocation points of equal weight.
            tasks: parameters and initial values.
            readouts: (tasks, F, K).
            linearised: residuals to first order, in place of the residuals themselves.
            reference: as `reference` gives it; needed where data count.
            residual_weight: weight of the mean squared residual.

        Returns:
            (tasks,) ``loss`` and its terms without their weights: ``ode_loss``, ``ic_loss``, and ``bc_loss``
            and ``data_loss`` where the problem and the settings have them.
        """
        values = self.jets(evaluated, readouts)
        if linearised is None:
            parameters = torch.as_tensor(tasks.parameters, dtype=points.dtype)[..., None].unbind(1)
            residuals = self._residuals([axis[None] for axis in points.unbind(1)], values, parameters)
        else:
            residuals = linearised.residuals(values).unbind(1)
        ode = sum(r.square().mean(1) for r in residuals)
        errors = (readouts.flatten(1) @ evaluated.condition_rows.T - self.targets(tasks)).square()
        initial = self._conditions.initial_rows
        losses = {"ode_loss": ode, "ic_loss": errors[:, :initial].sum(1)}
        loss = residual_weight * ode + (errors * self._weights).sum(1)
        if errors.shape[1] > initial:
            losses["bc_loss"] = errors[:, initial:].sum(1)
        if self.settings.data_weight:
            fields = readouts @ evaluated.features[()].T
            truth = torch.stack([reference[Jet(f, ())] for f in range(fields.shape[1])], dim=1)
            losses["data_loss"] = (fields - truth.to(fields.dtype)).square().mean(2).sum(1)
            loss = loss + self.settings.data_weight * losses["data_loss"]
        if self._ridge:
            loss = loss + self._ridge * readouts.square().sum((1, 2))
        return {"loss": loss, **losses}
