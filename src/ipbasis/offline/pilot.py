"""The first tasks of a problem: its natural units, and how finely its tasks can be solved in the time there is."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from ipbasis.errors import InputError
from ipbasis.offline.collocation import NoSolutionError
from ipbasis.offline.fading import is_faded
from ipbasis.offline.kept import Kept
from ipbasis.offline.marching import Fineness, Marcher, TooLongError
from ipbasis.offline.measured import Tried
from ipbasis.offline.trajectory import Trajectory, common_grid
from ipbasis.problem.declaration import Problem
from ipbasis.problem.natural_units import natural_units
from ipbasis.problem.units import Units, rescaled

_FINER, _FINEST = 1000, 1e-8  # tasks are solved so many times more accurately than is asked for, if in reach,
_COARSER, _COARSEST = 16.0, 10.0  # less so where one takes too long, but by this more, or by this less at the last
_ROUGH = 0.1  # share of the highest polynomials with which best approximations over the whole domain are worth nothing
_SHARE, _PILOT = 0.05, 0.3  # of the time: that one task may take, and all
_FADINGS = [2.0**-8, 2.0**-11, 2.0**-14, 2.0**-17]  # errors fall with the power 3/4: five times from one to the next
_FADED = 0.2  # share of the accuracy by which solutions may differ from one fading to the next
_FAR = 3.0  # a field so many times larger or smaller than its unit gets another unit
_TRIES = 5  # tasks that are tried for one with a solution

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


def pilot(problem: Problem, accuracy: float, seconds: float, told: Told, kept: Kept | None = None) -> Pilot:
    """Solve the middle of the ranges and their corners.

    Args:
        problem: the problem as declared.
        accuracy: relative error that is asked for.
        seconds: that the training may take.
        told: receives what is being done, in words.
        kept: solved tasks of an interrupted training.

    Raises:
        InputError: if no task has a solution, or none is found in the time.
    """
    told("solving tasks in the middle and at the ends of the ranges")
    units = natural_units(problem)
    marcher = _marcher(problem, units, kept)
    fineness, far = Fineness(max(accuracy / _FINER, _FINEST), _FADINGS[0]), accuracy / _COARSEST
    found = _attempt(problem, units, marcher, fineness, far, seconds, accuracy)
    if found is None and marcher.in_time:
        told("most have no solution in time: best approximations over the whole domain at once are tried")
        at_once = replace(marcher, at_once=True)
        found = _attempt(problem, units, at_once, fineness, far, seconds, accuracy)
    if found is None or max(slab.tail for one in found.tried.solutions for slab in one.slabs) > _ROUGH:
        told("rough solutions in time are tried")
        found = _attempt(problem, units, marcher, fineness, accuracy * _COARSEST, seconds, accuracy) or found
    if found is None:
        raise InputError(
            f"{problem.name}: most tasks have no solution over the whole domain, or none that is found in "
            f"{_SHARE * seconds:.0f} s; other or narrower ranges, a shorter domain, or more minutes are right"
        )
    told(f"{len(found.tried)} tasks solved to {found.fineness.tolerance:.0e}")
    return found


def _attempt(
    problem: Problem,
    units: Units,
    marcher: Marcher,
    fineness: Fineness,
    coarsest: float,
    seconds: float,
    accuracy: float,
) -> Pilot | None:
    """The pilot by one way of solving tasks; None where it solves less than half of them."""
    limit, until = _SHARE * seconds, time.monotonic() + _PILOT * seconds
    ranges = marcher.problem.ranges
    middle = np.full(len(ranges.intervals), 0.5)
    shares = np.concatenate([middle[None], ranges.shares(ranges.corners())])
    first = None
    for own in np.concatenate([shares[:1], ranges.shares(ranges.sobol(_TRIES, 0))]):
        if time.monotonic() > until:
            return None
        if (first := _in_time(marcher, ranges.at(own), fineness, coarsest, limit)) is not None:
            break
    if first is None:
        return None
    solution, fineness = first
    sizes = solution.sizes()
    if ((sizes > 0) & ((sizes > _FAR) | (sizes < 1 / _FAR))).any():
        scales = np.where(sizes > 0, sizes, 1.0) * units.field_scales
        units = natural_units(problem, dict(zip(problem.fields, scales.tolist(), strict=True)))
        marcher = replace(_marcher(problem, units, marcher.kept), at_once=marcher.at_once)
    tasks = marcher.problem.ranges.at(shares)
    if marcher.in_time and is_faded(marcher.problem):
        for unknowns in (tasks[0], tasks[1], tasks[-1]):
            fineness = _sharper(marcher, unknowns, fineness, accuracy, limit)
    tried, failed = Tried.none(problem), 0
    for unknowns in tasks:
        if time.monotonic() > until:
            break
        found = _in_time(marcher, unknowns, fineness, coarsest, limit)
        if found is None:
            failed += 1
        else:
            solution, fineness = found
            tried = tried.with_one(unknowns, solution)
    return Pilot(units, marcher, fineness, tried, failed) if len(tried) > failed else None


def solve_task(
    marcher: Marcher, unknowns: np.ndarray, fineness: Fineness, like: Trajectory | None = None, seconds: float = np.inf
) -> Trajectory:
    """The solution of a task given by its unknowns (U,), see `Marcher.solve`; one that is kept is not solved again."""
    asked = unknowns, marcher.problem.model_dump_json(), marcher.at_once, fineness
    if marcher.kept is not None and (solution := marcher.kept.read(*asked)) is not None:
        return solution
    task = marcher.problem.tasks(unknowns[None])
    parameters, initial = torch.as_tensor(task.parameters[0]), torch.as_tensor(task.initial[0])
    solution = marcher.solve(parameters, initial, fineness, like, time.monotonic() + seconds)
    if marcher.kept is not None:
        marcher.kept.write(solution, *asked)
    return solution


def difference(one: Trajectory, other: Trajectory) -> float:
    """Distance of two solutions, relative to the other."""
    grid = common_grid([one, other])
    return ((one.on(grid) - other.on(grid)).norm() / other.on(grid).norm()).item()


def _marcher(problem: Problem, units: Units, kept: Kept | None) -> Marcher:
    inner = rescaled(problem, units)
    return Marcher(inner, torch.ones(len(inner.fields), dtype=torch.float64), kept=kept)


def _in_time(
    marcher: Marcher, unknowns: np.ndarray, fineness: Fineness, coarsest: float, limit: float
) -> tuple[Trajectory, Fineness] | None:
    """The solution of a task, as fine as can be in the time, and how fine; None where there is none."""
    for chosen in _coarser(fineness, coarsest):
        try:
            return solve_task(marcher, unknowns, chosen, seconds=limit), chosen
        except TooLongError:
            continue
        except NoSolutionError:
            return None
    return None


def _coarser(fineness: Fineness, coarsest: float) -> Iterator[Fineness]:
    """One after the other, until a solution would be of no use."""
    while fineness.tolerance <= coarsest:
        yield fineness
        fineness = replace(
            fineness, tolerance=fineness.tolerance * _COARSER, fading=min(8 * fineness.fading, _FADINGS[0])
        )


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
