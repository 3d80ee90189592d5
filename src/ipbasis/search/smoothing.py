"""Fits of the readouts to the observations alone, smoothed as much as the data ask for."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ipbasis.search.online import Online
from ipbasis.search.pointwise import PointwisePhysics
from ipbasis.search.solution import Solution

# noise over prior, as variances and relative to the largest direction of the data
_RATIOS = 10.0 ** torch.arange(-28, 3, 0.5, dtype=torch.float64)
_EPSILON = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Smooth:
    """A Gaussian distribution of the unknowns of each query, independent by field.

    Args:
        mean: (B, N).
        directions: (B or 1, F, r, r) orthonormal columns.
        spread: (B, F, r) standard deviation along each of them.
        noise_std: (B,) standard deviation of the observations' errors in units of the data weights.
    """

    mean: Tensor
    directions: Tensor
    spread: Tensor
    noise_std: Tensor

    def jet_covariance(self, physics: PointwisePhysics) -> dict[tuple[int, int], Tensor]:
        """(B, n) covariances of the jets that the equations hold, by the numbers i <= j of two; others are zero."""
        jets, squares = physics.system.jets, self.spread.square()
        along = [physics.functions[jet.index] @ self.directions[:, jet.field] for jet in jets]
        pairs = itertools.combinations_with_replacement(range(len(jets)), 2)
        same = [(i, j) for i, j in pairs if jets[i].field == jets[j].field]
        return {(i, j): ((along[i] * along[j]) @ squares[:, jets[i].field, :, None]).squeeze(2) for i, j in same}

    def solution(self, online: Online, noise_std: Tensor | None) -> Solution:
        """The fits as the outcome of a solver that searches no parameters.

        Args:
            online: what was fitted, all parameters known.
            noise_std: (B,) as it was given, None if it was estimated.
        """
        std = self.noise_std if noise_std is None else noise_std
        half = self.directions * self.spread[:, :, None]
        covariance = half @ half.mT
        used = (online.data_normals * covariance).sum((2, 3)) / std.square()[:, None]
        rest = online.data_rest.sum(1)
        left = online.observed(self.mean[:, None]).squeeze(1) - online.data_target.flatten(1)
        misfit = left.square().sum(1) + rest
        count, searched = online.known.shape
        return Solution(
            parameters=online.known,
            covariance=torch.zeros(count, searched, searched, dtype=std.dtype),
            readouts=self.mean @ online.physics.combinations.T,
            covariances=covariance,
            used=used,
            noise_std=std,
            objective=misfit / std.square(),
            physics=torch.zeros_like(std),
            misfit=misfit,
            freedom=(online.counts - used).sum(1),
            free_misfit=rest,
            free_freedom=torch.zeros_like(std),  # nothing to test: no equation was used
            jump=torch.zeros_like(std),
            basis_error=torch.zeros_like(std),
            rival=torch.full_like(online.known, torch.nan),
            elsewhere=online.known[:, :0],
            stretch=torch.full_like(online.known, torch.nan),
            iterations=torch.zeros(count, dtype=torch.long),
            converged=torch.ones(count, dtype=torch.bool),
        )


def propagate(covariances: Mapping[tuple[int, int], Tensor], by_jet: Tensor) -> Tensor:
    """(B, E, n) variance of quantities whose partials by the jets are (B, E, J, n), see `Smooth.jet_covariance`."""
    return sum(
        by_jet[:, :, i] * by_jet[:, :, j] * covariance[:, None] * (1 if i == j else 2)
        for (i, j), covariance in covariances.items()
    )


def smooth(online: Online, noise_std: Tensor | None) -> Smooth:
    """Fit each field to its observations by Bayesian ridge regression.

    Prior: unknowns of independent, equal variance τ². For coordinates as in `Physics` this says that value
    and derivatives are of moderate size. The ratio of noise to τ² maximises the evidence, the marginal
    likelihood of the data; where the noise is given only τ² is free.

    Reference: MacKay, Neural Computation 4 (1992) 415.

    Args:
        online: the observations.
        noise_std: (B,) standard deviation of the errors in units of the data weights; None to estimate it.
    """
    noise_given = noise_std is not None
    if noise_given:
        online = online.weighted(1 / noise_std)
    fields, width = online.counts.shape[1], online.data_root.shape[3]
    means, spreads, variances = [], [], []
    squares, directions = (part.expand(-1, fields, *part.shape[2:]) for part in torch.linalg.eigh(online.data_normal))
    for field, root in enumerate(online.roots):
        target, squared, right = online.data_target[:, field], squares[:, field], directions[:, field]
        # directions that rounding errors have hidden are not seen
        seen = squared > width * _EPSILON * squared[:, -1:]
        size = torch.where(seen, squared, 0.0).sqrt()
        rotated = (target[:, None] @ root @ right).squeeze(1) / torch.where(seen, size, torch.inf)
        total = target.square().sum(1) + online.data_rest[:, field]
        outside = (total - rotated.square().sum(1)).clamp_min(1e-30 * total)
        count = online.counts[:, field].to(root.dtype)
        largest = size.square().amax(1)
        largest = torch.where(largest > 0, largest, torch.ones_like(largest))
        ratios = _RATIOS.to(largest.device)[:, None] * largest
        inside = size.square() + ratios[..., None]
        quadratic = (rotated.square() / inside).sum(2) + outside / ratios
        determinant = inside.log().sum(2) + (count - width) * ratios.log()
        if noise_given:
            cost = quadratic * ratios - count * ratios.log() + determinant
        else:
            cost = count * (quadratic / count.clamp_min(1)).clamp_min(1e-300).log() + determinant
        chosen = cost.argmin(0)
        pick = (chosen, torch.arange(len(chosen)))
        ratio = ratios.expand(-1, len(chosen))[pick]
        prior = 1 / ratio if noise_given else quadratic[pick] / count.clamp_min(1)
        prior = torch.where(count > 0, prior, online.amplitude.square())  # a field that nobody saw
        scale = size.square() + ratio[:, None]
        means.append(torch.einsum("bsr,br->bs", right.expand(len(target), -1, -1), size / scale * rotated))
        spreads.append((prior * ratio)[:, None].sqrt() / scale.sqrt())
        variances.append(prior * ratio * count)
    total = online.counts.sum(1).clamp_min(1)
    return Smooth(
        mean=torch.cat(means, dim=1),
        directions=directions,
        spread=torch.stack(spreads, dim=1),
        noise_std=noise_std if noise_given else (torch.stack(variances).sum(0) / total).sqrt(),
    )
