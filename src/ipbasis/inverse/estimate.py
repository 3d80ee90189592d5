"""Estimates of the parameters of many queries from their observations."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from ipbasis.basis.artefact import Basis
from ipbasis.basis.quadrature import equispaced
from ipbasis.errors import InputError
from ipbasis.inverse.adam import AdamSettings, adam, quadratic_forms
from ipbasis.inverse.assemble import AffinePhysics, Physics, PointwisePhysics, amplitude, assemble, reduce_physics
from ipbasis.inverse.checks import Evidence, judge
from ipbasis.inverse.gauss_newton import GaussNewtonSettings, gauss_newton
from ipbasis.inverse.intervals import intervals
from ipbasis.inverse.joint import joint_gauss_newton
from ipbasis.inverse.misfit import reduce_misfit
from ipbasis.inverse.smoothing import smooth
from ipbasis.inverse.solution import Solution, without_errors
from ipbasis.inverse.term_networks import TermNetworkSettings, fit_term_networks
from ipbasis.inverse.unknown_terms import (
    FreeForm,
    Library,
    LibraryTerms,
    Terms,
    free_terms,
    library_terms,
    searched_problem,
    with_library,
)
from ipbasis.observations import Batch, Observations, check_observations, read_observations

SOLVERS = {
    "gauss_newton": GaussNewtonSettings,
    "free_form": FreeForm,
    "library": Library,
    "adam": AdamSettings,
    "term_networks": TermNetworkSettings,
}
Solver = GaussNewtonSettings | FreeForm | Library | AdamSettings | TermNetworkSettings
_PUBLISHED = (AdamSettings, TermNetworkSettings)
# queries, those of equations taken at points, and points after padding, that are held at once
_BATCH, _BATCH_POINTWISE, _BATCH_POINTS = 2000, 200, 1_000_000
_TERM_POINTS = 100  # of each coordinate, at which terms without a formula are taken


@dataclass(frozen=True)
class Estimates:
    """Estimates of all queries.

    Args:
        table: one row per query: ``query``, for each parameter p ``p, p_std, p_low, p_high``, then
            ``noise_std, objective, iterations, status, message``.
        basis: the basis used.
        readouts: (queries, F, K).
        readout_covariance: (queries, F K, F K), or None if the solver gives none.
        freedom: (queries,) degrees of freedom of the noise estimate; infinite where the noise was given.
        found: the unknown terms of each batch of queries, where the problem has some.
    """

    table: pd.DataFrame
    basis: Basis
    readouts: np.ndarray
    readout_covariance: np.ndarray | None
    freedom: np.ndarray
    found: tuple[tuple[int, Terms], ...] = ()

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

    def intervals(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Low and high ends (queries, P) of the intervals that hold the true parameters with this probability."""
        if not 0 < level < 1:
            raise InputError(f"level {level:g}: the probability of an interval lies between 0 and 1, such as 0.9")
        names = list(self.basis.problem.parameters)
        std = self.table[[f"{name}_std" for name in names]].to_numpy()
        return intervals(self.table[names].to_numpy(), std, self.freedom, level)

    def terms(self, points: np.ndarray) -> np.ndarray:
        """Unknown terms along the fitted solutions at points (n, d): (queries, n, terms)."""
        return self._terms(self.solution(points), "terms")

    def terms_on(self, fields: np.ndarray) -> np.ndarray:
        """Unknown terms where the fields have the values (m, F): (queries, m, terms)."""
        return self._terms(np.broadcast_to(fields, (len(self.table), *np.shape(fields))), "terms")

    def terms_std_on(self, fields: np.ndarray) -> np.ndarray:
        """Standard deviation of `terms_on`, of the solver ``free_form`` only."""
        return self._terms(np.broadcast_to(fields, (len(self.table), *np.shape(fields))), "terms_std")

    def _terms(self, fields: np.ndarray, what: str) -> np.ndarray:
        ends = np.cumsum([count for count, _ in self.found])
        parts = [
            getattr(found, what)(torch.tensor(fields[end - count : end]))
            for end, (count, found) in zip(ends, self.found, strict=True)
        ]
        return torch.cat(parts).numpy()


def _noise(basis: Basis, batch: Batch, noise_std: float | None) -> tuple[Tensor | None, Tensor | None]:
    """Standard deviations with the basis error in them: of each cell if they are given so, else by query."""
    floor = basis.record.accuracy.floor * amplitude(batch)
    if batch.std is not None:
        return (torch.as_tensor(batch.std).square() + floor[:, None, None].square()).sqrt(), torch.ones_like(floor)
    return None, None if noise_std is None else (noise_std**2 + floor.square()).sqrt()


def _gauss_newton(
    basis: Basis,
    physics: Physics,
    batch: Batch,
    settings: GaussNewtonSettings,
    noise_std,
    optional: Tensor | None = None,
) -> Solution:
    cells, by_query = _noise(basis, batch, noise_std)
    online = assemble(basis, physics, batch, cells)
    if isinstance(physics, AffinePhysics):
        return gauss_newton(online, basis.record.accuracy, settings, by_query)
    return joint_gauss_newton(online, basis.record.accuracy, settings, by_query, optional)


def _free_form(basis: Basis, physics: Physics, batch: Batch, noise_std) -> tuple[Solution, Terms]:
    """Smooth fits of the data, and the unknown terms that they show."""
    problem = basis.problem
    if np.isnan(batch.known).any():
        name = list(problem.parameters)[int(np.argmax(np.isnan(batch.known).any(axis=0)))]
        raise InputError(
            f"{problem.name}: without a formula of its terms {name} cannot be told from them: give it in a column "
            f"{name!r}, or use a library"
        )
    cells, by_query = _noise(basis, batch, noise_std)
    online = assemble(basis, physics, batch, cells)
    smoothed = smooth(online, by_query)
    points = equispaced(problem.domain, _TERM_POINTS ** len(problem.domain), torch.float64)
    found = free_terms(problem, physics.at(basis, points), smoothed, online.known)
    return smoothed.solution(online, by_query), found


def _adam(basis: Basis, batch: Batch, settings: AdamSettings) -> Solution:
    """The published recipe on the functions of the basis, in the number type of its trunk."""
    misfits = reduce_misfit(basis, batch)
    forms, rest = quadratic_forms(basis, misfits, settings)
    start = torch.as_tensor(basis.problem.parameter_ranges.mean(1))
    search, loss = adam(forms, start, torch.as_tensor(batch.known), settings)
    readouts = search.readouts.double()
    counts = torch.as_tensor(batch.observed).sum((1, 2)).double()
    loss, misfit = loss.double() + rest, misfits(readouts)
    return without_errors(search.parameters.double(), readouts, loss, misfit, counts, settings.steps)


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
        counts=batch.observed.sum((1, 2)),
        freedom=freedom,
        total=np.square(batch.values if batch.std is None else batch.values / np.nan_to_num(batch.std, nan=1.0)).sum(
            (1, 2)
        ),
        misfit=misfit,
        free_misfit=solution.free_misfit.numpy(),
        free_freedom=solution.free_freedom.numpy(),
        floor=max(basis.record.accuracy.floor, basis.record.accuracy.residual) * size,
        physics=solution.physics.sqrt().numpy(),
        worst_physics=basis.record.accuracy.worst_ratio,
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


def _term_networks(basis: Basis, batch: Batch, settings: TermNetworkSettings) -> tuple[Solution, Terms]:
    """The published recipe for unknown terms."""
    found = fit_term_networks(basis, batch, settings)
    counts = torch.as_tensor(batch.observed).sum((1, 2)).double()
    return without_errors(
        found.parameters, found.readouts.flatten(1), found.loss, found.misfit, counts, settings.steps
    ), found


def _solver(basis: Basis, solver: str | Solver, noise_std: float | None) -> Solver:
    """The settings that are meant, checked against the problem."""
    problem = basis.problem
    if isinstance(solver, str):
        if solver not in SOLVERS:
            raise InputError(f"solver {solver!r} is not known; there are {', '.join(SOLVERS)}")
        solver = SOLVERS[solver]()
    if isinstance(solver, GaussNewtonSettings) and problem.unknown_terms:
        solver = Library(search=solver)
    if isinstance(solver, FreeForm | Library) and not problem.unknown_terms:
        raise InputError(f"{problem.name} has no unknown terms; the solver {solver.solver!r} needs one")
    if isinstance(solver, AdamSettings) and problem.system.affine is None:
        raise InputError(f"{problem.name}: the solver 'adam' needs an affine split; 'term_networks' does not")
    if isinstance(solver, _PUBLISHED) and noise_std is not None:
        raise InputError(f"the solver {solver.solver!r} takes no noise_std: the published recipe has no error bars")
    if noise_std is not None and not (np.isfinite(noise_std) and noise_std > 0):
        raise InputError(f"noise_std {noise_std:g}: a standard deviation must be above zero")
    return solver


def estimate(
    basis: Basis,
    observations: Observations | pd.DataFrame | str | Path,
    solver: str | Solver = "gauss_newton",
    noise_std: float | None = None,
) -> Estimates:
    """Estimate the parameters of every query, and its unknown terms.

    Args:
        basis: a trained basis of the problem.
        observations: a table in long form, or a CSV or Parquet file with one (see `Observations`).
        solver: ``gauss_newton`` (unknown terms as polynomials of degree 2), ``library`` (unknown terms by
            functions of your choice), ``free_form`` (unknown terms without a formula), ``adam`` or
            ``term_networks`` (the published recipes), or settings of one of them.
        noise_std: standard deviation of the observations' errors, in the units of the fields; None to
            estimate it per query, unless the table has ``<field>_std`` columns.

    Raises:
        InputError: if the observations are faulty, or the solver is not known or does not fit the problem.
    """
    solver = _solver(basis, solver, noise_std)
    if isinstance(observations, str | Path):
        observations = read_observations(observations, basis.problem)
    elif isinstance(observations, pd.DataFrame):
        observations = check_observations(observations, basis.problem)
    deviations = [f"{field}_std" for field in basis.problem.fields]
    if noise_std is not None and set(deviations) <= set(observations.table):
        raise InputError(f"noise_std is given twice: as {noise_std:g} and by the column {deviations[0]!r}")
    declared = basis.problem
    if isinstance(solver, Library):
        basis = basis.for_problem(with_library(declared, solver))
    elif declared.unknown_terms:
        basis = basis.for_problem(searched_problem(declared))
    observations = replace(observations, problem=basis.problem)
    optional = torch.tensor([name not in declared.parameters for name in basis.problem.parameters])
    physics = None if isinstance(solver, _PUBLISHED) else reduce_physics(basis)

    def solve(batch: Batch) -> tuple[Solution, Terms | None]:
        match solver:
            case AdamSettings():
                return _adam(basis, batch, solver), None
            case TermNetworkSettings():
                return _term_networks(basis, batch, solver)
            case FreeForm():
                return _free_form(basis, physics, batch, noise_std)
            case Library():
                solution = _gauss_newton(basis, physics, batch, solver.search, noise_std, optional)
                return solution, library_terms(declared, solver, basis.problem, solution.parameters)
            case _:
                return _gauss_newton(basis, physics, batch, solver, noise_std), None

    tables: list[pd.DataFrame] = []
    readouts: list[Tensor] = []
    covariances: list[Tensor] = []
    freedoms: list[Tensor] = []
    found: list[tuple[int, Terms]] = []
    total = len(observations.queries)
    longest = observations.table["query"].value_counts().iloc[0]
    most = _BATCH_POINTWISE if isinstance(physics, PointwisePhysics) else _BATCH
    # the published recipe treats all queries as one batch
    size = total if physics is None else min(most, max(1, _BATCH_POINTS // longest))
    with tqdm(total=total, desc="queries", disable=total <= size) as progress:
        for batch in observations.batches(size):
            solution, terms = solve(batch)
            noise_given = noise_std is not None or batch.std is not None
            table = _table(basis, batch, solution, noise_given)
            if isinstance(terms, LibraryTerms):
                table = table.assign(**terms.formulas())
            if declared.unknown_terms:
                found.append((len(batch.queries), terms))
            tables.append(table)
            readouts.append(solution.readouts)
            covariances.append(solution.readout_covariance)
            freedoms.append(torch.full_like(solution.freedom, torch.inf) if noise_given else solution.freedom)
            progress.update(len(batch.queries))
    fields = len(basis.problem.fields)
    return Estimates(
        pd.concat(tables, ignore_index=True),
        basis,
        torch.cat(readouts).unflatten(1, (fields, -1)).numpy(),
        None if physics is None else torch.cat(covariances).numpy(),
        torch.cat(freedoms).numpy(),
        tuple(found),
    )
