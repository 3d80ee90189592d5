"""Scores of estimates against the truth, and the scores that no unbiased estimate beats."""

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


def term_errors(estimated: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """``unknown_term_mse`` and ``unknown_term_mae`` over all queries, points and terms.

    Args:
        estimated: (queries, n, terms).
        true: likewise.
    """
    error = estimated - true
    return {"unknown_term_mse": float(np.mean(error**2)), "unknown_term_mae": float(np.mean(np.abs(error)))}


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


def ideal_errors(sensitivity: np.ndarray, noise_std: np.ndarray) -> np.ndarray:
    """(tasks, U) mean absolute error of a normal estimate at the Cramér-Rao bound.

    The bound is that of noise with this standard deviation: σ² (SᵀS)⁻¹ with the sensitivities S.

    Args:
        sensitivity: (tasks, n, F, U), see `ipbasis.reference.sensitivities`.
        noise_std: (tasks,) standard deviation of the noise.
    """
    flat = sensitivity.reshape(len(sensitivity), -1, sensitivity.shape[-1])
    bound = np.linalg.inv(np.einsum("tiu,tiv->tuv", flat, flat))
    std = noise_std[:, None] * np.sqrt(np.einsum("tuu->tu", bound))
    return np.sqrt(2 / np.pi) * std
