"""Estimates of the parameters of many queries from their observations."""

import itertools
from collections import deque
from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from ipbasis.errors import InputError
from ipbasis.estimates.checks import Evidence, judge
from ipbasis.estimates.intervals import correlations, half_widths, intervals
from ipbasis.estimates.polish import polish as polish_estimates
from ipbasis.estimates.profile import profile_intervals
from ipbasis.estimates.resimulate import COLUMN, check_reference, with_resimulation
from ipbasis.estimates.resimulate import resimulate as resimulate_estimates
from ipbasis.features.quadrature import equispaced
from ipbasis.observations.long_form import Batch, Observations, check_observations, read_observations
from ipbasis.offline.artefact import Basis
from ipbasis.problem.declaration import Problem
from ipbasis.published.adam import AdamSettings, adam, quadratic_forms
from ipbasis.published.misfit import reduce_misfit
from ipbasis.published.term_networks import TermNetworkSettings, fit_term_networks
from ipbasis.search.assemble import (
    AffinePhysics,
    Physics,
    PointwisePhysics,
    amplitude,
    assemble,
    observed_features,
    reduce_physics,
)
from ipbasis.search.gauss_newton import GaussNewtonSettings, gauss_newton
from ipbasis.search.joint import joint_gauss_newton
from ipbasis.search.priors import priors_of
from ipbasis.search.reweighting import Errors, Fit, fit_in_rounds, fit_once, with_noise_std
from ipbasis.search.smoothing import smooth
from ipbasis.search.solution import Solution, without_errors
from ipbasis.search.unknown_terms import (
    FreeForm,
    Library,
    LibraryTerms,
    Terms,
    free_terms,
    library_terms,
    searched_problem,
    with_library,
)

Noise = float | Mapping[str, float] | None
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
_BATCH, _BATCH_POINTS, _BATCH_ENTRIES = 5000, 1_000_000, 40_000_000
_SUFFIXES = ("", "_std", "_low", "_high")  # of a parameter's columns
_BATCH_SHARED = 50  # queries from which on threads share them
_TERM_POINTS = 100  # of each coordinate, at which terms without a formula are taken


@dataclass(frozen=True)
class Estimates:
    """Estimates of all queries.

    Args:
        table: one row per query: ``query``, for each parameter p ``p, p_std, p_low, p_high``, then
            ``noise_std, objective, iterations``, with re-simulation or polish ``resimulation_rms``, then
            ``status, message``, and ``<field>_noise_std`` where the problem has several fields.
        basis: the basis used.
        readouts: (queries, F, K).
        batches: of each batch its rows in the table and (rows, F, r, r) covariances of each field's readouts in r
            combinations of the functions.
        combinations: (K, r), takes those to the readouts; None if the solver gives no error bars.
        correlation: (queries, P, P) of the parameters' errors, those of `basis.problem` in its order; NaN for known
            parameters and where the solver gives no error bars.
        freedom: (queries,) degrees of freedom of the noise estimate; infinite where the noise was given.
        found: the unknown terms of each batch and its rows in the table, where the problem has some.
    """

    table: pd.DataFrame
    basis: Basis
    readouts: np.ndarray
    batches: tuple[tuple[np.ndarray, np.ndarray], ...]
    combinations: np.ndarray | None
    correlation: np.ndarray
    freedom: np.ndarray
    found: tuple[tuple[np.ndarray, Terms], ...] = ()

    @cached_property
    def covariances(self) -> np.ndarray | None:
        """(queries, F, r, r) those of `batches`, large and so put together on demand; None if the solver gives none."""
        if self.combinations is None:
            return None
        fields, width = self.readouts.shape[1], self.combinations.shape[1]
        values = np.full((len(self.table), fields, width, width), np.nan)
        for rows, part in self.batches:
            values[rows] = part
        return values

    @property
    def readout_covariance(self) -> np.ndarray | None:
        """(queries, F, K, K) covariance of each field's readouts, or None if the solver gives none."""
        return None if self.covariances is None else self.combinations @ self.covariances @ self.combinations.T

    def solution(self, points: np.ndarray) -> np.ndarray:
        """Fitted fields at points (n, d): (queries, n, F)."""
        return np.einsum("nk,qfk->qnf", self.basis.features(points), self.readouts)

    def solution_std(self, points: np.ndarray) -> np.ndarray:
        """Standard error of the fitted fields at points (n, d): (queries, n, F); NaN if not known."""
        queries, fields, _ = self.readouts.shape
        if self.covariances is None:
            return np.full((queries, len(points), fields), np.nan)
        features = self.basis.features(points) @ self.combinations
        variance = np.einsum("nk,qfkl,nl->qnf", features, self.covariances, features, optimize=True)
        return np.sqrt(variance.clip(0))

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
        parts = [getattr(found, what)(torch.tensor(fields[rows])).numpy() for rows, found in self.found]
        values = np.full((*fields.shape[:2], parts[0].shape[2] if parts else 0), np.nan)
        for (rows, _), part in zip(self.found, parts, strict=True):
            values[rows] = part
        return values


def _noise(basis: Basis, batch: Batch, noise_std: float | Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Standard deviations with the basis error in them: of each cell if they are given so, else by query."""
    floor = basis.record.accuracy.floor * amplitude(batch)
    if batch.std is not None:
        return (torch.as_tensor(batch.std).square() + floor[:, None, None].square()).sqrt(), torch.ones_like(floor)
    return None, None if noise_std is None else (torch.as_tensor(noise_std).square() + floor.square()).sqrt()


def _gauss_newton(
    basis: Basis,
    physics: Physics,
    batch: Batch,
    settings: GaussNewtonSettings,
    noise_std,
    optional: Tensor | None = None,
    features: Tensor | None = None,
) -> Solution:
    """Estimates of a batch, found on the device that the equations are on."""
    device = physics.coordinates.device
    basis = basis.on(device)
    # on the CPU tensors are made anyway, and the context would cost as much as small operations
    with nullcontext() if device.type == "cpu" else device:
        cells, by_query = _noise(basis, batch, noise_std)
        features = observed_features(basis, batch) if features is None else features.to(device)
        assembled = partial(assemble, basis, batch=batch, std=cells, features=features)
        if isinstance(physics, AffinePhysics):
            solution = gauss_newton(assembled(physics), basis.record.accuracy, settings, by_query)
        else:
            optional = None if optional is None else optional.to(device)
            solution = joint_gauss_newton(assembled, physics, settings, by_query, optional)
    return solution.to("cpu")


def _free_form(basis: Basis, physics: Physics, batch: Batch, noise_std) -> tuple[Solution, Terms]:
    """Smooth fits of the data, and the unknown terms that they show."""
    problem = basis.problem
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


def _profile(
    basis: Basis,
    physics: Physics,
    fit: Fit,
    settings: GaussNewtonSettings,
    noise_std: float | Tensor | None,
    noise_given: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the profile-likelihood intervals (B, P); an estimated noise is held."""
    batch, solution = fit.batch, fit.solution
    if not noise_given:  # estimates hold the error of the basis, which is added again
        floor = basis.record.accuracy.floor * amplitude(batch)
        if batch.std is None:
            noise_std = (solution.noise_std.square() - floor.square()).clamp_min(0).sqrt()
        else:
            batch = replace(batch, std=np.sqrt((batch.std**2 - floor.numpy()[:, None, None] ** 2).clip(0)))
    freedom = None if noise_given else solution.freedom.numpy()

    def solve(part: Batch, rows: np.ndarray) -> Solution:
        held = noise_std[rows] if isinstance(noise_std, Tensor) else noise_std
        return _gauss_newton(basis, physics, part, settings, held)

    widths = half_widths(len(batch.queries), freedom)
    return profile_intervals(batch, solution, basis.problem.parameter_ranges, widths, solve)


def _correlation_columns(problem: Problem, solution: Solution) -> dict[str, np.ndarray]:
    """Correlations of the errors of each pair of parameters, by the name of the column."""
    matrix = correlations(solution.covariance.numpy())
    pairs = itertools.combinations(enumerate(problem.parameters), 2)
    return {f"corr_{p}_{q}": matrix[:, i, j] for (i, p), (j, q) in pairs}


def _table(
    basis: Basis,
    fit: Fit,
    noise_given: bool,
    ends: tuple[np.ndarray, np.ndarray] | None = None,
    trained: bool = True,
) -> pd.DataFrame:
    """The estimates of a batch as they are told.

    Args:
        basis: the basis.
        fit: the estimates and what they were fitted to.
        noise_given: whether the noise was known.
        ends: (B, P) each, of the intervals; None for those from the covariance.
        trained: whether the estimates rest on the basis, and so on its trained ranges.
    """
    problem, batch, solution = basis.problem, fit.batch, fit.solution
    values = solution.parameters.numpy()
    std = solution.covariance.diagonal(dim1=1, dim2=2).sqrt().numpy()
    known = np.isfinite(batch.known)
    std = np.where(known, 0.0, std)
    freedom = solution.freedom.numpy()
    low, high = ends or intervals(values, std, None if noise_given else freedom)
    priors = priors_of(problem)
    bounds = torch.stack([priors.low, priors.high]).numpy()
    low, high = np.where(known, low, low.clip(*bounds)), np.where(known, high, high.clip(*bounds))
    noise, misfit = solution.noise_std.numpy(), solution.misfit.numpy()
    floor = max(basis.record.accuracy.floor, basis.record.accuracy.residual) * amplitude(batch).numpy()
    if batch.std is not None:  # in units of the standard deviations, as the misfits
        floor *= np.sqrt(np.nanmean(np.where(batch.observed, batch.std, np.nan) ** -2.0, axis=(1, 2)))
    evidence = Evidence(
        estimates=values,
        std=std,
        low=low if trained else np.full_like(low, -np.inf),
        high=high if trained else np.full_like(high, np.inf),
        known=known,
        unknowns=(~known & priors.std.isinf().numpy()).sum(1) + np.isnan(batch.initial).sum(1),
        bounds=bounds,
        noise_std=noise,
        counts=batch.observed.sum((1, 2)),
        freedom=freedom,
        total=np.square(batch.values if batch.std is None else batch.values / np.nan_to_num(batch.std, nan=1.0)).sum(
            (1, 2)
        ),
        misfit=misfit,
        free_misfit=solution.free_misfit.numpy(),
        free_freedom=solution.free_freedom.numpy(),
        floor=floor,
        physics=solution.physics.sqrt().numpy(),
        worst_physics=basis.record.accuracy.worst_ratio,
        converged=solution.converged.numpy(),
        noise_given=noise_given,
    )
    statuses, messages = judge(problem, evidence)
    columns: dict[str, object] = {"query": batch.queries}
    for j, name in enumerate(problem.parameters):
        parts = zip(_SUFFIXES, (values, std, low, high), strict=True)
        columns |= {name + suffix: part[:, j] for suffix, part in parts}
    by_field, counts = fit.noise_std.numpy(), batch.observed.sum(1)
    if batch.std is not None:  # given or estimated not as one number: report the root mean square over the cells
        noise = np.sqrt(np.nansum(counts * by_field**2, axis=1) / counts.sum(1))
    columns |= {
        "noise_std": noise,
        "objective": solution.objective.numpy(),
        "iterations": solution.iterations.numpy(),
        "status": statuses,
        "message": messages,
    }
    if len(problem.fields) > 1:
        columns |= {f"{field}_noise_std": by_field[:, i] for i, field in enumerate(problem.fields)}
    return pd.DataFrame(columns)


def _term_networks(basis: Basis, batch: Batch, settings: TermNetworkSettings) -> tuple[Solution, Terms]:
    """The published recipe for unknown terms."""
    found = fit_term_networks(basis, batch, settings)
    counts = torch.as_tensor(batch.observed).sum((1, 2)).double()
    return without_errors(
        found.parameters, found.readouts.flatten(1), found.loss, found.misfit, counts, settings.steps
    ), found


def _solver(basis: Basis, solver: str | Solver, noise_std: Noise, errors: Errors) -> Solver:
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
    if not errors.ordinary and not isinstance(solver, GaussNewtonSettings | Library):
        option = "lognormal noise" if errors.noise == "lognormal" else "the loss 'huber'"
        raise InputError(f"the solver {solver.solver!r} does not know {option}; 'gauss_newton' and 'library' do")
    given = noise_std if isinstance(noise_std, Mapping) else {} if noise_std is None else {"": noise_std}
    for name, std in given.items():
        if not (np.isfinite(std) and std > 0):
            where = f" of {name}" if name else ""
            raise InputError(f"noise_std{where} {std:g}: a standard deviation must be above zero")
    return solver


def _by_reference(
    basis: Basis,
    fit: Fit,
    table: pd.DataFrame,
    noise_std: float | None,
    noise_given: bool,
    own_cells: bool,
    polish: bool,
) -> tuple[pd.DataFrame, Fit]:
    """Table and estimates after re-simulation and, if asked for, polish of the queries where that converges.

    Args:
        basis: the basis.
        fit: of a batch.
        table: of the estimates.
        noise_std: one for all observations.
        noise_given: whether it is known, in whatever way.
        own_cells: whether the observations came with standard deviations, which are then the unit of misfits.
        polish: whether to.
    """
    batch, solution = fit.batch, fit.solution
    again = resimulate_estimates(basis, batch, solution)
    table = with_resimulation(table, again)
    unit = 1.0 if own_cells or batch.std is None else table["noise_std"]
    table[COLUMN] *= unit
    if not polish:
        return table, fit
    polished = polish_estimates(basis.problem, batch, solution, again.tasks, noise_std)
    noise = fit_once(batch, polished.solution).noise_std
    other = _table(basis, Fit(polished.solution, batch, noise), noise_given, trained=False)
    other = other.assign(**{COLUMN: polished.rms * unit})
    rows = polished.converged
    table.loc[rows] = other.loc[rows, list(table)]
    merged = torch.where(torch.tensor(rows)[:, None, None], polished.solution.covariance, solution.covariance)
    return table, replace(fit, solution=replace(solution, covariance=merged))


def _check_options(problem: Problem, solver: Solver, errors: Errors, options: "Options") -> None:
    """Refuse what does not fit the problem as it is searched, or the solver."""
    if options.resimulate or options.polish:
        check_reference(problem, "polish" if options.polish else "resimulate")
    if isinstance(solver, Library) and options.polish:
        raise InputError(f"{problem.name}: polish is for problems without unknown terms; resimulate takes them")
    if options.profile and not isinstance(solver, GaussNewtonSettings):
        raise InputError(f"profile is for the solver 'gauss_newton' without unknown terms, not {solver.solver!r}")
    if options.profile and options.polish:
        raise InputError("profile and polish exclude each other: the profile is that of the basis's objective")
    if (options.profile or options.polish) and not errors.ordinary:
        raise InputError("profile and polish are for gaussian noise and the loss 'squares'")
    if options.polish and (problem.bounds or problem.priors):
        raise InputError("polish knows no bounds and no priors: leave out one or the other")
    if options.profile and problem.priors:
        raise InputError("profile knows no priors: it is that of the likelihood")


@dataclass(frozen=True)
class Options:
    """What may be asked for besides the estimates.

    Args:
        resimulate: integrate the equations with the estimates by the reference solver and compare with the data: a
            column ``resimulation_rms``, and the status ``poor_fit`` where data and re-simulation contradict each other.
        polish: go on from the estimates by least squares through the reference solver, within the trained range and
            outside it; holds the re-simulation. The fitted solutions remain those of the basis.
        profile: intervals from the profile likelihood instead of the covariance.
        correlations: columns ``corr_<p>_<q>`` of the correlations of the parameters' errors.
    """

    resimulate: bool = False
    polish: bool = False
    profile: bool = False
    correlations: bool = False


@dataclass(frozen=True)
class Estimator:
    """A solver on a basis, made ready once for any number of tables of observations.

    Args:
        declared: the problem as the user wrote it.
        basis: for the problem that is searched.
        physics: its equations, None for the published recipes.
        solver: settings.
        noise_std: standard deviation of the errors if it is given by one or more numbers.
        errors: what kind of errors the observations have.
        options: what is asked for besides.
    """

    declared: Problem
    basis: Basis
    physics: AffinePhysics | PointwisePhysics | None
    solver: Solver
    noise_std: Noise
    errors: Errors
    options: Options

    def accept(self, observations: Observations) -> Observations:
        """Checked observations of the declared problem, for the problem that is searched.

        Raises:
            InputError: if they do not go with the solver or the noise.
        """
        deviations = [f"{field}_std" for field in self.declared.fields]
        if self.noise_std is not None and set(deviations) <= set(observations.table):
            raise InputError(f"noise_std is given twice: as {self.noise_std} and by the column {deviations[0]!r}")
        self.errors.check(observations)
        if self.noise_std is not None and not self._one_noise:
            observations = with_noise_std(observations, self.noise_std)
        unusable = dict(observations.unusable)
        if isinstance(self.solver, FreeForm):
            unusable = _without_parameters(self.basis.problem, observations) | unusable
        return replace(observations, problem=self.basis.problem, unusable=unusable)

    def size(self, observations: Observations) -> int:
        """Number of queries of a batch."""
        if self.physics is None:  # the published recipe treats all queries as one batch
            return len(observations.queries)
        most = min(_BATCH, max(1, _BATCH_POINTS // observations.longest))
        if isinstance(self.physics, PointwisePhysics):  # whose normal matrices are held for all queries
            most = min(most, max(1, _BATCH_ENTRIES // self.physics.coordinates.shape[1] ** 2))
        count, threads = len(observations.queries), torch.get_num_threads()
        # equal shares, the same number for every thread
        batches = threads * -(-count // (threads * most))
        return max(-(-count // batches), min(most, _BATCH_SHARED))

    @property
    def _one_noise(self) -> bool:
        """Whether one given number is the standard deviation of every observation."""
        return isinstance(self.noise_std, float | int) and self.errors.ordinary

    def batches(self, observations: Observations) -> Iterator[tuple[pd.DataFrame, Fit, Terms | None]]:
        """Estimates of the usable queries of accepted observations, a batch at a time.

        Batches are solved side by side, one thread each of those that PyTorch has: its operations are too small to
        be shared.
        """
        size, threads = self.size(observations), torch.get_num_threads()
        batches = observations.batches(size)
        if threads == 1 or observations.usable.sum() <= size:
            yield from map(self._estimated, batches)
            return
        waiting: deque[Future] = deque()
        try:
            with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                for batch in batches:
                    waiting.append(pool.submit(self._estimated, batch))
                    if len(waiting) > threads:  # one more than are solved, so that no thread waits for its data
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
        finally:
            torch.set_num_threads(threads)

    def _estimated(self, batch: Batch) -> tuple[pd.DataFrame, Fit, Terms | None]:
        """Table, fit and unknown terms of a batch."""
        fit, terms = self._solve(batch)
        number, options = self.noise_std if self._one_noise else None, self.options
        given = self._noise_given(batch)
        ends = _profile(self.basis, self.physics, fit, self.solver, number, given) if options.profile else None
        table = _table(self.basis, fit, given, ends)
        if options.resimulate or options.polish:
            own_cells = self.noise_std is None and batch.std is not None
            table, fit = _by_reference(self.basis, fit, table, number, given, own_cells, options.polish)
        if options.correlations:
            table = table.assign(**_correlation_columns(self.basis.problem, fit.solution))
        if isinstance(terms, LibraryTerms):
            table = table.assign(**terms.formulas())
        return table, fit, terms

    def _noise_given(self, batch: Batch) -> bool:
        return self.noise_std is not None or batch.std is not None

    def _solve(self, batch: Batch) -> tuple[Fit, Terms | None]:
        basis, physics, solver = self.basis, self.physics, self.solver
        number = self.noise_std if self._one_noise else None

        def in_rounds(settings: GaussNewtonSettings, optional: Tensor | None = None) -> Fit:
            def squares(part: Batch, features: Tensor) -> Solution:
                return _gauss_newton(basis, physics, part, settings, number, optional, features)

            return fit_in_rounds(basis, batch, self.errors, self._noise_given(batch), squares)

        match solver:
            case AdamSettings():
                return fit_once(batch, _adam(basis, batch, solver)), None
            case TermNetworkSettings():
                solution, terms = _term_networks(basis, batch, solver)
                return fit_once(batch, solution), terms
            case FreeForm():
                solution, terms = _free_form(basis, physics, batch, number)
                return fit_once(batch, solution), terms
            case Library():
                optional = torch.tensor([name not in self.declared.parameters for name in basis.problem.parameters])
                fit = in_rounds(solver.search, optional)
                return fit, library_terms(self.declared, solver, basis.problem, fit.solution.parameters)
            case _:
                return in_rounds(solver), None

    def whole(self, tables: Sequence[pd.DataFrame], observations: Observations) -> pd.DataFrame:
        """The tables of all batches as one, the unusable queries in their places: ``failed``, without numbers."""
        usable = observations.usable
        if usable.all():
            return pd.concat(tables, ignore_index=True)
        queries = observations.queries[~usable]
        numbers = [name + suffix for name in self.basis.problem.parameters for suffix in _SUFFIXES]
        columns = {"query": queries, **dict.fromkeys([*numbers, "noise_std", "objective"], np.nan), "iterations": 0}
        columns |= {"status": "failed", "message": [observations.unusable[query] for query in queries]}
        if isinstance(self.solver, Library):
            columns |= dict.fromkeys(self.declared.unknown_terms, "")
        places = np.concatenate([np.flatnonzero(usable), np.flatnonzero(~usable)])
        table = pd.concat([*tables, pd.DataFrame(columns)], ignore_index=True)
        return table.iloc[np.argsort(places)].reset_index(drop=True)


def _without_parameters(problem: Problem, observations: Observations) -> dict[Hashable, str]:
    """Queries that do not give every parameter, where the terms have no formula."""
    unusable: dict[Hashable, str] = {}
    for name in problem.parameters.keys() - problem.fixed:
        reason = f"without a formula of its terms {name} cannot be told from them: give it in a column {name!r}"
        if name not in observations.table:
            raise InputError(f"{problem.name}: {reason}, or use a library")
        missing = observations.table["query"][observations.table[name].isna()]
        unusable |= dict.fromkeys(missing.unique(), reason)
    return unusable


def _device(name: str, solver: Solver) -> torch.device:
    """The device of that name.

    Raises:
        InputError: if there is none, or the solver is not made for it.
    """
    if name != "cpu" and not isinstance(solver, GaussNewtonSettings | Library):
        raise InputError(f"device {name!r} is for the solvers 'gauss_newton' and 'library', not {solver.solver!r}")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InputError(f"device {name!r} is not to be had here; 'cpu' always is") from None


def prepare(
    basis: Basis,
    solver: str | Solver = "gauss_newton",
    noise_std: Noise = None,
    noise: str = "gaussian",
    loss: str = "squares",
    device: str = "cpu",
    **options: bool,
) -> Estimator:
    """Make a solver ready, see `estimate`.

    Raises:
        InputError: if the solver is not known or does not fit the problem.
    """
    errors, chosen, declared = Errors(noise, loss), Options(**options), basis.problem
    solver = _solver(basis, solver, noise_std, errors)
    if isinstance(solver, Library):
        basis = basis.for_problem(with_library(declared, solver))
    elif declared.unknown_terms:
        basis = basis.for_problem(searched_problem(declared))
    _check_options(basis.problem, solver, errors, chosen)
    place = _device(device, solver)
    with place:
        physics = None if isinstance(solver, _PUBLISHED) else reduce_physics(basis.on(place))
    # compiled here: SymPy is not made for the threads that solve the batches
    if isinstance(physics, AffinePhysics):
        physics.thetas(torch.as_tensor(basis.problem.parameter_ranges.T, device=place))
    elif physics is not None and not declared.unknown_terms:
        _ = physics.system.linearised
    return Estimator(declared, basis, physics, solver, noise_std, errors, chosen)


def estimate(
    basis: Basis,
    observations: Observations | pd.DataFrame | str | Path,
    solver: str | Solver = "gauss_newton",
    noise_std: Noise = None,
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
            functions of your choice), ``free_form`` (unknown terms without a formula), ``adam`` or
            ``term_networks`` (the published recipes), or settings of one of them.
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
    given = noise_std is not None or f"{basis.problem.fields[0]}_std" in observations.table
    tables: list[pd.DataFrame] = []
    readouts: list[Tensor] = []
    covariances: list[tuple[np.ndarray, np.ndarray]] = []
    correlation: list[Tensor] = []
    freedom: list[Tensor] = []
    found: list[tuple[np.ndarray, Terms]] = []
    rows, done = np.flatnonzero(observations.usable), 0
    with tqdm(total=len(rows), desc="queries", disable=len(rows) <= estimator.size(observations)) as progress:
        for table, fit, terms in estimator.batches(observations):
            own = rows[done : done + len(table)]
            if basis.problem.unknown_terms:
                found.append((own, terms))
            tables.append(table)
            readouts.append(fit.solution.readouts)
            covariances.append((own, fit.solution.covariances.numpy()))
            correlation.append(torch.tensor(correlations(fit.solution.covariance.numpy())))
            freedom.append(torch.full_like(fit.solution.freedom, torch.inf) if given else fit.solution.freedom)
            done += len(table)
            progress.update(len(table))
    basis = estimator.basis
    shape = len(basis.problem.fields), basis.record.functions
    unknowns = shape[0] * shape[1]
    energy = None if estimator.physics is None else estimator.physics.energy.cpu().numpy()
    return Estimates(
        estimator.whole(tables, observations),
        basis,
        _whole(readouts, observations.usable, unknowns).reshape(-1, *shape),
        tuple(covariances),
        energy,
        _whole(correlation, observations.usable, len(basis.problem.parameters), len(basis.problem.parameters)),
        _whole(freedom, observations.usable),
        tuple(found),
    )


def _whole(parts: Sequence[Tensor], usable: np.ndarray, *shape: int) -> np.ndarray:
    """Batches of the usable queries as one array (queries, *shape), NaN for the others."""
    if usable.all():
        return torch.cat(list(parts)).numpy()
    values = np.full((len(usable), *shape), np.nan)
    if parts:
        values[usable] = torch.cat(list(parts)).numpy()
    return values
