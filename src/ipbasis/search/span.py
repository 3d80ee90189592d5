"""Online inference on solutions in the span of a basis, for conditions that determine them: nonlinear equations, and
conditions in which parameters and coordinates do not separate.

The unknowns of a task are searched by Levenberg-Marquardt on the misfit of its solution, which every step follows. A
search starts from the solved task that is nearest to the data. The estimates are those of least squares on solutions
in the span, and so are their error bars: how well the span meets the equations tells nothing of the unknowns.

Reference: Bock, in Modelling of Chemical Reaction Systems (1981) 102, for least squares on solutions of equations.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ipbasis.errors import InputError
from ipbasis.observations.long_form import Batch
from ipbasis.offline.artefact import Basis
from ipbasis.offline.bounded import LEAST_DAMPING, bounded_step, inverse_root
from ipbasis.search.assemble import data_forms, initial_values, mean_weight
from ipbasis.search.forward_map import ForwardMap, SolvedTasks
from ipbasis.search.from_tasks import FromTasks
from ipbasis.search.noise import Errors, Noise
from ipbasis.search.priors import Priors, priors_of
from ipbasis.search.restarts import trained_bounds
from ipbasis.search.rivals import Places
from ipbasis.search.rows import put, select
from ipbasis.search.settings import GaussNewtonSettings
from ipbasis.search.solution import Solution

_GAIN = 1e-2  # decrease of the objective, in units of χ², that is not worth a step
_DAMPING, _MOST_DAMPING = 1e-3, 1e6  # the first, and one at which no step is worth it
_ROUNDS = 4  # of a noise that is estimated beside a prior distribution
_SETTLED = 0.04  # change of its logarithm that calls for no further round
_BATCH_ENTRIES = 40_000_000  # of the normal matrices and the forms of the data


@dataclass(frozen=True)
class SpanSearch(FromTasks):
    """Levenberg-Marquardt on solutions in the span of a basis.

    Args:
        basis: whose tasks are solved from their conditions.
        settings: of the search.
        errors: kind of the observations' errors.
        forward: from unknowns to solutions in the forward.
        solved: tasks to start from.
        places: where they are.
    """

    basis: Basis
    settings: GaussNewtonSettings
    errors: Errors
    forward: ForwardMap
    solved: SolvedTasks
    places: Places

    def most_queries(self, longest: int) -> int:
        """Queries of a batch at most."""
        size = self.basis.record.functions * len(self.basis.problem.fields)
        return max(1, _BATCH_ENTRIES // (size * (size + longest)))

    def asked(self, batch: Batch, noise: Noise, functions: Tensor) -> "_Asked":
        return _asked(self, batch, noise, functions)

    def anew(self, asked: "_Asked", tasks: Tensor, best: "_Ended | None" = None) -> "_Ended":
        within = trained_bounds(self.basis.problem)
        return _search(self, asked, _from_task(self, asked, tasks, within), within)

    def onward(self, asked: "_Asked", ended: "_Ended", bounds: Tensor) -> "_Ended":
        return _search(self, asked, ended, bounds)

    def begun(self, asked: "_Asked", parameters: Tensor, readouts: Tensor) -> "_Ended":
        forward = self.forward
        own = torch.cat([parameters, initial_values(self.basis, readouts)], dim=1)
        there = forward.settled(own, forward.coordinates(readouts))
        return _ended(self, asked, forward.solve(torch.where(asked.free, own, asked.known), there))

    def found(self, asked: "_Asked", ended: "_Ended", batch: Batch, noise: Noise, functions: Tensor) -> Solution:
        return _solution(self, asked, ended)

    def readouts(self, ended: "_Ended") -> Tensor:
        return self.forward.readouts(ended.coordinates[..., None]).flatten(1)

    def truncation(self, asked: "_Asked", ended: "_Ended") -> Tensor:
        """(B,) squared misfit that the errors of the solutions may make, by their residuals."""
        shares = self.basis.problem.ranges.shares(ended.unknowns.numpy())
        relative = ended.residual * torch.as_tensor(self.basis.record.local.ratio(shares))
        return (relative * asked.size).square() * asked.counts.sum(1)


def span_search(basis: Basis, settings: GaussNewtonSettings, errors: Errors) -> SpanSearch:
    """The search on a basis with solved tasks.

    Raises:
        InputError: if none of them has a solution in the span.
    """
    forward, given = ForwardMap.of(basis), basis.solved
    unknowns = torch.cat([given.parameters, given.initial], dim=1)
    solved = forward.settled(unknowns, forward.coordinates(given.readouts.flatten(1)))
    if not solved.found.any():
        raise InputError(
            f"{basis.problem.name}: no task is solved within the basis; more minutes or narrower ranges help"
        )
    solved = select(solved, solved.found)
    return SpanSearch(basis, settings, errors, forward, solved, Places.of(basis.problem, solved.unknowns))


@dataclass(frozen=True)
class _Asked:
    """A batch, ready for the search.

    Args:
        root, target: (B or 1, F or 1, R, r) and (B, F, R), ``|root c - target|² + rest`` is the weighted misfit.
        rest: (B, F) of the misfit, what no readouts can remove.
        known: (B, U) given parameters and initial values, NaN for the others.
        noise: (B,) standard deviation in units of the weights; NaN where it is to be estimated.
        size: (B,) root mean square of the weighted observations.
        counts: (B, F) observations.
        distances: (B, T) of the solved tasks from the data.
        free_freedom: (B,) see `Solution`.
    """

    root: Tensor
    target: Tensor
    rest: Tensor
    known: Tensor
    noise: Tensor
    size: Tensor
    counts: Tensor
    distances: Tensor
    free_freedom: Tensor

    @property
    def free_misfit(self) -> Tensor:
        """(B,) see `Solution`."""
        return self.rest.sum(1)

    @property
    def free(self) -> Tensor:
        """(B, U) true for unknowns to estimate."""
        return self.known.isnan()

    def observed(self, forward: ForwardMap, coordinates: Tensor) -> Tensor:
        """(B, F R, m) weighted values at the observations, reduced to their roots, of coordinates (B, N, m)."""
        return (self.root @ coordinates.unflatten(1, (forward.fields, -1))).flatten(1, 2)

    def misfit(self, residual: Tensor) -> Tensor:
        """(B,) weighted misfit by the residuals (B, F R) of the roots."""
        return residual.square().sum(1) + self.rest.sum(1)

    @property
    def freedom(self) -> Tensor:
        """(B,) observations less the unknowns."""
        return (self.counts.sum(1) - self.free.sum(1)).clamp_min(1)

    def scatter(self, misfit: Tensor) -> Tensor:
        """(B,) standard deviation of the noise by a misfit, or as it was given."""
        least = torch.finfo(misfit.dtype).eps * self.size
        return torch.where(self.noise.isfinite(), self.noise, (misfit / self.freedom).sqrt().maximum(least))


@dataclass(frozen=True)
class _Ended:
    """Where a search ended.

    Args:
        unknowns, coordinates, slopes, residual, found: see `SolvedTasks`.
        misfit: (B,) in units of the weights.
        noise: (B,) standard deviation in units of the weights.
        iterations: (B,).
        converged: (B,).
    """

    unknowns: Tensor
    coordinates: Tensor
    slopes: Tensor
    residual: Tensor
    found: Tensor
    misfit: Tensor
    noise: Tensor
    iterations: Tensor
    converged: Tensor

    @property
    def solutions(self) -> SolvedTasks:
        """Of the tasks where it ended."""
        return SolvedTasks(self.unknowns, self.coordinates, self.slopes, self.residual, self.found)


def _asked(search: SpanSearch, batch: Batch, noise: Noise, functions: Tensor) -> _Asked:
    """See `_Asked`."""
    observed, values = torch.as_tensor(batch.observed), torch.as_tensor(batch.values)
    weights = noise.weights(observed)
    root, target, rest = data_forms(functions, values, weights)
    root, counts = root @ search.forward.energy, observed.sum(1)
    known = torch.cat([torch.as_tensor(batch.known), torch.as_tensor(batch.initial)], dim=1)
    size = ((values * weights).square().sum((1, 2)) / counts.sum(1).clamp_min(1)).sqrt()
    return _Asked(
        root=root.expand(len(values), -1, -1, -1),
        target=target,
        rest=rest,
        known=known,
        noise=torch.full_like(size, torch.nan) if noise.by_query is None else noise.by_query,
        size=torch.where(size > 0, size, mean_weight(weights, observed)),
        counts=counts,
        distances=_distances(search, root, target, known),
        free_freedom=(counts - root.shape[3]).clamp_min(0).sum(1),
    )


def _distances(search: SpanSearch, root: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """(B, T) misfit of the solved tasks, given values that they miss counted as shares of the range."""
    own = search.solved.coordinates.unflatten(1, (search.forward.fields, -1))
    fitted = torch.einsum("bfrk,tfk->btfr", root.expand(-1, own.shape[1], -1, -1), own)
    misfit = (fitted - target[:, None]).square().sum((2, 3))
    ranges = torch.as_tensor(search.basis.problem.unknown_ranges)
    missed = (known[:, None] - search.solved.unknowns) / (ranges[:, 1] - ranges[:, 0])
    total = target.square().sum((1, 2))
    return misfit + total[:, None] * missed.nan_to_num(0.0).square().sum(2)


def _from_task(search: SpanSearch, asked: _Asked, tasks: Tensor, bounds: Tensor) -> _Ended:
    """Solved tasks (B,), given values put in, not searched yet."""
    near = select(search.solved, tasks)
    wanted = torch.where(asked.free, near.unknowns.clamp(*bounds), asked.known)
    solutions = search.forward.solve(wanted, near)
    return _ended(search, asked, solutions)


def _ended(search: SpanSearch, asked: _Asked, solutions: SolvedTasks) -> _Ended:
    """A search that has not begun."""
    residual = asked.observed(search.forward, solutions.coordinates[..., None]).squeeze(2) - asked.target.flatten(1)
    misfit = torch.where(solutions.found, asked.misfit(residual), torch.inf)
    return _Ended(
        **{name: getattr(solutions, name) for name in SolvedTasks.__dataclass_fields__},
        misfit=misfit,
        noise=asked.scatter(misfit),
        iterations=torch.zeros(len(misfit), dtype=torch.long),
        converged=torch.zeros(len(misfit), dtype=torch.bool),
    )


def _search(search: SpanSearch, asked: _Asked, start: _Ended, bounds: Tensor) -> _Ended:
    """Search within bounds; beside prior distributions again as long as an estimated noise changes."""
    ended, priors = select(start, torch.arange(len(start.misfit))), priors_of(search.basis.problem)
    rows = ended.found.nonzero().squeeze(1)
    for _ in range(_ROUNDS if priors.informative else 1):
        part = select(asked, rows)
        before = select(ended, rows)
        found = _minimised(search, part, before, bounds, priors)
        put(ended, rows, found)
        rows = rows[(found.noise / before.noise).log().abs() > _SETTLED]
        if not len(rows):
            break
    return ended


def _rows(search: SpanSearch, asked: _Asked, here: _Ended, noise: Tensor, priors: Priors) -> tuple[Tensor, Tensor]:
    """Rows (B, R, U) and right-hand sides (B, R) of the linearised least squares in units of the noise."""
    forward, count = search.forward, len(search.basis.problem.parameters)
    both = asked.observed(forward, torch.cat([here.slopes, here.coordinates[..., None]], dim=2)) / noise[:, None, None]
    rows, right = both[..., :-1], both[..., -1] - asked.target.flatten(1) / noise[:, None]
    if priors.informative:
        parameters, free = here.unknowns[:, :count], asked.free[:, :count].double()
        slope = torch.where(priors.std.isfinite(), priors.slope(parameters), 0.0) * free
        own = torch.nn.functional.pad(torch.diag_embed(slope), (0, rows.shape[2] - count))
        rows, right = torch.cat([rows, own], dim=1), torch.cat([right, priors.residual(parameters) * free], dim=1)
    return rows, right


def _minimised(search: SpanSearch, asked: _Asked, start: _Ended, bounds: Tensor, priors: Priors) -> _Ended:
    """The least squares by Levenberg and Marquardt from a start, the noise held where there are priors."""
    gain, ended = search.settings.tolerance or _GAIN, select(start, torch.arange(len(start.misfit)))
    active, damping = torch.arange(len(ended.misfit)), torch.full_like(ended.misfit, _DAMPING)
    for _ in range(search.settings.iterations):
        part, here = select(asked, active), select(ended, active)
        noise = start.noise[active] if priors.informative else part.scatter(here.misfit)
        rows, right = _rows(search, part, here, noise, priors)
        now, square = here.unknowns, right.square().sum(1)
        # along a weak direction any damping makes a step short: what is left to gain is told by the one without
        least = torch.full_like(noise, LEAST_DAMPING)
        _, lowest = bounded_step(rows, right, now, bounds, ~part.free, least)
        step, _ = bounded_step(rows, right, now, bounds, ~part.free, damping[active])
        tried = _ended(search, part, search.forward.solve(now + step, here.solutions))
        _, other = _rows(search, part, tried, noise, priors)
        better = tried.found & (other.square().sum(1) < square)
        tried = replace(tried, iterations=here.iterations, converged=here.converged)
        put(ended, active[better], select(tried, better))
        ended.iterations[active] += 1
        done = square - lowest < gain
        ended.converged[active] = done
        factor = torch.where(better, 0.1, 10.0)
        damping[active] = (damping[active] * factor).clamp_min(LEAST_DAMPING)
        active = active[~done & (damping[active] < _MOST_DAMPING)]
        if not len(active):
            break
    return replace(ended, noise=asked.scatter(ended.misfit))


def _solution(search: SpanSearch, asked: _Asked, ended: _Ended) -> Solution:
    """The outcome as that of a solver."""
    forward, problem, noise = search.forward, search.basis.problem, ended.noise
    priors, count = priors_of(problem), len(problem.parameters)
    rows, right = _rows(search, asked, ended, noise, priors)
    root = inverse_root(rows, asked.free.double())
    spread = ended.slopes @ root
    shares = (asked.observed(forward, spread) / noise[:, None, None]).square().sum(2)
    counts = asked.counts
    used = torch.minimum(shares.unflatten(1, (forward.fields, -1)).sum(2), counts)
    freedom = counts.sum(1) - used.sum(1)
    least = torch.finfo(noise.dtype).eps * asked.size
    estimated = (ended.misfit / freedom.clamp_min(1.0)).sqrt().maximum(least)
    noise = torch.where(asked.noise.isfinite(), noise, estimated)
    factor, deviations = noise / ended.noise, root[:, :count]
    # an estimate is off by no more than so many of its error bars, and by anything below
    basis_error = search.truncation(asked, ended).sqrt() / noise
    widened = factor * (1 + basis_error.square() / 3).sqrt()
    readouts = search.readouts(ended)
    nowhere = torch.cat([ended.unknowns[:, :count], readouts], dim=1).fill_(torch.nan)
    return Solution(
        parameters=ended.unknowns[:, :count],
        covariance=(deviations @ deviations.mT) * widened.square()[:, None, None],
        readouts=readouts,
        covariances=forward.readouts(spread) * widened[:, None, None, None],
        used=used,
        noise_std=noise,
        objective=(right.square().sum(1) + asked.free_misfit / ended.noise.square()) / factor.square(),
        physics=torch.zeros_like(noise),  # solved as well as the span can
        misfit=ended.misfit,
        freedom=freedom,
        free_misfit=asked.free_misfit,
        free_freedom=asked.free_freedom,
        jump=torch.zeros_like(noise),
        basis_error=basis_error,
        rival=torch.full_like(ended.unknowns[:, :count], torch.nan),
        elsewhere=nowhere,
        stretch=torch.full_like(ended.unknowns[:, :count], torch.nan),
        iterations=ended.iterations,
        converged=ended.converged & ended.found,
    )
