"""The likelihood of parameters and free initial values, the slack of the solution about the equations marginalised.

A basis cannot represent every solution of the equations. Where it cannot, the residual rises, which says nothing of
the data: the physics is information on how the solution follows from parameters p and free initial values z, none on
these. So the solution is one of the manifold c(p, z) of those by the physics alone, but for a slack s, and the data are

    y = D c(p, z) + D s + e,    s ~ N(0, M⁻¹),    e ~ N(0, 1)

where D takes coordinates to observations, in units of the noise, and M is the normal matrix of the physics, z held.
The information on p and z is Jᵀ (1 + D M⁻¹ Dᵀ)⁻¹ J, with J = D dc/d(p, z): all that the objective of the search holds,
less that of the physics alone. Nothing is subtracted to find it: 1 + D M⁻¹ Dᵀ weighs the data as their residual is
weighed when s follows by least squares.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ipbasis.search.elimination import NormalSolver, Rows
from ipbasis.search.online import Online
from ipbasis.search.steps import inverse_root, least_squares
from ipbasis.search.weights import Weights


@dataclass(frozen=True)
class Marginal:
    """The likelihood at parameters p, with the best initial values z.

    Args:
        parameters: (B, P).
        coordinates: (B, N) of the best readouts there, see `Physics`.
        objective: (B,) sum of squares to minimise over p.
        misfit: (B,) part of it that is the data's, in units of the weights.
        physics: (B,) sum of squares of the weighted residual of the equation.
        alone: (B,) what the physics alone leaves of itself: no part of the objective.
        step: (B, P) step of Gauss and Newton, along the bounds that are met.
        gain: (B,) decrease of the objective that it is predicted to make.
        root: (B, P + I, P + I) root of the covariance of p and z, zero for known ones.
        following: (B, N, P + I) how the coordinates follow p and z.
        solver: of the normal matrix of the coordinates, p and z held.
    """

    parameters: Tensor
    coordinates: Tensor
    objective: Tensor
    misfit: Tensor
    physics: Tensor
    alone: Tensor
    step: Tensor
    gain: Tensor
    root: Tensor
    following: Tensor
    solver: NormalSolver

    @property
    def std(self) -> Tensor:
        """(B, P) standard errors of the parameters."""
        return self.root[:, : self.parameters.shape[1]].norm(dim=2)

    @property
    def covariance(self) -> Tensor:
        """(B, P, P) of the parameters; zero for known ones."""
        own = self.root[:, : self.parameters.shape[1]]
        return own @ own.mT

    @cached_property
    def coordinates_covariance(self) -> Tensor:
        """(B, N, N)."""
        half = self.following @ self.root
        return self.solver.inverse + half @ half.mT


@dataclass(frozen=True)
class _Solvers:
    """Rows and solvers of the normal matrices at given parameters, z held."""

    alone: Rows
    both: Rows
    by_physics: NormalSolver
    by_both: NormalSolver

    @classmethod
    def of(cls, online: Online, parameters: Tensor, weights: Weights) -> "_Solvers":
        both = Rows(online.with_initial_held(), online.physics.thetas(parameters), weights)
        alone = replace(both, weights=Weights(torch.zeros_like(weights.data), weights.physics))
        normal = alone.normal()
        by_physics = NormalSolver.of(normal)
        online.add_data_normal(normal, weights.data.square())
        return cls(alone, both, by_physics, NormalSolver.of(normal))

    def seen(self, direct: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
        """Of changes (B, k, rows) with the coordinates held, those with the slack, and the coordinates' (B, k, N).

        Args:
            direct: the changes.
            along: (B, k, N) of the coordinates by the physics alone.
        """
        slack, rows = self.by_both.projected(self.both, self.both.seen(direct, along))
        return rows, along + slack


def marginal(online: Online, parameters: Tensor, weights: Weights) -> Marginal:
    """See the top of this file.

    Args:
        online: the batch.
        parameters: (B, P).
        weights: of data and physics.
    """
    solvers = _Solvers.of(online, parameters, weights)
    rows = solvers.both
    # solutions are linear in the initial values: their best ones follow at once
    unknown = online.initial.isnan().to(parameters.dtype)
    direct = torch.cat([-rows.target(parameters)[:, None], rows.initial_slope() * unknown[..., None]], dim=1)
    along, left = solvers.by_physics.projected(solvers.alone, direct)
    started, following = solvers.seen(direct, along)
    by_initial, best = started[:, 1:], least_squares(started[:, 1:].mT, started[:, 0], unknown)
    shares = torch.cat([online.amplitude.new_ones(len(best), 1), best], dim=1)[:, None]
    residual, left, alone, coordinates = (shares @ each for each in (started, left, along, following))
    slope = rows.slope(parameters, alone.squeeze(1))
    by_parameters, follow = solvers.seen(slope, solvers.by_physics.follow(solvers.alone, slope)[0])
    jacobian = torch.cat([by_parameters, by_initial], dim=1)
    gradient, unknown = (residual @ jacobian.mT).squeeze(1), torch.cat([online.free, unknown], dim=1)
    # the operators, too, change with the parameters, what is left by them and the slack
    change = rows.slope(parameters, coordinates.squeeze(1)) - slope
    gradient[:, : len(change[0])] += ((residual + left) @ change.mT).squeeze(1)
    root = open_root = inverse_root(jacobian.mT, unknown)
    blocked = online.priors.blocked(parameters, gradient[:, : parameters.shape[1]])
    if blocked.any():
        unknown = unknown * ~torch.nn.functional.pad(blocked, (0, best.shape[1]))
        open_root = inverse_root(jacobian.mT * unknown[:, None], unknown)
    descent = (gradient[:, None] @ open_root).squeeze(1)
    data, *_ = residual.split(rows.sizes, dim=2)
    _, *physics, _ = left.split(rows.sizes, dim=2)
    _, equation, *_ = (residual + left).split(rows.sizes, dim=2)
    return Marginal(
        parameters=parameters,
        coordinates=coordinates.squeeze(1),
        objective=residual.square().sum((1, 2)),
        misfit=data.square().sum((1, 2)) / weights.data.square(),
        physics=equation.square().sum((1, 2)),
        alone=torch.cat(physics, dim=2).square().sum((1, 2)),
        step=-(open_root @ descent[..., None]).squeeze(2)[:, : parameters.shape[1]],
        gain=descent.square().sum(1),
        root=root,
        following=torch.cat([follow, following[:, 1:]], dim=1).mT,
        solver=solvers.by_both,
    )
