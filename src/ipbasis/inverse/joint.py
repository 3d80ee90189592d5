"""Online inference for equations without an affine split: readouts and parameters by Gauss-Newton together.

The weight of the equation is raised in stages from what a smooth fit of the data meets to what the basis
can, so that the search never has to follow a narrow curved valley from afar.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ipbasis.basis.artefact import Accuracy
from ipbasis.inverse.assemble import Online, PointwisePhysics
from ipbasis.inverse.gauss_newton import STIFFEST, GaussNewtonSettings, Weights
from ipbasis.inverse.rows import merge, put, select
from ipbasis.inverse.smoothing import Smooth, smooth
from ipbasis.inverse.solution import Solution

_ROUNDS = 20
_STAGE = 4.0  # factor on the root of the physics weight after each accepted step
_START_ITERATIONS = 3
_CHANGE = 0.02  # of the logarithm of a variance's root that calls for another search
_GAIN = 1e-3  # decrease of the objective, in units of χ², that is not worth a step
_LIGHT = 1.0  # damping
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
    residual = residual.flatten(1)
    columns = [physics.spread(by_jet).flatten(1, 2), by_parameter.transpose(2, 3).flatten(1, 2) * online.free[:, None]]
    matrix = torch.cat(columns, dim=2)
    misfit = (online.data_root @ unknowns[..., None]).squeeze(2) - online.data_target
    by_data = (online.data_root.mT @ misfit[..., None]).squeeze(2)
    conditions = unknowns @ physics.condition_rows.T - physics.condition_target
    rows, target, counts = online.given_initial
    initial = (unknowns @ rows.T - target) * counts
    normal = matrix.mT @ matrix
    gradient = (matrix.mT @ residual[..., None]).squeeze(2)
    width = unknowns.shape[1]
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
        gradient_data=torch.nn.functional.pad(by_data, (0, parameters.shape[1])),
        gradient_physics=gradient,
        gradient_priors=torch.nn.functional.pad(distance * slope, (width, 0)),
        normal_physics=normal,
        normal_priors=torch.nn.functional.pad(slope.square(), (width, 0)),
    )


def _normal(online: Online, state: _State, data: Tensor, physics: Tensor) -> tuple[Tensor, Tensor]:
    """Normal matrix (B, N + P, N + P) scaled to a diagonal of one, and the scale (B, N + P).

    Args:
        online: the batch.
        state: where the physics is linearised.
        data, physics: (B,) roots of the weights.
    """
    width = online.data_root.shape[2]
    normal = state.normal_physics * physics.square()[:, None, None]
    normal[:, :width, :width] += online.data_normal * data.square()[:, None, None]
    normal.diagonal(dim1=1, dim2=2).add_(state.normal_priors)
    diagonal = normal.diagonal(dim1=1, dim2=2)
    scale = torch.where(diagonal > 0, diagonal, torch.ones_like(diagonal)).rsqrt()
    normal = normal * scale[:, None] * scale[..., None]
    normal.diagonal(dim1=1, dim2=2).copy_(torch.ones_like(scale) + 4 * normal.shape[1] * _EPSILON)
    return normal, scale


def _search(
    online: Online, state: _State, first: Tensor, weights: Weights, iterations: int
) -> tuple[_State, Tensor, Tensor]:
    """Levenberg-Marquardt on unknowns and parameters, the physics weight raised in stages.

    Args:
        online: the batch.
        state: where to start.
        first: (B,) root of the physics weight to start with.
        weights: the weights to end with.
        iterations: steps at most.

    Returns:
        the state at the end, steps taken (B,), and whether one more step would gain nothing (B,).
    """
    width = state.unknowns.shape[1]
    end, steps = state, torch.zeros(len(online), dtype=torch.long)
    settled = torch.zeros(len(online), dtype=torch.bool)
    active, part, final = torch.arange(len(online)), online, weights
    near = first * _STAGE >= final.physics
    current = replace(final, physics=torch.where(near, final.physics, first))
    damping = torch.full_like(first, 1e-4)
    for _ in range(iterations):
        normal, scale = _normal(part, state, current.data, current.physics)
        gradient = state.gradient(current)
        held = torch.nn.functional.pad(part.priors.blocked(state.parameters, gradient[:, width:]), (width, 0))
        normal = normal.masked_fill(held[:, None] | held[..., None], 0.0)
        gradient = gradient.masked_fill(held, 0.0)
        normal.diagonal(dim1=1, dim2=2).add_(damping[:, None] + held)
        factor, _ = torch.linalg.cholesky_ex(normal)
        step = -scale * torch.cholesky_solve((scale * gradient)[..., None], factor).squeeze(2)
        step = step.nan_to_num(0.0, 0.0, 0.0)
        predicted = -(step * gradient).sum(1)
        moved = part.priors.clip(state.parameters + step[:, width:])
        moved = torch.where(part.free > 0, moved, state.parameters)
        trial = _linearise(part, state.unknowns + step[:, :width], moved)
        objective = state.objective(current)
        better = trial.objective(current).nan_to_num(torch.inf) < objective
        state = merge(state, trial, better)
        damping = torch.where(better, damping / 10, damping * 10).clamp(1e-16, 1e12)
        steps[active] += 1
        last = current.physics >= final.physics
        # a step that the damping holds back predicts less than there is to gain
        still = (predicted < _GAIN + 1e-9 * objective) & (damping < _LIGHT)
        done = last & (still | (damping > 1e8))
        current = replace(
            current,
            physics=torch.where(
                better | still, torch.minimum(current.physics * _STAGE, final.physics), current.physics
            ),
        )
        if done.any():
            rows = active[done]
            settled[rows] = still[done]
            end = put(end, rows, select(state, done))
            kept = ~done
            active, part, state, damping = active[kept], part.select(kept), select(state, kept), damping[kept]
            current, final = select(current, kept), select(final, kept)
            if not len(active):
                break
    return put(end, active, state), steps, settled


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


def _fit(
    online: Online,
    state: _State,
    std: Tensor,
    level: Tensor,
    floors: tuple[Tensor | None, Tensor],
    settings: GaussNewtonSettings,
) -> _Found:
    """Search and both variances in turn, only those queries again whose variances still move.

    Args:
        online: the batch.
        state: where to start.
        std, level: (B,) first noise and first level of the residual.
        floors: (B,) smallest noise, None if the noise is given, and smallest level.
        settings: of the solver.
    """
    width = online.data_root.shape[2]
    size = state.normal_physics.diagonal(dim1=1, dim2=2).sum(1).sqrt()
    stiffest = STIFFEST * online.data_root.square().sum((1, 2)).sqrt() / size
    first = width**0.5 / state.physics.sqrt().maximum(level)
    std, level = std.clone(), level.clone()
    queries = len(online)
    iterations, converged = torch.zeros(queries, dtype=torch.long), torch.zeros(queries, dtype=torch.bool)
    inverse = torch.zeros_like(state.normal_physics)
    freedom, rest = online.counts.sum(1).double(), online.data_rest.sum(1)
    final = Weights(1 / std, first)
    rows = torch.arange(queries)
    for _ in range(_ROUNDS):
        part, at = online.select(rows), select(state, rows)
        physics = width**0.5 / level[rows]
        if settings.physics_weight is not None:
            physics = torch.full_like(physics, settings.physics_weight**0.5)
        weights = Weights(1 / std[rows], torch.minimum(physics, stiffest[rows] / std[rows]))
        at, steps, converged[rows] = _search(part, at, first[rows], weights, settings.iterations)
        state = put(state, rows, at)
        iterations[rows] += steps
        first[rows] = weights.physics
        final.data[rows], final.physics[rows] = weights.data, weights.physics
        normal, scale = _normal(part, at, weights.data, weights.physics)
        factor, faults = torch.linalg.cholesky_ex(normal)
        converged[rows] &= faults == 0
        inverse[rows] = torch.cholesky_inverse(factor) * scale[:, None] * scale[..., None]
        used = (part.data_normal * inverse[rows, :width, :width]).sum((1, 2)) * weights.data.square()
        freedom[rows] = part.counts.sum(1) - used
        updated = std[rows]
        if floors[0] is not None:
            updated = ((at.data + rest[rows]) / freedom[rows].clamp_min(1.0)).sqrt().maximum(floors[0][rows])
        risen = (at.physics * width / (used - part.free.sum(1)).clamp_min(1.0)).sqrt().maximum(floors[1][rows])
        if settings.physics_weight is not None:
            risen = level[rows]
        moved = torch.maximum((updated / std[rows]).log().abs(), (risen / level[rows]).log().abs()) > _CHANGE
        std[rows[moved]], level[rows[moved]] = updated[moved], risen[moved]
        rows = rows[moved]
        if not len(rows):
            break
    return _Found(state, final, inverse, freedom, iterations, converged)


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
    smoothed = smooth(online, noise_std)
    width = online.data_root.shape[2]
    floor = accuracy.floor * online.amplitude
    std = smoothed.noise_std if noise_std is not None else torch.maximum(smoothed.noise_std, floor)
    floors = (floor if noise_std is None else None, accuracy.level * online.amplitude)
    state = _linearise(online, smoothed.mean, _start(online, smoothed))
    # from a weak equation to a strong one: the other way round the search would be slow until the level rose
    found = _fit(online, state, std, state.physics.sqrt().maximum(floors[1]), floors, settings)
    iterations = found.iterations
    if optional is not None:
        covariance = found.inverse[:, width:, width:] * online.free[:, None] * online.free[..., None]
        may = optional & online.known.isnan()
        dropped = _prune(found.state.parameters, covariance, may, online.counts.sum(1).log())
        online = replace(online, known=torch.where(dropped, 0.0, online.known))
        parameters = torch.where(dropped, 0.0, found.state.parameters)
        state = _linearise(online, found.state.unknowns, parameters)
        level = width**0.5 / found.weights.physics
        found = _fit(online, state, 1 / found.weights.data, level, floors, settings)
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
