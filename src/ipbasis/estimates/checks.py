"""Status of each estimate: whether it can be trusted, and if not, why."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np
from scipy.stats import chi2, f

from ipbasis.estimates.intervals import half_widths
from ipbasis.problem.declaration import Problem
from ipbasis.problem.units import Units

# Root mean square residual, in units of what the basis reached in validation, above which the equation is not met,
# unless some of the validation tasks were met no better.
_WORST_PHYSICS = 20.0
# Share of false alarms of the tests of the data misfit, and of the test whether the fit explains anything.
_MISFIT_SIGNIFICANCE, _NOTHING_SIGNIFICANCE = 1e-6, 1e-3
# Degrees of freedom, below which an estimated noise is so often far too small that estimates look certain: an interval
# stretched from 95 % to four error bars misses by Student's distribution alone 0.74 % of the time at three degrees, and
# 0.48 % at four. Of 13 248 queries of the study of calibration 2 % of those with three and ok were so far off.
_FEWEST_FREEDOM = 3.5
# Share of the observations that the unknowns may use up where outliers are meant to be there: an observation that
# determines the fit alone is followed, whatever it says. Huber & Ronchetti (2009), section 7.1: a leverage of 0.2. Of
# 4700 simulated queries with 3 % outliers 1.4 % of those above it are off by more than four error bars, 0.2 % below.
_MOST_LEVERAGE = 0.2
_AT_BOUND = 1e-6  # of a range: closer to a bound is at it


@dataclass(frozen=True)
class Grounds:
    """What the status of each query is judged by.

    Args:
        estimates, std, low, high: (B, P) estimates with standard error and 95 % interval; NaN errors where the
            solver gives none.
        known: (B, P) true for given parameters.
        unknowns: (B,) number of parameters and initial values that neither a value nor a distribution is given for.
        bounds: (2, P) that the estimates keep to.
        noise_std: (B,) of the observations.
        counts, freedom: (B,) number of observations, less the effective number of unknowns.
        total, misfit: (B,) squared observations, and squared data misfit, in units of the data weights.
        free_misfit, free_freedom: (B,) the same for readouts fitted to the data alone, without the equation.
        tolerated: (B,) root mean square up to which errors are those of the basis itself, see `Accuracy.tolerated`.
        physics: (B,) root mean square residual in units of what the basis reached.
        worst_physics: that of the worst validation task.
        jump: (B,) largest difference of neighbouring residuals in units of what chance allows.
        basis_error: (B,) error bars by which an estimate may be off for the errors of the basis there.
        rival: (B, P) parameters far away that fit about as well; NaN where none are known.
        converged: (B,).
        noise_given: whether the noise was known.
        outliers: whether the loss expects some.
    """

    estimates: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray
    known: np.ndarray
    unknowns: np.ndarray
    bounds: np.ndarray
    noise_std: np.ndarray
    counts: np.ndarray
    freedom: np.ndarray
    total: np.ndarray
    misfit: np.ndarray
    free_misfit: np.ndarray
    free_freedom: np.ndarray
    tolerated: np.ndarray
    physics: np.ndarray
    worst_physics: float
    jump: np.ndarray
    basis_error: np.ndarray
    rival: np.ndarray
    converged: np.ndarray
    noise_given: bool
    outliers: bool


def excess_over_chance(squares: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """(B,) how much larger a misfit is than noise of known size allows, as a ratio of root mean squares.

    Args:
        squares: (B,) squared misfit in units of the noise's variance.
        freedom: (B,) degrees of freedom.
    """
    return np.sqrt(squares / chi2.isf(_MISFIT_SIGNIFICANCE, np.maximum(freedom, 1)))


def larger_than_chance(squares: np.ndarray, freedom: np.ndarray, variance: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(B,) whether a misfit is larger than a variance that was estimated apart allows: F test.

    Args:
        squares, freedom: (B,) squared misfit and its degrees of freedom.
        variance, own: (B,) the variance, and the degrees of freedom that it was estimated with.
    """
    freedom, own = np.maximum(freedom, 1), np.maximum(own, 1)
    return squares > freedom * variance * f.isf(_MISFIT_SIGNIFICANCE, freedom, own)


def _excess(e: Grounds) -> np.ndarray:
    """(B,) how much larger the misfit is than chance allows, as a ratio of root mean squares; 1 or less is fine.

    Known noise: chi-squared test of the misfit. Unknown noise: F test of the misfit with the equation
    against the one without, where the observations outnumber the functions; errors that the basis itself
    makes are not held against the equation.
    """
    freedom = np.maximum(e.freedom, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        if e.noise_given:
            return excess_over_chance(e.misfit / e.noise_std**2, freedom)
        scatter = np.maximum(e.free_misfit / e.free_freedom, e.tolerated**2)
        between = np.maximum(freedom - e.free_freedom, 1)
        ratio = (e.misfit - e.free_misfit) / between / scatter
        excess = np.sqrt(np.maximum(ratio, 0) / f.isf(_MISFIT_SIGNIFICANCE, between, np.maximum(e.free_freedom, 1)))
        return np.where(e.free_freedom >= 1, excess, 0.0)


def _explains_nothing(e: Grounds) -> np.ndarray:
    """(B,) whether the fit takes no more of the data than it would of noise: F test against fields of zero."""
    used = np.maximum(e.counts - e.freedom, 1)
    freedom = np.maximum(e.freedom, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (e.total - e.misfit) / used / (e.misfit / freedom)
    return ratio < f.isf(_NOTHING_SIGNIFICANCE, used, freedom)


def judge(problem: Problem, e: Grounds, units: Units | None = None) -> tuple[list[str], list[str]]:
    """Status and message of each query; the first that applies of

    ``failed`` (no estimate), ``not_identifiable`` (too few data), ``out_of_range`` (the whole interval lies
    outside the trained range), ``poor_fit`` (the equation is not met), ``not_identifiable`` (at a bound), ``failed``
    (no convergence), ``not_identifiable`` (another place fits as well), ``poor_basis`` (the basis is too rough to
    tell), ``poor_fit`` (the data are not met), ``not_identifiable`` (the data leave a parameter as uncertain as its
    range, or tell nothing at all), ``ok``.

    Args:
        problem: gives the ranges.
        e: the grounds.
        units: of these in those of the user; None where they are the same.
    """
    names, (lowest, highest) = list(problem.parameters), problem.parameter_ranges.T
    free = ~e.known
    close = _AT_BOUND * (highest - lowest)
    at_bound = free & ((e.estimates <= e.bounds[0] + close) | (e.estimates >= e.bounds[1] - close))
    excess, limit = _excess(e), max(_WORST_PHYSICS, 2 * e.worst_physics)
    bars = ~free.any(1) | (free & ~np.isnan(e.std)).any(1)
    # a uniform distribution over the range has this standard deviation
    widening = (half_widths(len(bars), None if e.noise_given else e.freedom) / half_widths(len(bars), None))[:, None]
    vague = free & ~(e.std * widening <= (highest - lowest) / np.sqrt(12)) & bars[:, None]
    # a search without an end follows a valley that the data leave open, or stopped short: no misfit to judge by
    lost = ~e.converged & vague.any(1)
    # errors of the basis follow every observation where the noise is no larger: they count as freedom no less
    left = np.where(e.noise_std > e.tolerated, e.freedom, e.counts - e.unknowns)
    few = (left < _FEWEST_FREEDOM) & (not e.noise_given)
    used = e.counts - np.minimum(e.freedom, e.counts)
    followed = (used > _MOST_LEVERAGE * e.counts) & e.outliers
    low, high = (np.where(bars[:, None], end, e.estimates) for end in (e.low, e.high))
    outside = free & ((low > highest) | (high < lowest))

    def first(marked: np.ndarray, i: int) -> tuple[str, float, int]:
        j = int(np.flatnonzero(marked[i])[0])
        return names[j], e.estimates[i, j], j

    def shown(j: int, value: float) -> float:
        """A value of parameter j as users know it."""
        if units is None:
            return value
        return float(units.values(np.full(len(names), value))[j])

    def range_left(i: int) -> str:
        name, value, j = first(outside, i)
        trained = f"[{shown(j, lowest[j]):g}, {shown(j, highest[j]):g}]"
        return f"{name} = {shown(j, value):.4g} is outside the trained range {trained}"

    def bound_met(i: int) -> str:
        name, value, j = first(at_bound, i)
        return f"the data drive {name} to its bound {shown(j, value):.4g}"

    def undetermined(i: int) -> str:
        return f"the data do not determine {', '.join(np.array(names)[vague[i]])} within the trained range"

    def other_place(i: int) -> str:
        there = ", ".join(f"{name} = {shown(j, e.rival[i, j]):.4g}" for j, name in enumerate(names) if free[i, j])
        return f"{there} fit about as well: tighter ranges, or a known value, would tell them apart"

    cases: list[tuple[np.ndarray, str, Callable[[int], str]]] = [
        (
            ~(np.isfinite(e.estimates).all(1) & np.isfinite(e.misfit)),
            "failed",
            lambda i: "no finite estimate was found",
        ),
        (
            e.counts < e.unknowns,
            "not_identifiable",
            lambda i: f"{e.counts[i]} observations for {e.unknowns[i]} unknowns",
        ),
        (
            few,
            "not_identifiable",
            lambda i: "too few observations to estimate the noise; give noise_std",
        ),
        (
            followed,
            "not_identifiable",
            lambda i: (
                f"{e.counts[i]} observations for {used[i]:.2g} unknowns: with the loss huber an outlier would go "
                f"unnoticed; at least {ceil(used[i] / _MOST_LEVERAGE)} observations are right, or the loss squares"
            ),
        ),
        (outside.any(1), "out_of_range", range_left),
        (
            (e.physics > limit) & ~lost,
            "poor_fit",
            lambda i: f"the equation is met {e.physics[i]:.3g} times worse than the basis can",
        ),
        (at_bound.any(1), "not_identifiable", bound_met),
        (~e.converged & ~vague.any(1), "failed", lambda i: "the search did not converge"),
        (np.isfinite(e.rival).all(1), "not_identifiable", other_place),
        # errors of the basis that count beside the noise would be held against the equation
        (
            e.basis_error > 1,
            "poor_basis",
            lambda i: f"the basis is {e.basis_error[i]:.2g} error bars off here: train it longer or on narrower ranges",
        ),
        (
            (excess > 1) & ~lost,
            "poor_fit",
            lambda i: f"the misfit is {excess[i]:.2g} times more than chance allows: does the equation hold?",
        ),
        (
            (e.jump > 1) & ~lost,
            "poor_fit",
            lambda i: (
                "the data jump away from the fit between two neighbours: outliers, for which there is the loss huber, "
                "errors that grow with the field, for which there is the noise lognormal, or an event in between"
            ),
        ),
        (vague.any(1), "not_identifiable", undetermined),
        (
            _explains_nothing(e) & (not e.noise_given),
            "not_identifiable",
            lambda i: "the fit explains no more of the data than chance would: the noise hides the fields",
        ),
        (~bars, "ok", lambda i: "the solver gives no error bars"),
    ]
    statuses, messages = ["ok"] * len(bars), [""] * len(bars)
    told = np.zeros(len(bars), dtype=bool)
    for holds, status, message in cases:
        for i in np.flatnonzero(holds & ~told):
            statuses[i], messages[i] = status, message(i)
        told |= holds
    return statuses, messages
