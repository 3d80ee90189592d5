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
from ipbasis.search.rows import put, select
from ipbasis.search.solution import Solution

_MOST = 2  # valleys that are searched
_LESS = 0.25  # of the rise of the misfit that error bars tell
# Twice the logarithm of the likelihoods' ratio, up to which another place is as good: beyond it is right in 0.5 %.
_AS_GOOD = 10.6
_FAR = 4.0  # error bars, from which on another place is another one


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

    def rivals(self, misfit: Tensor, unknowns: Tensor, solution: Solution) -> Tensor:
        """(B, R) numbers of tasks at the bottom of other valleys, the best first; -1 where there is none.

        Args:
            misfit: (B, T) of the tasks.
            unknowns: (B, U) estimates.
            solution: they are of; where it is vague, or did not converge, none are looked for.
        """
        count = len(self.shares)
        if count < 2:
            return torch.full_like(misfit[:, :0], -1, dtype=torch.long)
        least, where = misfit[:, self.neighbours].min(2)
        bottom = least >= misfit
        steps = torch.where(bottom, torch.arange(count), self.neighbours[torch.arange(count), where])
        shares = torch.as_tensor(self.problem.ranges.shares(unknowns.numpy()))
        own = torch.cdist(shares, self.shares).argmin(1, keepdim=True)
        for _ in range(count):
            following = steps.gather(1, own)
            if following.equal(own):
                break
            own = following
        values, tasks = misfit.where(bottom, torch.inf).scatter(1, own, torch.inf).sort(dim=1)
        tasks = torch.where(values.isfinite(), tasks, -1)[:, :_MOST]
        low, high = torch.as_tensor(self.problem.parameter_ranges.T)
        std = solution.covariance.diagonal(dim1=1, dim2=2).sqrt()
        sure = solution.converged & (std < (high - low) / 12**0.5).all(1)
        unit = torch.where(std > 0, std, torch.inf)  # given values are no unknowns
        offset = (self.parameters - solution.parameters[:, None]) / unit[:, None]
        correlation = solution.covariance / (unit[:, :, None] * unit[:, None])
        inverse = torch.linalg.pinv(correlation.nan_to_num(0.0), hermitian=True)
        expected = torch.einsum("btp,bpq,btq->bt", offset, inverse, offset)
        rise = (misfit - solution.misfit[:, None]) / solution.noise_std.square()[:, None]
        share, less = (rise / expected).nan_to_num(torch.inf).where(expected > _FAR**2, torch.inf).min(1)
        behind = torch.where((share < _LESS) & (less[:, None] != tasks).all(1), less, -1)
        return torch.where(sure[:, None], torch.cat([tasks, behind[:, None]], dim=1), -1)


class Ended(Protocol):
    """Where searches ended: unknowns (B, U), the parameters first; misfit, iterations and converged (B,)."""

    unknowns: Tensor
    misfit: Tensor
    iterations: Tensor
    converged: Tensor


class Asked(Protocol):
    """What was asked: degrees of freedom (B,), and a given noise (B,), NaN where it is estimated."""

    freedom: Tensor
    noise: Tensor


T = TypeVar("T", bound=Ended)


def with_rivals(
    best: T,
    starts: Tensor,
    covariance: Tensor,
    asked: Asked,
    error: Callable[[Tensor, T], Tensor],
    search: Callable[[Tensor, Tensor], T],
) -> tuple[Tensor, Tensor]:
    """Put better ends of searches in the place of those that are there, and tell what is about as good elsewhere.

    Args:
        best: where the searches of a batch ended; it is changed.
        starts: (B, R) see `Places.rivals`.
        covariance: (B, P, P) of its parameters.
        asked: of the batch.
        error: misfit by which an end of queries (rows) may be off for the errors of the basis.
        search: searches queries (rows) from solved tasks (of these numbers).

    Returns:
        the queries that are changed, and for all (B, P) parameters far away that fit about as well, NaN where none were
        found.
    """
    std = covariance.diagonal(dim1=1, dim2=2).sqrt()
    rival, changed = torch.full_like(std, torch.nan), torch.zeros_like(best.converged)
    for tasks in starts.T:
        rows = ((tasks >= 0) & rival.isnan().all(1)).nonzero().squeeze(1)
        if not len(rows):
            continue
        before, other = select(best, rows), search(rows, tasks[rows])
        iterations = before.iterations + other.iterations
        here, there = (ended.unknowns[:, : std.shape[1]] for ended in (before, other))
        far = other.converged & ((there - here).abs() > _FAR * std[rows]).any(1)
        larger, least = torch.maximum(before.misfit, other.misfit), torch.minimum(before.misfit, other.misfit)
        noise, freedom = asked.noise[rows], asked.freedom[rows]
        floor = error(rows, before) + error(rows, other)
        ratio = freedom * ((larger + floor) / (least + floor)).log()
        rise = torch.where(noise.isfinite(), (larger - least) / noise.square(), ratio)
        better = far & (other.misfit < before.misfit)
        as_good = far & (rise < _AS_GOOD)
        rival[rows[as_good]] = torch.where(better[:, None], here, there)[as_good]
        put(best, rows, replace(before, iterations=iterations))
        put(best, rows[better], replace(select(other, better), iterations=iterations[better]))
        changed[rows[better]] = True
    return changed.nonzero().squeeze(1), rival
