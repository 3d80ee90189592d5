"""What a baseline gets, and what it gives, for one query."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np


@dataclass(frozen=True)
class BaselineQuery:
    """Observations of one query.

    Args:
        points: (n, d) points of observation.
        values: (n, F) observations, NaN where there is none.
        known: (P,) given values of parameters, NaN for those to estimate.
    """

    points: np.ndarray
    values: np.ndarray
    known: np.ndarray


@dataclass(frozen=True)
class Snapshot:
    """Where a training stood after some steps.

    Args:
        step: steps done.
        seconds: of training until then.
        loss: there.
        parameters: (P,), see `BaselineFit`.
        terms: (n, terms), see `BaselineFit`.
    """

    step: int
    seconds: float
    loss: float
    parameters: np.ndarray
    terms: np.ndarray


@dataclass(frozen=True)
class BaselineFit:
    """Outcome of a baseline for one query.

    Args:
        parameters: (P,), NaN where it failed, or where one is neither given nor in the equations as solved.
        terms: (n, terms) unknown terms along the fitted solution, at the points of observation.
        loss: of the estimates.
        seconds: for all of it.
        effort: optimiser steps, or solutions of the equation.
        history: states on the way, where the baseline is trained.
    """

    parameters: np.ndarray
    terms: np.ndarray
    loss: float
    seconds: float
    effort: int
    history: list[Snapshot] = field(default_factory=list)


def best_so_far(history: Sequence[Snapshot]) -> list[Snapshot]:
    """What one would hold after each record if the state with the smallest loss is kept."""
    kept: list[Snapshot] = []
    for now in history:
        better = not kept or now.loss < kept[-1].loss or np.isnan(kept[-1].loss)
        kept.append(now if better else replace(kept[-1], step=now.step, seconds=now.seconds))
    return kept


class Stopwatch:
    """Seconds since it was made, without those in which it was paused."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The time within the block does not count."""
        begin = time.perf_counter()
        yield
        self._started += time.perf_counter() - begin
