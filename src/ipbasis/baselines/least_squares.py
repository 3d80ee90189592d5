"""Nonlinear least squares around the reference solver: what one would do without a basis."""

from collections.abc import Callable

import numpy as np
import scipy.optimize
from pydantic import PositiveFloat, PositiveInt

from ipbasis.baselines.fit import BaselineFit, BaselineQuery, Stopwatch
from ipbasis.problem.declaration import Declared, Problem, Tasks
from ipbasis.reference.sensitivities import linearised_solutions
from ipbasis.reference.solutions import solutions
from ipbasis.reference.terms import term_values

_STEP = 1e-6  # of an unknown's range, for derivatives by central differences
_SLACK = 0.5  # of an unknown's range: how far beyond either end it is searched
_MARGIN = 0.05  # of an unknown's range: how far within either end the search starts
_ITERATIONS = 50


class LeastSquaresSettings(Declared):
    """Settings of the classical baseline.

    Args:
        starts: runs from random parameters in their ranges; the best one counts.
        tolerance: of the reference solver.
        seed: of the starts.
    """

    starts: PositiveInt
    tolerance: PositiveFloat
    seed: int


def well_within(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The values, or the nearest at some distance from the ends of their ranges, where a search can start."""
    margin = _MARGIN * (high - low)
    return np.clip(values, low + margin, high - margin)


def initial_guesses(problem: Problem, query: BaselineQuery) -> np.ndarray:
    """(free initial values,) of an ODE problem: first value and slope seen, or the middle, within its range."""
    order = np.argsort(query.points[:, 0], kind="stable")
    times, guesses = query.points[order, 0], []
    for jet, interval in problem.free_initial.items():
        values = query.values[order, jet.field]
        seen = np.isfinite(values)
        first_times, first_values = times[seen][:5], values[seen][:5]
        if len(jet.index) == 0 and len(first_values):
            guesses.append(first_values[0])
        elif len(jet.index) == 1 and len(first_values) > 1:
            guesses.append(np.polyfit(first_times, first_values, 1)[0])
        else:
            guesses.append((interval.low + interval.high) / 2)
    low, high = problem.unknown_ranges[len(problem.parameters) :].T
    return well_within(np.array(guesses), low, high)


class _Model:
    """Misfit of one query as a function of the unknowns: parameters to estimate and free initial values.

    The unknowns are in units of the width of their ranges.
    """

    def __init__(self, problem: Problem, query: BaselineQuery, tolerance: float):
        self.problem, self.query, self._tolerance = problem, query, tolerance
        self._free = np.isnan(query.known)
        self._count = self._free.sum()
        self._searched = np.concatenate([self._free, np.ones(len(problem.free_initial), dtype=bool)])
        ranges = problem.unknown_ranges[self._searched]
        self._scale = ranges[:, 1] - ranges[:, 0]
        self._ranges = ranges.T / self._scale
        self.bounds = self._ranges[0] - _SLACK, self._ranges[1] + _SLACK
        self._initial = initial_guesses(problem, query)
        self._seen = np.isfinite(query.values)
        self.evaluations = 0

    def unknowns(self, task: Tasks) -> np.ndarray:
        """The unknowns of one task, the bounds widened where it lies beyond them."""
        unknowns = np.concatenate([task.parameters[0, self._free], task.initial[0]]) / self._scale
        low, high = self.bounds
        self.bounds = np.minimum(low, unknowns - _SLACK), np.maximum(high, unknowns + _SLACK)
        return unknowns

    def start(self, rng: np.random.Generator) -> np.ndarray:
        """Unknowns to start from: random parameters, initial values as observed, all within their ranges."""
        unknowns = rng.uniform(*self._ranges)
        unknowns[self._count :] = self._initial / self._scale[self._count :]
        low, high = self._ranges
        return np.clip(unknowns, low + _MARGIN, high - _MARGIN)

    def tasks(self, unknowns: np.ndarray) -> Tasks:
        """The tasks of unknowns (tasks, U)."""
        unknowns = unknowns * self._scale
        parameters = np.tile(self.query.known, (len(unknowns), 1))
        parameters[:, self._free] = unknowns[:, : self._count]
        return Tasks(parameters, unknowns[:, self._count :])

    def fields(self, unknowns: np.ndarray) -> np.ndarray:
        """(tasks, n, F) solutions at the points of observation."""
        self.evaluations += len(unknowns)
        return solutions(self.problem, self.tasks(unknowns), self.query.points[None], self._tolerance)

    def residuals(self, unknowns: np.ndarray) -> np.ndarray:
        """(tasks, observed values) misfit for unknowns (tasks, U)."""
        return (self.fields(unknowns) - self.query.values)[:, self._seen]

    def misfit(self, unknowns: np.ndarray) -> np.ndarray:
        """(observed values,) misfit for unknowns (U,); NaN where there is no solution, which shortens the step."""
        try:
            return self.residuals(unknowns[None])[0]
        except ArithmeticError:
            return np.full(self._seen.sum(), np.nan)

    def jacobian(self, unknowns: np.ndarray) -> np.ndarray:
        """(observed values, U)."""
        self.evaluations += 1 + 2 * len(unknowns)
        _, slopes = linearised_solutions(
            self.problem,
            self.tasks(unknowns[None]),
            self.query.points[None],
            _STEP,
            columns=self._searched,
            tolerance=self._tolerance,
        )
        return slopes[0][self._seen] * self._scale


def _best_of(
    starts: int, start: Callable[[], np.ndarray], search: Callable[[np.ndarray], scipy.optimize.OptimizeResult]
) -> scipy.optimize.OptimizeResult | None:
    """The best outcome of several starts; None if none of them came through."""
    best = None
    for _ in range(starts):
        try:
            found = search(start())
        except (ArithmeticError, ValueError):  # no solution at the start or close by
            continue
        if best is None or found.cost < best.cost:
            best = found
    return best


def fit_least_squares(
    problem: Problem, query: BaselineQuery, settings: LeastSquaresSettings, start: Tasks | None = None
) -> BaselineFit:
    """Fit the parameters and initial values of one query that are not known.

    `scipy.optimize.least_squares` with derivatives by differences. Initial values start from the first
    observations; everything is searched a little beyond its range, and beyond a given start. Unknown terms have
    their true form here: this baseline is told more than the others.

    Args:
        problem: a problem with a reference solution.
        query: observations and known parameters.
        settings: starts and tolerance.
        start: one task to start from, once, in place of random ones.
    """
    clock = Stopwatch()
    rng = np.random.default_rng(settings.seed)
    model = _Model(problem, query, settings.tolerance)
    n, terms = len(query.points), len(problem.unknown_terms)
    best = _best_of(
        settings.starts if start is None else 1,
        lambda: model.start(rng) if start is None else model.unknowns(start),
        lambda start: scipy.optimize.least_squares(
            model.misfit, start, jac=model.jacobian, bounds=model.bounds, max_nfev=_ITERATIONS
        ),
    )
    seconds, effort = clock.seconds, model.evaluations
    if best is None:
        return BaselineFit(np.full(len(query.known), np.nan), np.full((n, terms), np.nan), np.nan, seconds, effort)
    parameters = model.tasks(best.x[None]).parameters
    found = term_values(problem, parameters, model.fields(best.x[None]))[0]
    return BaselineFit(parameters[0], found, 2 * best.cost / len(best.fun), seconds, effort)
