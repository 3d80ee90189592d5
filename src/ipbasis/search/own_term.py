"""The physics term that the basis leaves by its own fault, taken off the objective."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ipbasis.offline.artefact import Accuracy
from ipbasis.search.elimination import eliminate, reduced_jacobian
from ipbasis.search.online import Online
from ipbasis.search.weights import Weights

_KINK = 2.0  # of the worst residual in validation, up to which a residual is the fault of the basis


@dataclass(frozen=True)
class OwnTerm:
    """The physics term that the basis leaves at given parameters whatever the data are: its own fault.

    Where the conditions determine the solution, the residual of the best solution in the basis differs
    from one parameter to the next, and would pull the estimates to those that the basis happens to solve
    best. It says nothing of the data, so it is taken off the objective, up to somewhat above the worst seen in
    validation: beyond that the parameters are where the basis knows nothing. What is worst is often found at the
    ends of the trained ranges, and the kink must not lie there.

    Args:
        objective: (B,) zero where there is nothing to take off.
        gradient: (B, P) half its gradient.
        information: (B, P, P) its Gauss-Newton matrix.
    """

    objective: Tensor
    gradient: Tensor
    information: Tensor

    def scaled(self, width: Tensor) -> "OwnTerm":
        """The same by parameters in units of `width` (P,) or (B, P)."""
        both = width[..., None, :] * width[..., None]
        return OwnTerm(self.objective, self.gradient * width, self.information * both)

    def change(self, step: Tensor) -> Tensor:
        """(B,) change of the objective that a step (B, P) is predicted to make."""
        return 2 * (self.gradient * step).sum(1) + torch.einsum("bp,bpq,bq->b", step, self.information, step)


def worst_objective(online: Online, weights: Weights, accuracy: Accuracy) -> Tensor:
    """(B,) up to which the physics term may be the fault of the basis."""
    worst = accuracy.worst_residual or accuracy.residual
    return (_KINK * worst * online.amplitude * weights.physics).square()


def own_term(online: Online, parameters: Tensor, weights: Weights, accuracy: Accuracy) -> OwnTerm:
    """See `OwnTerm`."""
    queries, count = parameters.shape
    if not online.physics.determined:
        return OwnTerm(
            parameters.new_zeros(queries),
            parameters.new_zeros(queries, count),
            parameters.new_zeros(queries, count, count),
        )
    alone = replace(weights, data=torch.zeros_like(weights.data))
    online = replace(online, priors=online.priors.without_distributions())
    point = eliminate(online, parameters, alone)
    jacobian = reduced_jacobian(online, point, alone)
    worst = worst_objective(online, weights, accuracy)
    below = (point.objective < worst).to(parameters.dtype)
    return OwnTerm(
        torch.minimum(point.objective, worst),
        (jacobian.mT @ point.residual[..., None]).squeeze(2) * below[:, None],
        jacobian.mT @ jacobian * below[:, None, None],
    )
