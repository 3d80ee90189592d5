"""The first tasks of a problem: its natural units, and how finely its tasks can be solved in the time there is."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from ipbasis.errors import InputError
from ipbasis.offline.collocation import NoSolutionError
from ipbasis.offline.fading import is_faded
from ipbasis.offline.marching import Fineness, Marcher, TooLongError
from ipbasis.offline.measured import Tried
from ipbasis.offline.trajectory import Trajectory, common_grid
from ipbasis.problem.declaration import Problem
from ipbasis.problem.natural_units import natural_units
from ipbasis.problem.units import Units, rescaled

_FINER, _FINEST = 1000, 1e-8  # tasks are solved so many times more accurately than is asked for, if in reach,
_COARSER, _COARSEST = 4.0, 10.0  # less so where one takes too long, up to so many times less accurately
_SHARE = 0.1  # of the time that one task may take
_FADINGS = [2.0**-8, 2.0**-11, 2.0**-14, 2.0**-17]  # errors fall with the power 3/4: five times from one to the next
_FADED = 0.2  # share of the accuracy by which solutions may differ from one fading to the next
_FAR = 3.0  # a field so many times larger or smaller than its unit gets another unit
_TRIES = 9  # tasks that are tried for one with a solution

Told = Callable[[str], None]


@dataclass(frozen=True)
class Pilot:
    """How the tasks of a problem are solved.

    Args:
        units: natural ones of the problem.
        marcher: solves tasks of the problem in these units.
        fineness: how finely.
        tried: tasks solved so.
        failed: number of tasks without a solution.
    """

    units: Units
    marcher: Marcher
    fineness: Fineness
    tried: Tried
    failed: int


def pilot(problem: Problem, accuracy: float, seconds: float, told: Told) -> Pilot:
    """Solve the middle of the ranges and their corners.

    Args:
        problem: the problem as declared.
        accuracy: relative error that is asked for.
        seconds: that the training may take.
        told: receives what is being done, in words.

    Raises:
        InputError: if no task has a solution, or none is found in the time.
    """
    told("solving a first task")
    units, limit = natural_units(problem), _SHARE * seconds
    marcher, fineness = _marcher(problem, units), Fineness(max(accuracy / _FINER, _FINEST), _FADINGS[0])
    first, solution, fineness = _first(marcher, fineness, accuracy, limit)
    sizes = solution.sizes()
    if ((sizes > 0) & ((sizes > _FAR) | (sizes < 1 / _FAR))).any():
        scales = np.where(sizes > 0, sizes, 1.0) * units.field_scales
        units = natural_units(problem, dict(zip(problem.fields, scales.tolist(), strict=True)))
        marcher = _marcher(problem, units)
    ranges = marcher.problem.ranges
    tasks = np.concatenate([ranges.at(first)[None], ranges.corners()])
    if is_faded(marcher.problem):
        for unknowns in (tasks[0], tasks[1], tasks[-1]):
            fineness = _sharper(marcher, unknowns, fineness, accuracy, limit)
    tried, failed = Tried.none(problem), 0
    for unknowns in tasks:
        try:
            solution, fineness = _in_time(marcher, unknowns, fineness, accuracy, limit)
            tried = tried.with_one(unknowns, solution)
        except NoSolutionError:
            failed += 1
    if not len(tried):
        raise InputError(f"{problem.name}: no task at the ends of the ranges has a solution; other ranges are right")
    told(f"{len(tried)} tasks in the middle and at the ends of the ranges solved to {fineness.tolerance:.0e}")
    return Pilot(units, marcher, fineness, tried, failed)


def solve_task(
    marcher: Marcher, unknowns: np.ndarray, fineness: Fineness, like: Trajectory | None = None, seconds: float = np.inf
) -> Trajectory:
    """The solution of a task given by its unknowns (U,), see `Marcher.solve`."""
    task = marcher.problem.tasks(unknowns[None])
    parameters, initial = torch.as_tensor(task.parameters[0]), torch.as_tensor(task.initial[0])
    return marcher.solve(parameters, initial, fineness, like, time.monotonic() + seconds)


def difference(one: Trajectory, other: Trajectory) -> float:
    """Distance of two solutions, relative to the other."""
    grid = common_grid([one, other])
    return ((one.on(grid) - other.on(grid)).norm() / other.on(grid).norm()).item()


def _marcher(problem: Problem, units: Units) -> Marcher:
    inner = rescaled(problem, units)
    return Marcher(inner, torch.ones(len(inner.fields), dtype=torch.float64))


def _first(marcher: Marcher, fineness: Fineness, accuracy: float, limit: float) -> tuple[np.ndarray, Trajectory, Fineness]:
    """Shares of the ranges of a task that has a solution, the middle if it does, its solution, and how fine it is."""
    ranges = marcher.problem.ranges
    middle = np.full((1, len(ranges.intervals)), 0.5)
    for shares in np.concatenate([middle, ranges.shares(ranges.sobol(_TRIES - 1, 0))]):
        try:
            return shares, *_in_time(marcher, ranges.at(shares), fineness, accuracy, limit)
        except NoSolutionError:
            continue
    name = marcher.problem.name
    raise InputError(f"{name}: none of {_TRIES} tasks in the ranges has a solution over the whole domain")


def _in_time(
    marcher: Marcher, unknowns: np.ndarray, fineness: Fineness, accuracy: float, limit: float
) -> tuple[Trajectory, Fineness]:
    """The solution of a task, as fine as can be in the time."""
    for chosen in _coarser(fineness, accuracy):
        try:
            return solve_task(marcher, unknowns, chosen, seconds=limit), chosen
        except TooLongError:
            continue
    raise InputError(
        f"{marcher.problem.name}: one solution takes more than {limit:.0f} s even at a tolerance of "
        f"{accuracy * _COARSEST:.1g}; narrower ranges, a shorter domain or more minutes are right"
    )


def _coarser(fineness: Fineness, accuracy: float) -> Iterator[Fineness]:
    """One after the other, until a solution would be of no use."""
    while fineness.tolerance < accuracy * _COARSEST:
        yield fineness
        fineness = replace(fineness, tolerance=fineness.tolerance * _COARSER, fading=min(8 * fineness.fading, _FADINGS[0]))


def _sharper(marcher: Marcher, unknowns: np.ndarray, fineness: Fineness, accuracy: float, limit: float) -> Fineness:
    """With what does not fit at the corners faded so fast that it no longer matters, or that time allows."""
    try:
        solution = solve_task(marcher, unknowns, fineness, seconds=limit)
        for fading in _FADINGS:
            if fading >= fineness.fading:
                continue
            sharper = replace(fineness, fading=fading)
            other = solve_task(marcher, unknowns, sharper, seconds=limit)
            if difference(solution, other) <= _FADED * accuracy:
                break
            fineness, solution = sharper, other
    except (NoSolutionError, TooLongError):
        pass
    return fineness
