"""The forward problem in polynomials, slab after slab of time, each as short and its polynomials as high as needed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil, inf, prod

import torch
from torch import Tensor

from ipbasis.features.piecewise import Piecewise, PiecewiseSettings
from ipbasis.features.quadrature import gauss
from ipbasis.offline.box import box_of, in_time
from ipbasis.offline.collocation import Box, NoSolutionError, Place
from ipbasis.offline.kept import Kept
from ipbasis.offline.trajectory import Slab, Trajectory
from ipbasis.problem.declaration import Problem
from ipbasis.problem.equations import compile_torch

_ALONG = {1: 9, 2: 7, 3: 5}  # degree along time, by the number of coordinates
_FIRST, _LOWEST, _HIGHER = 12, 8, 1.4  # degrees along the others to begin with, the lowest, and steps of them
_AT_ONCE = 400  # polynomials at most where equations may have no solution: higher ones would grow without bounds
_SMALL = 0.1  # a field smaller than this share of its expected size is held to that share
_SPARE = 30  # the next slab begins with degrees that leave less of this one than the tolerance over this
_FIRST_LEVEL, _DEPTH = 3, 18  # halvings of time: of the first slab, and of the shortest


class TooLongError(Exception):
    """A solution took longer than it may."""


@dataclass(frozen=True)
class Fineness:
    """How finely tasks are solved.

    Args:
        tolerance: share of a solution that the highest polynomials may have.
        fading: how long, as a share of the first coordinate, conditions that do not fit the initial state take to hold.
        unknowns: most readouts on a slab.
    """

    tolerance: float
    fading: float = 2.0**-11
    unknowns: int = 3000


@dataclass(frozen=True, eq=False)
class Marcher:
    """Solves tasks of a problem; what they share is kept.

    Args:
        problem: the problem.
        sizes: (F,) of the fields.
        at_once: whether time is a coordinate like the others. Equations that have no solution for any conditions, such
            as some inverse problems in time, then get the polynomials that meet equation and conditions best.
        kept: solved tasks of an interrupted training; None where they are not kept.
    """

    problem: Problem
    sizes: Tensor
    at_once: bool = False
    kept: Kept | None = None
    _boxes: dict[tuple[int, ...], Box] = field(default_factory=dict)

    @cached_property
    def in_time(self) -> bool:
        """Whether the first coordinate is time, and is gone along."""
        return not self.at_once and in_time(self.problem)

    def box(self, degrees: tuple[int, ...]) -> Box:
        """A slab with polynomials of these degrees, anywhere in time."""
        if degrees not in self._boxes:
            settings = PiecewiseSettings(breakpoints=((-1, 1),) * len(degrees), degrees=degrees)
            # as many points as determine the polynomials and an eighth more: conditions take some of the freedom
            rules = [gauss(degree + 2 + degree // 8) for degree in degrees]
            self._boxes[degrees] = box_of(self.problem, Piecewise(settings), rules, self.in_time)
        return self._boxes[degrees]

    def place(self, level: int, number: int) -> Place:
        """Where a slab stands."""
        domain = torch.as_tensor(self.problem.domain)
        low, high = domain[0].tolist()
        length = (high - low) * 0.5**level
        domain[0] = torch.tensor([low + number * length, low + (number + 1) * length])
        return Place(domain, self.sizes)

    def task(self, parameters: Tensor, initial: Tensor, fineness: Fineness) -> Tensor:
        """What a box takes as parameters, see `box_of`."""
        low, high = self.problem.domain[0]
        rate = torch.tensor([1 / (fineness.fading * (high - low))], dtype=torch.float64)
        return torch.cat([parameters, initial, rate])

    def solve(
        self,
        parameters: Tensor,
        initial: Tensor,
        fineness: Fineness,
        like: Trajectory | None = None,
        deadline: float = inf,
    ) -> Trajectory:
        """The solution of one task.

        Args:
            parameters: (P,).
            initial: (I,) free initial values.
            fineness: how finely.
            like: solution of a neighbour: where to begin.
            deadline: of `time.monotonic`.

        Raises:
            NoSolutionError: if Newton's method does not converge, not even on the shortest slabs.
            TooLongError: at the deadline.
        """
        least = 1.0
        while True:
            march = _March(self, parameters, initial, fineness, like, least)
            slabs = (self._in_time if self.in_time else self._at_once)(march, deadline)
            largest = max(slab.readouts.flatten(1).norm(dim=1).max().item() for slab in slabs)
            if largest >= _SMALL * least or largest == 0:
                return Trajectory(tuple(slabs))
            least = largest

    def _in_time(self, march: "_March", deadline: float) -> list[Slab]:
        """Slab after slab, the next begun like the last."""
        fineness, number, degrees, slabs = march.fineness, 0, march.first_degrees(), []
        level = _FIRST_LEVEL if march.like is None else march.like.slabs[0].level
        size = torch.full_like(self.sizes, _SMALL * march.least)
        tried, tail = (), inf
        while number < 2**level:
            if time.monotonic() > deadline:
                raise TooLongError(f"at {number * 0.5**level:.0%} of the first coordinate")
            try:
                readouts = march.slab(level, number, degrees, slabs[-1] if slabs else None)
            except NoSolutionError:
                if level == _DEPTH:
                    raise
                level, number = level + 1, 2 * number
                continue
            own = torch.maximum(size, readouts.flatten(1).norm(dim=1))
            tails = _tails(readouts, own, True)
            if tails[0] > fineness.tolerance and level < _DEPTH:
                level, number = level + 1, 2 * number
                continue
            higher = march.higher(degrees, tails)
            # on the shortest slabs something has jumps: higher polynomials where they help alone
            if higher is not None and (level < _DEPTH or tried != (level, number) or max(tails) < tail / 2):
                tried, tail, degrees = (level, number), max(tails), higher
                continue
            slabs.append(Slab(level, number, readouts, max(tails)))
            size, number = own, number + 1
            if tails[0] < fineness.tolerance / 100 and number % 2 == 0 and level > 0:
                level, number = level - 1, number // 2
            degrees = (degrees[0], *_needed(readouts, own, fineness.tolerance / _SPARE))
        return slabs

    def _at_once(self, march: "_March", deadline: float) -> list[Slab]:
        """One slab that is the whole domain."""
        degrees, best = march.first_degrees(), None
        while True:
            if time.monotonic() > deadline:
                raise TooLongError("with too low polynomials still")
            try:
                readouts = march.slab(0, 0, degrees, None)
            except NoSolutionError:
                if best is None:
                    raise
                return [best]
            size = readouts.flatten(1).norm(dim=1).clamp_min(_SMALL * march.least)
            tails = _tails(readouts, size, False)
            if self.at_once and best is not None and max(tails) > best.tail / 2:
                return [best]
            best, higher = Slab(0, 0, readouts, max(tails)), march.higher(degrees, tails)
            if higher is None:
                return [best]
            degrees = higher


@dataclass(frozen=True)
class _March:
    """One task, see `Marcher.solve`.

    Args:
        least: expected size of the fields in units of their sizes.
    """

    marcher: Marcher
    parameters: Tensor
    initial: Tensor
    fineness: Fineness
    like: Trajectory | None
    least: float

    def slab(self, level: int, number: int, degrees: tuple[int, ...], before: Slab | None) -> Tensor:
        """(F, degree + 1 along each coordinate) readouts on a slab, which begins as the one before ends."""
        box, place = self.marcher.box(degrees), self.marcher.place(level, number)
        targets = [] if box.start is None else self.targets(box, place, before)
        guess = torch.zeros(len(self.marcher.sizes), *(degree + 1 for degree in degrees), dtype=torch.float64)
        if self.marcher.in_time:
            self.constant(box, targets, guess)
        elif self.like is not None:
            kept = self.like.slabs[0].readouts
            kept = kept[(slice(None), *(slice(degree + 1) for degree in degrees))]
            guess[tuple(slice(count) for count in kept.shape)] = kept
        solved = box.solve(
            self.marcher.task(self.parameters, self.initial, self.fineness), place, targets, guess.flatten(1)
        )
        return solved.readouts.unflatten(1, guess.shape[1:])

    def targets(self, box: Box, place: Place, before: Slab | None) -> Sequence[Tensor]:
        """Values of the jets at the points of the start of a box."""
        start = box.start
        if before is None:
            return initial_values(self.marcher.problem, place, start.points, self.parameters, self.initial)
        earlier = self.marcher.box(before.degrees)
        # the end of the one before, at the points of the start
        ends = start.points.clone()
        ends[:, 0] = 1.0
        values = earlier.features(ends, tuple({jet.index for jet in start.jets}))
        units = self.marcher.place(before.level, before.number).units(start.jets)
        readouts = before.readouts.flatten(1)
        return [unit * (values[jet.index] @ readouts[jet.field]) for jet, unit in zip(start.jets, units, strict=True)]

    def constant(self, box: Box, targets: Sequence[Tensor], guess: Tensor) -> None:
        """Writes fields that stay what they are at the start of a box to `guess` (F, degree + 1, …), which is zero."""
        count = guess[0, 0].numel()
        for jet, target in zip(box.start.jets, targets, strict=True):
            if jet.index == ():
                # without the degrees along time, the polynomials are the first
                values = box.start.values[()][:, :count]
                found = torch.linalg.lstsq(values, target[:, None] / self.marcher.sizes[jet.field]).solution
                guess[jet.field, 0] = found.reshape(guess.shape[2:])

    def first_degrees(self) -> tuple[int, ...]:
        """Degrees that resolve the initial conditions; those of a neighbour where there are none."""
        axes = len(self.marcher.problem.coordinates)
        if not self.marcher.in_time:
            return (_FIRST,) * axes if self.like is None else self.like.slabs[0].degrees
        degrees = (_ALONG[axes], *(_FIRST,) * (axes - 1))
        while True:
            box, place = self.marcher.box(degrees), self.marcher.place(_FIRST_LEVEL, 0)
            guess = torch.zeros(len(self.marcher.sizes), *(degree + 1 for degree in degrees), dtype=torch.float64)
            self.constant(box, self.targets(box, place, None), guess)
            own = guess.flatten(1).norm(dim=1).clamp_min(_SMALL * self.least)
            higher = self.higher(degrees, _tails(guess, own, True))
            if higher is None:
                return degrees
            degrees = higher

    def higher(self, degrees: tuple[int, ...], tails: Sequence[float]) -> tuple[int, ...] | None:
        """Higher degrees in the directions that need them, None if there are none or they would be too many."""
        first = 1 if self.marcher.in_time else 0
        new = [
            ceil(_HIGHER * degree) if axis >= first and tail > self.fineness.tolerance else degree
            for axis, (degree, tail) in enumerate(zip(degrees, tails, strict=True))
        ]
        unknowns = len(self.marcher.sizes) * prod(degree + 1 for degree in new)
        most = _AT_ONCE * len(self.marcher.sizes) if self.marcher.at_once else self.fineness.unknowns
        return None if new == [*degrees] or unknowns > most else tuple(new)


def initial_values(problem: Problem, place: Place, points: Tensor, parameters: Tensor, initial: Tensor) -> list[Tensor]:
    """Values (n,) of the free and the other initial conditions of a task at points (n, d) of the start of a box."""
    arguments = (tuple(problem.notation.coordinates.values()), problem.system.parameters)
    formulas = compile_torch(arguments, tuple(problem.fixed_initial.values()))
    found = [*initial, *formulas(place.coordinates(points), parameters)]
    return [torch.as_tensor(value, dtype=torch.float64).expand(len(points)) for value in found]


def _scaled(readouts: Tensor, sizes: Tensor) -> Tensor:
    """(degree + 1 along each coordinate, F) readouts in units of the sizes of the fields."""
    return torch.where(sizes > 0, 1 / sizes, torch.zeros_like(sizes)) * readouts.movedim(0, -1)


def _needed(readouts: Tensor, sizes: Tensor, tolerance: float) -> list[int]:
    """Degrees along the coordinates other than time above which less than the tolerance is left."""
    squares, needed = _scaled(readouts, sizes).square(), []
    for axis in range(1, squares.ndim - 1):
        along = squares.movedim(axis, 0).flatten(1).sum(1)
        left = along.flip(0).cumsum(0).flip(0)[1:].sqrt()
        needed.append(max(min(_LOWEST, len(left)), int((left > tolerance).sum())))
    return needed


def _tails(readouts: Tensor, sizes: Tensor, in_time: bool) -> list[float]:
    """Share of the highest polynomials along each coordinate: two, for solutions may be even or odd, but in time."""
    scaled, tails = _scaled(readouts, sizes), []
    for axis, count in enumerate(scaled.shape[:-1]):
        last = 1 if in_time and axis == 0 else 2
        tails.append(scaled.narrow(axis, count - last, last).norm().item())
    return tails
