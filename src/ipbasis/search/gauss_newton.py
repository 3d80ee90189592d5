"""Online inference in closed form: readouts eliminated, parameters by Levenberg-Marquardt, all queries at once."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from ipbasis.offline.artefact import Accuracy
from ipbasis.problem.declaration import Declared
from ipbasis.search.assemble import Online
from ipbasis.search.rows import merge, select
from ipbasis.search.solution import Solution

# Physics may outweigh the data by this much in the roots: beyond it nothing is gained but rounding errors.
STIFFEST = 1e5
_NOISE_ROUNDS = 8
_FIRST_NOISE = 1e-4
_SETTLED = 1e-2  # relative change of the noise, itself known to no better than a few percent
_AT_REST = 1e-2
_FIRST_DAMPING, _UNDAMPED = 1e-3, 1e-9
_POOR, _GOOD = 0.4, 0.9  # share of the predicted decrease that came about, at which the damping rises or falls
_SMOOTHINGS = (1e-5, 1e-1)  # physics against data, in the roots
_KINK = 2.0  # of the worst residual in validation, up to which a residual is the fault of the basis
_COVERING = 16  # starts over the ranges, where the conditions determine the solution
_EPSILON, _TINY = torch.finfo(torch.float64).eps, torch.finfo(torch.float64).tiny


class GaussNewtonSettings(Declared):
    """Settings of the Gauss-Newton solver.

    Args:
        solver: names it.
        iterations: Levenberg-Marquardt steps at most, per round of the noise estimate.
        tolerance: decrease of the objective below which a query has converged, in units of χ² by the noise, or by
            the misfit where that is larger: a small part of the 1 that an error bar is worth.
        physics_weight: weight of the mean squared residual; None lets it follow from the accuracy that the
            basis reached in validation.
    """

    solver: Literal["gauss_newton"] = "gauss_newton"
    iterations: PositiveInt = 40
    tolerance: PositiveFloat = 1e-4
    physics_weight: PositiveFloat | None = None


@dataclass(frozen=True)
class Weights:
    """Weights of data and physics (equation and conditions) per query: roots of one over the variances."""

    data: Tensor
    physics: Tensor


@dataclass(frozen=True)
class _Rows:
    """The weighted least-squares rows of a batch as a linear map of the unknowns, never written out.

    In this order: data, equation, conditions, given initial values, and priors, which hold no unknowns.

    Args:
        online: the batch.
        thetas: (B, Q) parameter functions of the equation.
        weights: of data and physics.
    """

    online: Online
    thetas: Tensor
    weights: Weights

    @property
    def sizes(self) -> list[int]:
        """Numbers of rows of each kind."""
        physics, online = self.online.physics, self.online
        conditions = len(physics.condition_rows), len(online.given_initial[0])
        priors = len(online.ranges) if online.priors.informative else 0
        return [online.data_target[0].numel(), physics.factor.shape[1], *conditions, priors]

    def target(self, parameters: Tensor) -> Tensor:
        """(B, rows) right-hand sides."""
        online, by_physics = self.online, self.weights.physics[:, None]
        _, initial, counts = online.given_initial
        parts = [
            online.data_target.flatten(1) * self.weights.data[:, None],
            -online.physics.source(self.thetas) * by_physics,
            online.physics.condition_target * by_physics,
            initial * counts * by_physics,
        ]
        if online.priors.informative:
            parts.append(-online.priors.residual(parameters) * online.free)
        return torch.cat(parts, dim=1)

    def apply(self, unknowns: Tensor) -> Tensor:
        """(B, k, rows) for unknowns (B, k, N)."""
        online, by_physics = self.online, self.weights.physics[:, None, None]
        initial, _, counts = online.given_initial
        same, sizes = online.physics.condition_rows, self.sizes
        parts = [
            online.observed(unknowns) * self.weights.data[:, None, None],
            online.physics.apply(self.thetas, unknowns) * by_physics,
        ]
        if sizes[2]:
            parts.append(unknowns @ same.T * by_physics)
        if sizes[3]:
            parts.append(unknowns @ initial.T * counts[:, None] * by_physics)
        if sizes[4]:
            parts.append(unknowns.new_zeros(*unknowns.shape[:2], sizes[4]))
        return torch.cat(parts, dim=2)

    def adjoint(self, rows: Tensor) -> Tensor:
        """(B, k, N) transpose of `apply`, for rows (B, k, rows)."""
        online = self.online
        data, equation, conditions, given, _ = rows.split(self.sizes, dim=2)
        physics = online.physics.adjoint(self.thetas, equation)
        if conditions.shape[2]:
            physics += conditions @ online.physics.condition_rows
        if given.shape[2]:
            initial, _, counts = online.given_initial
            physics += (given * counts[:, None]) @ initial
        physics *= self.weights.physics[:, None, None]
        return physics.addcmul_(online.observed_adjoint(data), self.weights.data[:, None, None])

    def normal(self) -> Tensor:
        """(B, N, N) normal matrix."""
        online, same = self.online, self.online.physics.condition_rows
        initial, _, counts = online.given_initial
        normal = online.physics.normal(self.thetas)
        if len(same):
            normal += same.T @ same
        if len(initial):
            normal += (initial.T * counts[:, None]) @ initial
        normal *= self.weights.physics.square()[:, None, None]
        online.add_data_normal(normal, self.weights.data.square())
        return normal


@dataclass(frozen=True)
class _Point:
    """The objective at given parameters, the readouts eliminated; `residual` is that of all rows, see `_Rows`."""

    parameters: Tensor
    thetas: Tensor
    readouts: Tensor
    residual: Tensor
    factor: Tensor
    scale: Tensor

    @property
    def objective(self) -> Tensor:
        return self.residual.square().sum(1)

    def solve(self, right: Tensor) -> Tensor:
        """Apply the inverse of the readouts' normal matrix to (B, N, k)."""
        return self.scale[..., None] * torch.cholesky_solve(self.scale[..., None] * right, self.factor)

    @cached_property
    def inverse(self) -> Tensor:
        """(B, N, N) inverse of the readouts' normal matrix."""
        size = self.readouts.shape[1]
        return self.solve(torch.eye(size, dtype=self.readouts.dtype).expand(len(self.readouts), -1, -1))


def _eliminate(online: Online, parameters: Tensor, weights: Weights) -> _Point:
    """Best readouts for given parameters: normal equations, then one step of refinement on their roots."""
    rows = _Rows(online, online.physics.thetas(parameters), weights)
    right = rows.target(parameters)
    normal = rows.normal()
    diagonal = normal.diagonal(dim1=1, dim2=2).clamp_min(_TINY)
    scale = diagonal.rsqrt()
    normal = normal * scale[:, None] * scale[..., None]
    normal.diagonal(dim1=1, dim2=2).add_(4 * normal.shape[1] * _EPSILON)
    factor, _ = torch.linalg.cholesky_ex(normal)
    readouts = normal.new_zeros(len(normal), normal.shape[1])
    point = _Point(parameters, rows.thetas, readouts, -right, factor, scale)
    residual = -right
    for _ in range(2):
        readouts = readouts - point.solve(rows.adjoint(residual[:, None]).mT).squeeze(2)
        residual = rows.apply(readouts[:, None]).squeeze(1) - right
    return replace(point, readouts=readouts, residual=residual)


def _jacobian(online: Online, point: _Point, weights: Weights) -> tuple[Tensor, Tensor]:
    """Derivatives by the parameters with the readouts following: of the readouts, and of the residual.

    The residual's derivative is projected on the complement of the readouts' columns (Kaufman's form of
    variable projection), as a sum of data and physics parts: no difference of large numbers is taken.
    """
    rows = _Rows(online, point.thetas, weights)
    slope = online.physics.operator_slope(point.parameters, point.readouts) * online.free[:, None]
    kinds = [slope.new_zeros(len(slope), slope.shape[2], size) for size in rows.sizes]
    kinds[1] = (slope * weights.physics[:, None, None]).mT
    if online.priors.informative:
        kinds[4] = torch.diag_embed(online.priors.slope(point.parameters).where(online.free > 0, 0.0))
    direct = torch.cat(kinds, dim=2)
    following = -point.solve(rows.adjoint(direct).mT)
    projected = direct + rows.apply(following.mT)
    correction = point.solve(rows.adjoint(projected).mT)
    return following - correction, (projected - rows.apply(correction.mT)).mT


@dataclass(frozen=True)
class _Own:
    """The physics term that the basis leaves at given parameters whatever the data are: its own fault.

    Where the conditions determine the solution, the residual of the best solution in the basis differs
    from one parameter to the next, and would pull the estimates to those that the basis happens to solve
    best. It says nothing of the data, so it is taken off the objective, up to somewhat above the worst seen in
    validation: beyond that the parameters are where the basis knows nothing. What is worst is often found at the
    ends of the trained ranges, and the kink must not lie there.

    Args:
        objective: (B,) zero where there is nothing to take off.
        gradient: (B, P) half its gradient.
        information: (B, P, P) its Gauss-Newton matrix.
    """

    objective: Tensor
    gradient: Tensor
    information: Tensor

    def scaled(self, width: Tensor) -> "_Own":
        """The same by parameters in units of `width` (P,) or (B, P)."""
        both = width[..., None, :] * width[..., None]
        return _Own(self.objective, self.gradient * width, self.information * both)

    def change(self, step: Tensor) -> Tensor:
        """(B,) change of the objective that a step (B, P) is predicted to make."""
        return 2 * (self.gradient * step).sum(1) + torch.einsum("bp,bpq,bq->b", step, self.information, step)


def _own(online: Online, parameters: Tensor, weights: Weights, accuracy: Accuracy) -> _Own:
    """See `_Own`."""
    queries, count = parameters.shape
    if not online.physics.determined:
        return _Own(
            parameters.new_zeros(queries),
            parameters.new_zeros(queries, count),
            parameters.new_zeros(queries, count, count),
        )
    alone = replace(weights, data=torch.zeros_like(weights.data))
    online = replace(online, priors=online.priors.without_distributions())
    point = _eliminate(online, parameters, alone)
    _, jacobian = _jacobian(online, point, alone)
    worst = (_KINK * (accuracy.worst_residual or accuracy.residual) * online.amplitude * weights.physics).square()
    below = (point.objective < worst).to(parameters.dtype)
    return _Own(
        torch.minimum(point.objective, worst),
        (jacobian.mT @ point.residual[..., None]).squeeze(2) * below[:, None],
        jacobian.mT @ jacobian * below[:, None, None],
    )


def _least_squares(jacobian: Tensor, free: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Triangular form of damped least-squares problems in the parameters, columns scaled to length 1.

    By QR of the Jacobian: where parameters trade off against each other its normal matrix has a condition
    number beyond 1e15.

    Args:
        jacobian: (B, R, P).
        free: (B, P), see `Online`.
        damping: (B,) of Levenberg and Marquardt.

    Returns:
        solver (B, P, R) that takes a right-hand side to the solution, and the inverse (B, P, P) of the
        triangular factor, of which the covariance is the square; rows of known parameters are zero.
    """
    size = jacobian.norm(dim=1)
    size = torch.where(size > 0, size, torch.ones_like(size))
    diagonal = torch.diag_embed(damping.sqrt()[:, None] + (1 - free))
    orthogonal, upper = torch.linalg.qr(torch.cat([jacobian / size[:, None], diagonal], dim=1))
    identity = torch.eye(upper.shape[-1], dtype=upper.dtype).expand_as(upper)
    inverse = torch.linalg.solve_triangular(upper, identity, upper=True) * (free / size)[..., None]
    return inverse @ orthogonal[:, : jacobian.shape[1]].mT, inverse


def _step(online: Online, free: Tensor, jacobian: Tensor, residual: Tensor, own: _Own, damping: Tensor) -> Tensor:
    """(B, P) step of Levenberg and Marquardt in the parameters that are `free`, 1 or 0 (B, P).

    What is taken off has a curvature of its own. Where there is any, the normal equations hold the
    difference; few parameters remain then, and their directions are well apart.
    """
    if not online.physics.determined:
        solver, _ = _least_squares(jacobian, free, damping)
        return -(solver @ residual[..., None]).squeeze(2)
    curvature, size = _information(free, jacobian, own)
    curvature.diagonal(dim1=1, dim2=2).add_(damping[:, None])
    gradient = (jacobian.mT @ residual[..., None]).squeeze(2) - own.gradient
    return -torch.linalg.solve(curvature, gradient / size) / size


def _information(free: Tensor, jacobian: Tensor, own: _Own) -> tuple[Tensor, Tensor]:
    """Gauss-Newton matrix less what is taken off, and the lengths (B, P) of the columns that it is scaled by.

    It is kept positive definite: next to nothing is left where the data say next to nothing.
    """
    size = jacobian.norm(dim=1)
    size = torch.where(size > 0, size, torch.ones_like(size))
    both = size[:, None] * size[..., None]
    values, vectors = torch.linalg.eigh((jacobian.mT @ jacobian - own.information) / both)
    least = torch.where(free > 0, 1e-9, 1.0).amin(1, keepdim=True)
    values = values.clamp_min(least)
    return vectors @ (values[..., None] * vectors.mT), size


def _starts(online: Online, weights: Weights) -> list[Tensor]:
    """Parameters to start from, found without a guess.

    The middle of the ranges, and least squares on the residual of fits to the data that are smoothed little
    or much by the physics at that middle (exact for clean data where the parameters enter linearly).
    """
    low, high = online.ranges.T
    middle = online.priors.clip(torch.where(online.priors.std.isfinite(), online.priors.mode, (low + high) / 2))
    middle = torch.where(online.known.isnan(), middle, online.known)
    thetas = online.physics.thetas(middle)
    starts = [middle]
    balance = _balance(online, weights.data)
    for smoothing in _SMOOTHINGS:
        smooth = _eliminate(online, middle, replace(weights, physics=smoothing * balance))
        residual = online.physics.apply(thetas, smooth.readouts[:, None]).squeeze(1) + online.physics.source(thetas)
        slope = online.physics.operator_slope(middle, smooth.readouts) * online.free[:, None] * (high - low)
        ridge = torch.diag_embed(1e-12 * slope.abs().amax((1, 2))[:, None] + 1 - online.free)
        rows = torch.cat([slope, ridge], dim=1)
        right = torch.cat([-residual, torch.zeros_like(middle)], dim=1)
        step = torch.linalg.lstsq(rows, right[..., None]).solution.squeeze(2)
        moved = middle + step.nan_to_num(0.0, 0.0, 0.0).clamp(-1, 1) * (high - low) * online.free
        starts.append(torch.where(online.free > 0, online.priors.clip(moved), middle))
    return starts


def _start(online: Online, accuracy: Accuracy, settings: GaussNewtonSettings) -> tuple[Tensor, Tensor]:
    """The best start (B, P), and the noise (B,) to search with at first.

    Where the readouts are free the start of the lowest objective is taken, at a small noise: at a large one
    the equation would be traded against the data. Where the conditions determine the solution, points that
    cover the ranges are tried too, and the data decide alone, by the misfit of their solutions: it is the
    noise at first, for a smaller one would trust noisy data more than the equation.
    """
    noise = _FIRST_NOISE * online.amplitude
    weights = _weights(online, noise.maximum(accuracy.floor * online.amplitude), accuracy, settings.physics_weight)
    starts = _starts(online, weights)
    if online.physics.determined:
        low, high = online.ranges.T
        covering = torch.quasirandom.SobolEngine(len(low)).draw(_COVERING, dtype=low.dtype)
        covered = [online.priors.clip(low + (high - low) * unit) for unit in covering]
        starts += [torch.where(online.known.isnan(), at, starts[0]) for at in covered]
        weights = replace(weights, data=torch.zeros_like(noise))
    points = [_eliminate(online, start, weights) for start in starts]
    if online.physics.determined:
        target = online.data_target.flatten(1)
        misfits = [online.observed(point.readouts[:, None]).squeeze(1) - target for point in points]
        values = torch.stack([misfit.square().sum(1) for misfit in misfits]) + online.data_rest.sum(1)
    else:
        values = torch.stack([point.objective for point in points])
    lowest, chosen = values.nan_to_num(torch.inf).min(0)
    if online.physics.determined:
        noise = (lowest / online.counts.sum(1)).sqrt()
    return torch.stack(starts)[chosen, torch.arange(len(online))], noise


def _minimise(
    online: Online, start: Tensor, weights: Weights, accuracy: Accuracy, settings: GaussNewtonSettings, first: float
) -> tuple[Tensor, Tensor]:
    """Levenberg-Marquardt from given parameters with a first damping; returns parameters and steps taken."""
    width = online.ranges[:, 1] - online.ranges[:, 0]
    parameters = start.clone()
    damping = torch.full_like(online.amplitude, first)
    steps = torch.zeros(len(online), dtype=torch.long)
    active = torch.arange(len(online))
    part, part_weights = online, weights
    point = _eliminate(part, parameters, part_weights)
    own = _own(part, parameters, part_weights, accuracy)
    for _ in range(settings.iterations):
        _, jacobian = _jacobian(part, point, part_weights)
        scaled, scaled_own = jacobian * width, own.scaled(width)
        gradient = (scaled.mT @ point.residual[..., None]).squeeze(2) - scaled_own.gradient
        free = part.free * ~part.priors.blocked(point.parameters, gradient)
        scaled = scaled * free[:, None]
        scaled_own = scaled_own.scaled(free)
        step = _step(part, free, scaled, point.residual, scaled_own, damping[active]).nan_to_num(0.0, 0.0, 0.0)
        # no more than one width of the range at a time
        step = step / step.abs().amax(1, keepdim=True).clamp_min(1.0)
        moved = torch.where(free > 0, part.priors.clip(point.parameters + step * width), point.parameters)
        step = (moved - point.parameters) / width
        change = (scaled @ step[..., None]).squeeze(2)
        predicted = scaled_own.change(step) - (change * (2 * point.residual + change)).sum(1)
        trial = _eliminate(part, moved, part_weights)
        trial_own = _own(part, trial.parameters, part_weights, accuracy)
        gain = (point.objective - own.objective) - (trial.objective - trial_own.objective)
        better = gain > 0
        parameters[active[better]] = trial.parameters[better]
        came = gain / predicted.clamp_min(_TINY)
        factor = torch.where(came > _GOOD, 0.1, torch.where(came > _POOR, 1.0, 10.0))
        damping[active] = (damping[active] * factor).clamp(1e-20, 1e12)
        steps[active] += 1
        # a step that the damping holds back predicts less than there is to gain
        least = torch.where(damping[active] <= _UNDAMPED, settings.tolerance, 1e-3 * settings.tolerance)
        # by the noise that the misfit tells: the first one is far too small
        small = least * (point.objective / part.counts.sum(1)).clamp_min(1.0) + 1e-13 * point.objective
        done = (predicted.abs() < small) | (damping[active] > 1e8)
        if done.all():
            break
        kept = ~done
        active = active[kept]
        point, own = merge(point, trial, better), merge(own, trial_own, better)
        if done.any():
            part, part_weights = part.select(kept), select(part_weights, kept)
            point, own = select(point, kept), select(own, kept)
    return parameters, steps


def _balance(online: Online, data: Tensor) -> Tensor:
    """(B,) weight of the physics at which it is as large as the data, in the roots; free of units."""
    low, high = online.ranges.T
    thetas = online.physics.thetas(torch.stack([low, (low + high) / 2, high])).abs().amax(0)
    largest = (torch.linalg.matrix_norm(online.physics.factor) * thetas).amax()
    return online.data_size * data / largest


def _weights(online: Online, std: Tensor, accuracy: Accuracy, physics_weight: float | None) -> Weights:
    """Weights for a noise level: physics by the residual that the basis reaches on its own solutions.

    The residual of the best solution in the basis is taken as random with that root mean square in each of
    the N directions that the readouts can change.
    """
    data = 1 / std
    physics = online.size**0.5 / (accuracy.residual * online.amplitude)
    if physics_weight is not None:
        physics = torch.full_like(std, physics_weight**0.5)
    return Weights(data, torch.minimum(physics, STIFFEST * _balance(online, data)))


def _misfit(online: Online, point: _Point, weights: Weights) -> tuple[Tensor, Tensor]:
    """(B,) squared data misfit in units of the data weights, and observations less the effective unknowns."""
    inside = point.residual[:, : online.data_target[0].numel()].square().sum(1) / weights.data.square()
    used = online.data_trace(point.inverse).sum(1) * weights.data.square() + online.free.sum(1)
    if online.priors.informative:  # what a distribution tells of a parameter the data need not
        _, jacobian = _jacobian(online, point, weights)
        width = online.ranges[:, 1] - online.ranges[:, 0]
        none = online.amplitude.new_zeros(len(online), len(width))
        own = _Own(none[:, 0], none, torch.diag_embed(none))
        variance = _covariance(online, jacobian * width, own).diagonal(dim1=1, dim2=2) * width.square()
        slope = online.priors.slope(point.parameters).where(online.free > 0, 0.0)
        used = used - (slope.square() * variance).sum(1).nan_to_num(0.0)
    return inside + online.data_rest.sum(1), online.counts.sum(1) - used


def _covariance(online: Online, jacobian: Tensor, own: _Own) -> Tensor:
    """(B, P, P) of the parameters, zero for known ones."""
    if not online.physics.determined:
        _, inverse = _least_squares(jacobian, online.free, torch.full_like(online.amplitude, _EPSILON**2))
        return inverse @ inverse.mT
    information, size = _information(online.free, jacobian, own)
    free = online.free / size
    return torch.linalg.inv(information) * free[:, None] * free[..., None]


def gauss_newton(
    online: Online, accuracy: Accuracy, settings: GaussNewtonSettings, noise_std: Tensor | None
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
    """
    floor = accuracy.floor * online.amplitude
    counts, rest = online.counts.sum(1), online.data_rest.sum(1)
    parameters, first = _start(online, accuracy, settings)
    std = torch.maximum(first, floor) if noise_std is None else noise_std
    iterations, height = torch.zeros(len(online), dtype=torch.long), online.data_target[0].numel()
    rows = torch.arange(len(online))
    for number in range(_NOISE_ROUNDS if noise_std is None else 1):
        part = online.select(rows)
        weights = _weights(part, std[rows], accuracy, settings.physics_weight)
        # later rounds start close to the optimum
        damping = _UNDAMPED if number else _FIRST_DAMPING
        parameters[rows], steps = _minimise(part, parameters[rows], weights, accuracy, settings, damping)
        iterations[rows] += steps
        if noise_std is not None:
            break
        misfit, freedom = _misfit(part, _eliminate(part, parameters[rows], weights), weights)
        updated = (misfit / freedom.clamp_min(1.0)).sqrt().maximum(floor[rows])
        # a search without an end, along a flat valley, ends no sooner at a third noise
        endless = iterations[rows] >= 2 * settings.iterations
        moved = ((updated / std[rows] - 1).abs() > _SETTLED) & ~endless
        std[rows] = updated
        rows = rows[moved]
        if not len(rows):
            break

    weights = _weights(online, std, accuracy, settings.physics_weight)
    point = _eliminate(online, parameters, weights)
    misfit, freedom = _misfit(online, point, weights)
    following, jacobian = _jacobian(online, point, weights)
    width = online.ranges[:, 1] - online.ranges[:, 0]
    own = _own(online, parameters, weights, accuracy)
    # what one more step would gain, in units of χ²: at rest, whatever made the search stop
    last = torch.full_like(std, _EPSILON**2)
    gradient = (jacobian.mT @ point.residual[..., None]).squeeze(2) - own.gradient
    free = online.free * ~online.priors.blocked(parameters, gradient)
    scaled, scaled_own = jacobian * (width * free)[:, None], own.scaled(width * free)
    step = _step(online, free, scaled, point.residual, scaled_own, last)
    remaining = (scaled @ step[..., None]).square().sum((1, 2)) - torch.einsum(
        "bp,bpq,bq->b", step, scaled_own.information, step
    )
    converged = remaining < _AT_REST * (1 + (point.objective - own.objective) / counts)
    covariance = _covariance(online, jacobian * width, own.scaled(width)) * width * width[:, None]
    spread = point.inverse + following @ covariance @ following.mT
    coordinates = online.physics.coordinates
    # a weight that is bounded beside large noise does not press the residual down to what the basis can reach
    reached = (accuracy.residual * online.amplitude * weights.physics).square().clamp_min(online.size)
    physics = point.residual[:, height : height + online.physics.factor.shape[1]].square().sum(1)
    return Solution(
        parameters=parameters,
        covariance=covariance,
        readouts=point.readouts @ coordinates.T,
        covariances=torch.stack(online.blocks(spread), dim=1),
        used=online.data_trace(spread) * weights.data.square()[:, None],
        noise_std=std,
        objective=point.objective - own.objective + rest / std.square(),
        physics=physics / reached,
        misfit=misfit,
        freedom=freedom,
        free_misfit=rest,
        free_freedom=online.free_freedom,
        iterations=iterations,
        converged=converged,
    )
