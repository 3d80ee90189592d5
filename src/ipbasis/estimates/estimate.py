"""Estimates of the parameters of many queries from their observations."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from ipbasis.estimates.estimator import Estimator, prepare
from ipbasis.estimates.intervals import correlations
from ipbasis.estimates.result import Estimates
from ipbasis.observations.long_form import Observations, check_observations, read_observations
from ipbasis.offline.artefact import Basis
from ipbasis.search.noise import NoiseStd
from ipbasis.search.reweighting import Fit
from ipbasis.search.solver import Solver
from ipbasis.search.unknown_terms import Terms


def estimate(
    basis: Basis,
    observations: Observations | pd.DataFrame | str | Path,
    solver: str | Solver = "gauss_newton",
    noise_std: NoiseStd = None,
    noise: str = "gaussian",
    loss: str = "squares",
    device: str = "cpu",
    **options: bool,
) -> Estimates:
    """Estimate the parameters of every query, and its unknown terms.

    Args:
        basis: a trained basis of the problem.
        observations: a table in long form, or a CSV or Parquet file with one (see `Observations`).
        solver: ``gauss_newton`` (unknown terms as polynomials of degree 2), ``library`` (unknown terms by
            functions of your choice), ``free_form`` (unknown terms without a formula), or a solver with settings,
            also one of the published recipes (`ipbasis.published.solvers`).
        noise_std: standard deviation of the observations' errors, in the units of the fields, one for all or by
            field; None to estimate it per query, unless the table has ``<field>_std`` columns. One estimate holds
            for all fields of a query, unless its data say otherwise (see `fit_in_rounds`).
        noise: ``gaussian``, or ``lognormal``: errors proportional to fields above zero, log y = log u + σ e. All
            standard deviations of the noise are relative then, they mean σ.
        loss: ``squares``, or ``huber``, which bounds the influence of outliers.
        device: of PyTorch, such as ``cuda``, on which the solvers ``gauss_newton`` and ``library`` search.
        options: what is asked for besides, see `Options`.

    Raises:
        InputError: if the observations are faulty, or the solver or an option is not known or does not fit the
            problem. Queries that merely cannot be estimated get the status ``failed``.
    """
    estimator = prepare(basis, solver, noise_std, noise, loss, device, **options)
    if isinstance(observations, str | Path):
        observations = read_observations(observations, basis.problem)
    elif isinstance(observations, pd.DataFrame):
        observations = check_observations(observations, basis.problem)
    observations = estimator.accept(observations)
    rows, found = np.flatnonzero(observations.usable), _Found(estimator)
    with tqdm(total=len(rows), desc="queries", disable=len(rows) <= estimator.size(observations)) as progress:
        for table, fit in estimator.batches(observations):
            found.add(rows, table, fit)
            progress.update(len(table))
    return found.estimates(observations)


@dataclass
class _Found:
    """What is kept of the batches: large parts of a fit are let go with each."""

    estimator: Estimator
    tables: list[pd.DataFrame] = field(default_factory=list)
    readouts: list[Tensor] = field(default_factory=list)
    covariances: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    correlation: list[Tensor] = field(default_factory=list)
    freedom: list[Tensor] = field(default_factory=list)
    terms: list[tuple[np.ndarray, Terms]] = field(default_factory=list)
    done: int = 0

    def add(self, rows: np.ndarray, table: pd.DataFrame, fit: Fit | None) -> None:
        """Keep a batch, which stands at the next ones of the rows of all usable queries."""
        own = rows[self.done : self.done + len(table)]
        self.done += len(table)
        self.tables.append(table)
        if fit is None:
            for parts, shape in ((self.readouts, self._of_readouts), (self.correlation, self._of_correlation)):
                parts.append(torch.full((len(table), *shape), torch.nan, dtype=torch.float64))
            self.freedom.append(torch.full((len(table),), torch.nan, dtype=torch.float64))
            return
        solution = fit.solution
        self.readouts.append(solution.readouts)
        self.covariances.append((own, solution.covariances.numpy()))
        self.correlation.append(torch.tensor(correlations(solution.covariance.numpy())))
        self.freedom.append(torch.full_like(solution.freedom, torch.inf) if fit.noise_given else solution.freedom)
        if fit.terms is not None:
            self.terms.append((own, fit.terms))

    @property
    def _of_readouts(self) -> tuple[int, ...]:
        basis = self.estimator.basis
        return (len(basis.problem.fields) * basis.record.functions,)

    @property
    def _of_correlation(self) -> tuple[int, ...]:
        return (len(self.estimator.basis.problem.parameters),) * 2

    def estimates(self, observations: Observations) -> Estimates:
        """All batches as one, unusable queries in their places."""
        estimator, usable = self.estimator, observations.usable
        shape = len(estimator.basis.problem.fields), estimator.basis.record.functions
        return Estimates(
            estimator.whole(self.tables, observations),
            estimator.outer,
            _whole(self.readouts, usable, *self._of_readouts).reshape(-1, *shape),
            tuple(self.covariances),
            estimator.prepared.combinations,
            _whole(self.correlation, usable, *self._of_correlation),
            _whole(self.freedom, usable),
            tuple(self.terms),
        )


def _whole(parts: Sequence[Tensor], usable: np.ndarray, *shape: int) -> np.ndarray:
    """Batches of the usable queries as one array (queries, *shape), NaN for the others."""
    if usable.all():
        return torch.cat(list(parts)).numpy()
    values = np.full((len(usable), *shape), np.nan)
    if parts:
        values[usable] = torch.cat(list(parts)).numpy()
    return values
