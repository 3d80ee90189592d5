"""Online inference for equations without an affine split: readouts and parameters by Gauss-Newton together.

The equation is weak at first, as a smooth fit of the data and then a few functions of the basis meet it, so that
the search never has to follow a narrow curved valley from afar.
"""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ipbasis.search.online import Online
from ipbasis.search.pointwise import PointwisePhysics
from ipbasis.search.rows import chunks, gather, select
from ipbasis.search.settings import GaussNewtonSettings
from ipbasis.search.smoothing import Smooth, propagate, smooth
from ipbasis.search.solution import Solution
from ipbasis.search.weights import STIFFEST, Weights

_ROUNDS = 20
_START_ITERATIONS, _RIDGE = 3, 1e-12
_EXACT = 1e-12  # damping that changes nothing, and the first: starts are near enough for steps of Gauss and Newton
_SHRINKS = 0.01  # factor on what is to gain from one step to the next, at which the matrix of the first still serves
_GAIN = 1e-2  # decrease of the objective, in units of χ², that is not worth a step: see `GaussNewtonSettings`
_LIGHT, _CAREFUL = 1.0, 1e-2  # damping below which a step is nearly that of Gauss and Newton, or may rise
_HOPELESS = 1e8  # damping, at which a step is too short to move an estimate
_RISES = 2  # steps in a row that may rise
_NOISE_CHANGE, _LEVEL_CHANGE = 0.04, 0.1  # of the logarithms of noise and level, that call for another search
_CALM = 0.15  # change of estimates in error bars, and of error bars, at which the level no longer matters
_MATTERS = 0.3  # the same, from which on more functions are worth it
_MET = 3.0  # times the usual residual, up to which the equation counts as met
_CLEAR = 10.0  # times the error of few functions, from which on noise hides it
_FIRST_LEVEL = 4.0  # times the usual residual, to start from with all functions
_NEXT = 0.1  # factor on the level from few functions to more
_FALL = 0.3  # factor on a level until the evidence asks for a higher one
_LOSS = 1.0  # of evidence, in units of χ², at which a level is given up
_AT_ONCE = 2**23  # entries of the normal matrices that are formed at once
_EPSILON = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class _State:
    """Unknowns z = (c, p) of a batch and the linearised problem there, as rows of which squares are minimised.

    Args:
        unknowns: (B, N).
        parameters: (B, P).
        by_jet, by_parameter: (B, E, J, n) and (B, E, P, n) partials of the equations, weighted as they are.
        slope: (B, P) derivative of the priors.
        equations: (B, E, n) residuals, weighted so that the sum of squares is the mean square.
        misfit: (B, F R) of the data, what no readout can remove left out.
        conditions, initial: (B, C) and (B, I) residuals of those of all queries and of given initial values.
        distance: (B, P) from the centres of the priors.
    """

    unknowns: Tensor
    parameters: Tensor
    by_jet: Tensor
    by_parameter: Tensor
    slope: Tensor
    equations: Tensor
    misfit: Tensor
    conditions: Tensor
    initial: Tensor
    distance: Tensor

    @property
    def data(self) -> Tensor:
        """(B,) squared data misfit."""
        return self.misfit.square().sum(1)

    @property
    def physics(self) -> Tensor:
        """(B,) mean squared residual."""
        conditions = self.conditions.square().sum(1) + self.initial.square().sum(1)
        return self.equations.square().sum((1, 2)) + conditions

    def objective(self, weights: Weights) -> Tensor:
        """(B,) weighted sum of data misfit and mean squared residual, and the priors."""
        squares = weights.data.square() * self.data + weights.physics.square() * self.physics
        return squares + self.distance.square().sum(1)

    def gradient(self, online: Online, weights: Weights) -> Tensor:
        """(B, N + P) half the gradient of the objective."""
        gradient = _physics_gradient(online, self, self.by_jet, self.by_parameter)
        gradient *= weights.physics.square()[:, None]
        by_data = online.observed_adjoint(self.misfit[:, None]).squeeze(1)
        gradient[:, : online.size].addcmul_(by_data, weights.data.square()[:, None])
        gradient[:, online.size :] += self.distance * self.slope
        return gradient

    def moved(self, online: Online, step: Tensor) -> "_State":
        """The same linearised problem after a step (B, N + P)."""
        ahead, aside = step.split([online.size, step.shape[1] - online.size], dim=1)
        given, _, counts = online.given_initial
        equations = online.physics.applied(self.by_jet, ahead) + (self.by_parameter * aside[:, None, :, None]).sum(2)
        return replace(
            self,
            unknowns=self.unknowns + ahead,
            parameters=self.parameters + aside,
            equations=self.equations + equations,
            misfit=self.misfit + online.observed(ahead[:, None]).squeeze(1),
            conditions=self.conditions + ahead @ online.physics.condition_rows.T,
            initial=self.initial + ahead @ given.T * counts,
            distance=self.distance + self.slope * aside,
        )


def _physics_gradient(online: Online, state: _State, by_jet: Tensor, by_parameter: Tensor) -> Tensor:
    """(B, N + P) half the gradient of the mean squared residual of a state, by these partials."""
    given, _, _ = online.given_initial
    by_unknowns = online.physics.adjoint(by_jet, state.equations[:, :, None]).squeeze(1)
    by_unknowns += state.conditions @ online.physics.condition_rows + state.initial @ given
    return torch.cat([by_unknowns, (by_parameter * state.equations[:, :, None]).sum((1, 3))], dim=1)


def _linearise(online: Online, unknowns: Tensor, parameters: Tensor) -> _State:
    """The state at given unknowns and parameters."""
    physics: PointwisePhysics = online.physics
    equations, by_jet, by_parameter = (part * physics.root for part in physics.linearised(unknowns, parameters))
    given, target, counts = online.given_initial
    return _State(
        unknowns=unknowns,
        parameters=parameters,
        by_jet=by_jet,
        by_parameter=by_parameter * online.free[:, None, :, None],
        slope=online.priors.slope(parameters).where(online.free > 0, 0.0),
        equations=equations,
        misfit=online.observed(unknowns[:, None]).squeeze(1) - online.data_target.flatten(1),
        conditions=unknowns @ physics.condition_rows.T - physics.condition_target,
        initial=(unknowns @ given.T - target) * counts,
        distance=online.priors.residual(parameters) * online.free,
    )


_memory = threading.local()


def _scratch(name: str, like: Tensor, *shape: int) -> Tensor:
    """A tensor of any values: the same memory whenever a thread asks for it by this name.

    Matrices of a whole batch in fresh memory would cost as much in page faults as the arithmetic on them.
    """
    entries, held = math.prod(shape), vars(_memory).get(name)
    if held is None or len(held) < entries or held.device != like.device:
        held = like.new_empty(entries)
        setattr(_memory, name, held)
    return held[:entries].view(shape)


class _Factorised:
    """Normal matrices (N + P, N + P) of the linearised problems of a batch by Cholesky, written and read by rows.

    They are large, so they are held in one place, and only until the next search.

    Args:
        online: the whole batch.
        state: where its search starts.
    """

    def __init__(self, online: Online, state: _State):
        queries, self.size = len(online), online.size + state.parameters.shape[1]
        own, like = online.data_root.shape[3], state.unknowns
        self.factor = _scratch("factor", like, queries, self.size, self.size).mT  # lower triangles, column by column
        self.covariances = _scratch("covariances", like, queries, online.fields, own, own)  # written by `_posterior`
        self.held = torch.zeros(queries, self.size, dtype=torch.bool)  # parameters at a bound: they take no step
        self.exact = torch.zeros(queries, dtype=torch.bool)  # the normal matrix itself, not damped and nothing held
        self.sound = torch.zeros_like(self.exact)  # positive definite
        at_once = next(chunks(queries, self.size, _AT_ONCE)).stop
        self.room = _scratch("normal", like, at_once, self.size, self.size)  # for normal matrices
        # the partials that it was made of
        self.by_jet, self.by_parameter = torch.empty_like(state.by_jet), torch.empty_like(state.by_parameter)

    def factorise(
        self, online: Online, state: _State, weights: Weights, rows: Tensor, damping: Tensor | None = None
    ) -> None:
        """Write the queries `rows`, those of the other arguments: damped (B,) by Levenberg and Marquardt, or not."""
        width = online.size
        held = torch.zeros(len(rows), self.size, dtype=torch.bool)
        if damping is not None and online.priors.reached(state.parameters).any():
            held[:, width:] = online.priors.blocked(state.parameters, state.gradient(online, weights)[:, width:])
        self.held[rows] = held
        self.exact[rows] = ~held.any(1) & (True if damping is None else damping <= _EXACT)
        self.by_jet[rows], self.by_parameter[rows] = state.by_jet, state.by_parameter
        extra = torch.full_like(weights.data, 4 * self.size * _EPSILON) + (0.0 if damping is None else damping)
        for block in chunks(len(rows), self.size, _AT_ONCE):
            some, here, by, at = online.select(block), select(state, block), select(weights, block), rows[block]
            normal = self.room[: len(at)]
            _write_normal(some, here, by, normal)
            for part in chunks(len(at), self.size):
                matrices = normal[part]
                stuck = held[block][part]
                if stuck.any():
                    matrices.masked_fill_(stuck[:, None] | stuck[..., None], 0.0)
                diagonal = matrices.diagonal(dim1=1, dim2=2)
                # unknowns of a field are damped alike: whatever combinations of functions they stand for
                unit = diagonal.clone()
                for field in range(online.fields):
                    unit[:, online.physics.own(field)] = diagonal[:, online.physics.own(field)].mean(1, keepdim=True)
                diagonal.add_(extra[block][part, None] * unit).masked_fill_(diagonal <= 0, 1.0)
                factor, faults = torch.linalg.cholesky_ex(matrices)
                self.factor.mT[at[part]], self.sound[at[part]] = factor.mT, faults == 0

    def lower(self, rows: Tensor) -> Tensor:
        """(B, N + P, N + P) factors of the queries `rows`."""
        return self.factor.mT[rows].mT

    def step(self, gradient: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Step (B, N + P) of the queries `rows` against half a gradient, and the decrease (B,) that it predicts."""
        gradient = gradient.masked_fill(self.held[rows], 0.0)
        step = torch.empty_like(gradient)
        for part in chunks(len(rows), self.size):
            step[part] = -torch.cholesky_solve(gradient[part, :, None], self.lower(rows[part])).squeeze(2)
        step = step.nan_to_num(0.0, 0.0, 0.0)
        return step, -(step * gradient).sum(1)


def _write_normal(online: Online, state: _State, weights: Weights, normal: Tensor) -> None:
    """Write the normal matrices of the weighted rows to (B, N + P, N + P): the lower triangle at least."""
    physics, width = online.physics, online.size
    given, _, counts = online.given_initial
    physics.normal(state.by_jet, normal[:, :width, :width])
    normal[:, width:, :width] = physics.adjoint(state.by_jet, state.by_parameter)
    rows = state.by_parameter.transpose(1, 2).flatten(2)
    normal[:, width:, width:] = rows @ rows.mT
    if len(physics.condition_rows):
        normal[:, :width, :width] += physics.condition_rows.T @ physics.condition_rows
    if len(given):
        normal[:, :width, :width] += (given.T * counts[:, None]) @ given
    normal *= weights.physics.square()[:, None, None]
    online.add_data_normal(normal, weights.data.square())
    normal.diagonal(dim1=1, dim2=2)[:, width:] += state.slope.square()


@dataclass(frozen=True)
class _Posterior:
    """Where a search ended, and what the normal matrices tell there.

    Args:
        unknowns, parameters: (B, N) and (B, P).
        objective, data, physics: (B,) see `_State`.
        covariance: (B, P, P) of the parameters, zero for known ones.
        determinant: (B,) logarithms of the determinants of the normal matrices.
        used: (B, F) number of each field's observations that the unknowns use up.
        sound: (B,) whether they are positive definite.
        depends: (B,) how much of estimates or error bars stands or falls with the level of the residual: the shift in
            error bars when the equation is met exactly, or half the share of the residual in the variance.
    """

    unknowns: Tensor
    parameters: Tensor
    objective: Tensor
    data: Tensor
    physics: Tensor
    covariance: Tensor
    determinant: Tensor
    used: Tensor
    sound: Tensor
    depends: Tensor


def _posterior(online: Online, state: _State, weights: Weights, solver: _Factorised, rows: Tensor) -> _Posterior:
    """See `_Posterior`; with the normal matrices `rows` of the solver, made there or near it.

    The covariances (F, r, r) of the unknowns of each field are left in the solver.
    """
    width, count = online.size, state.parameters.shape[1]
    damped = ~solver.exact[rows]
    if damped.any():
        here = online.select(damped), select(state, damped), select(weights, damped)
        solver.factorise(*here, rows[damped])
    by_parameter = state.unknowns.new_empty(len(online), count, width + count)
    used, determinant = torch.empty_like(online.data_rest), torch.empty_like(weights.data)
    for part in chunks(len(rows), solver.size):
        factor = solver.lower(rows[part])
        inverse = torch.cholesky_inverse(factor)
        some = online.select(part)
        solver.covariances[rows[part]] = torch.stack(some.blocks(inverse), dim=1)
        by_parameter[part], used[part] = inverse[:, width:], some.data_trace(inverse)
        determinant[part] = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1)
    covariance = by_parameter[..., width:]
    variance = covariance.diagonal(dim1=1, dim2=2)
    by_data, by_physics = weights.data.square()[:, None], weights.physics.square()[:, None]
    # matrix and gradient of one linearisation: the difference of two would be taken for a shift
    gradient = _physics_gradient(online, state, solver.by_jet[rows], solver.by_parameter[rows])
    shift = by_physics * (by_parameter @ gradient[..., None]).squeeze(2)
    # of the variance the part that is not due to data and priors
    share = by_data * online.observed(by_parameter[..., :width]).square().sum(2)
    share = 1 - (share + (covariance * state.slope[:, None]).square().sum(2)) / variance
    # together: a shift along a narrow valley is small beside the error bars of each
    std = variance.sqrt()
    correlation, bars = covariance / (std[:, None] * std[..., None]), shift / std
    correlation.diagonal(dim1=1, dim2=2).add_(_RIDGE)
    length = (bars * torch.linalg.solve_ex(correlation, bars)[0]).sum(1).clamp_min(0.0).sqrt()
    length = torch.maximum(length.nan_to_num(torch.inf), bars.abs().amax(1))
    return _Posterior(
        unknowns=state.unknowns,
        parameters=state.parameters,
        objective=state.objective(weights),
        data=state.data,
        physics=state.physics,
        covariance=covariance * online.free[:, None] * online.free[..., None],
        determinant=determinant,
        used=used * by_data,
        sound=solver.sound[rows],
        depends=torch.maximum(length, (share / 2 * online.free).amax(1)),
    )


@dataclass(frozen=True)
class _Worth:
    """Predicted decreases of the objective, in units of χ², that tell how far a search goes.

    Args:
        nothing: below it no step is worth it.
        last: below it the next step is not: it gains in proportion to the square of this one's gain.
        last_stale: the same of a step with the matrix of the one before, which converges in proportion.
    """

    nothing: float
    last: float
    last_stale: float

    @classmethod
    def of(cls, settings: GaussNewtonSettings) -> "_Worth":
        """By the tolerance: at the default of 0.01 a last step gains less than 1, or 0.1 with an older matrix."""
        nothing = _GAIN if settings.tolerance is None else settings.tolerance
        return cls(nothing, 10 * math.sqrt(nothing), 10 * nothing)


@dataclass(frozen=True)
class _Path:
    """How the search of each query goes.

    Args:
        unknowns, parameters: (B, N) and (B, P) the best point so far under the present weights.
        lowest: (B,) objective there.
        rises: (B,) steps since.
        back: (B,) whether the next step leads back there.
        damping: (B,) of Levenberg and Marquardt.
        gained: (B,) decrease of the objective that the last step predicted, zero if there was none.
    """

    unknowns: Tensor
    parameters: Tensor
    lowest: Tensor
    rises: Tensor
    back: Tensor
    damping: Tensor
    gained: Tensor


def _shrinks_slowly(path: _Path, predicted: Tensor, worth: _Worth) -> Tensor:
    """(B,) whether steps do not shrink so fast that the matrix of the one before serves again."""
    return predicted >= (_SHRINKS * path.gained).clamp_max(worth.last)


def _steady(path: _Path) -> Tensor:
    """(B,) whether the search is at its best point: no rises since, and no way back to go."""
    return (path.rises == 0) & ~path.back


def _small(path: _Path, predicted: Tensor, worth: _Worth) -> Tensor:
    """(B,) whether a step gains nothing; one that the damping holds back predicts less than there is to gain."""
    return _steady(path) & (predicted < worth.nothing) & (path.damping < _LIGHT)


def _lands(path: _Path, predicted: Tensor, fresh: Tensor, worth: _Worth) -> Tensor:
    """(B,) whether the step after this one would gain nothing; `fresh` where the matrix is that of this one."""
    last = _steady(path) & (predicted < worth.last) & (path.damping < _CAREFUL)
    return last & (fresh | (predicted < worth.last_stale))


def _within(online: Online, parameters: Tensor) -> Tensor:
    """(B,) whether parameters (B, P) lie within the bounds."""
    return (online.priors.clip(parameters) == parameters).all(1)


def _stuck(path: _Path) -> Tensor:
    """(B,) whether no step, however short, leads down."""
    return _steady(path) & (path.damping > _HOPELESS)


def _diverged(path: _Path, rises: Tensor, objective: Tensor) -> Tensor:
    """(B,) whether more steps rose than may: a few where they are nearly those of Gauss and Newton."""
    return (rises > torch.where(path.damping < _CAREFUL, _RISES, 0)) | objective.isinf()


def _search(
    online: Online, state: _State, weights: Weights, settings: GaussNewtonSettings
) -> tuple[_Posterior, Tensor, Tensor, Tensor]:
    """Levenberg-Marquardt on unknowns and parameters.

    A strong equation makes a curved valley of the objective, where a good step rises before the next one falls:
    only after a few rises does the search go back and take shorter steps. A step that is small takes no new
    linearisation at its end, and where steps shrink fast the last one takes the matrix of the one before.

    Args:
        online: the batch.
        state: where to start.
        weights: of data and physics.
        settings: of the solver.

    Returns:
        the end, covariances (B, F, r, r) of the unknowns of each field there, valid until the next search, steps
        taken (B,), and whether one more step would gain nothing (B,).

    Reference: Chamberlain, Powell, Lemarechal & Pedersen, Math. Program. Study 16 (1982) 1.
    """
    width, queries = online.size, len(online)
    ended: list[tuple[Tensor, _Posterior]] = []
    steps = torch.zeros(queries, dtype=torch.long)
    settled = torch.zeros(queries, dtype=torch.bool)
    active, part = torch.arange(queries), online
    lowest, none = state.objective(weights), torch.zeros_like(settled)
    path = _Path(
        unknowns=state.unknowns,
        parameters=state.parameters,
        lowest=lowest,
        rises=none.long(),
        back=none,
        damping=torch.full_like(lowest, _EXACT),
        gained=torch.zeros_like(lowest),
    )

    solver, fresh, worth = _Factorised(online, state), ~none, _Worth.of(settings)
    solver.factorise(part, state, weights, active, path.damping)
    for _ in range(settings.iterations):
        gradient = state.gradient(part, weights)
        step, predicted = solver.step(gradient, active)
        # where steps do not shrink fast the matrix of the one before serves no longer
        stale = ~fresh & _shrinks_slowly(path, predicted, worth)
        if stale.any():
            here = part.select(stale), select(state, stale), select(weights, stale)
            solver.factorise(*here, active[stale], path.damping[stale])
            step[stale], predicted[stale] = solver.step(gradient[stale], active[stale])
            fresh |= stale
        small = _small(path, predicted, worth)
        lands = ~small & _lands(path, predicted, fresh, worth) & _within(part, state.parameters + step[:, width:])
        done = small | lands | _stuck(path)
        if done.any():
            settled[active[done]] = (small | lands)[done]
            steps[active[lands]] += 1
            here, there, by = part.select(done), select(state, done), select(weights, done)
            if lands.any():
                there = there.moved(here, step[done] * lands[done, None])
            ended.append((active[done], _posterior(here, there, by, solver, active[done])))
            kept = ~done
            active, part, step, predicted = active[kept], part.select(kept), step[kept], predicted[kept]
            state, weights, path = select(state, kept), select(weights, kept), select(path, kept)
            if not len(active):
                break
        moved = part.priors.clip(state.parameters + step[:, width:])
        moved = torch.where(part.free > 0, moved, state.parameters)
        back, goal = path.back[:, None], state.unknowns + step[:, :width]
        state = _linearise(part, torch.where(back, path.unknowns, goal), torch.where(back, path.parameters, moved))
        steps[active] += 1
        objective = state.objective(weights).nan_to_num(torch.inf)
        better = path.lowest > objective
        rises = torch.where(better | path.back, 0, path.rises + 1)
        lost = _diverged(path, rises, objective)
        damping = torch.where(lost, path.damping.clamp_min(1e-6) * 100, path.damping)
        path = _Path(
            unknowns=torch.where(better[:, None], state.unknowns, path.unknowns),
            parameters=torch.where(better[:, None], state.parameters, path.parameters),
            lowest=torch.where(better, objective, path.lowest),
            rises=torch.where(lost, 0, rises),
            back=lost,
            damping=torch.where(better, damping / 10, damping).clamp(1e-16, 1e12),
            gained=torch.where(better & solver.exact[active], predicted, 0.0),
        )
        fresh = torch.zeros_like(better)
    if len(active):
        state = _linearise(part, path.unknowns, path.parameters)
        solver.factorise(part, state, weights, active)
        ended.append((active, _posterior(part, state, weights, solver, active)))
    return gather(ended), solver.covariances, steps, settled


def _start(online: Online, smoothed: Smooth) -> Tensor:
    """(B, P) parameters without a guess: least squares on the residual of a smooth fit, by its error bars."""
    physics: PointwisePhysics = online.physics
    low, high = online.ranges.T
    middle = torch.where(online.priors.std.isfinite(), online.priors.mode, (low + high) / 2).expand_as(online.known)
    parameters = torch.where(online.known.isnan(), middle, online.known)
    covariances = smoothed.jet_covariance(physics)
    for _ in range(_START_ITERATIONS):
        residual, by_jet, by_parameter = physics.linearised(smoothed.mean, parameters)
        variance = propagate(covariances, by_jet)
        weight = physics.root * variance.clamp_min(1e-6 * variance.amax((1, 2), keepdim=True)).rsqrt()
        rows = (by_parameter * weight[:, :, None]).transpose(2, 3).flatten(1, 2) * online.free[:, None]
        size = rows.norm(dim=1).clamp_min(torch.finfo(rows.dtype).tiny)
        rows = rows / size[:, None]
        normal = rows.mT @ rows
        normal.diagonal(dim1=1, dim2=2).add_(_RIDGE)
        right = -(rows.mT @ (residual * weight).flatten(1)[..., None])
        step = torch.linalg.solve_ex(normal, right)[0].squeeze(2)
        moved = parameters + (step / size).nan_to_num(0.0, 0.0, 0.0) * online.free
        reach = high - low
        moved = online.priors.clip(moved.clamp(middle - 2 * reach, middle + 2 * reach))
        parameters = torch.where(online.known.isnan(), moved, online.known)
    return parameters


def _prune(parameters: Tensor, covariance: Tensor, optional: Tensor, penalty: Tensor) -> Tensor:
    """Which optional parameters are as well zero: backward elimination on the quadratic form of the objective.

    As long as the one that raises χ² least does so by less than the penalty, it is set to zero and the
    others follow.

    Args:
        parameters: (B, P).
        covariance: (B, P, P), zero for known parameters.
        optional: (B, P) which may be zero.
        penalty: (B,) rise of χ² that a parameter must be worth (log n is the Bayesian information criterion).

    Returns:
        (B, P) true for those to set to zero.
    """
    parameters, covariance, dropped = parameters.clone(), covariance.clone(), torch.zeros_like(optional)
    rows = torch.arange(len(parameters))
    for _ in range(int(optional.sum(1).max())):
        variance = covariance.diagonal(dim1=1, dim2=2)
        worth = torch.where(optional & ~dropped & (variance > 0), parameters.square() / variance, torch.inf)
        lowest, column = worth.min(1)
        drop = lowest < penalty
        if not drop.any():
            break
        direction = covariance[rows, column] / variance[rows, column][:, None] * drop[:, None]
        direction = direction.nan_to_num(0.0)
        parameters = parameters - direction * parameters[rows, column][:, None]
        covariance = covariance - direction[..., None] * covariance[rows, column][:, None]
        dropped[rows[drop], column[drop]] = True
    return dropped


@dataclass(frozen=True)
class _Found:
    """Outcome of `_fit`.

    Args:
        end: of the last search.
        weights: of data and physics.
        objective: (B,) that of `_State`, and what no readout can remove.
        freedom: (B,) observations less the effective number of unknowns.
        evidence: (B,) minus twice its logarithm, less a constant.
        iterations: (B,) steps taken.
        converged: (B,) whether one more step would gain nothing.
        leaves: (B,) whether more functions would change the estimate.
    """

    end: _Posterior
    weights: Weights
    objective: Tensor
    freedom: Tensor
    evidence: Tensor
    iterations: Tensor
    converged: Tensor
    leaves: Tensor


@dataclass(frozen=True)
class _Limits:
    """What the functions can reach, for each query (B,).

    Args:
        std: smallest noise that makes sense, in units of the data weights.
        level: smallest level of the residual that does.
        residual: usual residual of a solution.
    """

    std: Tensor
    level: Tensor
    residual: Tensor

    @classmethod
    def of(cls, online: Online, physics: PointwisePhysics) -> "_Limits":
        """Those of a batch, by the functions in which the equations are given."""
        accuracy, size = physics.accuracy, online.amplitude
        return cls(accuracy.floor * size * online.weight, accuracy.usual_residual * size, accuracy.residual * size)


@dataclass(frozen=True)
class _Variances:
    """What a fit starts with.

    Args:
        std: (B,) noise.
        level: (B,) of the residual.
        tried: (3, B) evidence, noise and level of another fit of the same data; infinite evidence if there is none.
    """

    std: Tensor
    level: Tensor
    tried: Tensor

    @classmethod
    def untried(cls, std: Tensor, level: Tensor) -> "_Variances":
        """Without another fit."""
        return cls(std, level, torch.stack([torch.full_like(std, torch.inf), std, level]))


def _most_likely_noise(online: Online, end: _Posterior, freedom: Tensor, limits: _Limits) -> Tensor:
    """(B,) noise by the misfit: where the evidence has no slope by it."""
    return ((end.data + online.data_rest.sum(1)) / freedom.clamp_min(1.0)).sqrt().maximum(limits.std)


def _most_likely_level(online: Online, end: _Posterior, limits: _Limits) -> Tensor:
    """(B,) level of the residual by the residual: where the evidence has no slope by it."""
    taken = (end.used.sum(1) - online.free.sum(1)).clamp_min(1.0)
    return (end.physics * online.size / taken).sqrt().maximum(limits.level)


def _evidence(online: Online, end: _Posterior, objective: Tensor, weights: Weights) -> Tensor:
    """(B,) minus twice the logarithm of the evidence, less a constant."""
    scales = online.counts.sum(1) * weights.data.log() + online.size * weights.physics.log()
    return objective + end.determinant - 2 * scales


def _worse(evidence: Tensor, best: Tensor) -> Tensor:
    """(B,) whether evidence is lost.

    Too low a level forces the equation on the data, whose misfit is then taken for noise or left.
    """
    return evidence > best + _LOSS


def _met(end: _Posterior, limits: _Limits) -> Tensor:
    """(B,) whether the equation is met as well as the functions can."""
    return end.physics.sqrt() < _MET * limits.residual


def _hidden(std: Tensor, limits: _Limits) -> Tensor:
    """(B,) whether the noise hides the error of the functions."""
    return std > _CLEAR * limits.std


def _level_moves(pull: Tensor, falls: Tensor) -> Tensor:
    """(B,) whether the level of the residual still moves: the logarithm of its change asked for, or a fall."""
    return (pull.abs() > _LEVEL_CHANGE) | falls


def _only_rescales(end: _Posterior, factor: Tensor) -> Tensor:
    """(B,) whether both variances may change by one factor: the same estimate, larger or smaller error bars.

    The level as it was would weigh the equation by this much more or less.
    """
    return end.depends * (1 - factor.square().reciprocal()).abs() < _CALM


def _fit(
    online: Online,
    state: _State,
    first: _Variances,
    settings: GaussNewtonSettings,
    noise_given: bool,
    covariances: Tensor,
    places: Tensor,
    last: bool = True,
    once: bool = False,
) -> _Found:
    """Search and both variances in turn, only those queries again whose variances still move.

    Args:
        online: the batch.
        state: where to start.
        first: variances to start with.
        settings: of the solver.
        noise_given: whether the noise is.
        covariances: (any, F, r, r) where to write those of the unknowns of each field.
        places: (B,) the rows there.
        last: whether no more functions follow; if some do, queries whose estimates they would change are left to them.
        once: whether to leave to them all but the queries that are at rest at once.
    """
    limits = _Limits.of(online, online.physics)
    width, queries = online.size, len(online)
    size = (state.by_jet.square().sum((1, 2, 3)) + state.by_parameter.square().sum((1, 2, 3))).sqrt()
    stiffest = STIFFEST * online.data_size / size
    std, level, best = first.std, first.level, first.tried
    rows, rose = torch.arange(queries), torch.zeros(queries, dtype=torch.bool)
    iterations = torch.zeros(queries, dtype=torch.long)
    ended: list[tuple[Tensor, _Found]] = []
    for number in range(_ROUNDS):
        part, final = online.select(rows), width**0.5 / level
        if settings.physics_weight is not None:
            final = torch.full_like(final, settings.physics_weight**0.5)
        weights = Weights(1 / std, torch.minimum(final, stiffest[rows] / std))
        end, blocks, steps, settled = _search(part, state, weights, settings)
        iterations[rows] += steps
        least, freedom = select(limits, rows), part.counts.sum(1) - end.used.sum(1)
        updated = std if noise_given else _most_likely_noise(part, end, freedom, least)
        asked = level if settings.physics_weight is not None else _most_likely_level(part, end, least)
        pull = (asked / level).log()
        objective = end.objective + part.data_rest.sum(1) * weights.data.square()
        evidence = _evidence(part, end, objective, weights)
        worse = _worse(evidence, best[0])
        best = torch.where(worse, best, torch.stack([evidence, std, level]))
        # far above the level sought the evidence asks for a small part of the way
        falls = ~rose & (pull < 0)
        lower = torch.where(falls, level * _FALL, asked).maximum(least.level)
        falls &= level > least.level
        sure = _met(end, least)
        if not last:
            sure &= _hidden(updated, least)
        calm = sure & (end.depends < _CALM)
        leaves = torch.zeros_like(calm)
        if not last:
            leaves = ~(sure & (end.depends < _MATTERS)) & ~(falls & ~worse) | (once & ~calm)
        factor = updated / std
        noisier = factor.log().abs() > _NOISE_CHANGE
        rescaled = noisier & sure & _only_rescales(end, factor) & (not part.priors.informative)
        moved = _level_moves(pull, falls) & ~calm | (noisier & ~rescaled) | worse
        done = ~moved | (number == _ROUNDS - 1) | leaves
        factor = torch.where(rescaled & done, factor, 1.0)
        squared = factor.square()
        found = _Found(
            end=replace(end, covariance=end.covariance * squared[:, None, None]),
            weights=Weights(weights.data / factor, weights.physics / factor),
            objective=objective / squared,
            freedom=freedom,
            evidence=evidence,
            iterations=iterations[rows],
            converged=settled & end.sound,
            leaves=leaves,
        )
        ended.append((rows[done], select(found, done)))
        stays = (done & ~leaves).nonzero().squeeze(1)
        for chunk in chunks(len(stays), online.size):
            some = stays[chunk]
            covariances[places[rows[some]]] = blocks[some] * squared[some, None, None, None]
        rows = rows[~done]
        rose = ((rose & noisier) | (pull > 0) | worse)[~done]  # a rise beside another noise tells nothing
        std, level = torch.where(worse, best[1], updated)[~done], torch.where(worse, best[2], lower)[~done]
        if not len(rows):
            break
        best = best[:, ~done]
        state = _linearise(online.select(rows), end.unknowns[~done], end.parameters[~done])
    return gather(ended)


def _solution(online: Online, found: _Found, whole: PointwisePhysics) -> Solution:
    """The outcome as that of a solver, without iterations and the covariances of the unknowns.

    Args:
        online: the batch, in the first functions or all.
        found: its outcome.
        whole: the equations in all functions.
    """
    end, rest = found.end, online.data_rest.sum(1)
    return Solution(
        parameters=end.parameters,
        covariance=end.covariance,
        readouts=whole.widened(end.unknowns) @ whole.combinations.T,
        covariances=rest[:, None][:, :0],
        used=end.used,
        noise_std=1 / found.weights.data,
        objective=found.objective,
        physics=end.physics / _Limits.of(online, online.physics).residual.square(),
        misfit=end.data + rest,
        freedom=found.freedom,
        free_misfit=rest,
        free_freedom=online.free_freedom,
        jump=torch.zeros_like(rest),
        basis_error=torch.zeros_like(rest),
        rival=torch.full_like(end.parameters, torch.nan),
        elsewhere=end.parameters[:, :0],
        stretch=torch.full_like(end.parameters, torch.nan),
        iterations=found.iterations,
        converged=found.converged,
    )


def _first(online: Online, noise_std: Tensor | None) -> tuple[_State, _Variances]:
    """Where a search starts without a guess."""
    limits, smoothed = _Limits.of(online, online.physics), smooth(online, noise_std)
    state = _linearise(online, smoothed.mean, _start(online, smoothed))
    # From a weak equation to a strong one: the other way round the search would be slow until the level rose. Where
    # the observations outnumber the readouts the misfit tells a level that is too low, and the way may be short.
    level = state.physics.sqrt() * torch.where(online.free_freedom > 0, _FALL, 1.0)
    return state, _Variances.untried(smoothed.noise_std.maximum(limits.std), level.maximum(limits.level))


def _next(
    online: Online, found: _Found, noise_std: Tensor | None, whole: PointwisePhysics
) -> tuple[_State, _Variances]:
    """Where a search goes on with more functions, after one with fewer of them."""
    limits, unknowns = _Limits.of(online, online.physics), found.end.unknowns
    std, level = 1 / found.weights.data, unknowns.shape[1] ** 0.5 / found.weights.physics
    tried = torch.stack([found.evidence, std, level])
    std = std if noise_std is None else noise_std
    enough = online.free_freedom > 0
    fine, weak = _FIRST_LEVEL * _Limits.of(online, whole).residual, _FIRST_LEVEL * limits.residual
    level = torch.where(enough, torch.minimum(level, (level * _NEXT).clamp(fine, weak)), level)
    state = _linearise(online, online.physics.widened(unknowns), found.end.parameters)
    return state, _Variances(std.maximum(limits.std), level.maximum(limits.level), tried)


def _with_second_try(
    online: Online,
    found: _Found,
    settings: GaussNewtonSettings,
    noise_std: Tensor | None,
    covariances: Tensor,
    places: Tensor,
) -> _Found:
    """The outcome with all functions, and of another search where it may be a local optimum.

    Few functions can lead astray. Where enough observations tell the level, and yet it stays so high that the
    estimates depend on it, all functions are searched from the smooth fit too, and the evidence chooses.

    Args:
        online: the batch in all functions.
        found: its outcome after a search with fewer.
        settings: of the solver.
        noise_std: (B,) as it was given, None if it was estimated.
        covariances, places: see `_fit`.
    """
    doubtful = ((found.end.depends >= _MATTERS) & (online.free_freedom > 0)).nonzero().squeeze(1)
    if not len(doubtful):
        return found
    part, given = online.select(doubtful), noise_std is not None
    state, first = _first(part, noise_std[doubtful] if given else None)
    own = covariances.new_empty(len(doubtful), *covariances.shape[1:])
    again = _fit(part, state, first, settings, given, own, torch.arange(len(doubtful)))
    again = replace(again, iterations=again.iterations + found.iterations[doubtful])
    better = again.evidence < found.evidence[doubtful] - _LOSS
    covariances[places[doubtful[better]]] = own[better]
    stays = torch.ones(len(online), dtype=torch.bool).index_fill(0, doubtful[better], False)
    rows = torch.arange(len(online))
    return gather([(rows[stays], select(found, stays)), (doubtful[better], select(again, better))])


def _without_useless(
    online: Online,
    found: _Found,
    optional: Tensor,
    settings: GaussNewtonSettings,
    noise_given: bool,
    covariances: Tensor,
    places: Tensor,
) -> tuple[Online, _Found]:
    """The optional parameters that the data do not ask for set to zero, and the others fitted again."""
    may = optional & online.known.isnan()
    dropped = _prune(found.end.parameters, found.end.covariance, may, online.counts.sum(1).log())
    online = replace(online, known=torch.where(dropped, 0.0, online.known))
    state = _linearise(online, found.end.unknowns, torch.where(dropped, 0.0, found.end.parameters))
    first = _Variances.untried(1 / found.weights.data, online.size**0.5 / found.weights.physics)
    again = _fit(online, state, first, settings, noise_given, covariances, places)
    return online, replace(again, iterations=again.iterations + found.iterations)


def joint_gauss_newton(
    assembled: Callable[..., Online],
    physics: PointwisePhysics,
    settings: GaussNewtonSettings,
    noise_std: Tensor | None,
    optional: Tensor | None = None,
) -> Solution:
    """Estimates of all queries of a batch, the equations taken at points.

    Minimises data misfit / noise² + N × mean squared residual / level², N the number of unknowns. The level
    of the residual is the one that the basis reached in validation, or a higher one where the evidence of
    the query's own data asks for it (outside the trained range the basis is less accurate).

    The first functions of the basis are searched first: a cheap problem, whose solution is near enough for the steps
    of Gauss and Newton to converge with more functions and an equation as strong as they can meet it. More functions
    are for the queries alone whose estimates still depend on how well the equation is met.

    Reference: MacKay, Neural Computation 4 (1992) 415, for both variances.

    Args:
        assembled: the batch, see `assemble`: called with equations in the first functions or all, and ``rows``.
        physics: the equations in all functions.
        settings: of the solver.
        noise_std: (B,) standard deviation of the errors in units of the data weights, basis error included;
            None to estimate it.
        optional: (P,) true for parameters that are set to zero where the data do not ask for them.
    """
    stages, given = [physics], noise_std is not None
    # with few functions the many terms of a library fit anything
    while optional is None and stages[0].leading is not None:
        stages.insert(0, stages[0].leading)
    part = assembled(stages[0])
    state, first = _first(part, noise_std)
    rows, ended, width = torch.arange(len(part)), [], physics.energy.shape[1]
    iterations = torch.zeros_like(rows)
    covariances = state.unknowns.new_zeros(len(part), part.fields, width, width)
    for number, stage in enumerate(stages, start=1):
        last, own = number == len(stages), stage.energy.shape[1]
        to = covariances[:, :, :own, :own], rows
        found = _fit(part, state, first, settings, given, *to, last=last, once=number == 1 and not last)
        if last and len(stages) > 1:
            found = _with_second_try(part, found, settings, noise_std[rows] if given else None, *to)
        if optional is not None:
            part, found = _without_useless(part, found, optional, settings, given, *to)
        iterations[rows] += found.iterations
        done = ~found.leaves
        if done.any():
            ended.append((rows[done], _solution(part.select(done), select(found, done), physics)))
        rows, found = rows[~done], select(found, ~done)
        if not len(rows):
            break
        part = assembled(stages[number], rows=rows)
        state, first = _next(part, found, noise_std[rows] if given else None, physics)
    return replace(gather(ended), covariances=covariances, iterations=iterations)
