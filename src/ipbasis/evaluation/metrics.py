"""Scores of estimates against the truth."""

import numpy as np
import pandas as pd


def parameter_errors(estimates: pd.DataFrame, truth: pd.DataFrame, parameters: list[str]) -> dict[str, float]:
    """``<p>_mse`` and ``<p>_mae`` of each parameter over all queries.

    Args:
        estimates: column ``query`` and the parameters.
        truth: likewise, one row per query.
        parameters: which to score.
    """
    joined = estimates.set_index("query")[parameters].to_numpy() - (
        truth.set_index("query").loc[estimates["query"], parameters].to_numpy()
    )
    scores = {}
    for column, name in enumerate(parameters):
        scores[f"{name}_mse"] = float(np.mean(joined[:, column] ** 2))
        scores[f"{name}_mae"] = float(np.mean(np.abs(joined[:, column])))
    return scores


def coverage(estimates: pd.DataFrame, truth: pd.DataFrame, parameters: list[str]) -> dict[str, float]:
    """Share of queries whose 95 % interval holds the true value, per parameter."""
    true = truth.set_index("query").loc[estimates["query"]]
    return {
        f"{name}_coverage": float(
            (
                (estimates[f"{name}_low"].to_numpy() <= true[name])
                & (true[name] <= estimates[f"{name}_high"].to_numpy())
            ).mean()
        )
        for name in parameters
    }
