"""Scores of estimates against the truth, and the scores that no unbiased estimate beats."""

import numpy as np
import pandas as pd
from scipy.stats import norm


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


def cramer_rao(sensitivity: np.ndarray, noise_std: np.ndarray) -> np.ndarray:
    """(tasks, U) smallest standard errors that an unbiased estimate can have; not finite where there are none.

    The Cramér-Rao bound of normal noise: (Sᵀ Σ⁻¹ S)⁻¹ with the sensitivities S and the variances Σ.

    Args:
        sensitivity: (tasks, n, F, U), see `ipbasis.reference.sensitivities`.
        noise_std: (tasks,) standard deviation of the noise, or (tasks, F) one for each field; infinite for those that
            are not observed.
    """
    if noise_std.ndim == 2:
        least = noise_std.min(axis=1)
        return cramer_rao(sensitivity * (least[:, None] / noise_std)[:, None, :, None], least)
    flat = sensitivity.reshape(len(sensitivity), -1, sensitivity.shape[-1])
    # columns of the size of one: unknowns may be in units far apart
    sizes = np.linalg.norm(flat, axis=1, keepdims=True)
    triangular = np.linalg.qr(flat / np.where(sizes > 0, sizes, 1), mode="r")
    # the diagonal of (SᵀS)⁻¹ = R⁻¹R⁻ᵀ, which is not squared first: some queries hardly tell their parameters
    singular = np.abs(np.einsum("tuu->tu", triangular)).min(axis=1) == 0
    inverse = np.linalg.inv(np.where(singular[:, None, None], np.eye(triangular.shape[1]), triangular))
    std = noise_std[:, None] * np.linalg.norm(inverse, axis=2) / np.where(sizes > 0, sizes, 1)[:, 0]
    return np.where(singular[:, None], np.inf, std)


def ideal_errors(sensitivity: np.ndarray, noise_std: np.ndarray) -> np.ndarray:
    """(tasks, U) mean absolute error of a normal estimate at the Cramér-Rao bound, see `cramer_rao`."""
    return np.sqrt(2 / np.pi) * cramer_rao(sensitivity, noise_std)


def identifiable(bound: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """(queries,) whether the observations of a query tell more of each parameter than its trained range does.

    That is so where the ideal 95 % interval of every parameter, of the Cramér-Rao bound of the true task, is
    narrower than the range: what an estimate makes of the query plays no part.

    Args:
        bound: (queries, P) see `cramer_rao`.
        ranges: (P, 2).
    """
    return (2 * norm.ppf(0.975) * bound < ranges[:, 1] - ranges[:, 0]).all(axis=1)


def dependence(features: np.ndarray, weights: np.ndarray, tolerance: float) -> dict[str, float]:
    """How far functions are from independent of each other, all in the mean over the domain.

    Args:
        features: (n, K) values of the functions.
        weights: (n,) of the points in the mean, with sum 1.
        tolerance: directions below this share of the largest do not count in the rank.

    Returns:
        ``rank``, ``condition_number`` (infinite for functions that depend on each other), and of the correlations,
        which are means of products over the sizes of both functions, the ``largest_correlation`` of two functions
        and the ``mean_correlation`` of all pairs, without their signs.
    """
    weighted = features * np.sqrt(weights)[:, None]
    strengths = np.linalg.svd(weighted, compute_uv=False)
    unit = weighted / np.linalg.norm(weighted, axis=0)
    pairs = np.abs(unit.T @ unit)[np.triu_indices(features.shape[1], 1)]
    with np.errstate(divide="ignore"):
        condition = strengths[0] / strengths[-1]
    return {
        "rank": int((strengths > tolerance * strengths[0]).sum()),
        "condition_number": float(condition),
        "largest_correlation": float(pairs.max(initial=0.0)),
        "mean_correlation": float(pairs.mean()) if len(pairs) else 0.0,
    }


def approximation_errors(features: np.ndarray, weights: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(K,) relative error of the best approximation by the first k functions, for each k up to K.

    Root mean square over the tasks of the error of each relative to its size, both in the mean over the domain.

    Args:
        features: (n, K) values of the functions.
        weights: (n,) of the points in the mean.
        truth: (tasks, n, F) what is approximated.
    """
    root = np.sqrt(weights)[:, None]
    directions, _ = np.linalg.qr(features * root)
    left = np.concatenate([*(truth * root).transpose(2, 1, 0)], axis=1)  # (n, F tasks)

    def size(values: np.ndarray) -> np.ndarray:
        return np.square(values).sum(axis=0).reshape(truth.shape[2], -1).sum(axis=0)

    whole, errors = size(left), []
    for direction in directions.T:
        left = left - np.outer(direction, direction @ left)
        errors.append(np.sqrt(np.mean(size(left) / whole)))
    return np.array(errors)
