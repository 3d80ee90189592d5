"""Linear least squares of few unknowns within bounds: damped steps, and the inverse of their triangular factor."""

import torch
from torch import Tensor

LEAST_DAMPING = 1e-12
_BOUNDS_MET = 4  # in one step, at most: unknowns that meet a bound stop there, and the others take a step without them


def bounded_step(
    rows: Tensor, right: Tensor, now: Tensor, bounds: Tensor, fixed: Tensor, damping: Tensor
) -> tuple[Tensor, Tensor]:
    """The step (B, U) of Levenberg and Marquardt that minimises |rows step + right|², and the square (B,) it leaves.

    Args:
        rows: (B, R, U).
        right: (B, R).
        now: (B, U) values, from which the step leads no further than the bounds.
        bounds: (2, U) low and high ends.
        fixed: (B, U) true for unknowns that take no step.
        damping: (B,).
    """
    gradient, (low, high) = (rows.mT @ right[..., None]).squeeze(2), bounds
    held = fixed | ((now <= low) & (gradient > 0)) | ((now >= high) & (gradient < 0))
    step = torch.zeros_like(now)
    for _ in range(_BOUNDS_MET):
        found = _least_squares(rows, right + (rows @ step[..., None]).squeeze(2), held, damping)
        step = torch.where(held, step, found)
        beyond = ~held & ((now + step < low) | (now + step > high))
        step = torch.where(fixed, 0.0, torch.minimum(torch.maximum(now + step, low), high) - now)
        if not beyond.any():
            break
        held, step = held | beyond, torch.where(held | beyond, step, 0.0)
    return step, ((rows @ step[..., None]).squeeze(2) + right).square().sum(1)


def _least_squares(rows: Tensor, right: Tensor, held: Tensor, damping: Tensor) -> Tensor:
    """(B, N) what minimises |rows x + right|² and a damping of the columns by their length; zero for what is `held`."""
    own = rows.masked_fill(held[:, None], 0.0)
    size = own.norm(dim=1)
    size = torch.where(size > 0, size, torch.ones_like(size))
    diagonal = torch.diag_embed(torch.where(held, 1.0, damping.sqrt()[:, None]))
    orthogonal, upper = torch.linalg.qr(torch.cat([own / size[:, None], diagonal], dim=1))
    target = (orthogonal[:, : rows.shape[1]].mT @ right[..., None]).squeeze(2)
    found = -torch.linalg.solve_triangular(upper, target[..., None], upper=True).squeeze(2) / size
    return found.masked_fill(held, 0.0)


def inverse_root(rows: Tensor, free: Tensor) -> Tensor:
    """(B, U, U) root L of the covariance L Lᵀ of the unknowns that rows (B, R, U) tell of, zero for those not `free`.

    Args:
        rows: of least squares in units of the noise.
        free: (B, U) one for unknowns that are estimated, else zero.
    """
    size = rows.norm(dim=1)
    size = torch.where(size > 0, size, torch.ones_like(size))
    least = torch.diag_embed(1 - free + torch.finfo(size.dtype).eps)
    _, upper = torch.linalg.qr(torch.cat([rows * free[:, None] / size[:, None], least], dim=1), mode="r")
    inverse = torch.linalg.solve_triangular(upper, torch.eye(upper.shape[2], dtype=size.dtype), upper=True)
    return inverse * (free / size)[..., None]
