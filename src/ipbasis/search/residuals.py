"""What the residuals of a fit tell of the noise: its size, and whether fields share it."""

from dataclasses import dataclass, replace

import torch
from scipy.stats import chi2
from torch import Tensor

from ipbasis.offline.artefact import Accuracy
from ipbasis.search.noise import Errors

_SCALE_ROUNDS, _SCALE_SETTLED = (
    60,
    1e-4,
)  # of Huber's proposal 2, a fixed point: rounds at most, and relative change at its end
_SCALE_ROUNDS, _SCALE_SETTLED = 60, 1e-4
# Fields have noise of one size unless that has less than this probability, or one of them has fewer observations
_EQUAL_SIGNIFICANCE, _FEWEST = 0.05, 10


@dataclass(frozen=True)
class Residuals:
    """Residuals d of a batch.

    Args:
        errors: their kind.
        residual, unit: (B, n, F) d and r², zero where nothing was observed.
        floor: (B, 1, 1) variance of the errors of the basis.
        counts, freedom: (B, F) observations, and less the effective number of unknowns.
    """

    errors: Errors
    residual: Tensor
    unit: Tensor
    floor: Tensor
    counts: Tensor
    freedom: Tensor

    @property
    def mean_unit(self) -> Tensor:
        """(B, F) mean of r²."""
        mean = self.unit.sum(1) / self.counts.clamp_min(1)
        return mean.where(self.counts > 0, 1.0)

    def together(self) -> "Residuals":
        """All fields as one."""
        parts = {name: getattr(self, name).flatten(1)[..., None] for name in ("residual", "unit")}
        sums = {name: getattr(self, name).sum(1, keepdim=True) for name in ("counts", "freedom")}
        return replace(self, **parts, **sums)

    def variance(self) -> Tensor:
        """(B, F) variance σ² of the noise, at which Σ ψ²(d/t) is what is expected."""
        freedom, mean = self.freedom.clamp_min(1.0), self.mean_unit
        floor = self.floor[:, 0] / mean
        variance = self.residual.square().sum(1) / freedom / mean
        for _ in range(_SCALE_ROUNDS):
            total = (variance[:, None] * self.unit + self.floor).clamp_min(torch.finfo(mean.dtype).tiny)
            squares = self.errors.bounded(self.residual / total.sqrt()).square().sum(1)
            ratio = squares / (self.errors.mean_square * freedom)
            updated = ((variance + floor) * ratio - floor).clamp_min(0.0)
            settled = (updated - variance).abs() <= _SCALE_SETTLED * (variance + floor)
            variance = updated
            if settled.all():
                break
        return variance


def estimated_noise(accuracy: Accuracy, residuals: Residuals, separate: Tensor) -> tuple[Tensor, Tensor]:
    """Variance σ² (B, F) of the noise, and which queries (B,) have fields of unequal noise.

    Args:
        accuracy: of the basis.
        residuals: of the batch.
        separate: (B,) queries of which this is known already.
    """
    common = residuals.together().variance()
    if residuals.counts.shape[1] == 1:
        return common, separate
    each = residuals.variance().where(residuals.counts > 0, common)
    # neither the errors of the basis nor those by which it misses the equation are noise
    floor = residuals.floor[:, 0] / residuals.mean_unit
    least = (accuracy.tolerated() / accuracy.floor) ** 2 * floor
    variances = torch.maximum(each + floor, least)
    unequal = _unequal(variances, residuals.freedom, residuals.counts)
    separate = separate | unequal
    return torch.where(separate[:, None], each, common), separate


def _unequal(variances: Tensor, freedom: Tensor, counts: Tensor) -> Tensor:
    """(B,) whether Bartlett's test tells the variances (B, F) of the fields apart.

    Args:
        variances: of each field.
        freedom: (B, F) their degrees of freedom.
        counts: (B, F) observations; fields without any do not count.
    """
    seen = counts > 0
    share = freedom.clamp_min(1.0) * seen
    total = share.sum(1)
    mean = (share * variances).sum(1) / total
    groups = seen.sum(1)
    statistic = total * mean.log() - (share * variances.log()).sum(1)
    others = (groups - 1).clamp_min(1)
    statistic = statistic / (1 + ((seen / share.clamp_min(1.0)).sum(1) - 1 / total) / (3 * others))
    limit = torch.as_tensor(chi2.isf(_EQUAL_SIGNIFICANCE, others.numpy()))
    return (statistic > limit) & (groups > 1) & ((counts >= _FEWEST) | ~seen).all(1)
