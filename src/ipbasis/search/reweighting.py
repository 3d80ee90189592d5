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

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.stats import chi2, norm
from torch import Tensor

from ipbasis.errors import InputError
from ipbasis.observations.long_form import Batch, Observations
from ipbasis.offline.artefact import Basis
from ipbasis.search.assemble import amplitude, observed_features
from ipbasis.search.rows import put, select
from ipbasis.search.solution import Solution

_BOUND = 1.345
# mean of ψ² for standard normal errors
_MEAN_SQUARE = 2 * norm.cdf(_BOUND) - 1 - 2 * _BOUND * norm.pdf(_BOUND) + 2 * _BOUND**2 * norm.sf(_BOUND)
# of Huber's weights: with less z would be so far off that the solvers took it for a fault of the equation
_LEAST_WEIGHT = 0.2
_LEAST_SLOPE = 0.1  # mean of ψ', below which nothing is told by the formula for κ
_LEAST_SHARE = 0.1  # of a positive observation, below which a fit is not taken as a point to linearise at
_FIRST_NOISE = 0.2  # relative, to find a first fit
_LOST = 0.5  # degrees of freedom, below which a fit left nothing to estimate the noise from
_ROUNDS = 12
_AT_REST = 0.1  # relative change of the noise, and of the fit in its standard errors, that calls for no further round
_ALTERNATES = 0.3  # change of fit or parameters in error bars, by which a nonlinear search may end now here, now there
_SCALE_ROUNDS, _SCALE_SETTLED = 60, 1e-4
# Fields have noise of one size unless that has less than this probability, or one of them has fewer observations
_EQUAL_LEVEL, _FEWEST = 0.05, 10
_BASIS_ERRORS = 3.0  # noise below so many times the errors of the basis is not told from them


@dataclass(frozen=True)
class Errors:
    """How the observations scatter about the fields, and what of it is minimised.

    Args:
        noise: ``gaussian``, or ``lognormal``: proportional to the fields, which are positive.
        loss: ``squares``, or ``huber``, which bounds the influence of each observation.

    Raises:
        InputError: for any other word.
    """

    noise: str = "gaussian"
    loss: str = "squares"

    def __post_init__(self) -> None:
        for name, choices in (("noise", ("gaussian", "lognormal")), ("loss", ("squares", "huber"))):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} {getattr(self, name)!r} is not known; there are {', '.join(choices)}")

    @property
    def ordinary(self) -> bool:
        """Whether least squares on the observations themselves will do."""
        return self == Errors()

    @property
    def mean_square(self) -> float:
        """Mean of ψ² for standard normal errors."""
        return 1.0 if self.loss == "squares" else _MEAN_SQUARE

    def bounded(self, ratio: Tensor) -> Tensor:
        """ψ of standardised residuals."""
        return ratio if self.loss == "squares" else ratio.clamp(-_BOUND, _BOUND)

    def check(self, observations: Observations) -> None:
        """Raise an `InputError` where lognormal noise cannot have led to an observation."""
        if self.noise == "gaussian":
            return
        table = observations.table
        for field in observations.problem.fields:
            if (wrong := (table[field] <= 0).to_numpy()).any():
                row = int(np.argmax(wrong))
                query, value = table["query"].iloc[row], table[field].iloc[row]
                raise InputError(
                    f"query {query}: {field} = {value:g}, but lognormal noise leaves values above zero: leave the "
                    f"cell empty, or take gaussian noise"
                )


@dataclass(frozen=True)
class Fit:
    """The outcome of a batch with the observations that least squares was done on.

    Args:
        solution: of the solver; misfits in units of the standard deviations of `batch` where it has some.
        batch: the observations, or the pseudo-observations of the last round; their standard deviations hold the
            error of the basis if the noise was estimated.
        noise_std: (B, F) standard deviation of the noise, relative if it is lognormal; NaN where nothing was observed.
    """

    solution: Solution
    batch: Batch
    noise_std: Tensor


def with_noise_std(observations: Observations, noise_std: float | Mapping[str, float]) -> Observations:
    """The observations with the standard deviation of each cell.

    Args:
        observations: without standard deviations.
        noise_std: for all fields, or by field.

    Raises:
        InputError: if a field is not one of the problem's, or has observations but no standard deviation.
    """
    problem, table = observations.problem, observations.table
    if not isinstance(noise_std, Mapping):
        noise_std = dict.fromkeys(problem.fields, noise_std)
    if wrong := [name for name in noise_std if name not in problem.fields]:
        raise InputError(
            f"noise_std: {wrong[0]!r} is not a field of {problem.name}; it has {', '.join(problem.fields)}"
        )
    if missing := [f for f in problem.fields if f not in noise_std and table[f].notna().any()]:
        raise InputError(f"noise_std: the field {missing[0]!r} has observations, but no standard deviation")
    return replace(observations, table=table.assign(**{f"{f}_std": noise_std.get(f, np.nan) for f in problem.fields}))


def fit_once(batch: Batch, solution: Solution) -> Fit:
    """What a solver found by one fit to the observations themselves."""
    observed = torch.as_tensor(batch.observed)
    noise = solution.noise_std[:, None].expand(len(observed), observed.shape[2])
    noise = torch.where(observed.any(1), noise, torch.nan) if batch.std is None else _given(batch)
    return Fit(solution, batch, noise)


def fit_in_rounds(
    basis: Basis, batch: Batch, errors: Errors, noise_given: bool, solve: Callable[[Batch, Tensor], Solution]
) -> Fit:
    """Fit a batch in as many rounds as its errors ask for; ordinary errors of equal size ask for one.

    Where the noise is not given, fields share one noise, unless each has ten observations or more and Bartlett's
    test rejects equal noise at 5 %: then each has its own. A fit that left nothing to estimate the noise from is
    done anew from a large noise.

    Args:
        basis: the functions.
        batch: the observations; standard deviations, if any, in the units of the errors (relative if lognormal).
        errors: what kind of errors they have.
        noise_given: whether their size is known.
        solve: least squares on a batch with its functions (B or 1, n, K) at the points of observation; standard
            deviations are without the error of the basis.
    """
    values, features = torch.as_tensor(batch.values), observed_features(basis, batch)

    def of(rows: Tensor) -> Tensor:
        return features if len(features) == 1 else features[rows]

    if errors.ordinary:
        solution = solve(batch, features)
        lost = solution.freedom < _LOST if not noise_given else torch.zeros(len(values)) > 0
        if noise_given or (values.shape[2] == 1 and not lost.any()):
            return fit_once(batch, solution)
        std = solution.noise_std[:, None, None].expand_as(values)
        if lost.any():
            part = _with_first_noise(batch.select(lost.numpy()))
            put(solution, lost, solve(part, of(lost)))
            std = std.clone()
            std[lost] = _total(basis, part)
    else:
        first = batch
        if errors.noise == "lognormal":
            first = replace(batch, std=batch.values * (_FIRST_NOISE if batch.std is None else batch.std))
        elif batch.std is None:
            first = _with_first_noise(batch)
        solution, std, lost = solve(first, features), _total(basis, first), torch.ones(len(values)) > 0
    fit = fit_once(batch, solution)
    separate, misfit = torch.zeros(len(values)) > 0, solution.misfit.clone()
    used = _Round(values.clone(), std.clone(), std.clone(), fit.noise_std.clone(), separate, misfit)
    fitted = _fitted(features, solution)
    following = _round(basis, batch, errors, fitted, solution.used, used.separate)
    rows = torch.arange(len(values))[lost | following.separate]
    for number in range(_ROUNDS):
        rows = rows[following.values[rows].isfinite().all(2).all(1)]  # a fit that failed stays as it is
        if not len(rows):
            break
        own, part, before = select(following, rows), batch.select(rows.numpy()), fitted[rows]
        again, last = solve(own.batch(part), of(rows)), solution.parameters[rows]
        now = _fitted(of(rows), again)
        again = replace(again, iterations=again.iterations + solution.iterations[rows])
        put(solution, rows, again)
        put(used, rows, own)
        fitted[rows] = now
        put(following, rows, _round(basis, part, errors, now, again.used, own.separate))
        moves = (following.noise_std[rows] / own.noise_std).log().abs().nan_to_num(0.0).amax(1) > _AT_REST
        if not errors.ordinary:  # what is fitted depends on the fit itself
            squares = ((now - before) / own.std).square().mul(torch.as_tensor(part.observed)).sum((1, 2))
            change = (squares / again.used.sum(1)).sqrt()
            if number >= _ROUNDS // 2:  # with few functions, then with more
                shift = (again.parameters - last).abs() / again.covariance.diagonal(dim1=1, dim2=2).sqrt()
                change = torch.minimum(change, shift.nan_to_num(0.0).amax(1)) * (_AT_REST / _ALTERNATES)
            moves |= change > _AT_REST
        rows = rows[moves]
    solution.converged[rows] = False
    unit = solution.noise_std.square()
    misfit = following.misfit if noise_given else solution.misfit / unit
    solution = replace(solution, misfit=misfit, free_misfit=solution.free_misfit / unit)
    weighted = replace(batch, values=used.values.numpy(), std=used.std.numpy())
    return Fit(solution, weighted, _given(batch) if noise_given else used.noise_std)


def _with_first_noise(batch: Batch) -> Batch:
    """A batch as if its noise were known: where it is estimated a fit that follows every observation can seem best."""
    noise = _FIRST_NOISE * amplitude(batch)[:, None, None]
    return replace(batch, std=noise.expand(batch.values.shape).numpy())


def _total(basis: Basis, batch: Batch) -> Tensor:
    """(B, n, F) standard deviation of the observations, the error of the basis included; 1 where there is none."""
    std = torch.as_tensor(batch.std).square() + _floor(basis, batch)[:, None, None].square()
    return std.sqrt().where(torch.as_tensor(batch.observed), 1.0)


def _given(batch: Batch) -> Tensor:
    """(B, F) root mean square of the given standard deviations."""
    std = torch.as_tensor(batch.std).masked_fill(~torch.as_tensor(batch.observed), torch.nan)
    return std.square().nanmean(1).sqrt()


def _floor(basis: Basis, batch: Batch) -> Tensor:
    """(B,) standard deviation of the errors of the basis."""
    return basis.record.accuracy.floor * amplitude(batch)


def _fitted(features: Tensor, solution: Solution) -> Tensor:
    """(B, n, F) fitted values, by the functions (B or 1, n, K) at the points."""
    readouts = solution.readouts.unflatten(1, (-1, features.shape[2])).mT
    return features[0] @ readouts if len(features) == 1 else features @ readouts


@dataclass(frozen=True)
class _Round:
    """What is fitted in a round.

    Args:
        values: (B, n, F) pseudo-observations z, zero where nothing was observed.
        std: (B, n, F) their standard deviation s.
        own_std: (B, n, F) the part of it that is not the error of the basis.
        noise_std: (B, F) the noise σ; NaN where nothing was observed.
        separate: (B,) whether every field has noise of its own.
        misfit: (B,) Σ ψ²(d/t) in units of its mean, about the fit that the round starts from.
    """

    values: Tensor
    std: Tensor
    own_std: Tensor
    noise_std: Tensor
    separate: Tensor
    misfit: Tensor

    def batch(self, batch: Batch) -> Batch:
        """The pseudo-observations in the place of the observations of a batch."""
        return replace(batch, values=self.values.numpy(), std=self.own_std.numpy())


def _round(basis: Basis, batch: Batch, errors: Errors, fitted: Tensor, used: Tensor, separate: Tensor) -> _Round:
    """The round that follows a fit, see the top of this file.

    Args:
        basis: the functions.
        batch: the observations.
        errors: their kind.
        fitted: (B, n, F) values of the fit.
        used: (B, F) number of each field's observations that it uses up.
        separate: (B,) queries that are known to have fields of unequal noise.
    """
    observed, values = torch.as_tensor(batch.observed), torch.as_tensor(batch.values)
    centre, residual, unit = fitted, values - fitted, torch.ones_like(values)
    if errors.noise == "lognormal":
        values = values.where(observed, 1.0)
        centre = unit = torch.maximum(centre, _LEAST_SHARE * values)
        residual = unit * (values / unit).log()
    floor = _floor(basis, replace(batch, values=centre.where(observed, 0.0).numpy()))
    counts = observed.sum(1).double()
    residuals = _Residuals(
        errors=errors,
        residual=residual.where(observed, 0.0),
        unit=unit.square().where(observed, 0.0),
        floor=floor.square()[:, None, None],
        counts=counts,
        freedom=counts - torch.minimum(used, counts),
    )
    if batch.std is None:
        noise, separate = _noise(basis, residuals, separate)
        variance = noise[:, None] * residuals.unit
        noise_std = (noise + residuals.floor[:, 0] / residuals.mean_unit).sqrt()
    else:
        variance = torch.as_tensor(batch.std).square() * residuals.unit
        noise_std = _given(batch)
    total = (variance + residuals.floor).where(observed, 1.0)
    ratio = residuals.residual / total.sqrt()
    squares, count = errors.bounded(ratio).square().sum((1, 2)), counts.sum(1)
    freedom = residuals.freedom.sum(1)
    std, values = total, centre + residual
    if errors.loss == "huber":
        weight = (_BOUND / ratio.abs().clamp_min(_BOUND)).clamp_min(_LEAST_WEIGHT)
        values = centre + total.sqrt() * errors.bounded(ratio) / weight
        inside = (ratio.abs() < _BOUND) * observed
        slope = (inside.sum((1, 2)) / count).clamp_min(_LEAST_SLOPE)
        # Huber's K and, where given noise is exceeded, the spread that ψ really has
        finite = 1 + (count - freedom) / count * (1 - slope) / slope
        spread = (squares / freedom.clamp_min(1.0)).clamp_min(errors.mean_square)
        factor = (finite / slope).square() * spread * (weight * observed).sum((1, 2)) / count
        std = total * factor[:, None, None] / weight
    return _Round(
        values=values.where(observed, 0.0),
        std=std.sqrt(),
        own_std=(std - residuals.floor).clamp_min(0.0).sqrt(),
        noise_std=noise_std.where(counts > 0, torch.nan),
        separate=separate,
        misfit=squares / errors.mean_square,
    )


@dataclass(frozen=True)
class _Residuals:
    """Residuals d of a batch.

    Args:
        errors: their kind.
        residual, unit: (B, n, F) d and r², zero where nothing was observed.
        floor: (B, 1, 1) variance of the errors of the basis.
        counts, freedom: (B, F) observations, and less the effective number of unknowns.
    """

    errors: Errors
    residual: Tensor
    unit: Tensor
    floor: Tensor
    counts: Tensor
    freedom: Tensor

    @property
    def mean_unit(self) -> Tensor:
        """(B, F) mean of r²."""
        mean = self.unit.sum(1) / self.counts.clamp_min(1)
        return mean.where(self.counts > 0, 1.0)

    def together(self) -> "_Residuals":
        """All fields as one."""
        parts = {name: getattr(self, name).flatten(1)[..., None] for name in ("residual", "unit")}
        sums = {name: getattr(self, name).sum(1, keepdim=True) for name in ("counts", "freedom")}
        return replace(self, **parts, **sums)

    def variance(self) -> Tensor:
        """(B, F) variance σ² of the noise, at which Σ ψ²(d/t) is what is expected."""
        freedom, mean = self.freedom.clamp_min(1.0), self.mean_unit
        floor = self.floor[:, 0] / mean
        variance = self.residual.square().sum(1) / freedom / mean
        for _ in range(_SCALE_ROUNDS):
            total = (variance[:, None] * self.unit + self.floor).clamp_min(torch.finfo(mean.dtype).tiny)
            squares = self.errors.bounded(self.residual / total.sqrt()).square().sum(1)
            ratio = squares / (self.errors.mean_square * freedom)
            updated = ((variance + floor) * ratio - floor).clamp_min(0.0)
            settled = (updated - variance).abs() <= _SCALE_SETTLED * (variance + floor)
            variance = updated
            if settled.all():
                break
        return variance


def _noise(basis: Basis, residuals: _Residuals, separate: Tensor) -> tuple[Tensor, Tensor]:
    """Variance σ² (B, F) of the noise, and which queries (B,) have fields of unequal noise.

    Args:
        basis: the functions.
        residuals: of the batch.
        separate: (B,) queries of which this is known already.
    """
    common = residuals.together().variance()
    if residuals.counts.shape[1] == 1:
        return common, separate
    each = residuals.variance().where(residuals.counts > 0, common)
    accuracy = basis.record.accuracy
    # neither the errors of the basis nor those by which it misses the equation are noise
    ratio = _BASIS_ERRORS * max(1.0, accuracy.residual / accuracy.floor)
    least = ratio**2 * residuals.floor[:, 0] / residuals.mean_unit
    variances = torch.maximum(each + residuals.floor[:, 0] / residuals.mean_unit, least)
    unequal = _unequal(variances, residuals.freedom, residuals.counts)
    separate = separate | unequal
    return torch.where(separate[:, None], each, common), separate


def _unequal(variances: Tensor, freedom: Tensor, counts: Tensor) -> Tensor:
    """(B,) whether Bartlett's test tells the variances (B, F) of the fields apart.

    Args:
        variances: of each field.
        freedom: (B, F) their degrees of freedom.
        counts: (B, F) observations; fields without any do not count.
    """
    seen = counts > 0
    share = freedom.clamp_min(1.0) * seen
    total = share.sum(1)
    mean = (share * variances).sum(1) / total
    groups = seen.sum(1)
    statistic = total * mean.log() - (share * variances.log()).sum(1)
    others = (groups - 1).clamp_min(1)
    statistic = statistic / (1 + ((seen / share.clamp_min(1.0)).sum(1) - 1 / total) / (3 * others))
    limit = torch.as_tensor(chi2.isf(_EQUAL_LEVEL, others.numpy()))
    return (statistic > limit) & (groups > 1) & ((counts >= _FEWEST) | ~seen).all(1)
