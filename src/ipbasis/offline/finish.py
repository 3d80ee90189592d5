"""From solved tasks to a basis: as many functions as the accuracy takes, and how accurate they are where."""

from bisect import bisect_left
from dataclasses import replace

import numpy as np
import torch

from ipbasis.features.interface import rounding_error
from ipbasis.features.piecewise import Piecewise, PiecewiseSettings, cell_quadrature
from ipbasis.offline.artefact import Basis, Record, Solved, versions
from ipbasis.offline.build import stages_of
from ipbasis.offline.collocation import NoSolutionError
from ipbasis.offline.covering import Training
from ipbasis.offline.local_accuracy import LocalAccuracy
from ipbasis.offline.marching import TooLongError
from ipbasis.offline.measured import Errors, Span, Tried
from ipbasis.offline.operators import is_affine
from ipbasis.offline.pilot import difference, solve_task
from ipbasis.offline.reduced import points_of
from ipbasis.problem.declaration import Problem
from ipbasis.problem.ranges import Interval, Ranges

_KEPT = 0.2  # share of the accuracy down to which functions are kept, where the solved tasks give as many
_HELD = 8  # tasks that are held back to measure the result where there was no time for unseen ones
_PLACES = 64  # of the ranges, and as many of the ranges widened, at which the residual is measured
_SHARPER, _FURTHER, _MORE = 0.1, 0.125, 1.5  # tolerance, fading and unknowns of a solution that certifies others


def finished(problem: Problem, training: Training) -> Basis:
    """The basis of a training.

    Args:
        problem: the problem as declared.
        training: its solved tasks.
    """
    unseen = training.unseen or _for_want_of_unseen(training)
    span = training.span(unseen)
    span = span.first(_enough(training, span, unseen))
    errors = span.errors(unseen.unknowns, unseen.solutions)
    if training.unseen is None and training.whole is None:
        training.tried = training.tried.and_(unseen)
        span = training.span(Tried.none(training.problem)).first(span.modes.count)
    certified = _certified(training, unseen)
    _report(problem, training, errors, certified)
    grid = _in_units(span.modes.grid, training.problem)
    solved = None if span.marcher.at_once or is_affine(training.problem) else _solved(span)
    stages = stages_of(span.modes.count) if solved is None and not is_affine(training.problem) else []
    features = Piecewise(grid)
    record = Record(
        problem=problem,
        units=training.pilot.units,
        requested=training.accuracy,
        features=grid,
        functions=span.modes.count,
        quadrature_points=points_of(grid),
        accuracy=errors.accuracy(training.problem),
        local=_local(span, errors),
        rounding=rounding_error(features, span.modes.transform, cell_quadrature(grid, points_of(grid)).points),
        leading={
            stage: span.first(stage).errors(unseen.unknowns, unseen.solutions).accuracy(training.problem)
            for stage in stages
        },
        settings={
            **training.described,
            "tolerance": span.fineness.tolerance,
            "fading": span.fineness.fading,
            "at_once": span.marcher.at_once,
        },
        versions=versions(),
        figures={
            "seconds": training.clock.spent,
            "tasks": len(training.tried),
            "unseen_tasks": len(unseen),
            "tasks_without_solution": training.failed,
            "tasks_too_long": training.late,
            "interrupted": training.interrupted,
            **({} if certified is None else {"solver_error": certified}),
        },
    )
    return Basis(features, span.modes.transform.contiguous(), record, solved)


def _solved(span: Span) -> Solved:
    """The tasks that the functions are made of, from which a search starts."""
    tasks = span.problem.tasks(span.tried.unknowns)
    return Solved(torch.as_tensor(tasks.parameters), torch.as_tensor(tasks.initial), span.readouts.contiguous())


def _for_want_of_unseen(training: Training) -> Tried:
    """The last tasks, taken out of those of which the functions are made.

    In other features than polynomials those at the corners of the ranges: only polynomials tell errors of solutions.
    """
    if training.whole is not None:
        return training.pilot.tried
    tried = training.tried
    count = min(_HELD, len(tried) // 2)
    training.tried = tried[: len(tried) - count]
    return tried[len(tried) - count :]


def _enough(training: Training, span: Span, unseen: Tried) -> int:
    """The fewest functions that serve unseen tasks well enough, all where none do."""

    def serve(count: int) -> bool:
        errors = span.first(count).errors(unseen.unknowns, unseen.solutions)
        return training.worst(errors) <= _KEPT * training.accuracy

    most = span.modes.count
    return 1 + bisect_left(range(1, most), True, key=serve)


def _certified(training: Training, unseen: Tried) -> float | None:
    """Relative difference of the solution of an unseen task to a finer one; None where there was no time for that."""
    fineness = training.pilot.fineness
    finer = replace(
        fineness,
        tolerance=_SHARPER * fineness.tolerance,
        fading=_FURTHER * fineness.fading,
        unknowns=int(_MORE * fineness.unknowns),
    )
    try:
        again = solve_task(
            training.pilot.marcher, unseen.unknowns[0], finer, unseen.solutions[0], training.clock.left()
        )
    except (NoSolutionError, TooLongError):
        return None
    return difference(unseen.solutions[0], again)


def _in_units(grid: PiecewiseSettings, problem: Problem) -> PiecewiseSettings:
    """A grid on [-1, 1] along each coordinate on the domain of a problem."""
    breakpoints = [
        tuple((low + (high - low) * (np.array(ends) + 1) / 2).tolist())
        for ends, (low, high) in zip(grid.breakpoints, problem.domain, strict=True)
    ]
    return PiecewiseSettings(breakpoints=tuple(breakpoints), degrees=grid.degrees)


def _local(span: Span, errors: Errors) -> LocalAccuracy:
    """Residuals all over the ranges and about them, and the errors of the unseen tasks."""
    problem = span.problem
    widened = Ranges(
        [Interval(*interval.widened, interval.scale) for interval in problem.parameters.values()]
        + [*problem.free_initial.values()]
    )
    pools = np.concatenate([problem.ranges.sobol(_PLACES, 2), widened.sobol(_PLACES, 3)])
    everywhere = span.errors(pools)
    residual = np.concatenate([errors.residual, everywhere.residual])
    error = np.concatenate([errors.solution, everywhere.solution])
    return LocalAccuracy(
        shares=problem.ranges.shares(np.concatenate([errors.unknowns, pools])).tolist(),
        # where no solution is found in the basis, it tells nothing
        residual=np.where(np.isfinite(residual), np.maximum(residual, 1e-16), 1.0).tolist(),
        error=[None if np.isnan(one) else max(one, 1e-16) for one in error.tolist()],
    )


def _report(problem: Problem, training: Training, errors: Errors, certified: float | None) -> None:
    """Say what was reached, where it is worst, and what would help."""
    number = int(np.nan_to_num(errors.solution, nan=np.inf).argmax())
    units, inner = training.pilot.units, training.problem
    task = units.tasks_from(problem, inner.tasks(errors.unknowns[number : number + 1]))
    values = np.concatenate([task.parameters[0], task.initial[0]])
    where = ", ".join(f"{name} = {value:.4g}" for name, value in zip(problem.known_names, values, strict=True))
    worst = training.worst(errors)
    training.told(f"relative error of unseen tasks at most {worst:.1e}, at {where}")
    if certified is not None:
        training.told(f"a finer solution of one of them differs by {certified:.1e}")
    if training.failed or training.late:
        training.told(f"left out: {training.failed} tasks without a solution, {training.late} that took too long")
    if max(worst, certified or 0.0) > training.accuracy:
        over = training.clock.left(0.6) <= 0
        help_ = "more minutes, narrower ranges" if over else "narrower ranges"
        training.told(f"the accuracy of {training.accuracy:g} is not met: {help_} or a shorter domain would help")
