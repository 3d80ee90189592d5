"""Noise of its own size in every field, noise proportional to the fields, and outliers: least squares in rounds.

Each round takes the residuals d of the observations y about the last fit u, estimates the noise from them, and puts
pseudo-observations z of standard deviation s in the place of the observations. Least squares on these takes the step
of Gauss and Newton to the estimate that is meant:

    d = y - u,  r = 1              gaussian noise
    d = u log(y/u),  r = u         lognormal noise, log y = log u + σ e
    t² = σ² r² + floor²            variance of d, floor the error of the basis itself
    z = u + t ψ(d/t) / w
    s² = κ² t² / w                 w ≈ ψ(d/t) / (d/t), and κ² such that the error bars are those of an M-estimate

ψ is the identity (w = κ = 1) for squares, and Huber's, bounded at 1.345, for outliers: 95 % efficient for normal
errors. An estimated σ is that of Huber's proposal 2, for squares the usual root mean square: Σ ψ²(d/t) is what is
expected of as many degrees of freedom.

Reference: Huber & Ronchetti, Robust Statistics, 2nd edition (2009), sections 7.6 to 7.8.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ipbasis.observations.long_form import Batch
from ipbasis.offline.artefact import Basis
from ipbasis.search.assemble import amplitude, functions_of, observed_functions
from ipbasis.search.noise import BOUND, ByObservation, ByQuery, Errors, Estimated, Noise, basis_error
from ipbasis.search.residuals import Residuals, estimated_noise
from ipbasis.search.rows import put, select
from ipbasis.search.solution import Solution
from ipbasis.search.unknown_terms import Terms

# of Huber's weights: with less z would be so far off that the solvers took it for a fault of the equation
_LEAST_WEIGHT = 0.2
_LEAST_SLOPE = 0.1  # mean of ψ', below which nothing is told by the formula for κ
_LEAST_SHARE = 0.1  # of a positive observation, below which a fit is not taken as a point to linearise at
_FIRST_NOISE = 0.2  # relative, to find a first fit
_LOST = 0.5  # degrees of freedom, below which a fit left nothing to estimate the noise from
_ROUNDS = 12
_PLACES = 3  # that a fit is moved to at most, because one fits better by the weights of another
_AT_REST = 0.1  # relative change of the noise, and of the fit in its standard errors, that calls for no further round
_ALTERNATES = 0.3  # change of fit or parameters in error bars, by which a nonlinear search may end now here, now there


class Squares(Protocol):
    """A solver by least squares, see `ipbasis.search.prepared.InRounds`."""

    def at(self, batch: Batch, noise: Noise, functions: Tensor | None = None) -> Solution: ...

    def again(self, batch: Batch, noise: Noise, functions: Tensor, near: Solution) -> Solution: ...

    def looked_around(
        self, batch: Batch, noise: Noise, functions: Tensor, solution: Solution, estimated: bool
    ) -> tuple[Solution, Tensor]: ...


@dataclass(frozen=True)
class Fit:
    """The outcome of a batch with the observations that least squares was done on.

    Args:
        solution: of the solver; misfits in units of the weights of `noise`.
        batch: the observations, or the pseudo-observations of the last round.
        noise: of these as it was held at the end, the error of the basis included.
        own: the same without the error of the basis, where the noise was given and one fit did; else as `noise`.
        noise_std: (B, F) standard deviation of the noise, relative if it is lognormal; if it was estimated, with the
            error of the basis in it; NaN where nothing was observed.
        noise_given: whether the noise was known beforehand.
        terms: the unknown terms, where the problem has some.
    """

    solution: Solution
    batch: Batch
    noise: ByQuery | ByObservation
    own: ByQuery | ByObservation
    noise_std: Tensor
    noise_given: bool
    terms: Terms | None = None

    @property
    def freedom(self) -> np.ndarray | None:
        """(B,) degrees of freedom of the noise estimate; None where the noise was given."""
        return None if self.noise_given else self.solution.freedom.numpy()

    def select(self, rows: np.ndarray) -> "Fit":
        """Some queries, without unknown terms."""
        parts = {name: select(getattr(self, name), rows) for name in ("solution", "noise", "own", "noise_std")}
        return replace(self, batch=self.batch.select(rows), terms=None, **parts)


def fit_once(batch: Batch, noise: Noise, total: Noise, solution: Solution, terms: Terms | None = None) -> Fit:
    """What a solver found by one fit to the observations themselves.

    Args:
        batch: the observations.
        noise: of the observations.
        total: the same with the error of the basis.
        solution: of the solver.
        terms: that it found.
    """
    observed = torch.as_tensor(batch.observed)
    held, own = (ByQuery(solution.noise_std) if isinstance(one, Estimated) else one for one in (total, noise))
    by_field = own.by_field(observed)
    return Fit(solution, batch, held, own, by_field, noise.given, terms)


def fit_in_rounds(basis: Basis, batch: Batch, noise: Noise, errors: Errors, squares: Squares) -> Fit:
    """Fit a batch in as many rounds as its errors ask for; ordinary errors of equal size ask for one.

    Where the noise is not given, fields share one noise, unless each has ten observations or more and Bartlett's
    test rejects equal noise at 5 %: then each has its own. A fit that left nothing to estimate the noise from is
    done anew from a large noise. What else fits as well is looked for with the weights of the last round.

    Args:
        basis: the functions.
        batch: the observations.
        noise: their noise, in the units of the errors (relative if lognormal).
        errors: what kind of errors they have.
        squares: the solver.
    """
    functions = observed_functions(basis, batch)
    if not errors.ordinary:
        first = _first_noise(batch, noise, errors).with_basis_error(basis_error(basis, batch))
        started = _Started(
            squares.at(batch, first, functions), first.by_observation, torch.ones(len(batch.queries)) > 0
        )
        return _rounds(basis, batch, noise, errors, squares, functions, started)
    total = noise.with_basis_error(basis_error(basis, batch))
    solution = squares.at(batch, total, functions)
    lost = (solution.freedom < _LOST) & (not noise.given)
    if noise.given or (batch.values.shape[2] == 1 and not lost.any()):
        solution, _ = squares.looked_around(batch, total, functions, solution, not noise.given)
        return fit_once(batch, noise, total, solution)
    std = solution.noise_std[:, None, None].repeat(1, *batch.values.shape[1:])
    if lost.any():
        part = batch.select(lost.numpy())
        large = _first_noise(part, noise, errors).with_basis_error(basis_error(basis, part))
        put(solution, lost, squares.at(part, large, functions_of(functions, lost)))
        std[lost] = large.by_observation
    return _rounds(basis, batch, noise, errors, squares, functions, _Started(solution, std, lost))


@dataclass(frozen=True)
class _Started:
    """A first fit, the standard deviations (B, n, F) it was done with, and which queries (B,) need another round."""

    solution: Solution
    std: Tensor
    again: Tensor


def _rounds(
    basis: Basis, batch: Batch, noise: Noise, errors: Errors, squares: Squares, functions: Tensor, started: _Started
) -> Fit:
    """The rounds that follow a first fit, see `fit_in_rounds`."""
    solution, values = started.solution, torch.as_tensor(batch.values)
    used = _Round(
        values=values.clone(),
        std=started.std.clone(),
        noise_std=fit_once(batch, noise, noise, solution).noise_std.clone(),
        separate=torch.zeros(len(values)) > 0,
        misfit=solution.misfit.clone(),
    )
    fitted = _fitted(functions, solution)
    following = _round(basis, batch, noise, errors, fitted, solution.used, used.separate)
    rounds = _Rounds(basis, batch, noise, errors, squares, functions, solution, used, following, fitted)
    rows, unseen = (started.again | following.separate).nonzero().squeeze(1), torch.arange(len(values))
    for _ in range(_PLACES):
        for number in range(_ROUNDS):
            rows = rows[following.values[rows].isfinite().all(2).all(1)]  # a fit that failed stays as it is
            if not len(rows):
                break
            rows = rounds.again(rows, late=number >= _ROUNDS // 2)
        solution.converged[rows] = False
        rows = unseen = rounds.looked_around(unseen)
        if not len(unseen):
            break
    unit = solution.noise_std.square()
    misfit = following.misfit if noise.given else solution.misfit / unit
    solution = replace(
        solution, misfit=misfit, free_misfit=solution.free_misfit / unit, noise_std=torch.ones_like(unit)
    )
    by_field = noise.by_field(torch.as_tensor(batch.observed)) if noise.given else used.noise_std
    held = ByObservation(used.std)
    return Fit(solution, replace(batch, values=used.values.numpy()), held, held, by_field, noise.given)


@dataclass(frozen=True)
class _Rounds:
    """How far a batch is, which every round changes.

    Args:
        basis, batch, noise, errors, squares, functions: as they are for `_rounds`.
        solution: of the last round of each query.
        used: what was fitted in it.
        following: what a next one would fit.
        fitted: (B, n, F) values of the solution.
    """

    basis: Basis
    batch: Batch
    noise: Noise
    errors: Errors
    squares: Squares
    functions: Tensor
    solution: Solution
    used: "_Round"
    following: "_Round"
    fitted: Tensor

    def again(self, rows: Tensor, late: bool) -> Tensor:
        """Another round of some queries, and those that need one more; many were before it if it is `late`."""
        own, before, last = (select(each, rows) for each in (self.following, self.fitted, self.solution))
        batch, functions = self.batch.select(rows.numpy()), functions_of(self.functions, rows)
        pseudo = replace(batch, values=own.values.numpy())
        again = self.squares.again(pseudo, ByObservation(own.std), functions, last)
        put(self.used, rows, own)
        self._put(rows, replace(again, iterations=again.iterations + last.iterations), own.separate)
        moves = (self.following.noise_std[rows] / own.noise_std).log().abs().nan_to_num(0.0).amax(1) > _AT_REST
        if not self.errors.ordinary:  # what is fitted depends on the fit itself
            move = ((self.fitted[rows] - before) / own.std) * torch.as_tensor(batch.observed)
            change = (move.square().sum((1, 2)) / again.used.sum(1)).sqrt()
            if late:  # with few functions, then with more
                std = again.covariance.diagonal(dim1=1, dim2=2).sqrt()
                shift = ((again.parameters - last.parameters).abs() / std).nan_to_num(0.0).amax(1)
                change = torch.minimum(change, shift) * (_AT_REST / _ALTERNATES)
            moves |= change > _AT_REST
        return rows[moves]

    def looked_around(self, rows: Tensor) -> Tensor:
        """Learn what else fits some queries as well, and take what fits better: of those (rows) it is told."""
        held = select(self.used, rows)
        batch = replace(self.batch.select(rows.numpy()), values=held.values.numpy())
        solution, estimated = select(self.solution, rows), not self.noise.given
        found = self.squares.looked_around(
            batch, ByObservation(held.std), functions_of(self.functions, rows), solution, estimated
        )
        put(self.solution, rows, found[0])
        moved = rows[found[1]]
        if len(moved):
            self._put(moved, select(self.solution, moved), self.used.separate[moved])
        return moved

    def _put(self, rows: Tensor, solution: Solution, separate: Tensor) -> None:
        """A solution of some queries, and what a next round of them would fit."""
        put(self.solution, rows, solution)
        self.fitted[rows] = now = _fitted(functions_of(self.functions, rows), solution)
        batch, noise = self.batch.select(rows.numpy()), select(self.noise, rows)
        put(self.following, rows, _round(self.basis, batch, noise, self.errors, now, solution.used, separate))


def _first_noise(batch: Batch, noise: Noise, errors: Errors) -> ByObservation:
    """A batch's noise to find a first fit with.

    As if it were known: where it is estimated a fit that follows every observation can seem best.
    """
    values = torch.as_tensor(batch.values).where(torch.as_tensor(batch.observed), 1.0)
    given = isinstance(noise, ByObservation)
    if errors.noise == "lognormal":
        return ByObservation(values * (noise.by_observation if given else _FIRST_NOISE))
    return noise if given else ByObservation((_FIRST_NOISE * amplitude(batch))[:, None, None].expand(values.shape))


def _fitted(functions: Tensor, solution: Solution) -> Tensor:
    """(B, n, F) fitted values, by the functions (B or 1, n, K) at the points."""
    readouts = solution.readouts.unflatten(1, (-1, functions.shape[2])).mT
    return functions[0] @ readouts if len(functions) == 1 else functions @ readouts


@dataclass(frozen=True)
class _Round:
    """What is fitted in a round.

    Args:
        values: (B, n, F) pseudo-observations z, zero where nothing was observed.
        std: (B, n, F) their standard deviation s, the error of the basis included.
        noise_std: (B, F) the noise σ; NaN where nothing was observed.
        separate: (B,) whether every field has noise of its own.
        misfit: (B,) Σ ψ²(d/t) in units of its mean, about the fit that the round starts from.
    """

    values: Tensor
    std: Tensor
    noise_std: Tensor
    separate: Tensor
    misfit: Tensor


def _round(
    basis: Basis, batch: Batch, noise: Noise, errors: Errors, fitted: Tensor, used: Tensor, separate: Tensor
) -> _Round:
    """The round that follows a fit, see the top of this file.

    Args:
        basis: the functions.
        batch: the observations.
        noise: of these.
        errors: their kind.
        fitted: (B, n, F) values of the fit.
        used: (B, F) number of each field's observations that it uses up.
        separate: (B,) queries that are known to have fields of unequal noise.
    """
    observed = torch.as_tensor(batch.observed)
    centre, residual, unit = _residual(batch, errors, fitted)
    error = basis_error(basis, replace(batch, values=centre.where(observed, 0.0).numpy()))
    counts = observed.sum(1).double()
    residuals = Residuals(
        errors=errors,
        residual=residual.where(observed, 0.0),
        unit=unit.square().where(observed, 0.0),
        floor=error.square()[:, None, None],
        counts=counts,
        freedom=counts - torch.minimum(used, counts),
    )
    if isinstance(noise, ByObservation):
        variance, noise_std = noise.by_observation.square() * residuals.unit, noise.by_field(observed)
    else:
        estimated, separate = estimated_noise(basis.record.accuracy, residuals, separate)
        variance = estimated[:, None] * residuals.unit
        noise_std = (estimated + residuals.floor[:, 0] / residuals.mean_unit).sqrt()
    total = (variance + residuals.floor).where(observed, 1.0)
    ratio = residuals.residual / total.sqrt()
    squares = errors.bounded(ratio).square().sum((1, 2))
    variance, values = total, centre + residual
    if errors.loss == "huber":
        weight = (BOUND / ratio.abs().clamp_min(BOUND)).clamp_min(_LEAST_WEIGHT)
        values = centre + total.sqrt() * errors.bounded(ratio) / weight
        variance = total * _inflation(residuals, ratio, squares, weight)[:, None, None] / weight
    return _Round(
        values=values.where(observed, 0.0),
        std=variance.sqrt(),
        noise_std=noise_std.where(counts > 0, torch.nan),
        separate=separate,
        misfit=squares / errors.mean_square,
    )


def _residual(batch: Batch, errors: Errors, fitted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where a round linearises, residuals d there and their units r, (B, n, F) each; see the top of this file."""
    observed, values = torch.as_tensor(batch.observed), torch.as_tensor(batch.values)
    if errors.noise == "gaussian":
        return fitted, values - fitted, torch.ones_like(values)
    values = values.where(observed, 1.0)
    unit = torch.maximum(fitted, _LEAST_SHARE * values)
    return unit, unit * (values / unit).log(), unit


def _inflation(residuals: Residuals, ratio: Tensor, squares: Tensor, weight: Tensor) -> Tensor:
    """(B,) κ² such that the error bars are those of an M-estimate: Huber's K, with the spread that ψ really has.

    Args:
        residuals: of the batch.
        ratio: (B, n, F) d/t.
        squares: (B,) Σ ψ²(d/t).
        weight: (B, n, F) w.
    """
    observed, count, freedom = residuals.unit > 0, residuals.counts.sum(1), residuals.freedom.sum(1)
    slope = (((ratio.abs() < BOUND) & observed).sum((1, 2)) / count).clamp_min(_LEAST_SLOPE)
    finite = 1 + (count - freedom) / count * (1 - slope) / slope
    spread = (squares / freedom.clamp_min(1.0)).clamp_min(residuals.errors.mean_square)
    return (finite / slope).square() * spread * (weight * observed).sum((1, 2)) / count
