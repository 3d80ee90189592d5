"""Whether the likelihood of an estimate falls off as its error bars say.

Error bars rest on derivatives at the estimate. Where they reach over much of a parameter's range, what the data allow
may end long before or reach far beyond: an estimate of a growth rate from a saturated culture is open to one side.
"""

import numpy as np

from ipbasis.estimates.profile import Solve, both_ways, risen
from ipbasis.problem.declaration import Problem
from ipbasis.search.reweighting import Fit

# Share of a parameter's range that an error bar must reach over for the likelihood to be looked at, at the cost of two
# fits. On logistic growth, SIR and Michaelis-Menten (2402 intervals, 6 to 100 points, noise 1 to 30 %) 98 % of the
# faults have error bars of 4 % or more; of logistic growth seen in its last third with the initial value given (72
# estimates, noise 0.01 and 1 %) 6 are off by up to 22 error bars of 2 to 3.5 %. Linear equations bend less: of 5095
# estimates of the damped oscillator with error bars of 2 % of the range or more none is at fault.
_UNCERTAIN = {"nonlinear": 0.015, "linear": 0.15}
_FAR = 2.0  # times the distance of an interval's end: about four error bars
# Root of the rise there, in units of what it should be: 1 % and not 0.006 % then lie beyond.
_LEAST_RISE = 0.6


def open_tails(
    fit: Fit,
    rows: np.ndarray,
    problem: Problem,
    half_widths: np.ndarray,
    solve: Solve,
) -> np.ndarray:
    """(B, P) whether the data leave a parameter far more open to one side than its interval says.

    Args:
        fit: the estimates, their observations and noise.
        rows: of the queries to look at.
        problem: gives the trained ranges.
        half_widths: (B,) distance of an interval's ends in standard errors.
        solve: the solver, see `Solve`.
    """
    std = fit.solution.covariance.diagonal(dim1=1, dim2=2).sqrt().numpy()
    found = np.zeros(std.shape, dtype=bool)
    ranges, kind = problem.parameter_ranges, "nonlinear" if problem.system.affine is None else "linear"
    uncertain = (std > _UNCERTAIN[kind] * (ranges[:, 1] - ranges[:, 0])) & np.isnan(fit.batch.known)
    places, columns = np.nonzero(uncertain[rows])
    own, columns, sign, reach = both_ways(rows[places], columns, fit.solution.parameters.numpy(), ranges)
    if len(own):
        distance = np.minimum(_FAR * half_widths[own] * std[own, columns], reach)
        rise = risen(fit, own, columns, sign * distance, solve)
        flat = rise < _LEAST_RISE * distance / std[own, columns]
        found[own[flat], columns[flat]] = True
    return found
