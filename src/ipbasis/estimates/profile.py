"""Profile-likelihood intervals: how far a parameter can move while everything else follows.

Unlike intervals from the covariance they need not be symmetric, and they are open where the data leave a parameter
open to one side.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ipbasis.observations.long_form import Batch
from ipbasis.search.noise import Noise
from ipbasis.search.reweighting import Fit
from ipbasis.search.rows import select
from ipbasis.search.solution import Solution

# Least squares on a batch with its noise, from solutions near by
Solve = Callable[[Batch, Noise, Solution], Solution]

_EVALUATIONS = 8  # per end at most
_SETTLED = 2e-3  # relative error of the rise at an end, and so of its distance
_LARGEST_GROWTH = 4.0  # of the distance from one evaluation to the next
_SLACK = 0.5  # of a parameter's range: how far beyond either end the basis may be trusted, and is searched


def profile_intervals(
    fit: Fit,
    ranges: np.ndarray,
    half_widths: np.ndarray,
    solve: Solve,
) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided 95 % intervals from the profile of the objective.

    An end is where the objective, minimised over everything else with the parameter held, lies `half_widths`²
    above its minimum. Its root, which is nearly linear in the distance, is searched by the secant within a bracket.

    Args:
        fit: the estimates, their observations and noise.
        ranges: (P, 2) trained ranges.
        half_widths: (B,) distance of the ends in standard deviations where the objective is quadratic.
        solve: the solver, see `Solve`.

    Returns:
        low and high ends (B, P), infinite where the objective does not rise enough within half a width beyond range
        and estimate; the value itself for known parameters, NaN where there is no estimate.
    """
    batch, solution = fit.batch, fit.solution
    best_fit = replace(fit, solution=solve(batch, fit.noise, solution))
    estimates = best_fit.solution.parameters.numpy()
    std = solution.covariance.diagonal(dim1=1, dim2=2).sqrt().numpy()
    low, high = estimates.copy(), estimates.copy()
    rows, columns, sign, reach = both_ways(*np.nonzero(np.isnan(batch.known)), estimates, ranges)
    if not len(rows):
        return low, high

    def rise(some: np.ndarray, distance: np.ndarray) -> np.ndarray:
        """Root of the objective's rise in units of that at the ends."""
        queries = rows[some]
        return risen(best_fit, queries, columns[some], sign[some] * distance, solve) / half_widths[queries]

    ends = estimates[rows, columns] + sign * _distances(rise, half_widths[rows] * std[rows, columns], reach)
    for end, own in ((low, sign < 0), (high, sign > 0)):
        end[rows[own], columns[own]] = ends[own]
    return low, high


def both_ways(
    rows: np.ndarray, columns: np.ndarray, estimates: np.ndarray, ranges: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Queries, parameters, signs of the direction, and how far the basis may be trusted there: (2 n,) each.

    Args:
        rows, columns: (n,) queries and parameters.
        estimates: (B, P).
        ranges: (P, 2) trained ranges.
    """
    low, high = (np.concatenate([end, end]) for end in ranges[columns].T)
    rows, columns, sign = np.tile(rows, 2), np.tile(columns, 2), np.repeat([-1.0, 1.0], len(rows))
    centre = estimates[rows, columns]
    inside = np.where(sign < 0, centre - np.minimum(low, centre), np.maximum(high, centre) - centre)
    return rows, columns, sign, inside + _SLACK * (high - low)


def risen(fit: Fit, rows: np.ndarray, columns: np.ndarray, distance: np.ndarray, solve: Solve) -> np.ndarray:
    """Root of the rise of the objective, minimised over everything else, with a parameter moved away and held.

    Args:
        fit: the estimates, their observations and noise.
        rows, columns: (n,) queries and parameters.
        distance: (n,) from the estimate.
        solve: the solver, see `Solve`.

    Returns:
        (n,) in standard errors where the objective is quadratic.
    """
    batch = fit.batch.select(rows)
    held = batch.known.copy()
    held[np.arange(len(rows)), columns] = fit.solution.parameters.numpy()[rows, columns] + distance
    near = select(fit.solution, rows)
    objective = solve(replace(batch, known=held), select(fit.noise, rows), near).objective.numpy()
    return np.sqrt(np.maximum(objective - fit.solution.objective.numpy()[rows], 0))


Rise = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _distances(rise: Rise, first: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Where functions that rise from 0 at 0 reach 1, by the Illinois method; infinite where they do not within reach.

    Args:
        rise: values of the functions in some rows at their distances; NaN counts as above 1.
        first: (rows,) distances to try first; NaN for the reach.
        reach: (rows,) largest distances.

    Returns:
        (rows,) distances; NaN where the reach is.
    """
    distance = np.fmin(np.where(first > 0, first, np.nan), reach)
    inner, below_by = np.zeros_like(reach), np.ones_like(reach)
    outer, above_by = np.full_like(reach, np.inf), np.full_like(reach, np.nan)
    was_below = np.zeros(len(reach), dtype=bool)
    found = np.where(np.isfinite(reach), np.inf, np.nan)
    active = np.flatnonzero(np.isfinite(reach))
    for evaluation in range(_EVALUATIONS):
        if not len(active):
            break
        here = distance[active]
        short = 1 - np.nan_to_num(rise(active, here), nan=np.inf)
        below = short > 0
        repeated = (below == was_below[active]) & (evaluation > 0)
        low, high = active[below], active[~below]
        # an end of the bracket that stays counts half, or the other would creep
        above_by[active[below & repeated]] /= 2
        below_by[active[~below & repeated]] /= 2
        inner[low], below_by[low] = here[below], short[below]
        outer[high], above_by[high] = here[~below], -short[~below]
        was_below[active] = below
        bracketed = np.isfinite(outer[active])
        with np.errstate(invalid="ignore"):
            share = np.where(np.isfinite(above_by), below_by / (below_by + above_by), 0.5)[active]
            between = inner[active] + share * (outer[active] - inner[active])
            outwards = here * np.minimum(1.05 / (1 - np.minimum(short, 1 - 1e-9)), _LARGEST_GROWTH)
        settled = np.abs(short) < _SETTLED
        distance[active] = np.where(bracketed, between, np.minimum(outwards, reach[active]))
        found[active] = np.where(settled, here, np.where(bracketed, distance[active], np.inf))
        active = active[~(settled | (~bracketed & (here >= reach[active])))]
    return found
