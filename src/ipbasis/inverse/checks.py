"""Status of each estimate: whether it can be trusted, and if not, why."""

import numpy as np
from scipy.stats import chi2

from ipbasis.problem import Problem

# Squared residual, in units of what the basis reached in validation, above which the equation is not met.
_WORST_PHYSICS = 400.0
# Share of false alarms of the test of the data misfit, where the noise is known.
_MISFIT_LEVEL = 1e-6


def judge(
    problem: Problem,
    estimates: np.ndarray,
    std: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    known: np.ndarray,
    noise_std: np.ndarray,
    amplitude: np.ndarray,
    counts: np.ndarray,
    freedom: np.ndarray,
    misfit: np.ndarray,
    physics: np.ndarray,
    converged: np.ndarray,
    noise_given: bool,
) -> tuple[list[str], list[str]]:
    """Status and message of each query; the first that applies of

    ``failed`` (no estimate), ``not_identifiable`` (the data leave a parameter as uncertain as its range, or
    are too few), ``out_of_range`` (the whole interval lies outside the trained range), ``poor_fit``
    (data or equation are not met), ``ok``.

    Args:
        problem: gives the ranges.
        estimates, std, low, high: (B, P) estimates with standard error and 95 % interval; NaN errors where the
            solver gives none.
        known: (B, P) true for given parameters.
        noise_std, amplitude: (B,) estimated noise and root mean square of the observations.
        counts, freedom: (B,) number of observations, less the effective number of unknowns.
        misfit: (B,) squared data misfit in units of the data weights.
        physics: (B,) squared residual in units of what the basis reached.
        converged: (B,).
        noise_given: whether the noise was known.
    """
    names, ranges = list(problem.parameters), problem.parameter_ranges
    unknowns = (~known).sum(1) + len(problem.free_initial)
    statuses, messages = [], []
    for i in range(len(estimates)):
        free = ~known[i]
        # a uniform distribution over the range has this standard deviation
        vague = free & (std[i] > (ranges[:, 1] - ranges[:, 0]) / np.sqrt(12))
        outside = free & ((low[i] > ranges[:, 1]) | (high[i] < ranges[:, 0]))
        status, message = "ok", ""
        if not (np.isfinite(estimates[i]).all() and np.isfinite(misfit[i])):
            status, message = "failed", "no finite estimate was found"
        elif counts[i] < unknowns[i]:
            status = "not_identifiable"
            message = f"{counts[i]} observations for {unknowns[i]} unknowns"
        elif not noise_given and freedom[i] < 1:
            status, message = "not_identifiable", "too few observations to estimate the noise; give noise_std"
        elif vague.any():
            worst = ", ".join(names[j] for j in np.flatnonzero(vague))
            status, message = "not_identifiable", f"the data do not determine {worst} within the trained range"
        elif not converged[i]:
            status, message = "failed", "the search did not converge"
        elif outside.any():
            j = int(np.flatnonzero(outside)[0])
            status = "out_of_range"
            message = (
                f"{names[j]} = {estimates[i, j]:.4g} is outside the trained range [{ranges[j, 0]:g}, {ranges[j, 1]:g}]"
            )
        elif physics[i] > _WORST_PHYSICS:
            status = "poor_fit"
            message = f"the equation is met {np.sqrt(physics[i]):.0f} times worse than the basis can"
        elif noise_given and misfit[i] / noise_std[i] ** 2 > chi2.isf(_MISFIT_LEVEL, max(freedom[i], 1)):
            ratio = np.sqrt(misfit[i] / noise_std[i] ** 2 / max(freedom[i], 1))
            status, message = "poor_fit", f"the data misfit is {ratio:.2g} times the noise"
        elif noise_std[i] > amplitude[i] / 2 and not noise_given:
            status, message = "poor_fit", "the fit leaves more than half of the data unexplained"
        statuses.append(status)
        messages.append(message)
    return statuses, messages
