"""Online inference on windows of one coordinate, for linear and nonlinear equations alike.

A search starts from the solved task that is nearest to the data. The equations are weak at first and grow strong in a
few levels, so that it never has to follow a narrow curved valley from afar. As long as they are weak fewer and simpler
functions do. At the end they are so strong that what they give way is nothing beside the noise: the estimates are those
of least squares on exact solutions, and so are their error bars.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ipbasis.observations.long_form import Batch
from ipbasis.offline.artefact import Basis
from ipbasis.offline.bounded import inverse_root
from ipbasis.offline.windows.carried import Carried, fine_enough
from ipbasis.offline.windows.elimination import Condensed
from ipbasis.offline.windows.grid import Grid, edges_of, grid_of
from ipbasis.offline.windows.newton import Posed, State, condensed_at, root_rows, scales, search
from ipbasis.search.assemble import data_forms, mean_weight
from ipbasis.search.from_tasks import FromTasks
from ipbasis.search.jumps import jumps
from ipbasis.search.noise import Errors, Noise
from ipbasis.search.priors import priors_of
from ipbasis.search.restarts import searched_bounds, trained_bounds
from ipbasis.search.rivals import FAR, Places
from ipbasis.search.rows import put, select
from ipbasis.search.settings import GaussNewtonSettings
from ipbasis.search.solution import Solution
from ipbasis.search.window_rows import data_rows

# Relative defects that are allowed in turn. On Lotka-Volterra, van der Pol, FitzHugh-Nagumo, SIR and two-compartment
# kinetics (100 queries each, 12 and 100 observations, fields hidden), from 0.3 on 0 to 1 % of the searches end beside
# the optimum, from 0.03 on up to 3 %, from 0.003 on up to 5 %, with the last level alone 65 %.
_LEVELS = (0.3, 0.03, 0.003)
_FALL = 0.03  # from there on
# Of the grid for these levels: Gauss points of a window, and relative error. With 4 to 10 points a step on Lotka-
# Volterra, SIR, Robertson and van der Pol takes 28 to 90 % of the time that it takes with 6, or more.
_ROUGH_POINTS, _ROUGH = 6, 1e-2
_SHARE = 1e-3  # of the noise, that defects may be at the end: about its square in an error bar
_LEAST_LEVEL = 1e-10  # below it rounding errors of the residuals grow
_FIRST_NOISE = 0.1  # relative, of a search that is to find it
_GAIN = 1e-2  # decrease of the objective, in units of χ², that is not worth a step
_BATCH_ENTRIES = 40_000_000  # of the rows of all windows


@dataclass(frozen=True)
class Windows(FromTasks):
    """Gauss-Newton on windows.

    Args:
        basis: of piecewise polynomials.
        settings: of the search.
        errors: kind of the observations' errors.
        rough, fine: windows for the first levels, and those of the basis.
        refined, coarsened: take solutions from the first to the last, and back.
        solved: solutions to start from, on the rough windows.
        sizes: (S,) root mean square of the states over them.
        smooth: (K, M) functions that the solutions of the tasks lie next to, to judge a fit by.
        places: of the solved tasks, beside one another.
    """

    basis: Basis
    settings: GaussNewtonSettings
    errors: Errors
    rough: Grid
    fine: Grid
    refined: Carried
    coarsened: Carried
    solved: State
    sizes: Tensor
    smooth: Tensor
    places: Places

    def most_queries(self, longest: int) -> int:
        """Queries of a batch at most."""
        columns = self.fine.coefficients.shape[2]
        return max(1, _BATCH_ENTRIES // (self.fine.windows * columns * (2 * columns + len(self.fine.orders))))

    def asked(self, batch: Batch, noise: Noise, functions: Tensor) -> "_Asked":
        return _asked(self, batch, noise, functions)

    def anew(self, asked: "_Asked", tasks: Tensor, best: "_Ended | None" = None) -> "_Ended":
        within, start = trained_bounds(self.basis.problem), _begun(self, asked, self.solved[tasks])
        found, on = _weakly(self, asked, start, within, best)
        state = self.refined(found.state)
        ended = replace(found, bubbles=state.bubbles, states=state.states)
        put(ended, on, _strongly(self, select(asked, on), select(ended, on), within))
        return ended

    def onward(self, asked: "_Asked", ended: "_Ended", bounds: Tensor) -> "_Ended":
        return _strongly(self, asked, ended, bounds)

    def begun(self, asked: "_Asked", parameters: Tensor, readouts: Tensor) -> "_Ended":
        by_field = readouts.unflatten(1, (len(self.fine.orders), -1))
        start = _begun(self, asked, State(*self.fine.split(by_field), parameters))
        unknowns = self.fine.unknowns(start.bubbles, start.states)
        misfit = asked.fine.misfit(unknowns)
        noise = torch.where(asked.noise.isfinite(), asked.noise, _estimated(asked, misfit))
        return replace(start, misfit=misfit, noise=noise, level=_last_level(asked, noise))

    def found(self, asked: "_Asked", ended: "_Ended", batch: Batch, noise: Noise, functions: Tensor) -> Solution:
        solution = _solution(self, asked, ended)
        if self.errors.loss == "huber":  # outliers are meant to be there
            return solution
        by_field = solution.readouts.unflatten(1, (-1, functions.shape[2])).mT
        observed, weights = torch.as_tensor(batch.observed), noise.weights(torch.as_tensor(batch.observed))
        residual = (torch.as_tensor(batch.values) - functions @ by_field) * weights
        jump = jumps(batch.points[..., 0], residual.numpy(), asked.size.numpy(), observed.numpy())
        return replace(solution, jump=torch.as_tensor(jump))

    def readouts(self, ended: "_Ended") -> Tensor:
        return self.fine.readouts(self.fine.unknowns(ended.bubbles, ended.states)[..., None]).flatten(1)

    def truncation(self, asked: "_Asked", ended: "_Ended") -> Tensor:
        unknowns = self.fine.unknowns(ended.bubbles, ended.states)
        return (asked.fine.squares * self.fine.truncation(unknowns).square()).sum((1, 2))

    def stretch(self, asked: "_Asked", ended: "_Ended") -> Tensor:
        return _stretch(self, asked, ended)


def windows_of(basis: Basis, settings: GaussNewtonSettings, errors: Errors) -> Windows:
    """The search on a basis of windows."""
    problem, solved = basis.problem, basis.solved
    fine = grid_of(problem, basis.features.settings)
    bubbles, states = fine.split(solved.readouts)
    exact = State(bubbles, states, solved.parameters)

    def solutions(grid: Grid) -> State:
        return Carried.between(fine, grid)(exact)

    rough = fine_enough(problem, edges_of(problem, 2), _ROUGH_POINTS, _ROUGH, fine.windows, solutions)
    own = solved.readouts.flatten(0, 1)
    _, strengths, directions = torch.linalg.svd(
        own / own.norm(dim=1, keepdim=True).clamp_min(1e-300), full_matrices=False
    )
    lost = strengths.square().flip(0).cumsum(0).flip(0).sqrt() / strengths.norm()
    smooth = directions[lost > basis.record.requested].T
    sizes = states.square().mean((0, 1)).sqrt()
    places = Places.of(problem, torch.cat([solved.parameters, solved.initial], dim=1))
    grids = rough, fine, Carried.between(rough, fine), Carried.between(fine, rough), solutions(rough)
    return Windows(basis, settings, errors, *grids, sizes, smooth, places)


@dataclass(frozen=True)
class _Data:
    """Observations on a grid.

    Args:
        rows, target: (B, W, R, C) and (B, W, R), see `Posed`, in units of the weights.
        squares: (B, F, W) sums of the squared weights.
    """

    rows: Tensor
    target: Tensor
    squares: Tensor

    def misfit(self, unknowns: Tensor) -> Tensor:
        """(B,) of unknowns (B, W, C), in units of the weights."""
        return ((self.rows @ unknowns[..., None]).squeeze(-1) - self.target).square().sum((1, 2))


@dataclass(frozen=True)
class _Asked:
    """A batch, ready for the search.

    Args:
        rough, fine: the observations on the grids.
        known: (B, P + I) given parameters and initial values, NaN for the others.
        noise: (B,) standard deviation in units of the weights; NaN where it is to be estimated.
        size: (B,) root mean square of the weighted observations.
        counts: (B, F) observations.
        distances: (B, T) of the solved tasks from the data.
        free_misfit, free_freedom: (B,) see `Solution`.
    """

    rough: _Data
    fine: _Data
    known: Tensor
    noise: Tensor
    size: Tensor
    counts: Tensor
    distances: Tensor
    free_misfit: Tensor
    free_freedom: Tensor

    @property
    def freedom(self) -> Tensor:
        """(B,) observations less the unknowns."""
        return (self.counts.sum(1) - self.known.isnan().sum(1)).clamp_min(1)


@dataclass(frozen=True)
class _Ended:
    """Where a search ended.

    Args:
        bubbles, states, parameters: see `State`.
        initial: (B, I) free initial values.
        passed: (B, L + 1, S + P, S + P + 1) normal matrices of the unknowns of the root, and these, where the search
            passed the first levels, and at its end; NaN where it did not.
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
    initial: Tensor
    passed: Tensor
    level: Tensor
    noise: Tensor
    misfit: Tensor
    objective: Tensor
    iterations: Tensor
    converged: Tensor

    @property
    def unknowns(self) -> Tensor:
        """(B, P + I) parameters and free initial values."""
        return torch.cat([self.parameters, self.initial], dim=1)

    @property
    def state(self) -> State:
        """Fields and parameters."""
        return State(self.bubbles, self.states, self.parameters)


def _asked(windows: Windows, batch: Batch, noise: Noise, functions: Tensor) -> _Asked:
    """See `_Asked`."""
    observed, values = torch.as_tensor(batch.observed), torch.as_tensor(batch.values)
    std = noise.by_observation
    weights = observed.double() if std is None else torch.where(observed, 1 / std, 0.0)
    rough, fine = (
        _Data(*data_rows(grid, batch.points[..., 0], values * weights, weights))
        for grid in (windows.rough, windows.fine)
    )
    counts, known, initial = observed.sum(1), torch.as_tensor(batch.known), torch.as_tensor(batch.initial)
    _, _, rest = data_forms(functions @ windows.smooth, values, weights)
    size = ((values * weights).square().sum((1, 2)) / counts.sum(1).clamp_min(1)).sqrt()
    return _Asked(
        rough=rough,
        fine=fine,
        known=torch.cat([known, initial], dim=1),
        noise=torch.full_like(size, torch.nan) if noise.by_query is None else noise.by_query,
        size=torch.where(size > 0, size, mean_weight(weights, observed)),
        counts=counts,
        distances=_distances(windows, rough, known, initial),
        free_misfit=rest.sum(1),
        free_freedom=(counts - windows.smooth.shape[1]).clamp_min(0).sum(1),
    )


def _distances(windows: Windows, data: _Data, known: Tensor, initial: Tensor) -> Tensor:
    """(B, T) misfit of the solved tasks, given values that they miss counted as shares of the range."""
    grid, solved = windows.rough, windows.solved
    unknowns = grid.unknowns(solved.bubbles, solved.states)
    rows, target = data.rows, data.target
    # |rows z - target|², the common part left out
    normal, right = rows.mT @ rows, (rows.mT @ target[..., None]).squeeze(-1)
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


def _begun(windows: Windows, asked: _Asked, state: State) -> _Ended:
    """A search that has not begun, at a state."""
    size, given = asked.size, asked.noise.isfinite()
    known = asked.known[:, : state.parameters.shape[1]]
    width = windows.fine.states + known.shape[1]
    return _Ended(
        bubbles=state.bubbles,
        states=state.states,
        parameters=torch.where(known.isnan(), state.parameters, known),
        initial=state.states[:, 0, windows.fine.initial_places],
        passed=size.new_full((len(size), len(_LEVELS) + 1, width, width + 1), torch.nan),
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


def _weakly(
    windows: Windows, asked: _Asked, start: _Ended, bounds: Tensor, best: _Ended | None = None
) -> tuple[_Ended, Tensor]:
    """Search on the rough windows within bounds (2, P + I), from level to level, an estimated noise following the
    misfit.

    Returns:
        where the searches ended, and those (rows) to go on with. Beside a `best` so far, what passes a level where that
        did would only end there too, and is left, not converged; so is what loses its way.
    """
    ended, rows = start, torch.arange(len(asked.size))
    for level in _LEVELS:
        part = select(asked, rows)
        found = _at_level(windows, part, part.rough, select(ended, rows), torch.full_like(part.size, level), bounds)
        if level == _LEVELS[0]:
            ended = found
        else:
            put(ended, rows, found)
        if best is not None:
            met = _met(windows, found, select(best, rows))
            ended.converged[rows[met]] = False
            rows = rows[~met & found.converged]
        if not len(rows):
            break
    return ended, rows


def _strongly(windows: Windows, asked: _Asked, start: _Ended, bounds: Tensor) -> _Ended:
    """Search on the windows of the basis within bounds (2, P + I), to the last level; where that is too far at once, in
    smaller steps."""
    ended = _tightened(windows, asked, start, bounds, _LEVELS[-1] * _FALL)
    rows = (~ended.converged).nonzero().squeeze(1)
    if len(rows):
        part = _tightened(windows, select(asked, rows), select(start, rows), bounds, _LEVELS[-1])
        put(ended, rows, replace(part, iterations=part.iterations + (ended.iterations - start.iterations)[rows]))
    return ended


def _tightened(windows: Windows, asked: _Asked, start: _Ended, bounds: Tensor, first: float) -> _Ended:
    """Search from a first level to the last one, an estimated noise following the misfit."""
    rows = torch.arange(len(asked.size))
    ended, level = select(start, rows), _last_level(asked, start.noise).clamp_min(first)
    while len(rows):
        part, own = select(asked, rows), level[rows]
        found = _at_level(windows, part, part.fine, select(ended, rows), own, bounds)
        put(ended, rows, found)
        last = _last_level(part, found.noise)
        level[rows] = (own * _FALL).maximum(last)
        rows = rows[own > 2 * last]
    return ended


def _met(windows: Windows, ended: _Ended, best: _Ended) -> Tensor:
    """(B,) whether searches passed a level where better ones did on their way, and would end there too.

    Each is within the gain that is not worth a step of the same optimum. Of places that are apart at the end, but one
    while the equations are weak, the better search would have gone half of the way since.
    """
    places, matrices = best.passed[..., -1], best.passed[..., :-1]
    apart = ended.passed[:, :-1, :, -1] - places[:, :-1]
    rise = (apart[..., None, :] @ matrices[:, :-1] @ apart[..., None])[..., 0, 0]
    size = matrices[:, -1].diagonal(dim1=1, dim2=2).sqrt()
    size = torch.where(size > 0, size, 1.0)
    unit = (matrices[:, -1] / (size[:, :, None] * size[:, None])).nan_to_num(0.0)
    std = torch.linalg.pinv(unit, hermitian=True).diagonal(dim1=1, dim2=2).sqrt() / size
    gone = ((places[:, :-1] - places[:, -1:]).abs() / std[:, None])[..., windows.rough.states :].amax(2)
    return ((rise <= 4 * _gain(windows)) & (gone <= FAR / 2)).any(1)


def _posed(windows: Windows, asked: _Asked, data: _Data, noise: Tensor, bounds: Tensor | None = None) -> Posed:
    """What is asked in units of a noise (B,), within bounds (2, P + I)."""
    priors, count = priors_of(windows.basis.problem), len(windows.basis.problem.parameters)
    bounds = searched_bounds(windows.basis.problem) if bounds is None else bounds
    return Posed(
        data=data.rows / noise[:, None, None, None],
        target=data.target / noise[:, None, None],
        initial=asked.known[:, count:],
        free=asked.known[:, :count].isnan(),
        bounds=torch.cat([bounds[:, count:], bounds[:, :count]], dim=1),
        sizes=windows.sizes,
        prior=(lambda p: (priors.residual(p), priors.slope(p).where(priors.std.isfinite(), 0.0)))
        if priors.informative
        else None,
    )


def _gain(windows: Windows) -> float:
    """Decrease of the objective that is not worth a step."""
    return windows.settings.tolerance or _GAIN


def _at_level(windows: Windows, asked: _Asked, data: _Data, ended: _Ended, level: Tensor, bounds: Tensor) -> _Ended:
    """The optimum at levels (B,) of the defects with the observations on one of the grids, and the noise by its
    misfit."""
    grid = windows.rough if data is asked.rough else windows.fine
    given, steps = asked.noise.isfinite(), windows.settings.iterations
    # data that are trusted more than the equation would be followed by defects, whatever the parameters
    held = torch.where(given, asked.noise, ended.noise.maximum(level * asked.size))
    posed = _posed(windows, asked, data, held, bounds)
    found = search(grid, posed, ended.state, level, steps, _gain(windows))
    misfit, passed = found.misfit * held.square(), ended.passed.clone()
    noise = torch.where(given, asked.noise, _estimated(asked, misfit))
    place = torch.cat([found.state.states[:, 0], found.state.parameters], dim=1)
    passed[:, -1] = torch.cat([found.normal, place[..., None]], dim=2)
    for number, common in enumerate(_LEVELS):
        here = (level == common) & found.converged
        passed[here, number] = passed[here, -1]
    return _Ended(
        bubbles=found.state.bubbles,
        states=found.state.states,
        parameters=found.state.parameters,
        initial=found.state.states[:, 0, grid.initial_places],
        passed=passed,
        level=level,
        noise=noise,
        misfit=misfit,
        objective=found.objective * (held / noise).square(),
        iterations=ended.iterations + found.iterations,
        converged=found.converged,
    )


def _estimated(asked: _Asked, misfit: Tensor) -> Tensor:
    """(B,) the noise by a misfit."""
    return (misfit / asked.freedom).sqrt().maximum(torch.finfo(misfit.dtype).eps * asked.size)


def _root(windows: Windows, grid: Grid, posed: Posed, state: State, level: Tensor) -> tuple[Condensed, Tensor]:
    """The linearised least squares at a state, and a root (B, S + P, U) of the covariance of its own unknowns."""
    condensed = condensed_at(grid, posed, state, scales(grid, state, windows.sizes, level), level)
    rows, _ = root_rows(posed, state, condensed)
    free = torch.cat([torch.ones_like(rows[:, 0, : grid.states]), posed.free.double()], dim=1)
    return condensed, inverse_root(rows, free)


def _stretch(windows: Windows, asked: _Asked, ended: _Ended) -> Tensor:
    """(B, P) see `Solution`: error bars at linearised solutions away from the estimate, on the rough windows."""
    grid, posed, level = windows.rough, _posed(windows, asked, asked.rough, ended.noise), ended.level
    state, first = windows.coarsened(ended.state), grid.states
    condensed, inverse = _root(windows, grid, posed, state, level)
    std = inverse[:, first:].norm(dim=2)
    stretch = torch.zeros_like(std)
    for number in range(std.shape[1]):
        own = inverse[:, first + number]
        step = (inverse @ own[..., None])[..., 0] / std[:, number].clamp_min(torch.finfo(std.dtype).tiny)[:, None]
        bubbles, states = condensed.spread(torch.cat([step, torch.zeros_like(step[:, :1])], dim=1)[..., None])
        move = State(bubbles[..., 0], states[..., 0], step[:, first:])
        for distance in (-2.0, 2.0):
            there = state.moved(move, torch.full_like(level, distance))
            _, other = _root(windows, grid, posed, there, level)
            grown = other[:, first + number].norm(dim=1) / std[:, number]
            stretch[:, number] = stretch[:, number].maximum(grown.nan_to_num(torch.inf))
    return stretch.where(posed.free, 0.0)


def _solution(windows: Windows, asked: _Asked, ended: _Ended) -> Solution:
    """The outcome as that of a solver."""
    grid, state = windows.fine, ended.state
    posed = _posed(windows, asked, asked.fine, ended.noise)
    condensed, inverse = _root(windows, grid, posed, state, ended.level)
    deviations = inverse[:, grid.states :]
    spread = grid.unknowns(*condensed.spread(torch.cat([inverse, torch.zeros_like(inverse[:, :1])], dim=1)))
    shares = (posed.data @ spread).square().sum(3).unflatten(2, (len(grid.orders), -1)).sum((1, 3))
    counts, used = asked.counts, torch.minimum(shares, asked.counts)
    freedom = counts.sum(1) - used.sum(1)
    noise = ended.noise
    estimated = (ended.misfit / freedom.clamp_min(1.0)).sqrt().maximum(torch.finfo(noise.dtype).eps * asked.size)
    noise = torch.where(asked.noise.isfinite(), noise, estimated)
    factor = noise / ended.noise
    defects = (ended.objective - ended.misfit / ended.noise.square()).clamp_min(0.0)
    readouts = windows.readouts(ended)
    nowhere = torch.cat([state.parameters, readouts], dim=1).fill_(torch.nan)
    return Solution(
        parameters=state.parameters,
        covariance=(deviations @ deviations.mT) * factor.square()[:, None, None],
        readouts=readouts,
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
        basis_error=windows.truncation(asked, ended).sqrt() / noise,
        rival=torch.full_like(state.parameters, torch.nan),
        elsewhere=nowhere,
        stretch=torch.full_like(state.parameters, torch.nan),
        iterations=ended.iterations,
        converged=ended.converged,
    )
