"""What every online solver gives."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Solution:
    """Estimates of a batch.

    Args:
        parameters: (B, P).
        covariance: (B, P, P) of the parameters; NaN where the solver gives none.
        readouts: (B, F K), those of all fields in a row.
        covariances: (B, F, r, r) of the unknowns of each field (see `Physics`), the uncertainty of the parameters
            included; of windows (B, F, K, q) roots of the readouts' covariances.
        used: (B, F) number of each field's observations that the estimates use up.
        noise_std: (B,) standard deviation of the observations' errors in units of the data weights, that of the basis
            included.
        objective: (B,) value at the minimum.
        physics: (B,) mean squared residual there, in units of what the basis, and the weight, can reach.
        misfit: (B,) weighted squared data misfit.
        freedom: (B,) observations less the effective number of unknowns.
        free_misfit: (B,) weighted squared misfit of readouts fitted to the data alone.
        free_freedom: (B,) observations less the number of readouts.
        jump: (B,) largest difference of neighbouring residuals in units of what chance allows; zero where that is not
            known.
        basis_error: (B,) error bars by which the parameters may be off for the errors of the basis, where that is
        known;
            else zero.
        rival: (B, P) parameters far away that fit about as well; NaN where none are known.
        elsewhere: (B, P + F K) parameters and readouts of the best other place far away that was found; NaN for none.
        stretch: (B, P) by how much the error bar of a parameter grows two of them away, the rest following, to the side
            where it grows more; NaN where that is not known.
        iterations: (B,) steps taken.
        converged: (B,) whether one more step would gain nothing that matters.
    """

    parameters: Tensor
    covariance: Tensor
    readouts: Tensor
    covariances: Tensor
    used: Tensor
    noise_std: Tensor
    objective: Tensor
    physics: Tensor
    misfit: Tensor
    freedom: Tensor
    free_misfit: Tensor
    free_freedom: Tensor
    jump: Tensor
    basis_error: Tensor
    rival: Tensor
    elsewhere: Tensor
    stretch: Tensor
    iterations: Tensor
    converged: Tensor

    def to(self, device: str | torch.device) -> "Solution":
        """The same on another device."""
        return Solution(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def without_errors(
    parameters: Tensor, readouts: Tensor, loss: Tensor, misfit: Tensor, counts: Tensor, steps: int
) -> Solution:
    """The outcome of a published recipe: no error bars, and no test of the fit, for it does not reach the optimum.

    Args:
        parameters: (B, P).
        readouts: (B, F K), those of all fields in a row.
        loss: (B,) at the end.
        misfit: (B,) mean squared data misfit.
        counts: (B,) observed values.
        steps: taken.
    """
    queries, searched = parameters.shape
    nothing = torch.zeros(queries, dtype=torch.float64)
    return Solution(
        parameters=parameters,
        covariance=torch.full((queries, searched, searched), torch.nan, dtype=torch.float64),
        readouts=readouts,
        covariances=torch.zeros(queries, 0),
        used=torch.zeros(queries, 0),
        noise_std=misfit.sqrt(),
        objective=loss,
        physics=nothing,
        misfit=misfit * counts,
        freedom=counts,
        free_misfit=nothing,
        free_freedom=nothing,
        jump=nothing,
        basis_error=nothing,
        rival=torch.full_like(parameters, torch.nan),
        elsewhere=parameters.new_zeros(queries, 0),
        stretch=torch.full_like(parameters, torch.nan),
        iterations=torch.full((queries,), steps),
        converged=torch.ones(queries, dtype=torch.bool),
    )
