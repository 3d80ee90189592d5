"""Equation and conditions in the span of a basis: equations with an affine split as one small factor."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ipbasis.offline.operators import theta
from ipbasis.problem.equations import Equations


@dataclass(frozen=True)
class Physics:
    """Equation and conditions in the span of a basis.

    The unknowns are the coordinates c of the readouts w = combinations c in combinations of the functions that are
    orthonormal in value and derivatives together: in them the residual is well conditioned, and a large weight on it
    does no harm.

    Args:
        system: the equations.
        combinations: (F K, N) takes coordinates to readouts, those of all fields in a row.
        condition_rows: (C, N), ``|condition_rows c - condition_target|²`` is the mean squared error of the
            conditions that are the same for every task.
        condition_target: (C,).
        initial_rows: (I, N) the same of the initial values that differ from task to task.
        initial_selection: (I, free initial values), the target of those rows is its product with the values.
        determined: whether the conditions leave no freedom: the same solution for all tasks of equal parameters.
    """

    system: Equations
    combinations: Tensor
    condition_rows: Tensor
    condition_target: Tensor
    initial_rows: Tensor
    initial_selection: Tensor
    determined: bool

    @property
    def energy(self) -> Tensor:
        """(K, r) the readouts of one field in a combination of the functions."""
        fields = len(self.system.notation.fields)
        return self.combinations[: len(self.combinations) // fields, self.own(0)]

    def own(self, field: int) -> slice:
        """Where the unknowns of one field stand among all."""
        width = self.combinations.shape[1] // len(self.system.notation.fields)
        return slice(field * width, (field + 1) * width)


@dataclass(frozen=True)
class AffinePhysics(Physics):
    """Equations with an affine split, reduced to one small factor.

    Args:
        factor: (Q, m, N + 1), ``|Σ_q θ_q factor_q (c, 1)|²`` is the mean squared residual.
    """

    factor: Tensor

    def thetas(self, parameters: Tensor) -> Tensor:
        """(B, Q) values of the parameter functions."""
        return theta(self.system, parameters)[0]

    @cached_property
    def gram(self) -> Tensor:
        """(Q (Q + 1) / 2, N, N) ``(A_qᵀA_r + A_rᵀA_q) / 2`` of the operators; those of a query are combinations."""
        operators = self.factor[..., :-1]
        pairs = torch.triu_indices(len(operators), len(operators))
        products = operators[pairs[0]].mT @ operators[pairs[1]]
        return (products + products.mT) / 2

    def normal(self, thetas: Tensor) -> Tensor:
        """(B, N, N) normal matrix of the residual for parameter functions (B, Q)."""
        pairs = torch.triu_indices(thetas.shape[1], thetas.shape[1])
        twice = 2 - (pairs[0] == pairs[1]).to(thetas.dtype)
        products = thetas[:, pairs[0]] * thetas[:, pairs[1]] * twice
        return (products @ self.gram.flatten(1)).unflatten(1, self.gram.shape[1:])

    @cached_property
    def _stacked(self) -> tuple[Tensor, Tensor]:
        """The operators below each other (Q' m, N), and side by side (m, Q' N), mere sources left out."""
        operators = self.factor[self._acting, :, :-1]
        return operators.flatten(0, 1), operators.transpose(0, 1).flatten(1).contiguous()

    @cached_property
    def _acting(self) -> Tensor:
        """(Q') numbers of the operators that are not sources only."""
        return self.factor[..., :-1].abs().amax((1, 2)).nonzero().squeeze(1)

    def apply(self, thetas: Tensor, unknowns: Tensor) -> Tensor:
        """(B, k, m) rows of the residual without its source, for unknowns (B, k, N)."""
        applied = (unknowns @ self._stacked[0].T).unflatten(2, (len(self._acting), -1))
        return _combined(thetas[:, self._acting], applied)

    def adjoint(self, thetas: Tensor, rows: Tensor) -> Tensor:
        """(B, k, N) transpose of `apply`, for rows (B, k, m)."""
        applied = (rows @ self._stacked[1]).unflatten(2, (len(self._acting), -1))
        return _combined(thetas[:, self._acting], applied)

    def source(self, thetas: Tensor) -> Tensor:
        """(B, m) residual of unknowns of zero."""
        return thetas @ self.factor[..., -1]

    def operator_slope(self, parameters: Tensor, unknowns: Tensor) -> Tensor:
        """(B, m, P) derivative of the residual's rows by the parameters, the unknowns (B, N) held fixed."""
        _, slopes = theta(self.system, parameters)
        applied = unknowns @ self.factor[..., :-1].flatten(0, 1).T + self.factor[..., -1].flatten()
        return torch.einsum("bqp,bqm->bmp", slopes, applied.unflatten(1, self.factor.shape[:2]))


def _combined(thetas: Tensor, applied: Tensor) -> Tensor:
    """(B, k, m) sum over q of thetas (B, Q) times operators applied (B, k, Q, m)."""
    total = thetas[:, 0, None, None] * applied[:, :, 0]
    for q in range(1, thetas.shape[1]):
        total.addcmul_(thetas[:, q, None, None], applied[:, :, q])
    return total
