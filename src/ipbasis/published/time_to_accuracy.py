"""Seconds of training until an error stays small: what speeds at equal accuracy are quoted from."""

from collections.abc import Sequence

import numpy as np
import pandas as pd


def time_to_accuracy(
    steps: Sequence[int], seconds: Sequence[float], errors: Sequence[float], targets: Sequence[float]
) -> pd.DataFrame:
    """When the error falls to each target to stay there until the end.

    Args:
        steps: (n,) steps done at each record, increasing.
        seconds: (n,) of training until then.
        errors: (n,) error at each record; NaN counts as above every target.
        targets: errors to reach.

    Returns:
        one row per target with ``target``, ``seconds`` and ``steps``, both NaN if the last error is above it.
    """
    rows = []
    for target in targets:
        above = np.flatnonzero(~(np.asarray(errors, dtype=float) <= target))
        first = above[-1] + 1 if len(above) else 0
        reached = first < len(errors)
        rows.append(
            {
                "target": target,
                "seconds": seconds[first] if reached else np.nan,
                "steps": steps[first] if reached else np.nan,
            }
        )
    return pd.DataFrame(rows, columns=["target", "seconds", "steps"])
