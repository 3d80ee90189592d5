"""Estimates of the parameters of many queries from their observations."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from ipbasis.basis.artefact import Basis
from ipbasis.errors import InputError
from ipbasis.inverse.adam import AdamSettings, adam, quadratic_forms
from ipbasis.inverse.assemble import Physics, amplitude, assemble, reduce_physics
from ipbasis.inverse.checks import Evidence, judge
from ipbasis.inverse.gauss_newton import GaussNewtonSettings, Solution, gauss_newton
from ipbasis.inverse.intervals import intervals
from ipbasis.inverse.misfit import reduce_misfit
from ipbasis.observations import Batch, Observations, check_observations, read_observations

SOLVERS = {"gauss_newton": GaussNewtonSettings, "adam": AdamSettings}
_BATCH, _BATCH_POINTS = 2000, 1_000_000  # queries, and points after padding, that are held at once


@dataclass(frozen=True)
class Estimates:
    """Estimates of all queries.

    Args:
        table: one row per query: ``query``, for each parameter p ``p, p_std, p_low, p_high``, then
            ``noise_std, objective, iterations, status, message``.
        basis: the basis used.
        readouts: (queries, F, K).
        readout_covariance: (queries, F K, F K), or None if the solver gives none.
    """

    table: pd.DataFrame
    basis: Basis
    readouts: np.ndarray
    readout_covariance: np.ndarray | None

    def solution(self, points: np.ndarray) -> np.ndarray:
        """Fitted fields at points (n, d): (queries, n, F)."""
        return np.einsum("nk,qfk->qnf", self.basis.features(points), self.readouts)

    def solution_std(self, points: np.ndarray) -> np.ndarray:
        """Standard error of the fitted fields at points (n, d): (queries, n, F); NaN if not known."""
        features = self.basis.features(points)
        queries, fields, size = self.readouts.shape
        if self.readout_covariance is None:
            return np.full((queries, len(features), fields), np.nan)
        blocks = self.readout_covariance.reshape(queries, fields, size, fields, size)
        own = np.einsum("qfkfl->qfkl", blocks)
        return np.sqrt(np.einsum("nk,qfkl,nl->qnf", features, own, features, optimize=True).clip(0))


def _gauss_newton(basis: Basis, physics: Physics, batch: Batch, settings: GaussNewtonSettings, noise_std) -> Solution:
    accuracy = basis.record.accuracy
    floor = accuracy.floor * amplitude(batch)
    if batch.std is not None:
        std = (torch.as_tensor(batch.std).square() + floor[:, None, None].square()).sqrt()
        return gauss_newton(assemble(basis, physics, batch, std), accuracy, settings, torch.ones_like(floor))
    given = None if noise_std is None else (noise_std**2 + floor.square()).sqrt()
    return gauss_newton(assemble(basis, physics, batch, None), accuracy, settings, given)


def _adam(basis: Basis, batch: Batch, settings: AdamSettings) -> Solution:
    """The published recipe on the functions of the basis, in the number type of its trunk."""
    misfits = reduce_misfit(basis, batch)
    forms, rest = quadratic_forms(basis, misfits, settings)
    start = torch.as_tensor(basis.problem.parameter_ranges.mean(1))
    search, loss = adam(forms, start, torch.as_tensor(batch.known), settings)
    readouts, parameters = search.readouts.double(), search.parameters.double()
    misfit = misfits(readouts)
    counts = torch.as_tensor(batch.observed).sum((1, 2)).double()
    queries = len(readouts)
    nothing = torch.full((queries, parameters.shape[1], parameters.shape[1]), torch.nan, dtype=torch.float64)
    return Solution(
        parameters=parameters,
        covariance=nothing,
        readouts=readouts,
        readout_covariance=torch.zeros(queries, 0),  # none
        noise_std=misfit.sqrt(),
        objective=loss.double() + rest,
        physics=torch.zeros(queries, dtype=torch.float64),
        misfit=misfit * counts,
        freedom=counts,
        free_misfit=misfits.rest,
        free_freedom=torch.zeros(queries, dtype=torch.float64),  # no test: the recipe does not reach the optimum
        iterations=torch.full((queries,), settings.steps),
        converged=torch.ones(queries, dtype=torch.bool),
    )


def _table(basis: Basis, batch: Batch, solution: Solution, noise_given: bool) -> pd.DataFrame:
    problem = basis.problem
    values = solution.parameters.numpy()
    std = solution.covariance.diagonal(dim1=1, dim2=2).sqrt().numpy()
    known = np.isfinite(batch.known)
    std = np.where(known, 0.0, std)
    freedom = solution.freedom.numpy()
    low, high = intervals(values, std, None if noise_given else freedom)
    noise, misfit = solution.noise_std.numpy(), solution.misfit.numpy()
    size = amplitude(batch).numpy()
    evidence = Evidence(
        estimates=values,
        std=std,
        low=low,
        high=high,
        known=known,
        noise_std=noise,
        amplitude=size,
        counts=batch.observed.sum((1, 2)),
        freedom=freedom,
        misfit=misfit,
        free_misfit=solution.free_misfit.numpy(),
        free_freedom=solution.free_freedom.numpy(),
        floor=max(basis.record.accuracy.floor, basis.record.accuracy.residual) * size,
        physics=solution.physics.numpy(),
        converged=solution.converged.numpy(),
        noise_given=noise_given,
    )
    statuses, messages = judge(problem, evidence)
    columns: dict[str, object] = {"query": batch.queries}
    for j, name in enumerate(problem.parameters):
        parts = {"": values, "_std": std, "_low": low, "_high": high}
        columns |= {name + suffix: part[:, j] for suffix, part in parts.items()}
    if batch.std is not None:  # the noise was given cell by cell: report its root mean square
        noise = np.sqrt(np.nanmean(np.where(batch.observed, batch.std, np.nan) ** 2, axis=(1, 2)))
    columns |= {
        "noise_std": noise,
        "objective": solution.objective.numpy(),
        "iterations": solution.iterations.numpy(),
        "status": statuses,
        "message": messages,
    }
    return pd.DataFrame(columns)


def estimate(
    basis: Basis,
    observations: Observations | pd.DataFrame | str | Path,
    solver: str | GaussNewtonSettings | AdamSettings = "gauss_newton",
    noise_std: float | None = None,
) -> Estimates:
    """Estimate the parameters of every query.

    Args:
        basis: a trained basis of the problem.
        observations: a table in long form, or a CSV or Parquet file with one (see `Observations`).
        solver: ``gauss_newton``, ``adam`` (the published recipe), or settings of one of them.
        noise_std: standard deviation of the observations' errors, in the units of the fields; None to
            estimate it per query, unless the table has ``<field>_std`` columns.

    Raises:
        InputError: if the observations are faulty, or the solver is not known.
    """
    if isinstance(solver, str):
        if solver not in SOLVERS:
            raise InputError(f"solver {solver!r} is not known; there are {', '.join(SOLVERS)}")
        solver = SOLVERS[solver]()
    if noise_std is not None and not (np.isfinite(noise_std) and noise_std > 0):
        raise InputError(f"noise_std {noise_std:g}: a standard deviation must be above zero")
    if isinstance(solver, AdamSettings) and noise_std is not None:
        raise InputError("the solver 'adam' takes no noise_std: the published recipe has no error bars")
    if isinstance(observations, str | Path):
        observations = read_observations(observations, basis.problem)
    elif isinstance(observations, pd.DataFrame):
        observations = check_observations(observations, basis.problem)
    deviations = [f"{field}_std" for field in basis.problem.fields]
    if noise_std is not None and set(deviations) <= set(observations.table):
        raise InputError(f"noise_std is given twice: as {noise_std:g} and by the column {deviations[0]!r}")
    if basis.problem.system.affine is None:
        raise InputError(f"{basis.problem.name}: equations without an affine split are not supported yet")
    physics: Physics | None = None
    tables: list[pd.DataFrame] = []
    readouts: list[Tensor] = []
    covariances: list[Tensor] = []
    total = len(observations.queries)
    # the published recipe treats all queries as one batch
    longest = observations.table["query"].value_counts().iloc[0]
    size = total if isinstance(solver, AdamSettings) else min(_BATCH, max(1, _BATCH_POINTS // longest))
    with tqdm(total=total, desc="queries", disable=total <= _BATCH) as progress:
        for batch in observations.batches(size):
            if isinstance(solver, GaussNewtonSettings):
                physics = physics or reduce_physics(basis)
                solution = _gauss_newton(basis, physics, batch, solver, noise_std)
            else:
                solution = _adam(basis, batch, solver)
            tables.append(_table(basis, batch, solution, noise_std is not None or batch.std is not None))
            readouts.append(solution.readouts)
            covariances.append(solution.readout_covariance)
            progress.update(len(batch.queries))
    fields = len(basis.problem.fields)
    return Estimates(
        pd.concat(tables, ignore_index=True),
        basis,
        torch.cat(readouts).unflatten(1, (fields, -1)).numpy(),
        torch.cat(covariances).numpy() if isinstance(solver, GaussNewtonSettings) else None,
    )
