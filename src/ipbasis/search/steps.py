"""Steps of Levenberg and Marquardt in the parameters, and their covariance."""

import torch
from torch import Tensor

from ipbasis.search.online import Online
from ipbasis.search.own_term import OwnTerm

_EPSILON = torch.finfo(torch.float64).eps


def _least_squares(jacobian: Tensor, free: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Triangular form of damped least-squares problems in the parameters, columns scaled to length 1.

    By QR of the Jacobian: where parameters trade off against each other its normal matrix has a condition
    number beyond 1e15.

    Args:
        jacobian: (B, R, P).
        free: (B, P), see `Online`.
        damping: (B,) of Levenberg and Marquardt.

    Returns:
        solver (B, P, R) that takes a right-hand side to the solution, and the inverse (B, P, P) of the
        triangular factor, of which the covariance is the square; rows of known parameters are zero.
    """
    size = jacobian.norm(dim=1)
    size = torch.where(size > 0, size, torch.ones_like(size))
    diagonal = torch.diag_embed(damping.sqrt()[:, None] + (1 - free))
    orthogonal, upper = torch.linalg.qr(torch.cat([jacobian / size[:, None], diagonal], dim=1))
    identity = torch.eye(upper.shape[-1], dtype=upper.dtype).expand_as(upper)
    inverse = torch.linalg.solve_triangular(upper, identity, upper=True) * (free / size)[..., None]
    return inverse @ orthogonal[:, : jacobian.shape[1]].mT, inverse


def damped_step(
    online: Online, free: Tensor, jacobian: Tensor, residual: Tensor, own: OwnTerm, damping: Tensor
) -> Tensor:
    """(B, P) step of Levenberg and Marquardt in the parameters that are `free`, 1 or 0 (B, P).

    What is taken off has a curvature of its own. Where there is any, the normal equations hold the
    difference; few parameters remain then, and their directions are well apart.
    """
    if not online.physics.determined:
        solver, _ = _least_squares(jacobian, free, damping)
        return -(solver @ residual[..., None]).squeeze(2)
    curvature, size = _information(free, jacobian, own)
    curvature.diagonal(dim1=1, dim2=2).add_(damping[:, None])
    gradient = (jacobian.mT @ residual[..., None]).squeeze(2) - own.gradient
    return -torch.linalg.solve(curvature, gradient / size) / size


def _information(free: Tensor, jacobian: Tensor, own: OwnTerm) -> tuple[Tensor, Tensor]:
    """Gauss-Newton matrix less what is taken off, and the lengths (B, P) of the columns that it is scaled by.

    It is kept positive definite: next to nothing is left where the data say next to nothing.
    """
    size = jacobian.norm(dim=1)
    size = torch.where(size > 0, size, torch.ones_like(size))
    both = size[:, None] * size[..., None]
    values, vectors = torch.linalg.eigh((jacobian.mT @ jacobian - own.information) / both)
    least = torch.where(free > 0, 1e-9, 1.0).amin(1, keepdim=True)
    values = values.clamp_min(least)
    return vectors @ (values[..., None] * vectors.mT), size


def least_squares(jacobian: Tensor, residual: Tensor, free: Tensor) -> Tensor:
    """(B, P) step that reduces a residual (B, R) the most, for its Jacobian (B, R, P); zero where not free (B, P)."""
    if not jacobian.shape[2]:
        return torch.zeros_like(free)
    solver, _ = _least_squares(jacobian, free, jacobian.new_full((len(jacobian),), _EPSILON**2))
    return -(solver @ residual[..., None]).squeeze(2)


def inverse_root(jacobian: Tensor, free: Tensor) -> Tensor:
    """(B, P, P) root of the inverse of JᵀJ for a Jacobian (B, R, P); zero where not free (B, P)."""
    return _least_squares(jacobian, free, jacobian.new_full((len(jacobian),), _EPSILON**2))[1]


def parameter_covariance(online: Online, jacobian: Tensor, own: OwnTerm) -> Tensor:
    """(B, P, P) of the parameters, zero for known ones."""
    if not online.physics.determined:
        inverse = inverse_root(jacobian, online.free)
        return inverse @ inverse.mT
    information, size = _information(online.free, jacobian, own)
    free = online.free / size
    return torch.linalg.inv(information) * free[:, None] * free[..., None]
