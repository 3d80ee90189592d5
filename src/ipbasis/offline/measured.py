"""Solved tasks, and how well functions made of some of them serve others."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ipbasis.features.piecewise import PiecewiseSettings
from ipbasis.offline.artefact import Accuracy
from ipbasis.offline.collocation import NoSolutionError
from ipbasis.offline.marching import Fineness, Marcher
from ipbasis.offline.modes import Modes, modes_of
from ipbasis.offline.reduced import Reduced, ReducedSolution
from ipbasis.offline.trajectory import Trajectory, common_grid
from ipbasis.problem.declaration import Problem

_HALVINGS = 3  # of the way from a solved task
_OTHER = 1.0  # residual, as a share of the solution, of what is none


@dataclass(frozen=True)
class Tried:
    """Solved tasks.

    Args:
        unknowns: (S, U) parameters and free initial values.
        solutions: one per task.
    """

    unknowns: np.ndarray
    solutions: tuple[Trajectory, ...] = ()

    @classmethod
    def none(cls, problem: Problem) -> "Tried":
        """No task yet."""
        return cls(np.zeros((0, len(problem.ranges.intervals))))

    def __len__(self) -> int:
        return len(self.solutions)

    def __getitem__(self, rows: slice) -> "Tried":
        return Tried(self.unknowns[rows], self.solutions[rows])

    def and_(self, other: "Tried") -> "Tried":
        """Both."""
        return Tried(np.concatenate([self.unknowns, other.unknowns]), self.solutions + other.solutions)

    def with_one(self, unknowns: np.ndarray, solution: Trajectory) -> "Tried":
        """One more."""
        return self.and_(Tried(unknowns[None], (solution,)))

    def on(self, grid: PiecewiseSettings) -> Tensor:
        """(S, F, H) readouts on a grid."""
        return torch.stack([solution.on(grid) for solution in self.solutions])

    def nearest(self, problem: Problem, unknowns: np.ndarray) -> int:
        """Number of the task whose place in the ranges is nearest."""
        shares = problem.ranges.shares
        return int(np.square(shares(self.unknowns) - shares(unknowns)).sum(1).argmin())


@dataclass(frozen=True)
class Errors:
    """How well functions serve tasks.

    Args:
        unknowns: (V, U) of the tasks.
        residual: (V,) root mean square of the residual over that of the solution; infinite where none was found.
        solution: (V,) relative error of the solution from the conditions; NaN where the true one is not known.
        approximation: (V,) relative error that no readouts avoid; likewise.
    """

    unknowns: np.ndarray
    residual: np.ndarray
    solution: np.ndarray
    approximation: np.ndarray

    def worst(self, solved: bool = True) -> float:
        """The largest error of a solution, or of an approximation; infinite where one was not found."""
        errors = self.solution if solved else self.approximation
        return float(np.where(np.isnan(errors), np.inf, errors).max())

    def accuracy(self, problem: Problem) -> Accuracy:
        """As a record tells it; tasks that found no solution left out."""
        kept = np.isfinite(self.residual)
        quarters = (problem.ranges.shares(self.unknowns[kept]) * 4).astype(int).clip(0, 3)
        residual = self.residual[kept]

        def part(column: int, quarter: int) -> float | None:
            own = residual[quarters[:, column] == quarter]
            return float(np.sqrt(np.square(own).mean())) if len(own) else None

        return Accuracy(
            residual=_rms(residual),
            worst_residual=float(residual.max()),
            median_residual=float(np.median(residual)),
            solution=_rms(self.solution[kept]),
            approximation=_rms(self.approximation[kept]),
            by_range={
                name: [part(column, quarter) for quarter in range(4)] for column, name in enumerate(problem.known_names)
            },
        )


def _rms(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(np.sqrt(np.square(known).mean())) if len(known) else None


@dataclass(frozen=True)
class Span:
    """Functions made of solved tasks, and the forward problem in their span.

    Args:
        problem: the problem.
        marcher: solves its tasks.
        fineness: of these solutions.
        tried: what the functions are made of.
        modes: the functions.
        readouts: (S, F, K) of the solved tasks.
        reduced: the forward problem.
    """

    problem: Problem
    marcher: Marcher
    fineness: Fineness
    tried: Tried
    modes: Modes
    readouts: Tensor
    reduced: Reduced

    @classmethod
    def of(
        cls, marcher: Marcher, fineness: Fineness, tried: Tried, others: Sequence[Trajectory], smallest: float
    ) -> "Span":
        """The functions of solved tasks, on a grid on which others are polynomials too.

        Args:
            marcher: that solved them.
            fineness: of these solutions.
            tried: solved tasks.
            others: solutions of other tasks.
            smallest: share of the solutions below which functions are dropped.
        """
        problem = marcher.problem
        grid = common_grid([*tried.solutions, *others])
        solutions = tried.on(grid)
        modes = modes_of(grid, solutions, problem.system.indices, smallest)
        return cls(
            problem,
            marcher,
            fineness,
            tried,
            modes,
            solutions @ modes.transform,
            Reduced.of(problem, modes, marcher.in_time),
        )

    def first(self, count: int) -> "Span":
        """The first functions alone."""
        modes = self.modes.first(count)
        return Span(
            self.problem,
            self.marcher,
            self.fineness,
            self.tried,
            modes,
            self.readouts[..., :count],
            Reduced.of(self.problem, modes, self.marcher.in_time),
        )

    def solve(self, unknowns: np.ndarray, near: Tensor | None = None) -> ReducedSolution | None:
        """A task in the span; None where Newton's method does not converge.

        Args:
            unknowns: (U,) of the task.
            near: (F, K) readouts near its solution, to begin with; None for those of the nearest solved task, and of
                tasks on the way from it where they are too far.
        """
        try:
            if near is not None:
                return self._solved(unknowns, near)
            nearest = self.tried.nearest(self.problem, unknowns)
            return self._reached(self.tried.unknowns[nearest], unknowns, self.readouts[nearest], _HALVINGS)
        except NoSolutionError:
            return None

    def _reached(self, begin: np.ndarray, end: np.ndarray, readouts: Tensor, halvings: int) -> ReducedSolution:
        """A task from readouts of another one, in steps as large as Newton's method takes."""
        try:
            return self._solved(end, readouts)
        except NoSolutionError:
            if halvings == 0:
                raise
        ranges = self.problem.ranges
        middle = ranges.at((ranges.shares(begin) + ranges.shares(end)) / 2)
        half = self._reached(begin, middle, readouts, halvings - 1)
        return self._reached(middle, end, half.readouts, halvings - 1)

    def _solved(self, unknowns: np.ndarray, guess: Tensor) -> ReducedSolution:
        task = self.problem.tasks(unknowns[None])
        parameters, initial = torch.as_tensor(task.parameters[0]), torch.as_tensor(task.initial[0])
        found = self.reduced.solve(self.marcher.task(parameters, initial, self.fineness), guess)
        if found.residual > _OTHER and not self.reduced.box.linear:
            raise NoSolutionError("another solution of the equations than that of the task")
        return found

    def errors(self, unknowns: np.ndarray, solutions: Sequence[Trajectory] = ()) -> Errors:
        """Errors of tasks (V, U); residuals alone where the solutions are not given."""
        residual = np.full(len(unknowns), np.inf)
        solved, best = np.full(len(unknowns), np.nan), np.full(len(unknowns), np.nan)
        for number, own in enumerate(unknowns):
            inside = None
            if len(solutions):
                true = solutions[number].on(self.modes.grid)
                inside = true @ self.modes.transform
            found = self.solve(own, inside)
            if found is not None:
                residual[number] = found.residual
            if inside is not None:
                outside = (true - inside @ self.modes.transform.T).norm()
                best[number] = outside / true.norm()
                if found is not None:
                    solved[number] = torch.hypot(outside, (found.readouts - inside).norm()) / true.norm()
        return Errors(unknowns, residual, solved, best)
