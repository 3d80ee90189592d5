"""Online inference for equations without an affine split: readouts and parameters by Gauss-Newton together.

The equation is weak at first, as a smooth fit of the data and then a few functions of the basis meet it, so that
the search never has to follow a narrow curved valley from afar.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ipbasis.basis.artefact import Accuracy
from ipbasis.inverse.assemble import Online, PointwisePhysics
from ipbasis.inverse.gauss_newton import STIFFEST, GaussNewtonSettings, Weights
from ipbasis.inverse.rows import gather, select
from ipbasis.inverse.smoothing import Smooth, propagate, smooth
from ipbasis.inverse.solution import Solution

_ROUNDS = 20
_START_ITERATIONS, _RIDGE = 3, 1e-12
_FIRST_DAMPING = 1e-8
_GAIN = 1e-2  # decrease of the objective, in units of χ², that is not worth a step
_LAST_GAIN = 1.0  # decrease by a step, of quadratic convergence, after which the next is not worth it
_LIGHT, _CAREFUL = 1.0, 1e-2  # damping below which a step is nearly that of Gauss and Newton, or may rise
_RISES = 2  # steps in a row that may rise
_IN_CACHE = 2**18  # entries of the normal matrices that are worked on at once
_NOISE_CHANGE, _LEVEL_CHANGE = 0.04, 0.1  # of the logarithms of noise and level, that call for another search
_RESCALED = 0.7  # of the logarithm of a noise, that a query may be off whose estimate does not depend on the level
_CALM = 0.03  # change of estimates in error bars, and of error bars, at which the level no longer matters
_MET = 3.0  # times the usual residual, up to which the equation counts as met
_FIRST_LEVEL = 4.0  # times the usual residual, to start from with all functions
_FALL = 0.3  # factor on a level until the evidence asks for a higher one
_LOSS = 1.0  # of evidence, in units of χ², at which a level is given up
_EPSILON = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class _State:
    """Unknowns z = (c, p) of a batch and the linearised problem there, data and physics apart.

    Args:
        unknowns: (B, N).
        parameters: (B, P).
        data, physics, priors: (B,) squared data misfit (what no readout can remove left out), mean squared
            residual, that of the conditions included, and squared distance from the centres of the priors.
        gradient_data, gradient_physics, gradient_priors: (B, N + P) halves of their gradients.
        normal_physics: (B, N + P, N + P) of the physics.
        normal_priors: (B, N + P) diagonal of that of the priors.
    """

    unknowns: Tensor
    parameters: Tensor
    data: Tensor
    physics: Tensor
    priors: Tensor
    gradient_data: Tensor
    gradient_physics: Tensor
    gradient_priors: Tensor
    normal_physics: Tensor
    normal_priors: Tensor

    def objective(self, weights: Weights) -> Tensor:
        """(B,) weighted sum of data misfit and mean squared residual, and the priors."""
        return weights.data.square() * self.data + weights.physics.square() * self.physics + self.priors

    def gradient(self, weights: Weights) -> Tensor:
        """(B, N + P) half the gradient of the objective."""
        by_data, by_physics = weights.data.square()[:, None], weights.physics.square()[:, None]
        return by_data * self.gradient_data + by_physics * self.gradient_physics + self.gradient_priors

    def moved(self, online: Online, step: Tensor) -> "_State":
        """The same linearised problem after a step (B, N + P)."""
        width = self.unknowns.shape[1]
        data = (online.data_normal @ step[:, :width, None]).squeeze(2)
        data = torch.nn.functional.pad(data, (0, step.shape[1] - width))
        physics = (self.normal_physics @ step[..., None]).squeeze(2)
        priors = self.normal_priors * step
        return replace(
            self,
            unknowns=self.unknowns + step[:, :width],
            parameters=self.parameters + step[:, width:],
            data=self.data + (step * (2 * self.gradient_data + data)).sum(1),
            physics=self.physics + (step * (2 * self.gradient_physics + physics)).sum(1),
            priors=self.priors + (step * (2 * self.gradient_priors + priors)).sum(1),
            gradient_data=self.gradient_data + data,
            gradient_physics=self.gradient_physics + physics,
            gradient_priors=self.gradient_priors + priors,
        )


def _linearise(online: Online, unknowns: Tensor, parameters: Tensor) -> _State:
    """The state at given unknowns and parameters."""
    physics: PointwisePhysics = online.physics
    residual, by_jet, by_parameter = (part * physics.root for part in physics.linearised(unknowns, parameters))
    residual, width, count = residual.flatten(1), unknowns.shape[1], parameters.shape[1]
    by_parameter = by_parameter.transpose(2, 3) * online.free[:, None, None]
    normal = unknowns.new_empty(len(unknowns), width + count, width + count)
    gradient = unknowns.new_empty(len(unknowns), width + count)
    for part in _chunks(normal):
        matrix = physics.spread(by_jet[part], by_parameter[part]).flatten(1, 2)
        torch.bmm(matrix.mT, matrix, out=normal[part])
        gradient[part] = (matrix.mT @ residual[part, :, None]).squeeze(2)
    misfit = (online.data_root @ unknowns[..., None]).squeeze(2) - online.data_target
    by_data = (online.data_root.mT @ misfit[..., None]).squeeze(2)
    conditions = unknowns @ physics.condition_rows.T - physics.condition_target
    rows, target, counts = online.given_initial
    initial = (unknowns @ rows.T - target) * counts
    if len(physics.condition_rows):
        normal[:, :width, :width] += physics.condition_rows.T @ physics.condition_rows
    if len(rows):
        normal[:, :width, :width] += (rows.T * counts[:, None]) @ rows
    gradient[:, :width] += conditions @ physics.condition_rows + initial @ rows
    distance = online.priors.residual(parameters) * online.free
    slope = online.priors.slope(parameters).where(online.free > 0, 0.0)
    return _State(
        unknowns=unknowns,
        parameters=parameters,
        data=misfit.square().sum(1),
        physics=residual.square().sum(1) + conditions.square().sum(1) + initial.square().sum(1),
        priors=distance.square().sum(1),
        gradient_data=torch.nn.functional.pad(by_data, (0, count)),
        gradient_physics=gradient,
        gradient_priors=torch.nn.functional.pad(distance * slope, (width, 0)),
        normal_physics=normal,
        normal_priors=torch.nn.functional.pad(slope.square(), (width, 0)),
    )


def _chunks(matrices: Tensor) -> Iterator[slice]:
    """Parts of the queries whose matrices (B, n, n) stay in the cache of a core."""
    step = max(1, _IN_CACHE // matrices[0].numel())
    return (slice(at, at + step) for at in range(0, len(matrices), step))


def _normal(online: Online, state: _State, weights: Weights) -> tuple[Tensor, Tensor]:
    """Normal matrix (B, N + P, N + P) scaled to a diagonal of one, and the scale (B, N + P)."""
    width = online.data_root.shape[2]
    normal = state.normal_physics * weights.physics.square()[:, None, None]
    normal[:, :width, :width].addcmul_(online.data_normal, weights.data.square()[:, None, None])
    normal.diagonal(dim1=1, dim2=2).add_(state.normal_priors)
    diagonal = normal.diagonal(dim1=1, dim2=2)
    scale = torch.where(diagonal > 0, diagonal, torch.ones_like(diagonal)).rsqrt()
    normal.mul_(scale[:, None]).mul_(scale[..., None])
    normal.diagonal(dim1=1, dim2=2).copy_(torch.ones_like(scale) + 4 * normal.shape[1] * _EPSILON)
    return normal, scale


def _step(online: Online, state: _State, weights: Weights, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Step (B, N + P) of Levenberg and Marquardt, and the decrease (B,) of the objective that it predicts."""
    width = state.unknowns.shape[1]
    gradient = state.gradient(weights)
    held = torch.nn.functional.pad(online.priors.blocked(state.parameters, gradient[:, width:]), (width, 0))
    gradient = gradient.masked_fill(held, 0.0)
    step = torch.empty_like(gradient)
    for part in _chunks(state.normal_physics):
        normal, scale = _normal(online.select(part), select(state, part), select(weights, part))
        if held[part].any():
            normal.masked_fill_(held[part, None] | held[part, :, None], 0.0)
        normal.diagonal(dim1=1, dim2=2).add_(damping[part, None] + held[part])
        factor, _ = torch.linalg.cholesky_ex(normal)
        step[part] = -scale * torch.cholesky_solve((scale * gradient[part])[..., None], factor).squeeze(2)
    step = step.nan_to_num(0.0, 0.0, 0.0)
    return step, -(step * gradient).sum(1)


@dataclass(frozen=True)
class _Path:
    """How the search of each query goes.

    Args:
        unknowns, parameters: (B, N) and (B, P) the best point so far under the present weights.
        lowest: (B,) objective there.
        rises: (B,) steps since.
        back: (B,) whether the next step leads back there.
        damping: (B,) of Levenberg and Marquardt.
    """

    unknowns: Tensor
    parameters: Tensor
    lowest: Tensor
    rises: Tensor
    back: Tensor
    damping: Tensor


def _search(online: Online, state: _State, weights: Weights, iterations: int) -> tuple[_State, Tensor, Tensor]:
    """Levenberg-Marquardt on unknowns and parameters.

    A strong equation makes a curved valley of the objective, where a good step rises before the next one falls:
    only after a few rises does the search go back and take shorter steps.

    Args:
        online: the batch.
        state: where to start.
        weights: of data and physics.
        iterations: steps at most.

    Returns:
        the state at the end, steps taken (B,), and whether one more step would gain nothing (B,).

    Reference: Chamberlain, Powell, Lemarechal & Pedersen, Math. Program. Study 16 (1982) 1.
    """
    width = state.unknowns.shape[1]
    ended: list[tuple[Tensor, _State]] = []
    steps = torch.zeros(len(online), dtype=torch.long)
    settled = torch.zeros(len(online), dtype=torch.bool)
    active, part = torch.arange(len(online)), online
    lowest, none = state.objective(weights), torch.zeros_like(settled)
    path = _Path(state.unknowns, state.parameters, lowest, none.long(), none, torch.full_like(lowest, _FIRST_DAMPING))

    def without(done: Tensor, at_rest: Tensor, step: Tensor) -> Tensor:
        """The steps of the queries that are not done."""
        nonlocal active, part, state, weights, path
        if not done.any():
            return step
        settled[active[done]] = at_rest[done]
        ended.append((active[done], select(state, done)))
        kept = ~done
        active, part, state = active[kept], part.select(kept), select(state, kept)
        weights, path = select(weights, kept), select(path, kept)
        return step[kept]

    for _ in range(iterations):
        step, predicted = _step(part, state, weights, path.damping)
        steady = (path.rises == 0) & ~path.back
        # a step that the damping holds back predicts less than there is to gain
        still = steady & (predicted < _GAIN) & (path.damping < _LIGHT)
        # so small a step needs no new linearisation at its end
        goal = state.parameters + step[:, width:]
        lands = steady & ~still & (predicted < _LAST_GAIN) & (path.damping < _CAREFUL)
        lands &= (part.priors.clip(goal) == goal).all(1)
        if lands.any():
            state = state.moved(part, step * lands[:, None])
            steps[active[lands]] += 1
        step = without(still | lands | (steady & (path.damping > 1e8)), still | lands, step)
        if not len(active):
            break
        moved = part.priors.clip(state.parameters + step[:, width:])
        moved = torch.where(part.free > 0, moved, state.parameters)
        back, goal = path.back[:, None], state.unknowns + step[:, :width]
        state = _linearise(part, torch.where(back, path.unknowns, goal), torch.where(back, path.parameters, moved))
        steps[active] += 1
        objective = state.objective(weights).nan_to_num(torch.inf)
        gain = path.lowest - objective
        better = gain > 0
        rises = torch.where(better | path.back, 0, path.rises + 1)
        lost = (rises > torch.where(path.damping < _CAREFUL, _RISES, 0)) | objective.isinf()
        damping = torch.where(lost, path.damping.clamp_min(1e-6) * 100, path.damping)
        path = _Path(
            unknowns=torch.where(better[:, None], state.unknowns, path.unknowns),
            parameters=torch.where(better[:, None], state.parameters, path.parameters),
            lowest=torch.where(better, objective, path.lowest),
            rises=torch.where(lost, 0, rises),
            back=lost,
            damping=torch.where(better, damping / 10, damping).clamp(1e-16, 1e12),
        )
    if len(active):
        ended.append((active, _linearise(part, path.unknowns, path.parameters)))
    return gather(ended), steps, settled


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
        unknowns, parameters: (B, N) and (B, P).
        weights: of data and physics.
        objective, data, physics: (B,) see `_State`.
        inverse: (B, N + P, N + P) of the normal matrix.
        freedom: (B,) observations less the effective number of unknowns.
        evidence: (B,) minus twice its logarithm, less a constant.
        iterations: (B,) steps taken.
        converged: (B,) whether one more step would gain nothing.
    """

    unknowns: Tensor
    parameters: Tensor
    weights: Weights
    objective: Tensor
    data: Tensor
    physics: Tensor
    inverse: Tensor
    freedom: Tensor
    evidence: Tensor
    iterations: Tensor
    converged: Tensor


@dataclass(frozen=True)
class _Posterior:
    """What the normal matrices tell at the end of a search.

    Args:
        inverse: (B, N + P, N + P) of them.
        determinant: (B,) logarithms of their determinants.
        used: (B,) number of observations that the unknowns use up.
        sound: (B,) whether they are positive definite.
        depends: (B, P) how much of estimate or error bar stands or falls with the level of the residual: the shift in
            error bars when the equation is met exactly, or half the share of the residual in the variance.
    """

    inverse: Tensor
    determinant: Tensor
    used: Tensor
    sound: Tensor
    depends: Tensor


def _posterior(online: Online, state: _State, weights: Weights) -> _Posterior:
    """See `_Posterior`."""
    width = online.data_root.shape[2]
    found = _Posterior(
        inverse=torch.empty_like(state.normal_physics),
        determinant=torch.empty_like(state.data),
        used=torch.empty_like(state.data),
        sound=torch.empty_like(state.data, dtype=torch.bool),
        depends=torch.empty_like(state.parameters),
    )
    for part in _chunks(found.inverse):
        some, here, by = online.select(part), select(state, part), select(weights, part)
        normal, scale = _normal(some, here, by)
        factor, faults = torch.linalg.cholesky_ex(normal)
        inverse = torch.cholesky_inverse(factor, out=found.inverse[part]).mul_(scale[:, None]).mul_(scale[..., None])
        by_physics, rows = by.physics.square()[:, None], inverse[:, width:]
        variance = rows[..., width:].diagonal(dim1=1, dim2=2)
        shift = by_physics * (rows @ here.gradient_physics[..., None]).squeeze(2)
        share = by_physics * ((rows @ here.normal_physics) * rows).sum(2) / variance
        found.determinant[part] = 2 * (factor.diagonal(dim1=1, dim2=2).log() - scale.log()).sum(1)
        found.used[part] = (some.data_normal * inverse[:, :width, :width]).sum((1, 2)) * by.data.square()
        found.sound[part] = faults == 0
        found.depends[part] = torch.maximum(shift.abs() / variance.sqrt(), share / 2) * some.free
    return found


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


def _fit(
    online: Online,
    state: _State,
    first: _Variances,
    floors: tuple[Tensor | None, Tensor],
    usual: Tensor,
    settings: GaussNewtonSettings,
    rounds: int = _ROUNDS,
) -> _Found:
    """Search and both variances in turn, only those queries again whose variances still move.

    Args:
        online: the batch.
        state: where to start.
        first: variances to start with.
        floors: (B,) smallest noise, None if the noise is given, and smallest level.
        usual: (B,) residual of a solution in the basis.
        settings: of the solver.
        rounds: variances to try at most.
    """
    width, queries = online.data_root.shape[2], len(online)
    size = state.normal_physics.diagonal(dim1=1, dim2=2).sum(1).sqrt()
    stiffest = STIFFEST * online.data_root.square().sum((1, 2)).sqrt() / size
    std, level, best = first.std, first.level, first.tried
    rows, rose = torch.arange(queries), torch.zeros(queries, dtype=torch.bool)
    iterations = torch.zeros(queries, dtype=torch.long)
    ended: list[tuple[Tensor, _Found]] = []
    for number in range(rounds):
        part, final = online.select(rows), width**0.5 / level
        if settings.physics_weight is not None:
            final = torch.full_like(final, settings.physics_weight**0.5)
        weights = Weights(1 / std, torch.minimum(final, stiffest[rows] / std))
        state, steps, settled = _search(part, state, weights, settings.iterations)
        iterations[rows] += steps
        posterior = _posterior(part, state, weights)
        counts = part.counts.sum(1)
        freedom = counts - posterior.used
        updated, asked = std, level
        if floors[0] is not None:
            updated = ((state.data + part.data_rest.sum(1)) / freedom.clamp_min(1.0)).sqrt().maximum(floors[0][rows])
        if settings.physics_weight is None:
            taken = (posterior.used - part.free.sum(1)).clamp_min(1.0)
            asked = (state.physics * width / taken).sqrt().maximum(floors[1][rows])
        pull = (asked / level).log()
        objective = state.objective(weights) + part.data_rest.sum(1) * weights.data.square()
        evidence = objective + posterior.determinant
        evidence -= 2 * (counts * weights.data.log() + width * weights.physics.log())
        # too low a level forces the equation on the data, whose misfit is then taken for noise or left
        worse = evidence > best[0] + _LOSS
        best = torch.where(worse, best, torch.stack([evidence, std, level]))
        # far above the level sought the evidence asks for a small part of the way
        falls = ~rose & (pull < 0)
        lower = torch.where(falls, level * _FALL, asked).maximum(floors[1][rows])
        calm = (posterior.depends < _CALM).all(1) & (state.physics.sqrt() < _MET * usual[rows])
        moved = ((pull.abs() > _LEVEL_CHANGE) | (falls & (level > floors[1][rows]))) & ~calm
        # both variances by one factor: the same estimate, larger or smaller error bars
        factor = updated / std
        noisier = factor.log().abs() > _NOISE_CHANGE
        rescaled = noisier & calm & (factor.log().abs() < _RESCALED) & (not part.priors.informative)
        moved |= (noisier & ~rescaled) | worse
        done = ~moved | (number == rounds - 1)
        factor = torch.where(rescaled & done, factor, 1.0)
        weights = Weights(weights.data / factor, weights.physics / factor)
        posterior.inverse.mul_(factor.square()[:, None, None])
        found = _Found(
            unknowns=state.unknowns,
            parameters=state.parameters,
            weights=weights,
            objective=objective / factor.square(),
            data=state.data,
            physics=state.physics,
            inverse=posterior.inverse,
            freedom=freedom,
            evidence=evidence,
            iterations=iterations[rows],
            converged=settled & posterior.sound,
        )
        ended.append((rows[done], select(found, done)))
        rows = rows[~done]
        rose = (rose | (pull > 0) | worse)[~done]
        std, level = torch.where(worse, best[1], updated)[~done], torch.where(worse, best[2], lower)[~done]
        best, state = best[:, ~done], select(state, ~done)
        if not len(rows):
            break
    return gather(ended)


def _solution(online: Online, found: _Found, usual: Tensor) -> Solution:
    """The outcome as that of a solver."""
    width, rest = found.unknowns.shape[1], online.data_rest.sum(1)
    return Solution(
        parameters=found.parameters,
        covariance=found.inverse[:, width:, width:] * online.free[:, None] * online.free[..., None],
        readouts=found.unknowns @ online.physics.coordinates.T,
        readout_covariance=online.physics.readout_covariance(found.inverse[:, :width, :width]),
        noise_std=1 / found.weights.data,
        objective=found.objective,
        physics=found.physics / usual.square(),
        misfit=found.data + rest,
        freedom=found.freedom,
        free_misfit=rest,
        free_freedom=online.free_freedom,
        iterations=found.iterations,
        converged=found.converged,
    )


def joint_gauss_newton(
    online: Online,
    accuracy: Accuracy,
    settings: GaussNewtonSettings,
    noise_std: Tensor | None,
    optional: Tensor | None = None,
) -> Solution:
    """Estimates of all queries of a batch, the equations taken at points.

    Minimises data misfit / noise² + N × mean squared residual / level², N the number of unknowns. The level
    of the residual is the one that the basis reached in validation, or a higher one where the evidence of
    the query's own data asks for it (outside the trained range the basis is less accurate).

    The first functions of the basis are searched first: a cheap problem, whose solution is near enough for the steps
    of Gauss and Newton to converge with all functions and an equation as strong as the basis can meet it.

    Reference: MacKay, Neural Computation 4 (1992) 415, for both variances.

    Args:
        online: the batch.
        accuracy: of the basis: smallest level of the residual and smallest noise that make sense.
        settings: of the solver.
        noise_std: (B,) standard deviation of the errors in units of the data weights, basis error included;
            None to estimate it.
        optional: (P,) true for parameters that are set to zero where the data do not ask for them.
    """
    floor = accuracy.floor * online.amplitude
    floors = (floor if noise_std is None else None, accuracy.level * online.amplitude)
    usual = accuracy.residual * online.amplitude
    # with few functions the many terms of a library fit anything
    part = online if online.physics.coarse is None or optional is not None else online.coarse
    smoothed = smooth(part, noise_std)
    std = smoothed.noise_std if noise_std is not None else torch.maximum(smoothed.noise_std, floor)
    state = _linearise(part, smoothed.mean, _start(part, smoothed))
    # From a weak equation to a strong one: the other way round the search would be slow until the level rose. Where
    # the observations outnumber the readouts the misfit tells a level that is too low, and the way may be short.
    enough = online.free_freedom > 0
    level = state.physics.sqrt() * torch.where(enough, _FALL, 1.0)
    first = _Variances.untried(std, level.maximum(floors[1]))
    width = part.data_root.shape[2]
    found = _fit(part, state, first, floors, usual, settings, _ROUNDS if part is online else 1)
    if part is not online:
        coarse, width = found, online.data_root.shape[2]
        std, level = 1 / coarse.weights.data, part.data_root.shape[2] ** 0.5 / coarse.weights.physics
        below = torch.where(enough, torch.minimum(level, _FIRST_LEVEL * usual), level).maximum(floors[1])
        first = _Variances(std, below, torch.stack([coarse.evidence, std, level]))
        state = _linearise(online, coarse.unknowns @ online.physics.embedding.T, coarse.parameters)
        found = _fit(online, state, first, floors, usual, settings)
        found = replace(found, iterations=found.iterations + coarse.iterations)
    if optional is not None:
        covariance = found.inverse[:, width:, width:] * online.free[:, None] * online.free[..., None]
        may = optional & online.known.isnan()
        dropped = _prune(found.parameters, covariance, may, online.counts.sum(1).log())
        online = replace(online, known=torch.where(dropped, 0.0, online.known))
        state = _linearise(online, found.unknowns, torch.where(dropped, 0.0, found.parameters))
        std, level = 1 / found.weights.data, width**0.5 / found.weights.physics
        again = _fit(online, state, _Variances.untried(std, level), floors, usual, settings)
        found = replace(again, iterations=again.iterations + found.iterations)
    return _solution(online, found, usual)
