"""What a baseline gives for one query."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Fit:
    """Outcome of a baseline for one query.

    Args:
        parameters: (P,), NaN if it failed.
        loss: at the end.
        seconds: for all of it.
        effort: optimiser steps, or integrations of the equation.
        history: ``step`` and ``loss`` on the way, where the baseline is trained.
    """

    parameters: np.ndarray
    loss: float
    seconds: float
    effort: int
    history: list[dict[str, float]] = field(default_factory=list)
