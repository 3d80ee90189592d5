"""Variable projection: the readouts eliminated by linear algebra, a function of the parameters remains."""

from dataclasses import dataclass, replace
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
class Point:
    """The objective at given parameters, the readouts eliminated.

    Args:
        parameters: (B, P).
        thetas: (B, Q) parameter functions of the equation there.
        coordinates: (B, N) of the best readouts, see `Physics`.
        residual: (B, rows) of all rows, see `Rows`.
        factor: (B, N, N) Cholesky factor of their normal matrix, scaled.
        scale: (B, N) of its rows and columns.
    """

    parameters: Tensor
    thetas: Tensor
    coordinates: Tensor
    residual: Tensor
    factor: Tensor
    scale: Tensor

    @property
    def objective(self) -> Tensor:
        return self.residual.square().sum(1)

    def solve(self, right: Tensor) -> Tensor:
        """Apply the inverse of the coordinates' normal matrix to (B, N, k)."""
        return self.scale[..., None] * torch.cholesky_solve(self.scale[..., None] * right, self.factor)

    @cached_property
    def inverse(self) -> Tensor:
        """(B, N, N) inverse of the coordinates' normal matrix."""
        size = self.coordinates.shape[1]
        return self.solve(torch.eye(size, dtype=self.coordinates.dtype).expand(len(self.coordinates), -1, -1))


def eliminate(online: Online, parameters: Tensor, weights: Weights) -> Point:
    """Best readouts for given parameters: normal equations, then one step of refinement on their roots."""
    rows = Rows(online, online.physics.thetas(parameters), weights)
    right = rows.target(parameters)
    normal = rows.normal()
    diagonal = normal.diagonal(dim1=1, dim2=2).clamp_min(_TINY)
    scale = diagonal.rsqrt()
    normal = normal * scale[:, None] * scale[..., None]
    normal.diagonal(dim1=1, dim2=2).add_(4 * normal.shape[1] * _EPSILON)
    factor, _ = torch.linalg.cholesky_ex(normal)
    coordinates = normal.new_zeros(len(normal), normal.shape[1])
    point = Point(parameters, rows.thetas, coordinates, -right, factor, scale)
    residual = -right
    for _ in range(2):
        coordinates = coordinates - point.solve(rows.adjoint(residual[:, None]).mT).squeeze(2)
        residual = rows.apply(coordinates[:, None]).squeeze(1) - right
    return replace(point, coordinates=coordinates, residual=residual)


def reduced_jacobian(online: Online, point: Point, weights: Weights) -> tuple[Tensor, Tensor]:
    """Derivatives by the parameters with the readouts following: of their coordinates, and of the residual.

    The residual's derivative is projected on the complement of the readouts' columns (Kaufman's form of
    variable projection), as a sum of data and physics parts: no difference of large numbers is taken.
    """
    rows = Rows(online, point.thetas, weights)
    slope = online.physics.operator_slope(point.parameters, point.coordinates) * online.free[:, None]
    kinds = [slope.new_zeros(len(slope), slope.shape[2], size) for size in rows.sizes]
    kinds[1] = (slope * weights.physics[:, None, None]).mT
    if online.priors.informative:
        kinds[4] = torch.diag_embed(online.priors.slope(point.parameters).where(online.free > 0, 0.0))
    direct = torch.cat(kinds, dim=2)
    following = -point.solve(rows.adjoint(direct).mT)
    projected = direct + rows.apply(following.mT)
    correction = point.solve(rows.adjoint(projected).mT)
    return following - correction, (projected - rows.apply(correction.mT)).mT
