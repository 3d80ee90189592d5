"""Gauss and Newton for fields and parameters together, on windows."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ipbasis.offline.bounded import LEAST_DAMPING, bounded_step
from ipbasis.offline.windows.elimination import Condensed, condense
from ipbasis.offline.windows.grid import Grid

_SHORTENINGS, _SHORTER = 6, 0.25  # of a step that does not lower the objective
_MOST_DAMPING = 1e6


@dataclass(frozen=True)
class State:
    """Fields and parameters of a batch.

    Args:
        bubbles: (B, W, bubbles).
        states: (B, W + 1, S).
        parameters: (B, P).
    """

    bubbles: Tensor
    states: Tensor
    parameters: Tensor

    def __len__(self) -> int:
        return len(self.parameters)

    def moved(self, step: "State", share: Tensor) -> "State":
        """The same after a share (B,) of a step, or one for all."""
        parts = ((getattr(self, f.name), getattr(step, f.name)) for f in fields(self))
        return State(*(own + share.reshape(-1, *[1] * (own.ndim - 1)) * other for own, other in parts))

    def put(self, rows: Tensor, part: "State") -> None:
        """Replace some rows, in place."""
        for field in fields(self):
            getattr(self, field.name)[rows] = getattr(part, field.name)

    def __getitem__(self, rows: Tensor) -> "State":
        return State(*(getattr(self, f.name)[rows] for f in fields(self)))


@dataclass(frozen=True)
class Posed:
    """What is asked of a batch.

    Args:
        data: (B, W, R, C) weighted rows of the observations, by the unknowns of their window.
        target: (B, W, R).
        initial: (B, I) given initial values; NaN for those to estimate.
        free: (B, P) true for parameters to estimate.
        bounds: (2, I + P) low and high ends of initial values and parameters.
        sizes: (S,) usual sizes of the states.
        prior: distances of the parameters (B, P) from what is known of them in standard deviations, and their slopes.
    """

    data: Tensor
    target: Tensor
    initial: Tensor
    free: Tensor
    bounds: Tensor
    sizes: Tensor
    prior: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None

    def __getitem__(self, rows: Tensor) -> "Posed":
        own = {name: getattr(self, name)[rows] for name in ("data", "target", "initial", "free")}
        return Posed(**own, bounds=self.bounds, sizes=self.sizes, prior=self.prior)


@dataclass(frozen=True)
class Found:
    """Where a search ended.

    Args:
        state: fields and parameters.
        objective: (B,) weighted squares of data, equations and conditions.
        misfit: (B,) of the data alone.
        normal: (B, S + P, S + P) normal matrices of the state at the start and the parameters, before the last step.
        iterations: (B,) steps.
        converged: (B,).
    """

    state: State
    objective: Tensor
    misfit: Tensor
    normal: Tensor
    iterations: Tensor
    converged: Tensor


@dataclass(frozen=True)
class Scales:
    """Sizes of equations (B, W, E), conditions (B, conditions) and initial values (B, I): what a relative error of one
    means."""

    equations: Tensor
    conditions: Tensor
    initial: Tensor

    def __getitem__(self, rows: Tensor) -> "Scales":
        return Scales(self.equations[rows], self.conditions[rows], self.initial[rows])


_LEAST_SIZE = 1e-4  # of a field, in units of its usual size, that is told from zero


def scales(grid: Grid, state: State, sizes: Tensor, level: Tensor) -> Scales:
    """What a relative error of one means, at a state and a level (B,).

    A defect of an equation is that of the derivatives of the highest order times their coefficients, in units of the
    states one order below; an error of a condition is in units of its largest term. Sizes are those in a window, but no
    less than the level times that over all windows: an equation that is weak need not hold where a field is small, one
    that is strong holds for a field that grows by many powers of ten from the beginning.
    """
    whole = state.states.square().mean(1).sqrt().maximum(_LEAST_SIZE * sizes)
    local = torch.maximum(state.states[:, :-1].abs(), state.states[:, 1:].abs())
    unknowns = grid.unknowns(state.bubbles, state.states)
    fields = grid.field_values(unknowns).abs().amax(3)  # at the Gauss points: at both ends it may pass through zero
    for field, (first, order) in enumerate(zip(grid.first_states, grid.orders, strict=True)):
        if order:
            local[..., first] = local[..., first].maximum(fields[:, field])
    size = local.maximum((level[:, None] * whole)[:, None])
    _, by_jet, _ = grid.equations(unknowns, state.parameters)
    jets = grid.problem.system.jets

    def of(jet, order: int) -> Tensor:
        """(B, W) size of a jet, the highest derivative in units of the one below."""
        at = min(order, grid.orders[jet.field] - 1)
        return size[..., grid.first_states[jet.field] + at] if at >= 0 else torch.ones_like(size[..., 0])

    coefficient = by_jet.square().mean(2).sqrt()
    highest = torch.tensor([len(j.index) == grid.orders[j.field] > 0 for j in jets])
    each = torch.stack([coefficient[..., n] * of(j, len(j.index))[..., None] for n, j in enumerate(jets)], dim=3)
    equations = (each * highest).sum(3)
    equations = torch.where(equations > 0, equations, each.sum(3))
    ones = torch.ones_like(equations)
    equations = torch.where((equations > 0) & equations.isfinite(), equations, ones)
    conditions = []
    for condition in grid.conditions:
        value, by_jet, _ = _at(condition, unknowns, state.parameters)
        own = sum(
            (
                by_jet[:, n].abs() * of(j, len(j.index))[:, condition.window]
                for n, j in enumerate(condition.equation.jets)
            ),
            value.abs() * 0,
        )
        conditions.append(torch.where((own > 0) & own.isfinite(), own, torch.ones_like(own)))
    first = [of(jet, len(jet.index))[:, 0] for jet in grid.problem.free_initial]
    nothing = size[:, 0, :0]
    return Scales(
        equations,
        torch.stack(conditions, dim=1) if conditions else nothing,
        torch.stack(first, dim=1) if first else nothing,
    )


def _at(condition, unknowns: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value (B,) of a condition, its partials by the jets (B, J) and parameters (B, P)."""
    jets = unknowns[:, condition.window] @ condition.maps.T
    where = [torch.tensor(condition.at, dtype=torch.float64)]
    values = condition.equation.linearised(where, list(jets.unbind(1)), list(parameters.unbind(1)))
    values = torch.stack([torch.as_tensor(v, dtype=torch.float64).expand(len(jets)) for v in values], dim=1)
    count = len(condition.equation.jets)
    return values[:, 0], values[:, 1 : 1 + count], values[:, 1 + count :]


def _rows(grid: Grid, posed: Posed, state: State, units: Scales, level: Tensor) -> Tensor:
    """Rows (B, W, R, C + P + 1) of conditions, equations and data."""
    unknowns, parameters, free = grid.unknowns(state.bubbles, state.states), state.parameters, posed.free
    residual, by_jet, by_parameter = grid.equations(unknowns, parameters)
    weight = grid.root[..., None] / (units.equations * level[:, None, None])[:, :, None]
    by_unknowns = torch.einsum("bwqej,jwqc->bwqec", by_jet * weight[..., None], grid.jets)
    by_parameter = by_parameter * (weight[..., None] * free[:, None, None, None])
    equations = torch.cat([by_unknowns, by_parameter, (residual * weight)[..., None]], dim=-1).flatten(2, 3)
    own: list[list[Tensor]] = [[] for _ in range(grid.windows)]
    for number, condition in enumerate(grid.conditions):
        value, jets, slopes = _at(condition, unknowns, parameters)
        row = torch.cat([jets @ condition.maps, slopes * free, value[:, None]], dim=1)
        own[condition.window].append(row / (units.conditions[:, number] * level)[:, None])
    for number, row in enumerate(grid.initial):
        given = posed.initial[:, number]
        value = (unknowns[:, 0] @ row - given).nan_to_num(0.0)
        row = torch.cat([row.expand(len(value), -1), torch.zeros_like(parameters), value[:, None]], dim=1)
        own[0].append(row * (given.isfinite() / (units.initial[:, number] * level))[:, None])
    most = max(map(len, own))
    conditions = equations.new_zeros(*equations.shape[:2], most, equations.shape[3])
    for window, rows in enumerate(own):
        for number, row in enumerate(rows):
            conditions[:, window, number] = row
    misfit = (posed.data @ unknowns[..., None]).squeeze(-1) - posed.target
    nothing = misfit.new_zeros(*misfit.shape, parameters.shape[1])
    data = torch.cat([posed.data, nothing, misfit[..., None]], dim=3)
    return torch.cat([conditions, equations, data], dim=2)


def _objective(grid: Grid, posed: Posed, state: State, units: Scales, level: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) each: sum of the squares, and the misfit."""
    unknowns = grid.unknowns(state.bubbles, state.states)
    residual, _, _ = grid.equations(unknowns, state.parameters)
    weight = grid.root[..., None] / (units.equations * level[:, None, None])[:, :, None]
    total = (residual * weight).square().sum((1, 2, 3))
    for number, condition in enumerate(grid.conditions):
        value, _, _ = _at(condition, unknowns, state.parameters)
        total += (value / (units.conditions[:, number] * level)).square()
    if len(grid.initial):
        first = (unknowns[:, 0] @ grid.initial.T - posed.initial) / (units.initial * level[:, None])
        total += first.nan_to_num(0.0).square().sum(1)
    misfit = ((posed.data @ unknowns[..., None]).squeeze(-1) - posed.target).square().sum((1, 2))
    total += misfit
    if posed.prior is not None:
        total += (posed.prior(state.parameters)[0] * posed.free).square().sum(1)
    return total, misfit


def condensed_at(grid: Grid, posed: Posed, state: State, units: Scales, level: Tensor) -> Condensed:
    """The least squares of a linearised problem, reduced to the state at the start and the parameters."""
    return condense(_rows(grid, posed, state, units, level), grid.bubbles, grid.states)


def root_rows(posed: Posed, state: State, condensed: Condensed) -> tuple[Tensor, Tensor]:
    """Rows (B, R, S + P) and right-hand sides (B, R) in the state at the start and the parameters, priors included."""
    rows, right = condensed.root[..., :-1], condensed.root[..., -1]
    if posed.prior is not None:
        distance, slope = posed.prior(state.parameters)
        own = torch.diag_embed(slope * posed.free)
        rows = torch.cat([rows, torch.cat([own.new_zeros(*own.shape[:2], rows.shape[2] - own.shape[2]), own], 2)], 1)
        right = torch.cat([right, distance * posed.free], dim=1)
    return rows, right


def _root_step(
    grid: Grid, posed: Posed, state: State, rows: Tensor, right: Tensor, damping: Tensor
) -> tuple[Tensor, Tensor]:
    """The step (B, S + P) of Levenberg and Marquardt in the root, see `root_rows`, no further than the bounds, and the
    objective (B,) that it predicts."""
    now = torch.cat([state.states[:, 0], state.parameters], dim=1)
    fixed = torch.cat([torch.zeros_like(state.states[:, 0], dtype=torch.bool), ~posed.free], dim=1)
    return bounded_step(rows, right, now, _root_bounds(grid, posed), fixed, damping)


def _spread(grid: Grid, condensed: Condensed, step: Tensor) -> State:
    """The step in all unknowns that belongs to one (B, S + P) in the root."""
    bubbles, states = condensed.spread(torch.cat([step, torch.ones_like(step[:, :1])], dim=1)[..., None])
    return State(bubbles[..., 0], states[..., 0], step[:, grid.states :])


def _root_bounds(grid: Grid, posed: Posed) -> Tensor:
    """(2, S + P) of the state at the start, where it has bounds, and the parameters."""
    infinite = posed.bounds.new_full((grid.states,), torch.inf)
    bounds = torch.stack([-infinite, infinite])
    places = grid.initial_places
    bounds[:, places] = posed.bounds[:, : len(places)]
    return torch.cat([bounds, posed.bounds[:, len(places) :]], dim=1)


def search(
    grid: Grid,
    posed: Posed,
    state: State,
    level: Tensor,
    steps: int,
    gain: float,
    damping: float = 1e-3,
) -> Found:
    """Minimise misfit of the data + squared relative defects / level², by Levenberg and Marquardt.

    Args:
        grid: the windows.
        posed: what is asked.
        state: where to start.
        level: (B,) relative defects that are allowed.
        steps: at most.
        gain: predicted decrease of the objective that is not worth a step.
        damping: of the first step.
    """
    units = scales(grid, state, posed.sizes, level)
    state = State(state.bubbles.clone(), state.states.clone(), state.parameters.clone())
    objective, misfit = _objective(grid, posed, state, units, level)
    iterations = torch.zeros(len(state), dtype=torch.long)
    converged = torch.zeros(len(state), dtype=torch.bool)
    damp = torch.full_like(objective, damping)
    width = grid.states + state.parameters.shape[1]
    normal = objective.new_full((len(state), width, width), torch.nan)
    active = objective.isfinite().nonzero().squeeze(1)
    for _ in range(steps):
        if not len(active):
            break
        problem = _Weighted(grid, posed[active], units[active], level[active])
        here, before = state[active], objective[active]
        condensed = condensed_at(grid, problem.posed, here, problem.units, problem.level)
        rows, right = root_rows(problem.posed, here, condensed)
        normal[active] = rows.mT @ rows
        step, predicted = _root_step(grid, problem.posed, here, rows, right, damp[active])
        # along a weak direction any damping makes a step short: what is left to gain is told by the one without
        undamped = torch.full_like(before, LEAST_DAMPING)
        _, lowest = _root_step(grid, problem.posed, here, rows, right, undamped)
        end = _searched(problem, here, _spread(grid, condensed, step), before, misfit[active], predicted)
        damp[active] = torch.where(end.taken, torch.where(end.whole, 0.2, 2.0), 10.0) * damp[active].clamp_min(
            LEAST_DAMPING
        )
        state.put(active, end.state)
        objective[active], misfit[active] = end.objective, end.misfit
        iterations[active] += 1
        ended = before - lowest < gain
        converged[active] = ended
        active = active[~(ended | (damp[active] > _MOST_DAMPING))]
    return Found(state, objective, misfit, normal, iterations, converged)


@dataclass(frozen=True)
class _Weighted:
    """What is minimised: the problem of a batch with sizes and levels."""

    grid: Grid
    posed: Posed
    units: Scales
    level: Tensor

    def objective(self, state: State) -> tuple[Tensor, Tensor]:
        """(B,) each: sum of the squares, and the misfit."""
        return _objective(self.grid, self.posed, state, self.units, self.level)

    def corrected(self, state: State) -> State:
        """Bubbles and states after a step of their own, the root held: a step in the root leaves defects of second
        order."""
        condensed = condensed_at(self.grid, self.posed, state, self.units, self.level)
        return state.moved(_spread(self.grid, condensed, torch.zeros_like(condensed.root[:, 0, :-1])), torch.ones(()))

    def __getitem__(self, rows: Tensor) -> "_Weighted":
        return _Weighted(self.grid, self.posed[rows], self.units[rows], self.level[rows])


@dataclass(frozen=True)
class _LineEnd:
    """Where a search along a step ended: the place, objective and misfit (B,) there, whether the step was `taken`, and
    as a whole."""

    state: State
    objective: Tensor
    misfit: Tensor
    taken: Tensor
    whole: Tensor


def _searched(
    problem: _Weighted, here: State, step: State, before: Tensor, misfit: Tensor, predicted: Tensor
) -> _LineEnd:
    """The first share of a step that lowers the objective, corrected where it gains less than half of what it
    should."""
    taken, whole = (torch.zeros_like(before, dtype=torch.bool) for _ in range(2))
    now, after, data = here.moved(step, torch.zeros(())), before.clone(), misfit.clone()
    rows = torch.arange(len(before))
    for number in range(_SHORTENINGS):
        part = problem[rows]
        trial = here[rows].moved(step[rows], torch.tensor(_SHORTER**number))
        value, own = part.objective(trial)
        poor = (~(value <= (before[rows] + predicted[rows]) / 2)).nonzero().squeeze(1)
        if len(poor):
            other = part[poor].corrected(trial[poor])
            lower, less = part[poor].objective(other)
            better = ~(lower >= value[poor]) & lower.isfinite()
            trial.put(poor[better], other[better])
            value[poor[better]], own[poor[better]] = lower[better], less[better]
        better = value < before[rows]
        lower = rows[better]
        now.put(lower, trial[better])
        after[lower], data[lower], taken[lower], whole[lower] = value[better], own[better], True, number == 0
        rows = rows[~better]
        if not len(rows):
            break
    return _LineEnd(now, after, data, taken, whole)
