"""The mean squared data misfit of the published recipes, reduced so that its cost does not depend on the points."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ipbasis.observations.long_form import Batch
from ipbasis.offline.artefact import Basis
from ipbasis.search.assemble import data_forms, observed_functions

_POINTS_AT_ONCE = 20_000


@dataclass(frozen=True)
class Misfit:
    """Mean squared misfit of each query, ``|root w - targets|² + rest`` with its readouts w.

    Args:
        root: (R, N) where all queries were observed at the same points. Else (B G, R, K), the roots of each
            query's own points; fields that were observed together share one, so that there are G = 1 or F.
        targets: (B, R), or (B G, R, F / G).
        rest: (B,) part of the misfit that no readout can remove.
    """

    root: Tensor
    targets: Tensor
    rest: Tensor

    @property
    def shared(self) -> bool:
        """Whether all queries were observed at the same points."""
        return self.root.ndim == 2

    def to(self, dtype: torch.dtype) -> "Misfit":
        """The same in another number type."""
        return Misfit(self.root.to(dtype), self.targets.to(dtype), self.rest.to(dtype))

    def _by_root(self, readouts: Tensor) -> Tensor:
        return readouts.view(len(self.root), -1, self.root.shape[2])

    def residual(self, readouts: Tensor) -> Tensor:
        """``root w - targets`` for readouts (B, N), in the shape of the targets."""
        if self.shared:
            return torch.addmm(self.targets, readouts, self.root.T, beta=-1)
        return torch.baddbmm(self.targets, self.root, self._by_root(readouts).mT, beta=-1)

    def add_gradient(self, gradient: Tensor, residual: Tensor) -> None:
        """Add half the gradient of ``|residual|²`` by the readouts to (B, N)."""
        if self.shared:
            gradient.addmm_(residual, self.root)
        else:
            self._by_root(gradient).baddbmm_(residual.mT, self.root)

    def squares(self, residual: Tensor) -> Tensor:
        """(B,) sum of squares of a residual."""
        return residual.square().view(len(self.rest), -1).sum(1)

    def __call__(self, readouts: Tensor) -> Tensor:
        """(B,) mean squared misfit of readouts (B, N)."""
        return self.squares(self.residual(readouts)) + self.rest


def reduce_misfit(basis: Basis, batch: Batch) -> Misfit:
    """The mean squared misfit of a batch over all its observed values, in float64.

    Args:
        basis: the functions.
        batch: the observations. Queries may differ in points, number of them, and fields observed.
    """
    observed = torch.as_tensor(batch.observed)
    weights = observed.double() / observed.double().sum((1, 2), keepdim=True).sqrt()
    values = torch.as_tensor(batch.values)
    if observed.all() and (batch.points == batch.points[:1]).all():
        root, targets, rest = data_forms(observed_functions(basis, batch), values, weights)
        return Misfit(torch.block_diag(*root[0].expand(targets.shape[1], -1, -1)), targets.flatten(1), rest.sum(1))
    together = bool((observed == observed[..., :1]).all())
    return _own_misfits(basis, torch.as_tensor(batch.points), values, weights, 1 if together else values.shape[2])


def _own_misfits(basis: Basis, points: Tensor, values: Tensor, weights: Tensor, groups: int) -> Misfit:
    """The misfit where each query has points of its own (B, n, d), in `groups` groups of fields.

    The queries are reduced a few at a time, those with about as many points together.
    """
    queries, _, fields = values.shape
    seen = weights.any(2)
    ends = (seen * torch.arange(1, seen.shape[1] + 1)).amax(1)
    width, each = basis.record.functions, fields // groups
    height = min(width, int(ends.max()))
    root = values.new_zeros(queries, groups, height, width)
    targets = values.new_zeros(queries, groups, height, each)
    rest = values.new_zeros(queries)
    order = ends.argsort(descending=True)
    while len(order):
        count = int(ends[order[0]])
        size = max(1, _POINTS_AT_ONCE // count)
        rows, order = order[:size], order[size:]
        at = points[rows, :count]
        features = basis.function_map(at.flatten(0, 1))[()].unflatten(0, at.shape[:2])
        for group in range(groups):
            own = slice(group * each, (group + 1) * each)
            weight = weights[rows, :count, own.start, None]
            stacked = torch.cat([features, values[rows, :count, own]], dim=2) * weight
            triangular = torch.linalg.qr(stacked, mode="r").R
            upper = triangular[:, :width]
            root[rows, group, : upper.shape[1]] = upper[..., :width]
            targets[rows, group, : upper.shape[1]] = upper[..., width:]
            rest[rows] += triangular[:, width:, width:].square().sum((1, 2))
    return Misfit(root.flatten(0, 1), targets.flatten(0, 1), rest)
