"""Seconds of training until an error stays small: what speeds at equal accuracy are quoted from."""

from collections.abc import Sequence

import numpy as np
import pandas as pd


def time_to_accuracy(
    steps: Sequence[int], seconds: Sequence[float], errors: Sequence[float], levels: Sequence[float]
) -> pd.DataFrame:
    """When the error falls to each level to stay there until the end.

    Args:
        steps: (n,) steps done at each record, increasing.
        seconds: (n,) of training until then.
        errors: (n,) error at each record; NaN counts as above every level.
        levels: errors to reach.

    Returns:
        one row per level with ``level``, ``seconds`` and ``steps``, both NaN if the last error is above it.
    """
    rows = []
    for level in levels:
        above = np.flatnonzero(~(np.asarray(errors, dtype=float) <= level))
        first = above[-1] + 1 if len(above) else 0
        reached = first < len(errors)
        rows.append(
            {
                "level": level,
                "seconds": seconds[first] if reached else np.nan,
                "steps": steps[first] if reached else np.nan,
            }
        )
    return pd.DataFrame(rows, columns=["level", "seconds", "steps"])
