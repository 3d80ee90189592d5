"""Other starts for searches that end in a doubtful place, and the bounds of what is searched."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ipbasis.problem.declaration import Problem
from ipbasis.search.priors import priors_of
from ipbasis.search.rows import put, select

T = TypeVar("T")

_OTHER_STARTS = (2, 7)  # in the order of nearness, where the nearest ends in a doubtful place
_MORE = 1.5  # times the variance that is due, from which on another start is tried


def with_other_starts(
    best: T, starts: int, doubtful: Callable[[T], Tensor], search: Callable[[Tensor, int, T], T]
) -> None:
    """Put the better end of searches from other starts in the place of doubtful ones.

    Args:
        best: where the searches of a batch from the nearest start ended, with ``misfit``, ``iterations`` and
            ``converged`` (B,); it is changed.
        starts: that there are.
        doubtful: tells which (B,) are.
        search: searches queries (rows) from the start of a number in the order of nearness, beside where they ended.
    """
    for number in _OTHER_STARTS:
        rows = doubtful(best).nonzero().squeeze(1)
        if not len(rows) or number >= starts:
            return
        before = select(best, rows)
        other = search(rows, number, before)
        better = other.converged & ((other.misfit < before.misfit) | ~before.converged)
        put(best, rows, replace(before, iterations=before.iterations + other.iterations))
        put(best, rows[better], select(other, better))


def larger_than_due(
    misfit: Tensor, freedom: Tensor, noise: Tensor, free_misfit: Tensor, free_freedom: Tensor
) -> Tensor:
    """(B,) whether a misfit is larger than it need be, or nothing tells.

    Args:
        misfit, freedom: of the fit.
        noise: standard deviation in units of the weights, NaN where it is estimated.
        free_misfit, free_freedom: see `Solution`.
    """
    given, tested = noise.isfinite(), free_freedom >= 1
    scatter = torch.where(tested, free_misfit / free_freedom.clamp_min(1), torch.inf)
    least = torch.where(given, noise.square(), scatter)
    return ~(misfit / freedom < _MORE * least) | ~(tested | given)


def searched_bounds(problem: Problem) -> Tensor:
    """(2, U) low and high ends that parameters and free initial values are kept to."""
    priors, intervals = priors_of(problem), problem.free_initial.values()
    low, high = torch.as_tensor(np.array([own.widened for own in intervals]).reshape(-1, 2).T)
    return torch.stack([torch.cat([priors.low, low]), torch.cat([priors.high, high])])


def trained_bounds(problem: Problem) -> Tensor:
    """(2, U) the trained ranges, within the bounds."""
    low, high = torch.as_tensor(problem.unknown_ranges).T
    least, most = searched_bounds(problem)
    return torch.stack([low.maximum(least), high.minimum(most)])
