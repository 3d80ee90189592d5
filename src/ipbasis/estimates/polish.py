"""Maximum-likelihood estimates through the reference solver, from the estimates of the basis.

The basis gives the start, so that no guess is needed; the reference knows no trained range, so that the end is as
good outside it as within.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.reference.sensitivities import linearised_solutions
from ipbasis.search.assemble import amplitude, mean_weight
from ipbasis.search.reweighting import Fit
from ipbasis.search.rows import select

_ITERATIONS = 30
_STEP = 1e-4  # of an unknown's range, for derivatives by central differences
_TOLERANCE = 1e-10  # of the reference solver
_FIRST_DAMPING, _LARGEST_DAMPING = 1e-3, 1e8
_GAIN = 1e-6  # decrease of χ² that is not worth a step: the estimates are within 0.1 % of an error bar
_LEAST_NOISE = 10 * _TOLERANCE  # relative to the observations: what smaller misfits are made of
_NUMBERS_AT_ONCE = 10_000_000  # values of disturbed solutions that are held at once
_EPSILON = np.finfo(float).eps


@dataclass(frozen=True)
class Polished:
    """Outcome of `polish`.

    Args:
        fit: the estimates after polishing; of queries that did not converge, where the search ended.
        converged: (B,).
        rms: (B,) root mean square misfit, see `ipbasis.estimates.resimulate.Resimulation`.
    """

    fit: Fit
    converged: np.ndarray
    rms: np.ndarray


@dataclass(frozen=True)
class _Data:
    """What is fitted.

    Args:
        points: (B, n, d).
        values, weights: (B, n, F).
        free: (B, U) which unknowns are searched.
        least_noise: (B,) that a misfit is taken for, in units of the weights.
        variance: (B,) of the noise in units of the weights; NaN where the misfit tells it.
    """

    points: np.ndarray
    values: np.ndarray
    weights: np.ndarray
    free: np.ndarray
    least_noise: np.ndarray
    variance: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        return (self.weights > 0).sum((1, 2))

    @property
    def freedom(self) -> np.ndarray:
        return self.counts - self.free.sum(1)


@dataclass(frozen=True)
class _State:
    """Unknowns (B, U) in units of their ranges, weighted misfit (B, R) there, and its Jacobian (B, R, U)."""

    unknowns: np.ndarray
    misfit: np.ndarray
    jacobian: np.ndarray

    @property
    def cost(self) -> np.ndarray:
        return np.square(self.misfit).sum(1)


def _state(problem: Problem, data: _Data, unknowns: np.ndarray) -> _State:
    """The linearised misfit; NaN where the reference has no solution."""
    width = np.ptp(problem.unknown_ranges, axis=1)
    parameters, initial = np.split(unknowns * width, [len(problem.parameters)], axis=1)
    points = data.points[:1] if (data.points == data.points[:1]).all() else data.points
    searched = data.free.any(0)
    values, slopes = linearised_solutions(
        problem, Tasks(parameters, initial), points, _STEP, columns=searched, tolerance=_TOLERANCE
    )
    jacobian = np.zeros((*values.shape, len(width)))
    jacobian[..., searched] = slopes * width[searched]
    jacobian = jacobian * data.weights[..., None] * data.free[:, None, None]
    misfit = (values - data.values) * data.weights
    return _State(unknowns, misfit.reshape(len(misfit), -1), jacobian.reshape(len(misfit), -1, len(width)))


@dataclass(frozen=True)
class _Directions:
    """Singular value decomposition of a Jacobian whose columns are scaled to length 1, free unknowns apart.

    Args:
        scale: (B, U) of the unknowns; zero for those that are not free.
        sizes: (B, U) singular values.
        rows: (B, U, U) right singular vectors.
        along: (B, U) the misfit along the left ones.
    """

    scale: np.ndarray
    sizes: np.ndarray
    rows: np.ndarray
    along: np.ndarray

    @classmethod
    def of(cls, state: _State, free: np.ndarray) -> "_Directions":
        size = np.linalg.norm(state.jacobian, axis=1)
        size = np.where(size > 0, size, 1.0)
        held = np.eye(free.shape[1]) * ~free[:, None]
        left, sizes, rows = np.linalg.svd(np.hstack([state.jacobian / size[:, None], held]), full_matrices=False)
        along = np.einsum("bru,br->bu", left[:, : state.misfit.shape[1]], state.misfit)
        return cls(free / size, np.maximum(sizes, _EPSILON), rows, along)

    @property
    def gain(self) -> np.ndarray:
        """(B,) decrease of the cost that an undamped step is predicted to make."""
        return np.square(self.along).sum(1)

    def step(self, damping: np.ndarray) -> np.ndarray:
        """(B, U) step of Levenberg and Marquardt."""
        filtered = self.sizes / (np.square(self.sizes) + damping[:, None]) * self.along
        return -np.einsum("bvu,bv->bu", self.rows, filtered) * self.scale

    @property
    def covariance(self) -> np.ndarray:
        """(B, U, U) at a noise of one in the weighted misfit."""
        half = self.rows / self.sizes[..., None] * self.scale[:, None]
        return np.einsum("bvu,bvw->buw", half, half)


def _minimise(problem: Problem, data: _Data, start: np.ndarray) -> tuple[_State, np.ndarray]:
    """Levenberg-Marquardt of all queries at once; each needs a solution at its start.

    Args:
        problem: the problem.
        data: what is fitted.
        start: (B, U) unknowns in units of their ranges.

    Returns:
        the states at the end, and whether a further step would gain nothing (B,).
    """
    end = _state(problem, data, start)
    converged = np.zeros(len(start), dtype=bool)
    active = np.flatnonzero(np.isfinite(end.cost) & np.isfinite(end.jacobian).all(axis=(1, 2)))
    damping = np.full(len(start), _FIRST_DAMPING)
    for iteration in range(_ITERATIONS + 1):
        part, state = select(data, active), select(end, active)
        directions = _Directions.of(state, part.free)
        noise = _variance(part, state.cost)
        converged[active] = directions.gain < _GAIN * noise
        kept = ~converged[active] & (damping[active] < _LARGEST_DAMPING)
        if iteration == _ITERATIONS or not kept.any():
            break
        step = directions.step(damping[active])[kept]
        active, part, state = active[kept], select(part, kept), select(state, kept)
        # no more than one width of a range at a time
        step = step / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1.0)
        trial = _state(problem, part, state.unknowns + step)
        better = (trial.cost < state.cost) & np.isfinite(trial.jacobian).all(axis=(1, 2))
        for name in end.__dataclass_fields__:
            getattr(end, name)[active[better]] = getattr(trial, name)[better]
        damping[active] *= np.where(better, 0.1, 10.0)
    return end, converged


def _variance(data: _Data, cost: np.ndarray) -> np.ndarray:
    """(B,) of the weighted misfit: as given, or estimated from it."""
    estimated = np.maximum(cost / np.maximum(data.freedom, 1), np.square(data.least_noise))
    return np.where(np.isnan(data.variance), estimated, data.variance)


def _polish(problem: Problem, data: _Data, start: Tasks) -> tuple[np.ndarray, ...]:
    """Unknowns (B, U), their covariance (B, U, U), cost, variance and whether it converged (B,).

    The covariance is that where the search ended; NaN where the reference has no solution.
    """
    width = np.ptp(problem.unknown_ranges, axis=1)
    end, converged = _minimise(problem, data, np.hstack([start.parameters, start.initial]) / width)
    noise = _variance(data, end.cost)
    covariance, known = np.full((*end.unknowns.shape, len(width)), np.nan), np.isfinite(end.jacobian).all(axis=(1, 2))
    covariance[known] = _Directions.of(select(end, known), data.free[known]).covariance
    return end.unknowns * width, covariance * noise[:, None, None] * np.outer(width, width), end.cost, noise, converged


def polish(problem: Problem, fit: Fit, start: Tasks) -> Polished:
    """Least squares through the reference solver, over the free parameters and the free initial values.

    Noise that was given is held. Where it was estimated the misfit tells it anew: by one factor on that of the fit,
    so that fields keep the noise that they have beside each other.

    Args:
        problem: a problem with a reference solver.
        fit: the estimates of the basis; parameters known in its batch are held.
        start: them as tasks (see `ipbasis.estimates.resimulate.resimulate`).
    """
    batch, solution = fit.batch, fit.solution
    count, queries, observed = len(problem.parameters), len(batch.queries), torch.as_tensor(batch.observed)
    free = np.isnan(np.hstack([batch.known, batch.initial]))
    weights = fit.own.weights(observed)
    data = _Data(
        points=batch.points,
        values=batch.values,
        weights=weights.numpy(),
        free=free,
        least_noise=(_LEAST_NOISE * amplitude(batch) * mean_weight(weights, observed)).numpy(),
        variance=fit.own.by_query.square().numpy() if fit.noise_given else np.full(queries, np.nan),
    )
    size = max(1, _NUMBERS_AT_ONCE // (batch.values[0].size * (1 + 2 * free.shape[1])))
    groups = [np.arange(queries)[first : first + size] for first in range(0, queries, size)]
    parts = [_polish(problem, select(data, rows), start[rows]) for rows in groups]
    unknowns, covariance, cost, variance, converged = (np.concatenate(part) for part in zip(*parts, strict=True))
    factor = 1.0 if fit.noise_given else torch.tensor(np.sqrt(variance))[:, None] / fit.own.by_query[:, None]
    polished = replace(
        solution,
        parameters=torch.tensor(unknowns[:, :count]),
        covariance=torch.tensor(covariance[:, :count, :count]),
        noise_std=torch.tensor(np.sqrt(variance)),
        objective=torch.tensor(cost / variance),
        physics=torch.zeros(queries, dtype=torch.float64),
        misfit=torch.tensor(cost),
        freedom=torch.tensor(data.freedom, dtype=torch.float64),
        basis_error=torch.zeros(queries, dtype=torch.float64),
        converged=torch.tensor(converged),
    )
    rms = np.sqrt(cost / data.counts)
    return Polished(replace(fit, solution=polished, noise=fit.own, noise_std=fit.noise_std * factor), converged, rms)
