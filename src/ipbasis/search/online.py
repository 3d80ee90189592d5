"""The online problem of a batch of queries: data and physics as small least-squares forms."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ipbasis.search.physics import Physics
from ipbasis.search.priors import Priors
from ipbasis.search.rows import numbers


@dataclass(frozen=True)
class Online:
    """Least-squares forms of a batch in N = F r unknowns a query (see `Physics`).

    Args:
        physics: equation and conditions in the span of the basis.
        data_root: (B or 1, F or 1, R, r), ``|data_root c - data_target|² + data_rest`` is the weighted data misfit of
            a field with unknowns c; once if the queries, or the fields, share it.
        data_normal: (B or 1, F or 1, r, r) its normal matrix.
        data_target: (B, F, R).
        data_rest: (B, F) part of the misfit that no readout can remove.
        counts: (B, F) observed values.
        amplitude: (B,) root mean square of the observed values.
        weight: (B,) root mean square of their weights.
        known: (B, P) given values of parameters, NaN for those to estimate.
        initial: (B, free initial values) given ones, NaN for those that the data are to tell.
        gives_initial: whether any query of the whole batch gives one.
        ranges: (P, 2) trained range of each parameter.
        priors: bounds and distributions of the parameters.
    """

    physics: Physics
    data_root: Tensor
    data_normal: Tensor
    data_target: Tensor
    data_rest: Tensor
    counts: Tensor
    amplitude: Tensor
    weight: Tensor
    known: Tensor
    initial: Tensor
    gives_initial: bool
    ranges: Tensor
    priors: Priors

    def __len__(self) -> int:
        return len(self.data_target)

    @property
    def free(self) -> Tensor:
        """(B, P) 1 for each parameter to estimate, else 0."""
        return self.known.isnan().to(self.known.dtype)

    @cached_property
    def given_initial(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows (I, N) of the initial values if any query gives one, right-hand sides (B, I), and (B, I) 1 if given."""
        given, chosen = self.initial.isfinite(), self.physics.initial_selection
        if not self.gives_initial:
            return self.physics.initial_rows[:0], self.initial[:, :0], self.initial[:, :0]
        counts = given.to(chosen.dtype) @ (chosen != 0).to(chosen.dtype).T
        return self.physics.initial_rows, self.initial.nan_to_num(0.0) @ chosen.T, counts

    def with_initial_held(self) -> "Online":
        """The same with every initial value given: zero for those that the data are to tell."""
        return replace(self, initial=self.initial.nan_to_num(0.0), gives_initial=self.initial.shape[1] > 0)

    @property
    def free_freedom(self) -> Tensor:
        """(B,) observations less the readouts that they can determine, field by field."""
        return (self.counts - self.data_root.shape[3]).clamp_min(0).sum(1)

    @property
    def fields(self) -> int:
        """Number F of fields."""
        return self.data_target.shape[1]

    @property
    def size(self) -> int:
        """Number N of unknowns."""
        return self.physics.combinations.shape[1]

    def observed(self, unknowns: Tensor) -> Tensor:
        """(B, k, F R) weighted values at the observations, reduced to their roots, for unknowns (B, k, N)."""
        by_field = unknowns.chunk(self.fields, dim=2)
        return torch.cat([own @ root.mT for own, root in zip(by_field, self.roots, strict=True)], dim=2)

    def observed_adjoint(self, rows: Tensor) -> Tensor:
        """(B, k, N) transpose of `observed`, for rows (B, k, F R)."""
        by_field = rows.chunk(self.fields, dim=2)
        return torch.cat([own @ root for own, root in zip(by_field, self.roots, strict=True)], dim=2)

    @property
    def roots(self) -> tuple[Tensor, ...]:
        """(B, R, r) of `data_root` for each field; (R, r) where the queries share it, for one product of matrices."""
        roots = self.data_root[0] if len(self.data_root) == 1 else self.data_root.transpose(0, 1)
        return roots.expand(self.fields, *roots.shape[1:]).unbind(0)

    @property
    def data_normals(self) -> Tensor:
        """(B or 1, F, r, r) `data_normal` of every field."""
        return self.data_normal.expand(-1, self.fields, -1, -1)

    @property
    def data_size(self) -> Tensor:
        """(B or 1,) root of the sum of squares of the data's rows."""
        return self.data_normals.diagonal(dim1=2, dim2=3).sum((1, 2)).sqrt()

    def add_data_normal(self, normal: Tensor, factor: Tensor) -> None:
        """Add the data's normal matrix times a factor (B,) to the first N rows and columns of matrices (B, n, n)."""
        for own, block in zip(self.blocks(normal), self.data_normals.unbind(1), strict=True):
            own.addcmul_(block, factor[:, None, None])

    def data_trace(self, matrices: Tensor) -> Tensor:
        """(B, F) traces of the products of the fields' normal matrices and those parts of others (B, n, n)."""
        products = zip(self.blocks(matrices), self.data_normals.unbind(1), strict=True)
        return torch.stack([(own * block).sum((1, 2)) for own, block in products], dim=1)

    def blocks(self, matrices: Tensor) -> list[Tensor]:
        """(B, r, r) for each field: the parts of matrices (B, n, n) that belong to its unknowns alone."""
        own = [self.physics.own(field) for field in range(self.fields)]
        return [matrices[:, rows, rows] for rows in own]

    def weighted(self, factor: Tensor) -> "Online":
        """The same with the data weights of each query multiplied by a factor (B,)."""
        return replace(
            self,
            data_root=self.data_root * factor[:, None, None, None],
            data_normal=self.data_normal * factor.square()[:, None, None, None],
            data_target=self.data_target * factor[:, None, None],
            data_rest=self.data_rest * factor.square()[:, None],
            weight=self.weight * factor,
        )

    def select(self, rows: Tensor | slice) -> "Online":
        """The queries in `rows`."""
        rows = numbers(rows)
        own = ["data_target", "data_rest", "counts", "amplitude", "weight", "known", "initial"]
        if len(self.data_root) > 1:
            own += ["data_root", "data_normal"]
        return replace(self, **{name: getattr(self, name)[rows] for name in own})
