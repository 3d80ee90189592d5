"""Online inference in closed form: readouts eliminated, parameters by Levenberg-Marquardt, all queries at once."""

import torch
from torch import Tensor

from ipbasis.offline.artefact import Accuracy
from ipbasis.search.elimination import Point, eliminate, reduced_jacobian
from ipbasis.search.marginal import Marginal, marginal
from ipbasis.search.online import Online
from ipbasis.search.own_term import OwnTerm, own_term, worst_objective
from ipbasis.search.rows import chunks, gather, merge, put, select
from ipbasis.search.settings import GaussNewtonSettings
from ipbasis.search.solution import Solution
from ipbasis.search.starts import best_start
from ipbasis.search.steps import damped_step, parameter_covariance
from ipbasis.search.weights import Weights, weights_for

_FIRST_NOISE = 1e-2  # relative, of a search that begins at an estimate and is to find it
_NOISE_ROUNDS = 8  # at most: the noise settles within a few
_SETTLED = 1e-2  # relative change of the noise, itself known to no better than a few percent
_CONVERGED = 1e-2  # gain of one more step, in units of χ², up to which the end is an optimum: 0.1 error bars
_GAIN = 1e-4  # decrease of the objective, in units of χ², that is not worth a step: see `GaussNewtonSettings`
# Starts are rough, so the first steps are damped a little; in later rounds they are next to those of Gauss and Newton.
_ROUGH, _UNDAMPED = 1e-3, 1e-9
_HOPELESS = 1e8  # damping, at which a step is too short to move an estimate
_POOR, _GOOD = 0.4, 0.9  # share of the predicted decrease that came about, at which the damping rises or falls
_NEAR = 0.5  # of the worst that the physics may leave of itself, from which on that may be why a search ends
_STEPS, _SHORTEST = 10, 1e-3  # to settle, at most, and share of a step that is tried at least
_EPSILON, _TINY = torch.finfo(torch.float64).eps, torch.finfo(torch.float64).tiny


def _minimise(
    online: Online, start: Tensor, weights: Weights, accuracy: Accuracy, settings: GaussNewtonSettings, first: float
) -> tuple[Tensor, Tensor]:
    """Levenberg-Marquardt from given parameters with a first damping; returns parameters and steps taken."""
    width = online.ranges[:, 1] - online.ranges[:, 0]
    tolerance = _GAIN if settings.tolerance is None else settings.tolerance
    parameters = start.clone()
    damping = torch.full_like(online.amplitude, first)
    steps = torch.zeros(len(online), dtype=torch.long)
    active = torch.arange(len(online))
    part, part_weights = online, weights
    point = eliminate(part, parameters, part_weights)
    own = own_term(part, parameters, part_weights, accuracy)
    for _ in range(settings.iterations):
        jacobian = reduced_jacobian(part, point, part_weights)
        scaled, scaled_own = jacobian * width, own.scaled(width)
        gradient = (scaled.mT @ point.residual[..., None]).squeeze(2) - scaled_own.gradient
        free = part.free * ~part.priors.blocked(point.parameters, gradient)
        scaled = scaled * free[:, None]
        scaled_own = scaled_own.scaled(free)
        step = damped_step(part, free, scaled, point.residual, scaled_own, damping[active]).nan_to_num(0.0, 0.0, 0.0)
        # no more than one width of the range at a time
        step = step / step.abs().amax(1, keepdim=True).clamp_min(1.0)
        moved = torch.where(free > 0, part.priors.clip(point.parameters + step * width), point.parameters)
        step = (moved - point.parameters) / width
        change = (scaled @ step[..., None]).squeeze(2)
        predicted = scaled_own.change(step) - (change * (2 * point.residual + change)).sum(1)
        trial = eliminate(part, moved, part_weights)
        trial_own = own_term(part, trial.parameters, part_weights, accuracy)
        gain = (point.objective - own.objective) - (trial.objective - trial_own.objective)
        better = gain > 0
        parameters[active[better]] = trial.parameters[better]
        came = gain / predicted.clamp_min(_TINY)
        factor = torch.where(came > _GOOD, 0.1, torch.where(came > _POOR, 1.0, 10.0))
        damping[active] = (damping[active] * factor).clamp(1e-20, 1e12)
        steps[active] += 1
        # a step that the damping holds back predicts less than there is to gain
        least = torch.where(damping[active] <= _UNDAMPED, tolerance, 1e-3 * tolerance)
        # by the noise that the misfit tells: the first one is far too small
        small = least * (point.objective / part.counts.sum(1)).clamp_min(1.0) + 1e-13 * point.objective
        done = (predicted.abs() < small) | (damping[active] > _HOPELESS)
        if done.all():
            break
        kept = ~done
        active = active[kept]
        point, own = merge(point, trial, better), merge(own, trial_own, better)
        if done.any():
            part, part_weights = part.select(kept), select(part_weights, kept)
            point, own = select(point, kept), select(own, kept)
    return parameters, steps


def _misfit(online: Online, point: Point, weights: Weights) -> tuple[Tensor, Tensor]:
    """(B,) squared data misfit in units of the data weights, and observations less the effective unknowns."""
    inside = point.residual[:, : online.data_target[0].numel()].square().sum(1) / weights.data.square()
    used = online.data_trace(point.solver.inverse).sum(1) * weights.data.square() + online.free.sum(1)
    if online.priors.informative:  # what a distribution tells of a parameter the data need not
        jacobian = reduced_jacobian(online, point, weights)
        width = online.ranges[:, 1] - online.ranges[:, 0]
        none = online.amplitude.new_zeros(len(online), len(width))
        own = OwnTerm(none[:, 0], none, torch.diag_embed(none))
        variance = parameter_covariance(online, jacobian * width, own).diagonal(dim1=1, dim2=2) * width.square()
        slope = online.priors.slope(point.parameters).where(online.free > 0, 0.0)
        used = used - (slope.square() * variance).sum(1).nan_to_num(0.0)
    return inside + online.data_rest.sum(1), online.counts.sum(1) - used


def _resting(online: Online, end: Marginal) -> Tensor:
    """(B,) whether a step would gain nothing that matters."""
    return end.gain < _CONVERGED * (1 + end.objective / online.counts.sum(1))


def _open(online: Online, end: Marginal) -> Tensor:
    """(B,) whether it would, where the data determine the parameters within their ranges: else it may lead anywhere."""
    vague = ((online.ranges[:, 1] - online.ranges[:, 0]) / 12**0.5 < end.std) & (online.free > 0)
    return ~_resting(online, end) & ~vague.any(1)


def _settle(online: Online, end: Marginal, weights: Weights, worst: Tensor, iterations: Tensor) -> Marginal:
    """Steps of Gauss and Newton to the optimum of the marginal likelihood, beside which the search ended.

    What the basis leaves of the equations pulls the search where the data are few or take up a part of the domain.

    Args:
        online: the batch.
        end: where the search ended.
        weights: of data and physics.
        worst: (B,) what the physics may leave of itself; where it leaves more the basis knows nothing.
        iterations: (B,) steps so far, which are counted on.
    """
    width, share = online.ranges[:, 1] - online.ranges[:, 0], torch.ones_like(end.gain)
    for _ in range(_STEPS):
        rows = (_open(online, end) & (share > _SHORTEST)).nonzero().squeeze(1)
        if not len(rows):
            break
        part, here = online.select(rows), select(end, rows)
        length = share[rows] / (here.step / width).abs().amax(1).clamp_min(1.0)
        moved = part.priors.clip(here.parameters + here.step * length[:, None])
        trial = marginal(part, torch.where(part.free > 0, moved, here.parameters), select(weights, rows))
        before, after = ((at.alone - worst[rows]).clamp_min(0.0) + at.objective for at in (here, trial))
        better = after < before
        put(end, rows[better], select(trial, better))
        share[rows] = torch.where(better, 1.0, share[rows] / 4)
        iterations[rows] += 1
    return end


def gauss_newton(
    online: Online,
    accuracy: Accuracy,
    settings: GaussNewtonSettings,
    noise_std: Tensor | None,
    begin: Tensor | None = None,
) -> Solution:
    """Estimates of all queries of a batch.

    Minimises data misfit / variance + weight × mean squared residual over readouts and parameters. The
    readouts are eliminated (variable projection), so that only the parameters are searched, from no guess.

    Args:
        online: the batch.
        accuracy: of the basis: it sets the weight of the physics and the smallest noise that makes sense.
        settings: of the solver.
        noise_std: (B,) standard deviation of the errors in units of the data weights, basis error included;
            None to estimate it from the misfit.
        begin: (B, P) parameters to begin at; None to find some.
    """
    floor = accuracy.floor * online.amplitude
    if begin is None:
        parameters, first = best_start(online, accuracy, settings)
    else:
        parameters, first = torch.where(online.known.isnan(), begin, online.known), _FIRST_NOISE * online.amplitude
    std = torch.maximum(first, floor) if noise_std is None else noise_std
    iterations = torch.zeros(len(online), dtype=torch.long)
    rows = torch.arange(len(online))
    for number in range(_NOISE_ROUNDS if noise_std is None else 1):
        part = online.select(rows)
        weights = weights_for(part, std[rows], accuracy, settings.physics_weight)
        # later rounds start close to the optimum
        damping = _UNDAMPED if number else _ROUGH
        parameters[rows], steps = _minimise(part, parameters[rows], weights, accuracy, settings, damping)
        iterations[rows] += steps
        if noise_std is not None:
            break
        misfit, freedom = _misfit(part, eliminate(part, parameters[rows], weights), weights)
        updated = (misfit / freedom.clamp_min(1.0)).sqrt().maximum(floor[rows])
        # a search without an end, along a flat valley, ends no sooner at a third noise
        endless = iterations[rows] >= 2 * settings.iterations
        moved = ((updated / std[rows] - 1).abs() > _SETTLED) & ~endless
        std[rows] = updated
        rows = rows[moved]
        if not len(rows):
            break

    places, ended = torch.arange(len(online)), []
    for some in chunks(len(online), online.size):
        own = online.select(some)
        ended.append((places[some], _solution(own, parameters[some], std[some], iterations[some], accuracy, settings)))
    return gather(ended)


def _solution(
    online: Online,
    parameters: Tensor,
    std: Tensor,
    iterations: Tensor,
    accuracy: Accuracy,
    settings: GaussNewtonSettings,
) -> Solution:
    """The outcome at the parameters (B, P) where the search ended, by the noise (B,), after so many iterations (B,)."""
    weights = weights_for(online, std, accuracy, settings.physics_weight)
    worst = worst_objective(online, weights, accuracy)
    end = _settle(online, marginal(online, parameters, weights), weights, worst, iterations)
    # the way on leads where the basis knows nothing
    held = _open(online, end) & (end.alone > _NEAR * worst)
    pull = (end.step.abs() / end.std).nan_to_num(0.0, 0.0, 0.0).amax(1)
    rest, spread = online.data_rest.sum(1), end.coordinates_covariance
    used = online.data_trace(spread) * weights.data.square()[:, None]
    # a weight that is bounded beside large noise does not press the residual down to what the basis can reach
    reached = (accuracy.residual * online.amplitude * weights.physics).square().clamp_min(online.size)
    return Solution(
        parameters=end.parameters,
        covariance=end.covariance,
        readouts=end.coordinates @ online.physics.combinations.T,
        covariances=torch.stack(online.blocks(spread), dim=1),
        used=used,
        noise_std=std,
        objective=end.objective + rest / std.square(),
        physics=end.physics / reached,
        misfit=end.misfit + rest,
        freedom=(online.counts - used).sum(1),
        free_misfit=rest,
        free_freedom=online.free_freedom,
        jump=torch.zeros_like(rest),
        basis_error=torch.where(held, pull, 0.0),
        rival=torch.full_like(end.parameters, torch.nan),
        elsewhere=end.parameters[:, :0],
        stretch=torch.full_like(end.parameters, torch.nan),
        iterations=iterations,
        converged=_resting(online, end) | held,
    )
