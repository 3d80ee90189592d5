"""What is known of the parameters besides the data: bounds, and normal or lognormal distributions."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ipbasis.problem.declaration import Problem


@dataclass(frozen=True)
class Priors:
    """Bounds and distributions of the parameters, in the problem's order; infinite where there is none.

    Args:
        low, high: (P,) bounds.
        centre: (P,) mean, or logarithm of the median.
        std: (P,) standard deviation, of the logarithm where it is lognormal; infinite without a distribution.
        logarithmic: (P,) whether the logarithm is normal.
    """

    low: Tensor
    high: Tensor
    centre: Tensor
    std: Tensor
    logarithmic: Tensor

    @property
    def informative(self) -> bool:
        """Whether any parameter has a distribution."""
        return bool(self.std.isfinite().any())

    @property
    def mode(self) -> Tensor:
        """(P,) where the distributions have their centre; zero without one."""
        return torch.where(self.logarithmic, self.centre.exp(), self.centre)

    def without_distributions(self) -> "Priors":
        """The bounds alone."""
        return replace(self, std=torch.full_like(self.std, torch.inf))

    def residual(self, parameters: Tensor) -> Tensor:
        """(B, P) distance from the centre in standard deviations; its square belongs to the objective."""
        values = torch.where(
            self.logarithmic, parameters.clamp_min(torch.finfo(parameters.dtype).tiny).log(), parameters
        )
        return torch.where(self.std.isfinite(), (values - self.centre) / self.std, 0.0)

    def slope(self, parameters: Tensor) -> Tensor:
        """(B, P) derivative of `residual`."""
        values = torch.where(self.logarithmic, parameters.clamp_min(torch.finfo(parameters.dtype).tiny), 1.0)
        return (1 / (values * self.std)).expand_as(parameters)

    def clip(self, parameters: Tensor) -> Tensor:
        """Parameters (B, P) moved to the nearest ones within the bounds."""
        return torch.minimum(torch.maximum(parameters, self.low), self.high)

    def reached(self, parameters: Tensor) -> Tensor:
        """(B, P) true for parameters at a bound."""
        return (parameters <= self.low) | (parameters >= self.high)

    def blocked(self, parameters: Tensor, gradient: Tensor) -> Tensor:
        """(B, P) true where a bound stops the descent along the negative gradient (B, P)."""
        return ((parameters <= self.low) & (gradient > 0)) | ((parameters >= self.high) & (gradient < 0))


def priors_of(problem: Problem) -> Priors:
    """The bounds and distributions that a problem declares."""
    names = list(problem.parameters)
    low, high = torch.full((2, len(names)), torch.inf, dtype=torch.float64)
    low, centre, std = -low, torch.zeros_like(low), torch.full_like(low, torch.inf)
    logarithmic = torch.zeros(len(names), dtype=torch.bool)
    for column, name in enumerate(names):
        if name in problem.bounds:
            below, above = problem.bounds[name]
            low[column] = -torch.inf if below is None else below
            high[column] = torch.inf if above is None else above
        if name in problem.priors:
            prior = problem.priors[name]
            logarithmic[column] = prior.lognormal is not None
            first, std[column] = prior.lognormal or prior.normal
            centre[column] = torch.tensor(first, dtype=torch.float64).log() if prior.lognormal else first
            if prior.lognormal:  # a little above zero, where the logarithm ends
                low[column] = max(float(low[column]), first * 1e-12)
    return Priors(low, high, centre, std, logarithmic)
