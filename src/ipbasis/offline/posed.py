"""The forward problem as linear least squares: a batch of tasks in well-conditioned coordinates of the features."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ipbasis.errors import InputError
from ipbasis.offline.evaluated import Evaluated
from ipbasis.offline.operators import theta
from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.problem.equations import MultiIndex


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


@dataclass(frozen=True)
class Posed:
    """The forward problem of a batch of tasks in the energy coordinates of the features.

    A solution (tasks, F r) holds these coordinates field by field.

    Args:
        problem: the problem.
        tasks: parameters and initial values.
        evaluated: the features in float64.
        energy: (K, r) the coordinates.
        residuals: (Q, m, F r + 1) operators of the affine split; where there is none, for each derivative
            (n, r) features times the root of the weights.
        root: (n,) root of the weights.
        rows: (m, F r) conditions and data, weighted.
        targets: (tasks, m) their right-hand sides.
        condition_weights: of the first of these rows, which are the conditions.
    """

    problem: Problem
    tasks: Tasks
    evaluated: Evaluated
    energy: Tensor
    residuals: Tensor | Mapping[MultiIndex, Tensor]
    root: Tensor
    rows: Tensor
    targets: Tensor
    condition_weights: Tensor

    def readouts(self, solution: Tensor) -> Tensor:
        """(tasks, F, K) readouts of a solution (tasks, F r)."""
        return solution.unflatten(1, (-1, self.energy.shape[1])) @ self.energy.T

    def residual_rows(self, linearised: Linearised | None) -> Tensor:
        """(tasks, m, F r + 1) rows whose product with (solution, 1) has the mean squared residual as its square."""
        if linearised is None:
            return torch.einsum("tq,qmk->tmk", self._thetas(), self.residuals)
        width = self.energy.shape[1]
        shape = (*linearised.sources.shape, len(self.problem.fields) * width + 1)
        rows = torch.zeros(shape, dtype=torch.float64)
        for number, jet in enumerate(self.problem.system.jets):
            part = rows[..., jet.field * width : (jet.field + 1) * width]
            part.addcmul_(linearised.coefficients[..., number, None], self.residuals[jet.index])
        rows[..., -1] = linearised.sources * self.root
        return rows.flatten(1, 2)

    def normal(self, linearised: Linearised | None) -> Tensor:
        """(tasks, F r + 1, F r + 1) matrix of the normal equations, the right-hand side in its last column."""
        if linearised is None:
            thetas = self._thetas()
            operators = torch.cat([*self.residuals], dim=1)
            shape = (len(self.residuals), -1)
            gram = (operators.T @ operators).unflatten(1, shape).unflatten(0, shape)
            normal = torch.einsum("tq,ts,qasb->tab", thetas, thetas, gram)
        else:
            rows = self.residual_rows(linearised)
            normal = rows.mT @ rows
        normal[:, :-1, :-1] += self.rows.T @ self.rows
        normal[:, :-1, -1] -= self.targets @ self.rows
        return normal

    def minimise(self, linearised: Linearised | None) -> ForwardSolutions:
        """Least squares by QR."""
        residuals = self.residual_rows(linearised)
        count, size = residuals.shape[1], residuals.shape[2] - 1
        further = torch.cat([self.rows.expand(len(residuals), -1, -1), -self.targets[..., None]], dim=2)
        rows = torch.cat([residuals, further], dim=1)
        if rows.shape[1] < size:
            raise InputError(f"{len(self.root)} collocation points are too few for {self.energy.shape[1]} features")
        # the triangular factor of matrix and right-hand side together holds all of the solution
        _, upper = torch.linalg.qr(rows, mode="r")
        solution = -torch.linalg.solve_triangular(upper[:, :size, :size], upper[:, :size, size:], upper=True)
        misfit = ((rows[..., :-1] @ solution).squeeze(-1) + rows[..., -1]).square()
        condition = misfit[:, count : count + len(self.condition_weights)] / self.condition_weights
        return ForwardSolutions(
            readouts=self.readouts(solution.squeeze(-1)),
            residual_mse=misfit[:, :count].sum(1),
            condition_mse=condition.sum(1),
            linearised=linearised,
        )

    def _thetas(self) -> Tensor:
        """(tasks, Q) parameter functions of the affine split."""
        thetas, _ = theta(self.problem.system, torch.as_tensor(self.tasks.parameters))
        return thetas
