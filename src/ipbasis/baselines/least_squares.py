"""Nonlinear least squares around the ODE integrator: what one would do without a basis."""

import time

import numpy as np
import scipy.optimize
from pydantic import PositiveFloat, PositiveInt

from ipbasis.baselines.fit import Fit
from ipbasis.problem import Declared, Problem, Tasks
from ipbasis.reference.ode import first_order_system, integrate


class LeastSquaresSettings(Declared):
    """Settings of the classical baseline.

    Args:
        starts: runs from random parameters in their ranges; the best one counts.
        tolerance: of the ODE integrator.
        seed: of the starts.
    """

    starts: PositiveInt
    tolerance: PositiveFloat
    seed: int


def fit_least_squares(problem: Problem, times: np.ndarray, values: np.ndarray, settings: LeastSquaresSettings) -> Fit:
    """Fit parameters and initial values of one query of an ODE problem.

    `scipy.optimize.least_squares` with derivatives by differences; the disturbed equations are integrated
    together, which makes a derivative about as cheap as a value. Initial values start from the first
    observations.

    Args:
        problem: an ODE problem.
        times: (n,) times of observation, increasing.
        values: (n, F) observations.
        settings: starts and tolerance.
    """
    started = time.perf_counter()
    rng = np.random.default_rng(settings.seed)
    ranges = problem.parameter_ranges
    count = len(ranges)
    free = list(problem.free_initial)
    first_order_system(problem)
    slope = np.gradient(values[:5], times[:5], axis=0)[0] if len(times) > 1 else np.zeros(values.shape[1])
    guesses = {0: values[0], 1: slope}
    initial = np.array([guesses[len(jet.index)][jet.field] if len(jet.index) < 2 else 0.0 for jet in free])
    scale = np.concatenate([ranges[:, 1] - ranges[:, 0], np.maximum(np.abs(initial), 1.0)])
    evaluations = 0

    def residuals(unknowns: np.ndarray) -> np.ndarray:
        """(tasks, n F) misfit for unknowns (tasks, P + initial values) in units of their scale."""
        nonlocal evaluations
        evaluations += len(unknowns)
        unknowns = unknowns * scale
        tasks = Tasks(unknowns[:, :count], unknowns[:, count:])
        return (integrate(problem, tasks, times, settings.tolerance) - values).reshape(len(unknowns), -1)

    def jacobian(unknowns: np.ndarray) -> np.ndarray:
        step = 1e-6
        disturbed = unknowns + step * np.vstack([np.eye(len(unknowns)), -np.eye(len(unknowns))])
        forward, backward = np.split(residuals(disturbed), 2)
        return ((forward - backward) / (2 * step)).T

    best = None
    for _ in range(settings.starts):
        start = np.concatenate([rng.uniform(ranges[:, 0], ranges[:, 1]), initial]) / scale
        try:
            found = scipy.optimize.least_squares(
                lambda x: residuals(x[None])[0], start, jac=jacobian, method="lm", max_nfev=100
            )
        except (ArithmeticError, ValueError):  # a step led to where the equation cannot be integrated
            continue
        if best is None or found.cost < best.cost:
            best = found
    if best is None:
        return Fit(np.full(count, np.nan), np.nan, time.perf_counter() - started, evaluations)
    seconds = time.perf_counter() - started
    return Fit(best.x[:count] * scale[:count], 2 * best.cost / values.size, seconds, evaluations)
