"""Other places that fit the data about as well as an estimate: interchangeable rates, frequencies that the observations
cannot tell apart, parts of an observed sum.

They are looked for from solved tasks. A valley of the misfit that no downhill steps from one of them to the next lead
out of, but the one that the estimate lies in, may have an optimum of its own. So may what lies behind a task whose
misfit is far less than error bars say: of the fourth power with two equal optima it is a quarter at the middle.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from ipbasis.problem.declaration import Problem
from ipbasis.search.rows import merge, put, select

_MOST = 2  # valleys that are searched
_LESS = 0.25  # of the rise of the misfit that error bars tell
# Twice the logarithm of the likelihoods' ratio, up to which another place is as good: beyond it is right in 0.5 %.
_AS_GOOD = 10.6
FAR = 4.0  # error bars, from which on another place is another one


@dataclass(frozen=True)
class Places:
    """Where solved tasks are.

    Args:
        problem: the problem.
        parameters: (T, P).
        shares: (T, U) of these and the free initial values in their ranges.
        neighbours: (T, k) the nearest ones of each, two more than a grid has.
    """

    problem: Problem
    parameters: Tensor
    shares: Tensor
    neighbours: Tensor

    @classmethod
    def of(cls, problem: Problem, unknowns: Tensor) -> "Places":
        """Of tasks with parameters and free initial values (T, U)."""
        shares = torch.as_tensor(problem.ranges.shares(unknowns.numpy()))
        distances = torch.cdist(shares, shares).fill_diagonal_(torch.inf)
        most = min(2 * shares.shape[1] + 2, len(shares) - 1)
        parameters = unknowns[:, : len(problem.parameters)]
        return cls(problem, parameters, shares, distances.argsort(dim=1)[:, :most])

    def rivals(self, misfit: Tensor, ended: "Ended", covariance: Tensor) -> Tensor:
        """(B, R) numbers of tasks at the bottom of other valleys, the best first; -1 where there is none.

        Args:
            misfit: (B, T) of the tasks.
            ended: where the searches did; where one is vague, or did not converge, none are looked for.
            covariance: (B, P, P) of the parameters.
        """
        count = len(self.shares)
        if count < 2:
            return torch.full_like(misfit[:, :0], -1, dtype=torch.long)
        least, where = misfit[:, self.neighbours].min(2)
        bottom = least >= misfit
        steps = torch.where(bottom, torch.arange(count), self.neighbours[torch.arange(count), where])
        shares = torch.as_tensor(self.problem.ranges.shares(ended.unknowns.numpy()))
        own = torch.cdist(shares, self.shares).argmin(1, keepdim=True)
        for _ in range(count):
            following = steps.gather(1, own)
            if following.equal(own):
                break
            own = following
        values, tasks = misfit.where(bottom, torch.inf).scatter(1, own, torch.inf).sort(dim=1)
        tasks = torch.where(values.isfinite(), tasks, -1)[:, :_MOST]
        low, high = torch.as_tensor(self.problem.parameter_ranges.T)
        std = covariance.diagonal(dim1=1, dim2=2).sqrt()
        sure = ended.converged & (std < (high - low) / 12**0.5).all(1)
        unit = torch.where(std > 0, std, torch.inf)  # given values are no unknowns
        offset = (self.parameters - ended.unknowns[:, None, : std.shape[1]]) / unit[:, None]
        correlation = covariance / (unit[:, :, None] * unit[:, None])
        inverse = torch.linalg.pinv(correlation.nan_to_num(0.0), hermitian=True)
        expected = torch.einsum("btp,bpq,btq->bt", offset, inverse, offset)
        rise = (misfit - ended.misfit[:, None]) / ended.noise.square()[:, None]
        share, less = (rise / expected).nan_to_num(torch.inf).where(expected > FAR**2, torch.inf).min(1)
        behind = torch.where((share < _LESS) & (less[:, None] != tasks).all(1), less, -1)
        return torch.where(sure[:, None], torch.cat([tasks, behind[:, None]], dim=1), -1)


class Ended(Protocol):
    """Where searches ended: unknowns (B, U), the parameters first; misfit, noise, iterations and converged (B,)."""

    unknowns: Tensor
    misfit: Tensor
    noise: Tensor
    iterations: Tensor
    converged: Tensor


class Asked(Protocol):
    """What was asked: degrees of freedom (B,), and a given noise (B,), NaN where it is estimated."""

    freedom: Tensor
    noise: Tensor


T = TypeVar("T", bound=Ended)


def with_rivals(
    best: T, starts: Tensor, covariance: Tensor, search: Callable[[Tensor, Tensor], T]
) -> tuple[Tensor, T, Tensor]:
    """Put better ends of searches in the place of those that are there.

    Args:
        best: where the searches of a batch ended; it is changed.
        starts: (B, R) see `Places.rivals`.
        covariance: (B, P, P) of its parameters.
        search: searches queries (rows) from solved tasks (of these numbers).

    Returns:
        the queries that are changed, the best ones of other places, and of which queries (B,) there is one.
    """
    other = select(best, torch.arange(len(starts)))
    there, changed = (torch.zeros_like(best.converged) for _ in range(2))
    for tasks in starts.T:
        rows = (tasks >= 0).nonzero().squeeze(1)
        if not len(rows):
            continue
        before, found = select(best, rows), search(rows, tasks[rows])
        best.iterations[rows] += found.iterations
        apart = found.converged & far(before, found, covariance[rows])
        better = apart & (found.misfit < before.misfit)
        second = merge(found, before, better)
        put(best, rows[better], replace(select(found, better), iterations=best.iterations[rows[better]]))
        kept = there[rows] & (other.misfit[rows] <= second.misfit)
        kept &= far(select(best, rows), select(other, rows), covariance[rows])
        taken = apart & ~kept
        put(other, rows[taken], select(second, taken))
        there[rows[taken]] = changed[rows[better]] = True
    return changed.nonzero().squeeze(1), other, there


def far(here: Ended, there: Ended, covariance: Tensor) -> Tensor:
    """(B,) whether two places are far apart in error bars by a covariance (B, P, P) of the parameters."""
    std = covariance.diagonal(dim1=1, dim2=2).sqrt()
    return ((there.unknowns - here.unknowns)[:, : std.shape[1]].abs() > FAR * std).any(1)


def as_good(one: Ended, other: Ended, asked: Asked, error: Tensor) -> Tensor:
    """(B,) whether of two places neither fits the data so much worse that it can be excluded.

    Args:
        one, other: the places.
        asked: of the batch.
        error: (B,) misfit by which both may be off for the errors of the basis.
    """
    larger, least = torch.maximum(one.misfit, other.misfit), torch.minimum(one.misfit, other.misfit)
    ratio = asked.freedom * ((larger + error) / (least + error)).log()
    rise = torch.where(asked.noise.isfinite(), (larger - least) / asked.noise.square(), ratio)
    return rise < _AS_GOOD
