"""The forward problem within the span of features: for known parameters, the readout by least squares."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ipbasis.errors import InputError
from ipbasis.features.quadrature import Quadrature
from ipbasis.offline.evaluated import Evaluated, energy_coordinates
from ipbasis.offline.operators import FeatureMap, check_plain, conditions, residual_rows
from ipbasis.offline.posed import ForwardSolutions, Linearised, Posed
from ipbasis.offline.settings import ForwardSettings
from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.problem.equations import Jet
from ipbasis.reference.solutions import has_jets, jets, solutions

# Exact or approximate values (tasks, n) of fields and their derivatives
JetValues = Mapping[Jet, Tensor]


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
            if not has_jets(problem):
                raise InputError(f"{problem.name}: nonlinear equations need a reference solution to linearise about")
        self.problem, self.settings = problem, settings
        self._rank_tolerance = settings.rank_tolerance_of(dtype)
        self._ridge = settings.ridge.get(str(dtype).removeprefix("torch."), 0.0)
        check_plain(problem)
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
            found = posed.minimise(linearised)
            about = dict(zip(self.problem.system.jets, self.jets(posed.evaluated, found.readouts), strict=True))
        return found

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
            normal = posed.normal(linearised)
            factor, failed = torch.linalg.cholesky_ex(normal[:, :-1, :-1])
            if failed.any():
                solved = self.solve(evaluated, quadrature, tasks, reference)
                return solved.readouts, solved.linearised
            readouts = posed.readouts(torch.cholesky_solve(-normal[:, :-1, -1:], factor).squeeze(-1))
            about = dict(zip(self.problem.system.jets, self.jets(posed.evaluated, readouts), strict=True))
        return readouts, linearised

    def _pose(self, evaluated: Evaluated, quadrature: Quadrature, tasks: Tasks, reference: JetValues | None) -> Posed:
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
        return Posed(
            problem=self.problem,
            tasks=tasks,
            evaluated=evaluated,
            energy=energy,
            residuals=residuals,
            root=root,
            rows=torch.cat(rows),
            targets=torch.cat(targets, dim=1),
            condition_weights=self._weights,
        )

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
