"""Variable projection: the readouts eliminated by linear algebra, a function of the parameters remains."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ipbasis.search.online import Online
from ipbasis.search.weights import Weights

_EPSILON, _TINY = torch.finfo(torch.float64).eps, torch.finfo(torch.float64).tiny


@dataclass(frozen=True)
class Rows:
    """The weighted least-squares rows of a batch as a linear map of the unknowns, never written out.

    In this order: data, equation, conditions, given initial values, and priors, which hold no unknowns.

    Args:
        online: the batch.
        thetas: (B, Q) parameter functions of the equation.
        weights: of data and physics.
    """

    online: Online
    thetas: Tensor
    weights: Weights

    @property
    def sizes(self) -> list[int]:
        """Numbers of rows of each kind."""
        physics, online = self.online.physics, self.online
        conditions = len(physics.condition_rows), len(online.given_initial[0])
        priors = len(online.ranges) if online.priors.informative else 0
        return [online.data_target[0].numel(), physics.factor.shape[1], *conditions, priors]

    def target(self, parameters: Tensor) -> Tensor:
        """(B, rows) right-hand sides."""
        online, by_physics = self.online, self.weights.physics[:, None]
        _, initial, counts = online.given_initial
        parts = [
            online.data_target.flatten(1) * self.weights.data[:, None],
            -online.physics.source(self.thetas) * by_physics,
            online.physics.condition_target * by_physics,
            initial * counts * by_physics,
        ]
        if online.priors.informative:
            parts.append(-online.priors.residual(parameters) * online.free)
        return torch.cat(parts, dim=1)

    def apply(self, unknowns: Tensor) -> Tensor:
        """(B, k, rows) for unknowns (B, k, N)."""
        online, by_physics = self.online, self.weights.physics[:, None, None]
        initial, _, counts = online.given_initial
        same, sizes = online.physics.condition_rows, self.sizes
        parts = [
            online.observed(unknowns) * self.weights.data[:, None, None],
            online.physics.apply(self.thetas, unknowns) * by_physics,
        ]
        if sizes[2]:
            parts.append(unknowns @ same.T * by_physics)
        if sizes[3]:
            parts.append(unknowns @ initial.T * counts[:, None] * by_physics)
        if sizes[4]:
            parts.append(unknowns.new_zeros(*unknowns.shape[:2], sizes[4]))
        return torch.cat(parts, dim=2)

    def adjoint(self, rows: Tensor) -> Tensor:
        """(B, k, N) transpose of `apply`, for rows (B, k, rows)."""
        online = self.online
        data, equation, conditions, given, _ = rows.split(self.sizes, dim=2)
        physics = online.physics.adjoint(self.thetas, equation)
        if conditions.shape[2]:
            physics += conditions @ online.physics.condition_rows
        if given.shape[2]:
            initial, _, counts = online.given_initial
            physics += (given * counts[:, None]) @ initial
        physics *= self.weights.physics[:, None, None]
        return physics.addcmul_(online.observed_adjoint(data), self.weights.data[:, None, None])

    def slope(self, parameters: Tensor, coordinates: Tensor) -> Tensor:
        """(B, P, rows) derivative by the parameters (B, P), the coordinates (B, N) held; zero for known ones."""
        online = self.online
        slope = online.physics.operator_slope(parameters, coordinates) * online.free[:, None]
        kinds = [slope.new_zeros(len(slope), slope.shape[2], size) for size in self.sizes]
        kinds[1] = (slope * self.weights.physics[:, None, None]).mT
        if online.priors.informative:
            kinds[4] = torch.diag_embed(online.priors.slope(parameters).where(online.free > 0, 0.0))
        return torch.cat(kinds, dim=2)

    def initial_slope(self) -> Tensor:
        """(B, initial values, rows) derivative by the free initial values, the coordinates held."""
        chosen, by_physics = self.online.physics.initial_selection, self.weights.physics[:, None, None]
        kinds = [by_physics.new_zeros(len(by_physics), chosen.shape[1], size) for size in self.sizes]
        kinds[3] = -chosen.T * by_physics
        return torch.cat(kinds, dim=2)

    def seen(self, direct: Tensor, unknowns: Tensor) -> Tensor:
        """(B, k, rows) changes as data and priors see them; zero in the rows of the physics.

        Args:
            direct: (B, k, rows) changes, the coordinates held.
            unknowns: (B, k, N) changes of the coordinates.
        """
        data, *physics, priors = direct.split(self.sizes, dim=2)
        data = data + self.online.observed(unknowns) * self.weights.data[:, None, None]
        return torch.cat([data, *map(torch.zeros_like, physics), priors], dim=2)

    def normal(self) -> Tensor:
        """(B, N, N) normal matrix."""
        online, same = self.online, self.online.physics.condition_rows
        initial, _, counts = online.given_initial
        normal = online.physics.normal(self.thetas)
        if len(same):
            normal += same.T @ same
        if len(initial):
            normal += (initial.T * counts[:, None]) @ initial
        normal *= self.weights.physics.square()[:, None, None]
        online.add_data_normal(normal, self.weights.data.square())
        return normal


@dataclass(frozen=True)
class NormalSolver:
    """Cholesky factor of normal matrices of the coordinates.

    Args:
        factor: (B, N, N) of the matrices, rows and columns scaled.
        scale: (B, N) of these.
    """

    factor: Tensor
    scale: Tensor

    @classmethod
    def of(cls, normal: Tensor) -> "NormalSolver":
        """For matrices (B, N, N)."""
        scale = normal.diagonal(dim1=1, dim2=2).clamp_min(_TINY).rsqrt()
        normal = normal * scale[:, None] * scale[..., None]
        normal.diagonal(dim1=1, dim2=2).add_(4 * normal.shape[1] * _EPSILON)
        return cls(torch.linalg.cholesky_ex(normal)[0], scale)

    def solve(self, right: Tensor) -> Tensor:
        """Apply the inverse to (B, N, k)."""
        return self.scale[..., None] * torch.cholesky_solve(self.scale[..., None] * right, self.factor)

    @cached_property
    def inverse(self) -> Tensor:
        """(B, N, N)."""
        size = self.scale.shape[1]
        return self.solve(torch.eye(size, dtype=self.scale.dtype).expand(len(self.scale), -1, -1))

    def follow(self, rows: Rows, direct: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Changes of the coordinates by least squares, for changes of the rows (B, k, rows) with the coordinates held.

        By normal equations, and a step of refinement.

        Args:
            rows: whose normal matrix this is.
            direct: the changes.

        Returns:
            changes of the coordinates (B, k, N), the last part of them, and the rows (B, k, rows) before it.
        """
        following = -self.solve(rows.adjoint(direct).mT).mT
        projected = direct + rows.apply(following)
        correction = -self.solve(rows.adjoint(projected).mT).mT
        return following + correction, correction, projected

    def projected(self, rows: Rows, direct: Tensor) -> tuple[Tensor, Tensor]:
        """Changes of the coordinates (B, k, N), see `follow`, and of the rows (B, k, rows) with them.

        These are orthogonal to the columns of the coordinates, as sums of data and physics parts: no difference of
        large numbers is taken.
        """
        following, correction, before = self.follow(rows, direct)
        return following, before + rows.apply(correction)


@dataclass(frozen=True)
class Point:
    """The objective at given parameters, the readouts eliminated.

    Args:
        parameters: (B, P).
        thetas: (B, Q) parameter functions of the equation there.
        coordinates: (B, N) of the best readouts, see `Physics`.
        residual: (B, rows) of all rows, see `Rows`.
        solver: of their normal matrix.
    """

    parameters: Tensor
    thetas: Tensor
    coordinates: Tensor
    residual: Tensor
    solver: NormalSolver

    @property
    def objective(self) -> Tensor:
        return self.residual.square().sum(1)


def eliminate(online: Online, parameters: Tensor, weights: Weights) -> Point:
    """Best readouts for given parameters: normal equations, then one step of refinement on their roots."""
    rows = Rows(online, online.physics.thetas(parameters), weights)
    right, solver = rows.target(parameters), NormalSolver.of(rows.normal())
    following, residual = solver.projected(rows, -right[:, None])
    return Point(parameters, rows.thetas, following.squeeze(1), residual.squeeze(1), solver)


def reduced_jacobian(online: Online, point: Point, weights: Weights) -> Tensor:
    """(B, rows, P) derivative of the residual by the parameters with the readouts following.

    It is projected on the complement of the readouts' columns: Kaufman's form of variable projection.
    """
    rows = Rows(online, point.thetas, weights)
    return point.solver.projected(rows, rows.slope(point.parameters, point.coordinates))[1].mT
