"""A solver on a basis, made ready once for any number of tables of observations."""

from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from ipbasis.errors import InputError
from ipbasis.estimates.checks import larger_than_chance
from ipbasis.estimates.intervals import half_widths
from ipbasis.estimates.options import Options, check_options, device_of
from ipbasis.estimates.polish import polish
from ipbasis.estimates.profile import profile_intervals
from ipbasis.estimates.resimulate import COLUMN, resimulate, tasks_of, with_resimulation
from ipbasis.estimates.solvers import solver_of
from ipbasis.estimates.table import SUFFIXES, Ends, correlation_columns, estimates_table
from ipbasis.estimates.tails import open_tails
from ipbasis.estimates.units import noise_to, observations_to, table_from
from ipbasis.observations.long_form import Batch, Observations
from ipbasis.offline.artefact import Basis
from ipbasis.problem.declaration import Problem
from ipbasis.search.noise import Errors, NoiseStd, check_noise_std, check_sizes, noise_of
from ipbasis.search.priors import priors_of
from ipbasis.search.reweighting import Fit
from ipbasis.search.solver import Prepared, Solver

_BATCH_SHARED = 50  # queries from which on threads share them
# What the libraries of linear algebra and of integration raise for numbers that overflow on the way
_BROKEN = (RuntimeError, ArithmeticError, ValueError)
Estimated = tuple[pd.DataFrame, Fit | None]


@dataclass(frozen=True)
class Estimator:
    """See the top of this file.

    Args:
        declared: the problem as the user wrote it.
        outer: the basis for the problem that is searched, in the units of the user.
        prepared: the solver on a basis for the problem that is searched.
        noise_std: standard deviation of the errors if it is given by one or more numbers.
        errors: what kind of errors the observations have.
        options: what is asked for besides.
    """

    declared: Problem
    outer: Basis
    prepared: Prepared
    noise_std: NoiseStd
    errors: Errors
    options: Options

    @property
    def basis(self) -> Basis:
        """For the problem that is searched, in its own units."""
        return self.prepared.basis

    @property
    def _relative(self) -> bool:
        """Whether standard deviations of the noise are shares of the fields."""
        return self.errors.noise == "lognormal"

    def accept(self, observations: Observations) -> Observations:
        """Checked observations of the declared problem, for the problem that is searched.

        Raises:
            InputError: if they do not go with the solver or the noise.
        """
        check_noise_std(self.noise_std, observations)
        self.errors.check(observations)
        unusable = self.prepared.unusable(observations) | dict(observations.unusable)
        units, table = self.outer.record.units, observations.table
        if units is not None:
            table = observations_to(units, self.outer.problem, observations, self._relative)
        return replace(observations, problem=self.basis.problem, table=table, unusable=unusable)

    def size(self, observations: Observations) -> int:
        """Number of queries of a batch."""
        count, threads = len(observations.queries), torch.get_num_threads()
        most = self.prepared.most_queries(observations.longest)
        if most is None:
            return count
        # equal shares, the same number for every thread
        batches = threads * -(-count // (threads * most))
        return max(-(-count // batches), min(most, _BATCH_SHARED))

    def batches(self, observations: Observations) -> Iterator[Estimated]:
        """Table and fit of the usable queries of accepted observations, a batch or a part of one at a time.

        A query whose numbers no solver can go on with is ``failed`` and has no fit.

        Batches are solved side by side, one thread each of those that PyTorch has: its operations are too small to
        be shared.
        """
        size, threads = self.size(observations), torch.get_num_threads()
        batches = observations.batches(size)
        if threads == 1 or observations.usable.sum() <= size:
            for batch in batches:
                yield from self._apart(batch)
            return
        waiting: deque[Future] = deque()
        try:
            with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                for batch in batches:
                    waiting.append(pool.submit(self._apart, batch))
                    if len(waiting) > threads:  # one more than are solved, so that no thread waits for its data
                        yield from waiting.popleft().result()
                while waiting:
                    yield from waiting.popleft().result()
        finally:
            torch.set_num_threads(threads)

    def _apart(self, batch: Batch) -> list[Estimated]:
        """Table and fit of a batch; of its halves, and so on, where the numbers of a query do not let it through."""
        try:
            return [self._estimated(batch)]
        except InputError:
            raise
        except _BROKEN as error:
            count = len(batch.queries)
            if count == 1:
                told = (
                    f"cannot be computed with these numbers ({(str(error) or type(error).__name__)[:60]}); other units"
                )
                return [(self._failed(batch.queries, [f"{told} may help"]), None)]
            halves = np.array_split(np.arange(count), 2)
            return [found for half in halves for found in self._apart(batch.select(half))]

    def _estimated(self, batch: Batch) -> tuple[pd.DataFrame, Fit]:
        """Table and fit of a batch."""
        noise = noise_of(batch, self.noise_std, self.declared.fields, self.errors.ordinary)
        fit, options = self.prepared.solve(batch, noise), self.options
        table = self._table(fit, self._profile(fit) if options.profile else None)
        searched, sound = fit, table["status"] == "ok"
        unsure = np.zeros(len(table), dtype=bool)
        if self.errors.ordinary:
            rejected = (table["status"] == "poor_fit").to_numpy()
            unsure = self.prepared.unsure(fit, rejected) & (rejected | sound.to_numpy())
        if options.resimulate or options.polish or unsure.any():
            table, fit = self._by_reference(fit, table, unsure)
        if self.prepared.has_likelihood and not options.profile:
            table = self._with_open_intervals(table, searched, sound)
        if options.correlations:
            table = table.assign(**correlation_columns(self.basis.problem, fit.solution))
        units = self.outer.record.units
        if units is not None:
            table = table_from(units, table, batch, self._relative)
        return table.assign(**self.prepared.columns(fit)), fit

    def _table(self, fit: Fit, ends: Ends | None = None, trained: bool = True) -> pd.DataFrame:
        """The table of a fit, see `estimates_table`."""
        outliers, units = self.errors.loss == "huber", self.outer.record.units
        return estimates_table(self.basis, fit, ends, trained, outliers, units)

    def _profile(self, fit: Fit) -> Ends:
        """Ends of the profile-likelihood intervals (B, P); an estimated noise is held."""
        widths = half_widths(len(fit.batch.queries), fit.freedom)
        return profile_intervals(fit, self.basis.problem.parameter_ranges, widths, self.prepared.beside)

    def _with_open_intervals(self, table: pd.DataFrame, fit: Fit, sound: pd.Series) -> pd.DataFrame:
        """The table with profile intervals where those of the error bars say too little, and what is open no longer ok.

        Args:
            table: of the estimates.
            fit: of the basis.
            sound: whether that was ok: where it was not, the basis does not know the likelihood of what is now.
        """
        problem, rows = self.basis.problem, np.flatnonzero(sound & (table["status"] == "ok"))
        found = open_tails(fit, rows, problem, half_widths(len(table), fit.freedom), self.prepared.beside)
        rows = np.flatnonzero(found.any(axis=1))
        if not len(rows):
            return table
        part = fit.select(rows)
        priors, names = priors_of(problem), np.array(list(problem.parameters))
        ends = self._profile(part)
        least, most = priors.low.numpy(), priors.high.numpy()
        low, high = (end.clip(least, most) for end in ends)
        for suffix, end in (("_low", low), ("_high", high)):
            table.loc[rows, [name + suffix for name in names]] = end
        beyond = found[rows] & ((low <= least) | (high >= most))
        for row, own, without in zip(rows, found[rows], beyond, strict=True):
            if without.any():
                told = f"the data leave {', '.join(names[without])} open to one side"
                table.loc[row, ["status", "message"]] = "not_identifiable", told
            else:
                told = f"the data leave {', '.join(names[own])} more open to one side: intervals of the profile"
                table.loc[row, "message"] = told
        return table

    def _by_reference(self, fit: Fit, table: pd.DataFrame, unsure: np.ndarray) -> tuple[pd.DataFrame, Fit]:
        """Table and fit after re-simulation, if asked for, and polish of queries for which it is or that it decides on.

        Args:
            fit: of the basis.
            table: of its estimates.
            unsure: (B,) queries that polish decides on; of others it counts where it converges.
        """
        # in the units of the fields, unless standard deviations came with the observations
        scaled = fit.own.by_observation is not None and fit.batch.std is None
        if self.options.resimulate or self.options.polish:
            table = with_resimulation(table, resimulate(self.basis, fit))
            table[COLUMN] *= table["noise_std"] if scaled else 1.0
        rows = np.arange(len(table)) if self.options.polish else np.flatnonzero(unsure)
        if not len(rows):
            return table, fit
        part = fit.select(rows)
        polished = polish(self.basis.problem, part, tasks_of(self.basis, part))
        now, other = polished.fit.solution, self._table(polished.fit, trained=False)
        if COLUMN in table:
            other[COLUMN] = polished.rms * (table["noise_std"].to_numpy()[rows] if scaled else 1.0)
        if not fit.noise_given:
            variance = part.own.by_query.square().numpy()
            larger = larger_than_chance(now.misfit.numpy(), now.freedom.numpy(), variance, part.freedom)
            told = "no solution of the equations fits the data as they scatter: does the equation hold?"
            contradicted = larger & unsure[rows] & (other["status"] == "ok")
            other.loc[contradicted, ["status", "message"]] = "poor_fit", told
        # of equations that do not hold the fit says more, which bends them
        stands = (other["status"] == "poor_fit") & (table["status"].to_numpy()[rows] == "poor_fit")
        taken = (polished.converged | unsure[rows]) & ~(unsure[rows] & stands.to_numpy())
        table.loc[rows[taken]] = other.loc[taken, list(table)].set_index(rows[taken])
        covariance = fit.solution.covariance.clone()
        covariance[rows[taken]] = now.covariance[taken]
        return table, replace(fit, solution=replace(fit.solution, covariance=covariance))

    def whole(self, tables: Sequence[pd.DataFrame], observations: Observations) -> pd.DataFrame:
        """The tables of all batches as one, the unusable queries in their places: ``failed``, without numbers."""
        usable = observations.usable
        if usable.all():
            return _together(tables)
        queries = observations.queries[~usable]
        failed = self._failed(queries, [observations.unusable[query] for query in queries])
        places = np.concatenate([np.flatnonzero(usable), np.flatnonzero(~usable)])
        table = _together([*tables, failed])
        return table.iloc[np.argsort(places)].reset_index(drop=True)

    def _failed(self, queries: Sequence[Hashable], messages: Sequence[str]) -> pd.DataFrame:
        """The table of queries without an estimate."""
        numbers = [name + suffix for name in self.basis.problem.parameters for suffix in SUFFIXES]
        columns = {"query": queries, **dict.fromkeys([*numbers, "noise_std", "objective"], np.nan), "iterations": 0}
        columns |= {"status": "failed", "message": messages}
        columns |= dict.fromkeys(self.prepared.text_columns, "")
        return pd.DataFrame(columns)


def _together(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables as one; those of failed queries have fewer columns."""
    return pd.concat(tables, ignore_index=True)[list(max(tables, key=lambda table: table.shape[1]))]


def prepare(
    basis: Basis,
    solver: str | Solver = "gauss_newton",
    noise_std: NoiseStd = None,
    noise: str = "gaussian",
    loss: str = "squares",
    device: str = "cpu",
    **options: bool,
) -> Estimator:
    """Make a solver ready, see `ipbasis.estimates.estimate.estimate`.

    Raises:
        InputError: if the solver is not known or does not fit the problem.
    """
    errors, chosen, declared = Errors(noise, loss), Options(**options), basis.problem
    solver = solver_of(solver, declared)
    check_sizes(noise_std)
    searched = solver.searched(declared)
    check_options(searched, solver, noise_std, errors, device, chosen)
    own = basis if searched is declared else basis.for_problem(searched)
    prepared = solver.prepare(declared, own.inner, errors, device_of(device))
    if basis.record.units is not None:
        noise_std = noise_to(basis.record.units, noise_std, noise == "lognormal")
    return Estimator(declared, own, prepared, noise_std, errors, chosen)
