"""The online problem of a batch of queries as small least-squares forms.

Observations and equation are both reduced to roots of their normal matrices over the K functions of the
basis, so that the cost of an iteration depends neither on the number of observations nor of collocation
points. Roots rather than normal matrices are kept: squaring would cost half of the digits.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ipbasis.basis.artefact import Basis
from ipbasis.basis.forward import energy_coordinates
from ipbasis.basis.operators import conditions, residual_factor, theta
from ipbasis.equations import Equations
from ipbasis.observations import Batch

_CONDITION_POINTS = 101
_POINTS_AT_ONCE = 100_000


@dataclass(frozen=True)
class Physics:
    """Equation and conditions in the span of a basis.

    The unknowns c are readouts w = coordinates c in combinations of the functions that are orthonormal in
    value and derivatives together: in them the residual is well conditioned, and a large weight on it
    does no harm.

    Args:
        system: the equations.
        coordinates: (F K, N), the readouts of all fields in a row.
        factor: (Q, m, N + 1), ``|Σ_q θ_q factor_q (c, 1)|²`` is the mean squared residual.
        condition_rows: (C, N), ``|condition_rows c - condition_target|²`` is the mean squared error of the
            conditions that are the same for every task.
        condition_target: (C,).
    """

    system: Equations
    coordinates: Tensor
    factor: Tensor
    condition_rows: Tensor
    condition_target: Tensor


@dataclass(frozen=True)
class Online:
    """Least-squares forms of a batch in N = F K unknowns a query (see `Physics`).

    Args:
        physics: equation and conditions in the span of the basis.
        data_root: (B or 1, R, N), ``|data_root c - data_target|² + data_rest`` is the weighted data misfit.
        data_target: (B, R).
        data_rest: (B,) part of the misfit that no readout can remove.
        counts: (B,) observed values.
        amplitude: (B,) root mean square of the observed values.
        known: (B, P) given values of parameters, NaN for those to estimate.
        ranges: (P, 2) trained range of each parameter.
    """

    physics: "Physics"
    data_root: Tensor
    data_target: Tensor
    data_rest: Tensor
    counts: Tensor
    amplitude: Tensor
    known: Tensor
    ranges: Tensor

    def __len__(self) -> int:
        return len(self.data_target)

    @property
    def free(self) -> Tensor:
        """(B, P) 1 for each parameter to estimate, else 0."""
        return self.known.isnan().to(self.known.dtype)

    def select(self, rows: Tensor) -> "Online":
        """The queries in `rows`."""
        own = ("data_target", "data_rest", "counts", "amplitude", "known")
        parts = {name: getattr(self, name)[rows] for name in own}
        root = self.data_root if len(self.data_root) == 1 else self.data_root[rows]
        return replace(self, data_root=root, **parts)

    def operator(self, parameters: Tensor) -> Tensor:
        """(B, m, N + 1) rows of the residual for given parameters (B, P)."""
        thetas, _ = theta(self.physics.system, parameters)
        return torch.einsum("bq,qmk->bmk", thetas, self.physics.factor)

    def operator_slope(self, parameters: Tensor, unknowns: Tensor) -> Tensor:
        """(B, m, P) derivative of the residual's rows by the parameters, the unknowns (B, N) held fixed.

        The columns of known parameters are zero.
        """
        _, slopes = theta(self.physics.system, parameters)
        factor = self.physics.factor
        applied = unknowns @ factor[..., :-1].flatten(0, 1).T + factor[..., -1].flatten()
        applied = applied.unflatten(1, factor.shape[:2])
        return torch.einsum("bqp,bqm->bmp", slopes, applied) * self.free[:, None]


def reduce_physics(basis: Basis) -> Physics:
    """Equation and conditions of a basis as small linear forms, once per basis."""
    problem, fields = basis.problem, len(basis.problem.fields)
    features = basis.feature_map(basis.quadrature.points, problem.system.indices)
    root = basis.quadrature.weights.double().sqrt()[:, None]
    weighted = {index: values * root for index, values in features.items()}
    energy = energy_coordinates(weighted, problem.domain, 1e-14)
    coordinates = torch.block_diag(*[energy] * fields)
    factor = compact(residual_factor(problem, features, basis.quadrature, coordinates))
    given = conditions(problem, _CONDITION_POINTS, torch.float64)
    rows = given.rows(basis.feature_map(given.points, given.indices)) @ coordinates
    same = ~given.selection.any(dim=1)
    return Physics(problem.system, coordinates, factor, rows[same], given.fixed[same])


def compact(factor: Tensor) -> Tensor:
    """An equal factor (Q, m, N + 1) with as few rows m as its rank."""
    flat = torch.cat([*factor], dim=1)
    _, sizes, directions = torch.linalg.svd(flat, full_matrices=False)
    keep = sizes > 1e-14 * sizes[0]
    return (sizes[keep, None] * directions[keep]).unflatten(1, (len(factor), -1)).transpose(0, 1).contiguous()


def observed_features(basis: Basis, batch: Batch) -> Tensor:
    """(B or 1, n, K) functions at the points of observation; once if all queries share their points."""
    points = batch.points[:1] if (batch.points == batch.points[:1]).all() else batch.points
    flat = torch.tensor(points.reshape(-1, points.shape[2]))
    features = torch.cat([basis.feature_map(part)[()] for part in flat.split(_POINTS_AT_ONCE)])
    return features.unflatten(0, points.shape[:2])


def data_forms(features: Tensor, values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Roots of the weighted data misfit of each query, by QR.

    Args:
        features: (B or 1, n, K).
        values: (B, n, F).
        weights: (B, n, F) one over the standard deviation; zero where not observed.

    Returns:
        root (B or 1, R, F K), target (B, R) and rest (B,), see `Online`.
    """
    shared = len(features) == 1 and bool((weights == weights[:1, :1]).all())
    if shared:
        scale = weights[0, 0]
        orthogonal, triangular = torch.linalg.qr(features[0])
        right = values * weights
        target = torch.einsum("nr,bnf->bfr", orthogonal, right)
        rest = (right - torch.einsum("nr,bfr->bnf", orthogonal, target)).square().sum((1, 2))
        root = torch.block_diag(*[triangular * s for s in scale])[None]
        return root, target.flatten(1), rest
    roots, targets, rest = [], [], values.new_zeros(len(values))
    for field in range(values.shape[2]):
        weight = weights[..., field]
        orthogonal, triangular = torch.linalg.qr(features * weight[..., None])
        right = (values[..., field] * weight)[..., None]
        target = orthogonal.mT @ right
        rest += (right - orthogonal @ target).square().sum((1, 2))
        roots.append(triangular)
        targets.append(target.squeeze(2))
    height, width = roots[0].shape[1:]
    root = values.new_zeros(len(values), height * len(roots), width * len(roots))
    for field, triangular in enumerate(roots):
        root[:, field * height : (field + 1) * height, field * width : (field + 1) * width] = triangular
    return root, torch.cat(targets, dim=1), rest


def assemble(basis: Basis, physics: Physics, batch: Batch, std: Tensor | None) -> Online:
    """The online problem of a batch.

    Args:
        basis: the functions.
        physics: from `reduce_physics`, once per basis.
        batch: the observations.
        std: (B, n, F) standard deviation of each observation's error, the basis error included; None to
            weight all alike.
    """
    observed = torch.as_tensor(batch.observed)
    values = torch.as_tensor(batch.values)
    weights = observed.double() if std is None else torch.where(observed, 1 / std, 0.0)
    root, target, rest = data_forms(observed_features(basis, batch), values, weights)
    return Online(
        physics=physics,
        data_root=root @ physics.coordinates,
        data_target=target,
        data_rest=rest,
        counts=observed.sum((1, 2)),
        amplitude=amplitude(batch),
        known=torch.as_tensor(batch.known),
        ranges=torch.as_tensor(basis.problem.parameter_ranges),
    )


def amplitude(batch: Batch) -> Tensor:
    """(B,) root mean square of the observed values, all fields together: the scale of a query's errors."""
    by_field = (batch.values**2).sum(1) / np.maximum(batch.observed.sum(1), 1)
    size = np.sqrt(by_field.sum(1))
    return torch.as_tensor(np.where(size > 0, size, 1.0))
