"""Online inference for equations without an affine split: readouts and parameters by Gauss-Newton together.

The weight of the equation is raised in stages from what a smooth fit of the data meets to what the basis
can, so that the search never has to follow a narrow curved valley from afar.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ipbasis.basis.artefact import Accuracy
from ipbasis.inverse.assemble import Online, PointwisePhysics
from ipbasis.inverse.gauss_newton import STIFFEST, GaussNewtonSettings, Weights
from ipbasis.inverse.rows import overwrite, select, unwritten
from ipbasis.inverse.smoothing import Smooth, smooth
from ipbasis.inverse.solution import Solution

_ROUNDS, _COARSE_ROUNDS = 20, 3
_STAGE = 4.0  # factor on the root of the physics weight after each accepted step
_START_ITERATIONS = 3
_GAIN = 1e-2  # decrease of the objective, in units of χ², that is not worth a step
_LAST_GAIN = 0.1  # decrease after which the next step, of quadratic convergence, is not worth it
_LIGHT, _CAREFUL = 1.0, 1e-2  # damping below which a step is nearly that of Gauss and Newton, or may rise
_RISES = 2  # steps in a row that may rise
_IN_CACHE = 2**18  # entries of the normal matrices that are worked on at once
_NOISE_CHANGE, _LEVEL_CHANGE = 0.04, 0.1  # of the logarithms of noise and level, that call for another search
_CALM = 0.03  # change of estimates in error bars, and of error bars, at which the level no longer matters
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


def _search(
    online: Online, state: _State, first: Tensor, weights: Weights, iterations: int
) -> tuple[_State, Tensor, Tensor]:
    """Levenberg-Marquardt on unknowns and parameters, the physics weight raised in stages.

    A strong equation makes a curved valley of the objective, where a good step rises before the next one falls:
    only after a few rises does the search go back and take shorter steps.

    Args:
        online: the batch.
        state: where to start.
        first: (B,) root of the physics weight to start with.
        weights: the weights to end with.
        iterations: steps at most.

    Returns:
        the state at the end, steps taken (B,), and whether one more step would gain nothing (B,).

    Reference: Chamberlain, Powell, Lemarechal & Pedersen, Math. Program. Study 16 (1982) 1.
    """
    width = state.unknowns.shape[1]
    end, steps = unwritten(state), torch.zeros(len(online), dtype=torch.long)
    settled = torch.zeros(len(online), dtype=torch.bool)
    active, part, final = torch.arange(len(online)), online, weights
    near = first * _STAGE >= final.physics
    current = replace(final, physics=torch.where(near, final.physics, first))
    lowest, none = state.objective(current), torch.zeros_like(settled)
    path = _Path(state.unknowns, state.parameters, lowest, none.long(), none, torch.full_like(first, 1e-4))

    def without(done: Tensor, at_rest: Tensor, *others: Tensor) -> tuple:
        """The queries that are not done."""
        nonlocal active, part, state, current, final, path
        if not done.any():
            return others
        settled[active[done]] = at_rest[done]
        overwrite(end, active[done], select(state, done))
        kept = ~done
        active, part, state = active[kept], part.select(kept), select(state, kept)
        current, final, path = select(current, kept), select(final, kept), select(path, kept)
        return tuple(other[kept] for other in others)

    for _ in range(iterations):
        step, predicted = _step(part, state, current, path.damping)
        steady, last = (path.rises == 0) & ~path.back, current.physics >= final.physics
        # a step that the damping holds back predicts less than there is to gain
        still = steady & (predicted < _GAIN) & (path.damping < _LIGHT)
        step, still, last = without(last & (still | (steady & (path.damping > 1e8))), still, step, still, last)
        if not len(active):
            break
        moved = part.priors.clip(state.parameters + step[:, width:])
        moved = torch.where(part.free > 0, moved, state.parameters)
        back, goal = path.back[:, None], state.unknowns + step[:, :width]
        state = _linearise(part, torch.where(back, path.unknowns, goal), torch.where(back, path.parameters, moved))
        steps[active] += 1
        objective = state.objective(current).nan_to_num(torch.inf)
        gain = path.lowest - objective
        better = gain > 0
        raised = (better | still) & ~last
        weight = torch.minimum(current.physics * _STAGE, final.physics)
        current = replace(current, physics=torch.where(raised, weight, current.physics))
        keeps = better | raised
        rises = torch.where(keeps | path.back, 0, path.rises + 1)
        lost = (rises > torch.where(path.damping < _CAREFUL, _RISES, 0)) | objective.isinf()
        damping = torch.where(lost, path.damping.clamp_min(1e-6) * 100, path.damping)
        path = _Path(
            unknowns=torch.where(keeps[:, None], state.unknowns, path.unknowns),
            parameters=torch.where(keeps[:, None], state.parameters, path.parameters),
            lowest=torch.where(raised, state.objective(current), torch.where(better, objective, path.lowest)),
            rises=torch.where(lost, 0, rises),
            back=lost,
            damping=torch.where(better, damping / 10, damping).clamp(1e-16, 1e12),
        )
        rest = last & better & (gain < _LAST_GAIN) & (path.damping < _LIGHT)
        without(rest, rest)
        if not len(active):
            break
    if len(active):
        overwrite(end, active, _linearise(part, path.unknowns, path.parameters))
    return end, steps, settled


def _start(online: Online, smoothed: Smooth) -> Tensor:
    """(B, P) parameters without a guess: least squares on the residual of a smooth fit, by its error bars."""
    physics: PointwisePhysics = online.physics
    low, high = online.ranges.T
    middle = torch.where(online.priors.std.isfinite(), online.priors.mode, (low + high) / 2).expand_as(online.known)
    parameters = torch.where(online.known.isnan(), middle, online.known)
    for _ in range(_START_ITERATIONS):
        residual, by_jet, by_parameter = physics.linearised(smoothed.mean, parameters)
        variance = smoothed.variance(physics, by_jet)
        weight = physics.root * variance.clamp_min(1e-6 * variance.amax((1, 2), keepdim=True)).rsqrt()
        rows = (by_parameter * weight[:, :, None]).transpose(2, 3).flatten(1, 2) * online.free[:, None]
        size = rows.norm(dim=1).clamp_min(torch.finfo(rows.dtype).tiny)
        ridge = 1e-8 * torch.eye(rows.shape[2], dtype=rows.dtype).expand(len(rows), -1, -1)
        right = torch.nn.functional.pad(-(residual * weight).flatten(1), (0, rows.shape[2]))
        step = torch.linalg.lstsq(torch.cat([rows / size[:, None], ridge], dim=1), right[..., None]).solution.squeeze(2)
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
    """Outcome of `_fit`, see `Solution`."""

    state: _State
    weights: Weights
    inverse: Tensor
    freedom: Tensor
    iterations: Tensor
    converged: Tensor


def _posterior(online: Online, state: _State, weights: Weights) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the normal matrices tell at the end of a search.

    Returns:
        inverses (B, N + P, N + P), logarithms of the determinants (B,), number (B,) of observations that the unknowns
        use up, and whether the matrices are positive definite (B,).
    """
    width = online.data_root.shape[2]
    inverse, determinant = torch.empty_like(state.normal_physics), torch.empty_like(state.data)
    used, sound = torch.empty_like(state.data), torch.empty_like(state.data, dtype=torch.bool)
    for part in _chunks(inverse):
        some = online.select(part)
        normal, scale = _normal(some, select(state, part), select(weights, part))
        factor, faults = torch.linalg.cholesky_ex(normal)
        own = torch.cholesky_inverse(factor).mul_(scale[:, None]).mul_(scale[..., None])
        used[part] = (some.data_normal * own[:, :width, :width]).sum((1, 2))
        determinant[part] = 2 * (factor.diagonal(dim1=1, dim2=2).log() - scale.log()).sum(1)
        inverse[part], sound[part] = own, faults == 0
    return inverse, determinant, used * weights.data.square(), sound


def _fit(
    online: Online,
    state: _State,
    variances: tuple[Tensor, Tensor],
    floors: tuple[Tensor | None, Tensor],
    usual: Tensor,
    settings: GaussNewtonSettings,
    rounds: int = _ROUNDS,
) -> _Found:
    """Search and both variances in turn, only those queries again whose variances still move.

    Args:
        online: the batch.
        state: where to start.
        variances: (B,) first noise and first level of the residual.
        floors: (B,) smallest noise, None if the noise is given, and smallest level.
        usual: (B,) level up to which the equation counts as met.
        settings: of the solver.
        rounds: variances to try at most.
    """
    width, queries = online.data_root.shape[2], len(online)
    size = state.normal_physics.diagonal(dim1=1, dim2=2).sum(1).sqrt()
    stiffest = STIFFEST * online.data_root.square().sum((1, 2)).sqrt() / size
    std, level = variances
    found = _Found(
        state=unwritten(state),
        weights=Weights(1 / std, width**0.5 / level),
        inverse=torch.zeros_like(state.normal_physics),
        freedom=online.counts.sum(1).double(),
        iterations=torch.zeros(queries, dtype=torch.long),
        converged=torch.zeros(queries, dtype=torch.bool),
    )
    rows, begin, before = torch.arange(queries), width**0.5 / level, None
    rose = torch.zeros(queries, dtype=torch.bool)
    best = torch.stack([torch.full_like(level, torch.inf), std, level])
    for number in range(rounds):
        part, final = online.select(rows), width**0.5 / level
        if settings.physics_weight is not None:
            final = torch.full_like(final, settings.physics_weight**0.5)
        weights = Weights(1 / std, torch.minimum(final, stiffest[rows] / std))
        state, steps, settled = _search(part, state, begin, weights, settings.iterations)
        found.iterations[rows] += steps
        inverse, determinant, used, sound = _posterior(part, state, weights)
        freedom = part.counts.sum(1) - used
        updated, asked = std, level
        if floors[0] is not None:
            updated = ((state.data + part.data_rest.sum(1)) / freedom.clamp_min(1.0)).sqrt().maximum(floors[0][rows])
        if settings.physics_weight is None:
            asked = (state.physics * width / (used - part.free.sum(1)).clamp_min(1.0)).sqrt().maximum(floors[1][rows])
        pull = (asked / level).log()
        evidence = state.objective(weights) + part.data_rest.sum(1) * weights.data.square()
        evidence += determinant
        evidence -= 2 * (part.counts.sum(1) * weights.data.log() + width * weights.physics.log())
        # too low a level forces the equation on the data, whose misfit is then taken for noise or left
        worse = evidence > best[0] + _LOSS
        best = torch.where(worse, best, torch.stack([evidence, std, level]))
        # far above the level sought the evidence asks for a small part of the way
        falls = ~rose & (pull < 0)
        lower = torch.where(falls, level * _FALL, asked).maximum(floors[1][rows])
        errors = inverse[:, width:, width:].diagonal(dim1=1, dim2=2).sqrt()
        moved = (pull.abs() > _LEVEL_CHANGE) | (falls & (level > floors[1][rows]))
        if before is not None:
            shift = (state.parameters - before[0]).abs() / errors
            calm = (shift < _CALM) & ((errors / before[1]).log().abs() < _CALM)
            moved &= ~((calm | (part.free == 0)).all(1) & (level < usual[rows]))
        moved |= ((updated / std).log().abs() > _NOISE_CHANGE) | worse
        done = ~moved | (number == rounds - 1)
        at = rows[done]
        overwrite(found.state, at, select(state, done))
        found.weights.data[at], found.weights.physics[at] = weights.data[done], weights.physics[done]
        found.inverse[at], found.freedom[at] = inverse[done], freedom[done]
        found.converged[at] = (settled & sound)[done]
        rows, begin, before = rows[~done], weights.physics[~done], (state.parameters[~done], errors[~done])
        rose = (rose | (pull > 0) | worse)[~done]
        std, level = torch.where(worse, best[1], updated)[~done], torch.where(worse, best[2], lower)[~done]
        best, state = best[:, ~done], select(state, ~done)
        if not len(rows):
            break
    return found


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
    # from a weak equation to a strong one: the other way round the search would be slow until the level rose
    level = state.physics.sqrt().maximum(floors[1])
    rounds = _ROUNDS if part is online else _COARSE_ROUNDS
    found = _fit(part, state, (std, level), floors, usual, settings, rounds)
    iterations = found.iterations
    if part is not online:
        level = part.data_root.shape[2] ** 0.5 / found.weights.physics
        state = _linearise(online, found.state.unknowns @ online.physics.embedding.T, found.state.parameters)
        level = torch.maximum(level, floors[1])
        found = _fit(online, state, (1 / found.weights.data, level), floors, usual, settings)
        iterations = iterations + found.iterations
    width = online.data_root.shape[2]
    if optional is not None:
        covariance = found.inverse[:, width:, width:] * online.free[:, None] * online.free[..., None]
        may = optional & online.known.isnan()
        dropped = _prune(found.state.parameters, covariance, may, online.counts.sum(1).log())
        online = replace(online, known=torch.where(dropped, 0.0, online.known))
        parameters = torch.where(dropped, 0.0, found.state.parameters)
        state = _linearise(online, found.state.unknowns, parameters)
        level = width**0.5 / found.weights.physics
        found = _fit(online, state, (1 / found.weights.data, level), floors, usual, settings)
        iterations = iterations + found.iterations
    state, weights, inverse = found.state, found.weights, found.inverse
    rest, coordinates = online.data_rest.sum(1), online.physics.coordinates
    return Solution(
        parameters=state.parameters,
        covariance=inverse[:, width:, width:] * online.free[:, None] * online.free[..., None],
        readouts=state.unknowns @ coordinates.T,
        readout_covariance=coordinates @ inverse[:, :width, :width] @ coordinates.T,
        noise_std=1 / weights.data,
        objective=state.objective(weights) + rest * weights.data.square(),
        physics=state.physics / (accuracy.residual * online.amplitude).square(),
        misfit=state.data + rest,
        freedom=found.freedom,
        free_misfit=rest,
        free_freedom=online.free_freedom,
        iterations=iterations,
        converged=found.converged,
    )
