"""The table of the estimates of a batch, and the grounds that their status is judged by."""

import itertools

import numpy as np
import pandas as pd
import torch

from ipbasis.estimates.checks import Grounds, judge
from ipbasis.estimates.intervals import correlations, intervals
from ipbasis.estimates.resimulate import fitted_initial_values
from ipbasis.offline.artefact import Basis
from ipbasis.problem.declaration import Problem
from ipbasis.problem.units import Units
from ipbasis.search.assemble import amplitude, mean_weight
from ipbasis.search.priors import Priors, priors_of
from ipbasis.search.reweighting import Fit
from ipbasis.search.solution import Solution

Ends = tuple[np.ndarray, np.ndarray]

SUFFIXES = ("", "_std", "_low", "_high")  # of a parameter's columns


def estimates_table(
    basis: Basis,
    fit: Fit,
    ends: Ends | None = None,
    trained: bool = True,
    outliers: bool = False,
    units: Units | None = None,
) -> pd.DataFrame:
    """The estimates of a batch, in the units of the basis.

    Args:
        basis: the basis.
        fit: the estimates and what they were fitted to.
        ends: (B, P) each, of the intervals; None for those from the covariance.
        trained: whether the estimates rest on the basis, and so on its trained ranges.
        outliers: whether the loss expects some.
        units: of the basis, in which messages are to be told.
    """
    problem, solution, priors = basis.problem, fit.solution, priors_of(basis.problem)
    values, std = solution.parameters.numpy(), _std(fit)
    low, high = _within_bounds(fit, priors, ends or intervals(values, std, fit.freedom))
    statuses, messages = judge(problem, _grounds(basis, fit, priors, (low, high), trained, outliers), units)
    columns: dict[str, object] = {"query": fit.batch.queries}
    for j, name in enumerate(problem.parameters):
        parts = zip(SUFFIXES, (values, std, low, high), strict=True)
        columns |= {name + suffix: part[:, j] for suffix, part in parts}
    columns |= {
        "noise_std": _noise_std(fit),
        "objective": solution.objective.numpy(),
        "iterations": solution.iterations.numpy(),
        "status": statuses,
        "message": messages,
    }
    if len(problem.fields) > 1:
        columns |= {f"{field}_noise_std": fit.noise_std[:, i].numpy() for i, field in enumerate(problem.fields)}
    return pd.DataFrame(columns)


def _known(fit: Fit) -> np.ndarray:
    return np.isfinite(fit.batch.known)


def _std(fit: Fit) -> np.ndarray:
    """(B, P) standard errors; zero for known parameters, NaN where the solver gives none."""
    std = fit.solution.covariance.diagonal(dim1=1, dim2=2).sqrt().numpy()
    return np.where(_known(fit), 0.0, std)


def _within_bounds(fit: Fit, priors: Priors, ends: Ends) -> Ends:
    """Ends of intervals, no further than the bounds of the parameters."""
    bounds, known = (priors.low.numpy(), priors.high.numpy()), _known(fit)
    low, high = (np.where(known, end, end.clip(*bounds)) for end in ends)
    return low, high


def _noise_std(fit: Fit) -> np.ndarray:
    """(B,) root mean square of the noise over all observations."""
    counts = fit.batch.observed.sum(1)
    squares = np.where(counts > 0, counts * fit.noise_std.numpy() ** 2, 0.0)
    return np.sqrt(squares.sum(1) / counts.sum(1))


def _grounds(basis: Basis, fit: Fit, priors: Priors, ends: Ends, trained: bool, outliers: bool) -> Grounds:
    """What the statuses are judged by; misfits in units of the weights of the fit's noise."""
    batch, solution, known = fit.batch, fit.solution, _known(fit)
    observed = torch.as_tensor(batch.observed)
    weights = fit.noise.weights(observed)
    size = (amplitude(batch) * mean_weight(weights, observed)).numpy()
    low, high = ends if trained else (np.full_like(ends[0], -np.inf), np.full_like(ends[1], np.inf))
    return Grounds(
        estimates=solution.parameters.numpy(),
        std=_std(fit),
        low=low,
        high=high,
        known=known,
        unknowns=(~known & priors.std.isinf().numpy()).sum(1) + np.isnan(batch.initial).sum(1),
        bounds=torch.stack([priors.low, priors.high]).numpy(),
        noise_std=solution.noise_std.numpy(),
        counts=batch.observed.sum((1, 2)),
        freedom=solution.freedom.numpy(),
        total=np.square(batch.values * weights.numpy()).sum((1, 2)),
        misfit=solution.misfit.numpy(),
        free_misfit=solution.free_misfit.numpy(),
        free_freedom=solution.free_freedom.numpy(),
        tolerated=basis.record.accuracy.tolerated() * size,
        physics=solution.physics.sqrt().numpy(),
        worst_physics=basis.record.accuracy.worst_ratio,
        jump=solution.jump.numpy(),
        basis_error=np.maximum(solution.basis_error.numpy(), _local_error(basis, fit, size) if trained else 0.0),
        rival=solution.rival.numpy(),
        converged=solution.converged.numpy(),
        noise_given=fit.noise_given,
        outliers=outliers,
    )


def _local_error(basis: Basis, fit: Fit, size: np.ndarray) -> np.ndarray:
    """(B,) root of the squared errors that the basis makes at the estimates, in units of the noise; zero if not known.

    An error of this size along the direction of one parameter would move its estimate by as many error bars.

    Args:
        basis: the basis.
        fit: the estimates.
        size: (B,) root mean square of the observations in units of their weights.
    """
    local, solution = basis.record.local, fit.solution
    if local is None:
        return np.zeros(len(size))
    unknowns = np.hstack([solution.parameters.numpy(), fitted_initial_values(basis, solution.readouts)])
    _, error = local.at(basis.problem.ranges.shares(unknowns))
    return error * size * np.sqrt(fit.batch.observed.sum((1, 2))) / solution.noise_std.numpy()


def correlation_columns(problem: Problem, solution: Solution) -> dict[str, np.ndarray]:
    """Correlations of the errors of each pair of parameters, by the name of the column."""
    matrix = correlations(solution.covariance.numpy())
    pairs = itertools.combinations(enumerate(problem.parameters), 2)
    return {f"corr_{p}_{q}": matrix[:, i, j] for (i, p), (j, q) in pairs}
