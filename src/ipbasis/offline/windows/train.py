"""The choice of windows: the offline phase of a problem with one coordinate."""

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ipbasis.errors import InputError
from ipbasis.features.piecewise import Piecewise, PiecewiseSettings
from ipbasis.offline.artefact import Accuracy, Basis, Record, Solved, versions
from ipbasis.offline.windows.carried import fine_enough
from ipbasis.offline.windows.grid import Grid, edges_of
from ipbasis.offline.windows.newton import State
from ipbasis.offline.windows.tasks import Curve, Solutions, integrated, solve, solve_by_continuation, state_of
from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.problem.natural_units import natural_units
from ipbasis.problem.units import rescaled
from ipbasis.reference.ode import first_order_system

_POINTS = 10  # of a window
_MOST_WINDOWS = 400
_MARGIN = 1e-3  # of the accuracy asked for: windows are cheap, and noise is often less than an accuracy
_POOL, _FEW, _STARTS, _UNSEEN = 32, 8, 256, 32
_FINE, _ROUGH = 1e-9, 1e-5  # tolerances of the integrator: to choose windows by, and to start Newton from
_TURNS, _FAR = 30, 3.0  # of finding the sizes of fields, and times the unit up to which a size is of order one
_FINER = 4  # more points, to measure errors by

Told = Callable[[str], None]


def train_windows(problem: Problem, accuracy: float, told: Told) -> Basis:
    """A basis of windows, fine enough for all tasks in the ranges of a problem.

    Args:
        problem: with one coordinate and no unknown terms.
        accuracy: relative error of unseen solutions that is asked for.
        told: receives what is being done, in words.

    Raises:
        InputError: if no task has a solution.
    """
    began = time.perf_counter()
    told("solving tasks")
    units = natural_units(problem, dict(zip(problem.fields, _field_scales(problem).tolist(), strict=True)))
    inner = rescaled(problem, units)
    grid = _grid(inner, accuracy * _MARGIN, told)
    starts = inner.sobol_tasks(_STARTS, 1)
    found = _solutions(grid, starts, integrated(inner, starts, _ROUGH))
    lost = int((~found.solved).sum())
    if lost:
        told(f"{lost} of {_STARTS} tasks have no solution")
    solved = found[found.solved]
    if not len(solved.tasks):
        raise InputError(f"{problem.name}: none of {_STARTS} tasks in the ranges has a solution over the whole domain")
    settings = PiecewiseSettings(breakpoints=(tuple(grid.edges.tolist()),), degrees=(grid.degree,))
    unknowns = grid.unknowns(solved.state.bubbles, solved.state.states)
    record = Record(
        problem=problem,
        units=units,
        features=settings,
        functions=grid.windows * (grid.degree + 1),
        quadrature_points=grid.windows * grid.points,
        accuracy=_accuracy(grid, inner),
        requested=accuracy,
        versions=versions(),
        figures={"seconds": time.perf_counter() - began, "tasks_without_solution": lost},
    )
    readouts = grid.readouts(unknowns[..., None])[..., 0]
    kept = Solved(solved.state.parameters, torch.as_tensor(solved.tasks.initial), readouts)
    return Basis(Piecewise(settings), None, record, kept)


def _field_scales(problem: Problem) -> np.ndarray:
    """(F,) root mean square of each field over some solutions."""
    tasks = problem.sobol_tasks(_POOL, 0)
    found = integrated(problem, tasks, _ROUGH)
    if found is None:
        size = _continued_scales(problem)
    else:
        rows = [row for row, jet in enumerate(first_order_system(problem).state) if jet.index == ()]
        at = Grid(problem, edges_of(problem, 4), _POINTS).times.numpy().ravel()
        values = [curve(at)[rows] for curve in found if curve is not None]
        size = np.sqrt(np.square(values).mean(axis=(0, 2))) if values else np.zeros(len(problem.fields))
    if not np.isfinite(size).all() or not (size > 0).any():
        raise InputError(f"{problem.name}: none of the tasks tried in the ranges has a solution that is not zero")
    return np.where(size > 0, size, 1.0)


def _continued_scales(problem: Problem) -> np.ndarray:
    """The same without an integrator: in units in which the fields are of order one, which are found in turns.

    A search that ends beside a solution has gone its way, and the next one begins nearer.
    """
    scales = np.ones(len(problem.fields))
    for _ in range(_TURNS):
        inner = rescaled(problem, natural_units(problem, dict(zip(problem.fields, scales.tolist(), strict=True))))
        grid = Grid(inner, edges_of(inner, 4), _POINTS)
        solved = solve_by_continuation(grid, inner.sobol_tasks(_FEW, 0), torch.ones(grid.states, dtype=torch.float64))
        chosen = solved.state[solved.solved] if solved.solved.any() else solved.state
        values = grid.field_values(grid.unknowns(chosen.bubbles, chosen.states))
        size = values.square().mean((0, 2, 3)).sqrt().numpy()
        scales = scales * np.where(np.isfinite(size) & (size > 0), size, 1.0)
        if solved.solved.any() and ((size == 0) | ((size > 1 / _FAR) & (size < _FAR))).all():
            break
    return np.where(size > 0, scales, 0.0) if solved.solved.any() else np.zeros_like(scales)


def _solutions(grid: Grid, tasks: Tasks, curves: list[Curve | None] | None) -> Solutions:
    """Solutions on a grid: from curves where there are some."""
    parameters = torch.as_tensor(tasks.parameters)
    ones = torch.ones(grid.states, dtype=torch.float64)
    if curves is None:
        return solve_by_continuation(grid, tasks, ones)
    start = state_of(grid, curves, parameters)
    found = solve(grid, tasks, start, _sizes(start.states))
    there = torch.tensor([curve is not None for curve in curves])
    return Solutions(tasks, found.state, found.solved & there)


def _sizes(states: Tensor) -> Tensor:
    """(S,) root mean square of states (T, W + 1, S)."""
    size = states.square().mean((0, 1)).sqrt()
    return torch.where(size > 0, size, torch.ones_like(size))


def _grid(problem: Problem, tolerance: float, told: Told) -> Grid:
    """Windows, halved where the polynomials of any task still change by more than a tolerance with their degree."""
    pool = _joined(problem.corner_tasks(), problem.sobol_tasks(_POOL, 0))
    curves = integrated(problem, pool, _FINE)

    def solutions(grid: Grid) -> State:
        if curves is None:
            found = _solutions(grid, pool, None)
            return found.state[found.solved] if found.solved.any() else found.state
        there = [number for number, curve in enumerate(curves) if curve is not None]
        return state_of(grid, [curves[n] for n in there], torch.as_tensor(pool.parameters[there]))

    return fine_enough(problem, edges_of(problem, 2), _POINTS, tolerance, _MOST_WINDOWS, solutions, told)


def _accuracy(grid: Grid, problem: Problem) -> Accuracy:
    """Relative errors of unseen solutions, against those with more points in every window."""
    tasks = problem.sobol_tasks(_UNSEEN, 2)
    curves = integrated(problem, tasks, _ROUGH)
    finer = Grid(problem, grid.edges, grid.points + _FINER)
    coarse, fine = _solutions(grid, tasks, curves), _solutions(finer, tasks, curves)
    both = coarse.solved & fine.solved
    starts = [first for first, order in zip(grid.first_states, grid.orders, strict=True) if order]
    one, other = coarse.state.states[both][..., starts], fine.state.states[both][..., starts]
    error = (one - other).square().mean((1, 2)).sqrt() / other.square().mean((1, 2)).sqrt().clamp_min(1e-300)
    least = torch.finfo(error.dtype).eps
    usual = max(error.square().mean().sqrt().item(), least)
    return Accuracy(
        residual=usual,
        solution=usual,
        approximation=usual,
        worst_residual=max(error.max().item(), least),
        median_residual=max(error.median().item(), least),
    )


def _joined(*tasks: Tasks) -> Tasks:
    return Tasks(np.concatenate([t.parameters for t in tasks]), np.concatenate([t.initial for t in tasks]))
