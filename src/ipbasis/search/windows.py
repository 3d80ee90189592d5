"""Online inference on windows of one coordinate, for linear and nonlinear equations alike.

A search starts from the solved task that is nearest to the data. The equations are weak at first and grow strong in a
few levels, so that it never has to follow a narrow curved valley from afar. At the end they are so strong that what
they
give way is nothing beside the noise: the estimates are those of least squares on exact solutions, and so are their
error bars.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ipbasis.observations.long_form import Batch
from ipbasis.offline.artefact import Basis
from ipbasis.offline.bounded import inverse_root
from ipbasis.offline.windows.elimination import Condensed
from ipbasis.offline.windows.grid import Grid, grid_of
from ipbasis.offline.windows.newton import Posed, State, condensed_at, root_rows, scales, search
from ipbasis.problem.declaration import Problem
from ipbasis.search.assemble import data_forms, mean_weight, observed_functions
from ipbasis.search.jumps import jumps
from ipbasis.search.noise import Errors, Noise
from ipbasis.search.prepared import InRounds
from ipbasis.search.priors import priors_of
from ipbasis.search.restarts import larger_than_due, searched_bounds, trained_bounds, with_other_starts
from ipbasis.search.rivals import Places, with_rivals
from ipbasis.search.rows import put, select
from ipbasis.search.settings import GaussNewtonSettings
from ipbasis.search.solution import Solution
from ipbasis.search.window_rows import data_rows

# Relative defects that are allowed in turn. On Lotka-Volterra, van der Pol, FitzHugh-Nagumo, SIR and two-compartment
# kinetics (100 queries each, 12 and 100 observations, fields hidden), from 0.3 on 0 to 1 % of the searches end beside
# the optimum, from 0.03 on up to 3 %, from 0.003 on up to 5 %, with the last level alone 65 %.
_LEVELS = (0.3, 0.03, 0.003)
_FALL = 0.03  # from there on
_SHARE = 1e-3  # of the noise, that defects may be at the end: about its square in an error bar
_LEAST_LEVEL = 1e-10  # below it rounding errors of the residuals grow
_FIRST_NOISE = 0.1  # relative, of a search that is to find it
_GAIN = 1e-2  # decrease of the objective, in units of χ², that is not worth a step
_BATCH_ENTRIES = 40_000_000  # of the rows of all windows


@dataclass(frozen=True)
class Windows(InRounds):
    """Gauss-Newton on windows.

    Args:
        basis: of piecewise polynomials.
        settings: of the search.
        errors: kind of the observations' errors.
        grid: its windows.
        solved: solutions to start from.
        sizes: (S,) root mean square of the states over them.
        smooth: (K, M) functions that the solutions of the tasks lie next to, to judge a fit by.
        places: of the solved tasks, beside one another.
    """

    basis: Basis
    settings: GaussNewtonSettings
    errors: Errors
    grid: Grid
    solved: State
    sizes: Tensor
    smooth: Tensor
    places: Places

    def most_queries(self, longest: int) -> int:
        """Queries of a batch at most."""
        columns = self.grid.coefficients.shape[2]
        return max(1, _BATCH_ENTRIES // (self.grid.windows * columns * (2 * columns + len(self.grid.orders))))

    def at(self, batch: Batch, noise: Noise, functions: Tensor | None = None, near: Solution | None = None) -> Solution:
        functions = observed_functions(self.basis, batch) if functions is None else functions
        asked = _asked(self, batch, noise, functions)
        problem = self.basis.problem
        within, beyond = (_initial_first(own(problem), problem) for own in (trained_bounds, searched_bounds))

        def searched(rows: Tensor, number: int) -> _Ended:
            part = select(asked, rows)
            return _search(self, part, _start(self, part, number), within, _LEVELS)

        if near is not None:
            best = _search(self, asked, _begun(asked, self._state(near)), within, _LEVELS[-1:])
            rows = (~best.converged).nonzero().squeeze(1)
            if len(rows):  # too far away after all
                put(best, rows, searched(rows, 0))
        else:
            best = searched(torch.arange(len(asked.size)), 0)
            with_other_starts(best, asked.nearest.shape[1], asked.doubtful, searched)
        # of two places that fit as well the one in the trained range is meant; only from its ends the search goes on
        rows = _at_ends(self, asked, best, within).nonzero().squeeze(1)
        if len(rows):
            put(best, rows, _search(self, select(asked, rows), select(best, rows), beyond, _LEVELS[-1:]))
        solution = _solution(self, asked, best, beyond)
        if near is None:

            def other(rows: Tensor, tasks: Tensor) -> _Ended:
                part = select(asked, rows)
                return _search(self, part, _begun(part, self.solved[tasks]), within, _LEVELS)

            first = best.states[:, 0, self.grid.initial_places]
            unknowns = torch.cat([best.parameters, first], dim=1)
            starts = self.places.rivals(asked.distances, unknowns, solution)

            def error(rows: Tensor, ended: _Ended) -> Tensor:
                return _truncation(self.grid, select(asked, rows), ended)

            moved, rival = with_rivals(best, starts, solution.covariance, asked, error, other)
            if len(moved):
                put(solution, moved, _solution(self, select(asked, moved), select(best, moved), beyond))
            solution = replace(solution, rival=rival, stretch=_stretch(self, asked, best, beyond))
        if self.errors.loss == "huber":  # outliers are meant to be there
            return solution
        by_field = solution.readouts.unflatten(1, (-1, functions.shape[2])).mT
        observed, weights = torch.as_tensor(batch.observed), noise.weights(torch.as_tensor(batch.observed))
        residual = (torch.as_tensor(batch.values) - functions @ by_field) * weights
        jump = jumps(batch.points[..., 0], residual.numpy(), asked.size.numpy(), observed.numpy())
        return replace(solution, jump=torch.as_tensor(jump))

    def _state(self, solution: Solution) -> State:
        """The state of a solution."""
        readouts = solution.readouts.unflatten(1, (len(self.grid.orders), -1))
        return State(*self.grid.split(readouts), solution.parameters)


def windows_of(basis: Basis, settings: GaussNewtonSettings, errors: Errors) -> Windows:
    """The search on a basis of windows."""
    grid, solved = grid_of(basis.problem, basis.features.settings), basis.solved
    bubbles, states = grid.split(solved.readouts)
    own = solved.readouts.flatten(0, 1)
    _, strengths, directions = torch.linalg.svd(
        own / own.norm(dim=1, keepdim=True).clamp_min(1e-300), full_matrices=False
    )
    lost = strengths.square().flip(0).cumsum(0).flip(0).sqrt() / strengths.norm()
    smooth = directions[lost > basis.record.requested].T
    sizes = states.square().mean((0, 1)).sqrt()
    places = Places.of(basis.problem, torch.cat([solved.parameters, solved.initial], dim=1))
    return Windows(basis, settings, errors, grid, State(bubbles, states, solved.parameters), sizes, smooth, places)


@dataclass(frozen=True)
class _Asked:
    """A batch, ready for the search.

    Args:
        data, target: (B, W, R, C) and (B, W, R) rows of the observations, see `Posed`, in units of their weights.
        squares: (B, F, W) sums of the squared weights.
        initial: (B, I) given initial values, NaN for the others.
        known: (B, P) given parameters, NaN for the others.
        noise: (B,) standard deviation in units of the weights; NaN where it is to be estimated.
        size: (B,) root mean square of the weighted observations.
        counts: (B, F) observations.
        unknowns: (B,) number of parameters and initial values to estimate.
        distances: (B, T) of the solved tasks from the data.
        free_misfit, free_freedom: (B,) see `Solution`.
    """

    data: Tensor
    target: Tensor
    squares: Tensor
    initial: Tensor
    known: Tensor
    noise: Tensor
    size: Tensor
    counts: Tensor
    unknowns: Tensor
    distances: Tensor
    free_misfit: Tensor
    free_freedom: Tensor

    @property
    def nearest(self) -> Tensor:
        """(B, T) solved tasks by nearness to the data."""
        return self.distances.argsort(dim=1)

    @property
    def freedom(self) -> Tensor:
        """(B,) observations less the unknowns."""
        return (self.counts.sum(1) - self.unknowns).clamp_min(1)

    def doubtful(self, ended: "_Ended") -> Tensor:
        """(B,) whether another start may lead to a better place."""
        free = self.free_misfit, self.free_freedom
        return ~ended.converged | larger_than_due(ended.misfit, self.freedom, self.noise, *free)


@dataclass(frozen=True)
class _Ended:
    """Where a search ended.

    Args:
        bubbles, states, parameters: see `State`.
        level: (B,) relative defects that were allowed.
        noise: (B,) standard deviation in units of the weights.
        misfit: (B,) squared misfit in units of the weights.
        objective: (B,) in units of the noise.
        iterations: (B,).
        converged: (B,).
    """

    bubbles: Tensor
    states: Tensor
    parameters: Tensor
    level: Tensor
    noise: Tensor
    misfit: Tensor
    objective: Tensor
    iterations: Tensor
    converged: Tensor

    @property
    def unknowns(self) -> Tensor:
        """(B, P) the parameters."""
        return self.parameters

    @property
    def state(self) -> State:
        """Fields and parameters."""
        return State(self.bubbles, self.states, self.parameters)


def _asked(windows: Windows, batch: Batch, noise: Noise, functions: Tensor) -> _Asked:
    """See `_Asked`."""
    grid = windows.grid
    observed, values = torch.as_tensor(batch.observed), torch.as_tensor(batch.values)
    std = noise.by_observation
    weights = observed.double() if std is None else torch.where(observed, 1 / std, 0.0)
    data, target, squares = data_rows(grid, batch.points[..., 0], values * weights, weights)
    counts, known, initial = observed.sum(1), torch.as_tensor(batch.known), torch.as_tensor(batch.initial)
    _, _, rest = data_forms(functions @ windows.smooth, values, weights)
    size = ((values * weights).square().sum((1, 2)) / counts.sum(1).clamp_min(1)).sqrt()
    return _Asked(
        data=data,
        target=target,
        squares=squares,
        initial=initial,
        known=known,
        noise=torch.full_like(size, torch.nan) if noise.by_query is None else noise.by_query,
        size=torch.where(size > 0, size, mean_weight(weights, observed)),
        counts=counts,
        unknowns=known.isnan().sum(1) + initial.isnan().sum(1),
        distances=_distances(windows, data, target, known, initial),
        free_misfit=rest.sum(1),
        free_freedom=(counts - windows.smooth.shape[1]).clamp_min(0).sum(1),
    )


def _distances(windows: Windows, data: Tensor, target: Tensor, known: Tensor, initial: Tensor) -> Tensor:
    """(B, T) misfit of the solved tasks, given values that they miss counted as shares of the range."""
    grid, solved = windows.grid, windows.solved
    unknowns = grid.unknowns(solved.bubbles, solved.states)
    # |data z - target|², the common part left out
    normal, right = data.mT @ data, (data.mT @ target[..., None]).squeeze(-1)
    cross = torch.einsum("bwc,twc->bt", right, unknowns)
    square = torch.einsum("bwcd,twc,twd->bt", normal, unknowns, unknowns)
    total = target.square().sum((1, 2))
    misfit = total[:, None] - 2 * cross + square
    first = unknowns[:, 0] @ grid.initial.T
    own = torch.cat([solved.parameters, first], dim=1)
    ranges = torch.as_tensor(windows.basis.problem.unknown_ranges)
    given = torch.cat([known, initial], dim=1)
    missed = (given[:, None] - own) / (ranges[:, 1] - ranges[:, 0])
    return misfit + total[:, None] * missed.nan_to_num(0.0).square().sum(2)


def _start(windows: Windows, asked: _Asked, number: int) -> _Ended:
    """The solved task of this number in the order of nearness, not searched yet."""
    return _begun(asked, windows.solved[asked.nearest[:, number]])


def _begun(asked: _Asked, state: State) -> _Ended:
    """A search that has not begun, at a state."""
    size, given = asked.size, asked.noise.isfinite()
    return _Ended(
        bubbles=state.bubbles,
        states=state.states,
        parameters=torch.where(asked.known.isnan(), state.parameters, asked.known),
        level=torch.full_like(size, torch.inf),
        noise=torch.where(given, asked.noise, _FIRST_NOISE * size),
        misfit=torch.full_like(size, torch.inf),
        objective=torch.full_like(size, torch.inf),
        iterations=torch.zeros(len(size), dtype=torch.long),
        converged=torch.zeros(len(size), dtype=torch.bool),
    )


def _last_level(asked: _Asked, noise: Tensor) -> Tensor:
    """(B,) relative defects that are nothing beside a noise."""
    return (_SHARE * noise / asked.size).clamp(_LEAST_LEVEL, _LEVELS[-1])


def _search(windows: Windows, asked: _Asked, start: _Ended, bounds: Tensor, levels: tuple[float, ...]) -> _Ended:
    """Search within bounds, from level to level, an estimated noise following the misfit."""
    ended = select(start, slice(None))
    ended = replace(ended, **{name: getattr(ended, name).clone() for name in ended.__dataclass_fields__})
    rows, level = torch.arange(len(asked.size)), torch.full_like(asked.size, levels[0])
    following = iter(levels[1:])
    while len(rows):
        part = select(asked, rows)
        own = level[rows]
        found = _at_level(windows, part, select(ended, rows), own, bounds)
        put(ended, rows, found)
        last = _last_level(part, found.noise)
        common = next(following, 0.0)
        level[rows] = (own * _FALL).clamp_min(common).maximum(last)
        rows = rows[own > 2 * last]
    return ended


def _posed(windows: Windows, asked: _Asked, noise: Tensor, bounds: Tensor) -> Posed:
    """What is asked in units of a noise (B,), within bounds (2, I + P)."""
    priors = priors_of(windows.basis.problem)
    return Posed(
        data=asked.data / noise[:, None, None, None],
        target=asked.target / noise[:, None, None],
        initial=asked.initial,
        free=asked.known.isnan(),
        bounds=bounds,
        sizes=windows.sizes,
        prior=(lambda p: (priors.residual(p), priors.slope(p).where(priors.std.isfinite(), 0.0)))
        if priors.informative
        else None,
    )


def _initial_first(bounds: Tensor, problem: Problem) -> Tensor:
    """(2, I + P) bounds (2, P + I) in the order of the windows."""
    return torch.cat([bounds[:, len(problem.parameters) :], bounds[:, : len(problem.parameters)]], dim=1)


def _at_ends(windows: Windows, asked: _Asked, ended: _Ended, bounds: Tensor) -> Tensor:
    """(B,) whether a parameter or initial value that is estimated lies at a bound."""
    first = ended.states[:, 0, windows.grid.initial_places]
    values = torch.cat([first, ended.parameters], dim=1)
    free = torch.cat([asked.initial, asked.known], dim=1).isnan()
    return (free & ((values <= bounds[0]) | (values >= bounds[1]))).any(1)


def _at_level(windows: Windows, asked: _Asked, ended: _Ended, level: Tensor, bounds: Tensor) -> _Ended:
    """The optimum at levels (B,) of the defects, and the noise by its misfit."""
    settings, given = windows.settings, asked.noise.isfinite()
    gain = settings.tolerance or _GAIN
    # data that are trusted more than the equation would be followed by defects, whatever the parameters
    held = torch.where(given, asked.noise, ended.noise.maximum(level * asked.size))
    found = search(windows.grid, _posed(windows, asked, held, bounds), ended.state, level, settings.iterations, gain)
    misfit = found.misfit * held.square()
    least = torch.finfo(misfit.dtype).eps * asked.size
    noise = torch.where(given, asked.noise, (misfit / asked.freedom).sqrt().maximum(least))
    return _Ended(
        bubbles=found.state.bubbles,
        states=found.state.states,
        parameters=found.state.parameters,
        level=level,
        noise=noise,
        misfit=misfit,
        objective=found.objective * (held / noise).square(),
        iterations=ended.iterations + found.iterations,
        converged=found.converged,
    )


def _truncation(grid: Grid, asked: _Asked, ended: _Ended) -> Tensor:
    """(B,) squared misfit that the errors of the polynomials may make, in units of the weights."""
    unknowns = grid.unknowns(ended.bubbles, ended.states)
    return (asked.squares * grid.truncation(unknowns).square()).sum((1, 2))


def _root(windows: Windows, posed: Posed, state: State, level: Tensor) -> tuple[Condensed, Tensor]:
    """The linearised least squares at a state, and a root (B, S + P, U) of the covariance of its own unknowns."""
    condensed = condensed_at(windows.grid, posed, state, scales(windows.grid, state, windows.sizes, level), level)
    rows, _ = root_rows(posed, state, condensed)
    free = torch.cat([torch.ones_like(rows[:, 0, : windows.grid.states]), posed.free.double()], dim=1)
    return condensed, inverse_root(rows, free)


def _stretch(windows: Windows, asked: _Asked, ended: _Ended, bounds: Tensor) -> Tensor:
    """(B, P) see `Solution`: error bars at linearised solutions away from the estimate."""
    posed, first = _posed(windows, asked, ended.noise, bounds), windows.grid.states
    condensed, inverse = _root(windows, posed, ended.state, ended.level)
    std = inverse[:, first:].norm(dim=2)
    stretch = torch.zeros_like(std)
    for number in range(std.shape[1]):
        own = inverse[:, first + number]
        step = (inverse @ own[..., None])[..., 0] / std[:, number].clamp_min(torch.finfo(std.dtype).tiny)[:, None]
        bubbles, states = condensed.spread(torch.cat([step, torch.zeros_like(step[:, :1])], dim=1)[..., None])
        move = State(bubbles[..., 0], states[..., 0], step[:, first:])
        for distance in (-2.0, 2.0):
            there = ended.state.moved(move, torch.full_like(ended.level, distance))
            _, other = _root(windows, posed, there, ended.level)
            grown = other[:, first + number].norm(dim=1) / std[:, number]
            stretch[:, number] = stretch[:, number].maximum(grown.nan_to_num(torch.inf))
    return stretch.where(posed.free, 0.0)


def _solution(windows: Windows, asked: _Asked, ended: _Ended, bounds: Tensor) -> Solution:
    """The outcome as that of a solver."""
    grid, state = windows.grid, ended.state
    posed = _posed(windows, asked, ended.noise, bounds)
    condensed, inverse = _root(windows, posed, state, ended.level)
    deviations = inverse[:, grid.states :]
    spread = grid.unknowns(*condensed.spread(torch.cat([inverse, torch.zeros_like(inverse[:, :1])], dim=1)))
    shares = (posed.data @ spread).square().sum(3).unflatten(2, (len(grid.orders), -1)).sum((1, 3))
    unknowns = grid.unknowns(state.bubbles, state.states)
    counts, used = asked.counts, torch.minimum(shares, asked.counts)
    freedom = counts.sum(1) - used.sum(1)
    noise = ended.noise
    estimated = (ended.misfit / freedom.clamp_min(1.0)).sqrt().maximum(torch.finfo(noise.dtype).eps * asked.size)
    noise = torch.where(asked.noise.isfinite(), noise, estimated)
    factor = noise / ended.noise
    defects = (ended.objective - ended.misfit / ended.noise.square()).clamp_min(0.0)
    return Solution(
        parameters=state.parameters,
        covariance=(deviations @ deviations.mT) * factor.square()[:, None, None],
        readouts=grid.readouts(unknowns[..., None]).flatten(1),
        covariances=grid.readouts(spread) * factor[:, None, None, None],
        used=used,
        noise_std=noise,
        objective=ended.objective / factor.square(),
        physics=defects / freedom.clamp_min(1.0),
        misfit=ended.misfit,
        freedom=freedom,
        free_misfit=asked.free_misfit,
        free_freedom=asked.free_freedom,
        jump=torch.zeros_like(noise),
        # an error of this size along the direction of one parameter would move it by as many error bars
        basis_error=_truncation(grid, asked, ended).sqrt() / noise,
        rival=torch.full_like(state.parameters, torch.nan),
        stretch=torch.full_like(state.parameters, torch.nan),
        iterations=ended.iterations,
        converged=ended.converged,
    )
