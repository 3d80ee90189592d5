"""Searches that start from solved tasks: which of them, within what bounds, and what else fits as well."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ipbasis.observations.long_form import Batch
from ipbasis.search.assemble import functions_of, observed_functions
from ipbasis.search.noise import Noise
from ipbasis.search.prepared import InRounds
from ipbasis.search.restarts import larger_than_due, searched_bounds, trained_bounds, with_other_starts
from ipbasis.search.rivals import Places, as_good, far, with_rivals
from ipbasis.search.rows import merge, put, select
from ipbasis.search.solution import Solution


class FromTasks(InRounds):
    """A search from solved tasks.

    What is asked of a batch is a dataclass with the fields ``distances`` (B, T) of the solved tasks from the data,
    ``known`` (B, U) given parameters and free initial values, NaN for the others, ``noise`` (B,), NaN where it is
    estimated, ``freedom`` (B,), ``free_misfit`` and ``free_freedom`` (B,). Where a search ended is one with
    ``unknowns`` (B, U), ``misfit``, ``noise``, ``iterations`` and ``converged`` (B,).

    Args:
        places: of the solved tasks, beside one another.
    """

    places: Places

    def asked(self, batch: Batch, noise: Noise, functions: Tensor) -> Any:
        """A batch, ready for the search."""
        raise NotImplementedError

    def anew(self, asked: Any, tasks: Tensor, best: Any = None) -> Any:
        """Search from solved tasks (B,), within the trained ranges; what meets the way of the `best` so far may stop
        there, not converged."""
        raise NotImplementedError

    def onward(self, asked: Any, ended: Any, bounds: Tensor) -> Any:
        """Search from where another one ended, within bounds (2, U)."""
        raise NotImplementedError

    def begun(self, asked: Any, parameters: Tensor, readouts: Tensor) -> Any:
        """A search that has not begun, at solutions with these parameters (B, P) and readouts (B, F K)."""
        raise NotImplementedError

    def found(self, asked: Any, ended: Any, batch: Batch, noise: Noise, functions: Tensor) -> Solution:
        """The outcome as that of a solver."""
        raise NotImplementedError

    def readouts(self, ended: Any) -> Tensor:
        """(B, F K) where a search ended."""
        raise NotImplementedError

    def truncation(self, asked: Any, ended: Any) -> Tensor:
        """(B,) squared misfit that the errors of the basis may make, in units of the weights."""
        raise NotImplementedError

    def stretch(self, asked: Any, ended: Any) -> Tensor:
        """(B, P) see `Solution`."""
        return torch.full_like(ended.unknowns[:, : len(self.basis.problem.parameters)], torch.nan)

    def at(self, batch: Batch, noise: Noise, functions: Tensor | None = None, near: Solution | None = None) -> Solution:
        functions = observed_functions(self.basis, batch) if functions is None else functions
        asked, problem = self.asked(batch, noise, functions), self.basis.problem
        if near is None:
            best = self._anew(asked)
        else:
            best = self.onward(asked, self.begun(asked, near.parameters, near.readouts), trained_bounds(problem))
            rows = (~best.converged).nonzero().squeeze(1)
            if len(rows):  # too far away after all
                part = select(asked, rows)
                put(best, rows, self.anew(part, part.distances.argmin(1)))
        # of two places that fit as well the one in the trained range is meant; only from its ends the search goes on
        low, high = trained_bounds(problem)
        at_end = asked.known.isnan() & ((best.unknowns <= low) | (best.unknowns >= high))
        rows = at_end.any(1).nonzero().squeeze(1)
        if len(rows):
            put(best, rows, self.onward(select(asked, rows), select(best, rows), searched_bounds(problem)))
        solution = self.found(asked, best, batch, noise, functions)
        if near is not None:
            return solution

        def search(rows: Tensor, tasks: Tensor) -> Any:
            return self.anew(select(asked, rows), tasks, select(best, rows))

        starts = self.places.rivals(asked.distances, best, solution.covariance)
        moved, other, there = with_rivals(best, starts, solution.covariance, search)
        self._found_better(moved, best, asked, batch, noise, functions, solution)
        self._elsewhere(there.nonzero().squeeze(1), select(other, there), solution)
        return replace(solution, iterations=best.iterations)

    def _found_better(
        self, rows: Tensor, best: Any, asked: Any, batch: Batch, noise: Noise, functions: Tensor, solution: Solution
    ) -> None:
        """Put the outcome of some queries into a solution."""
        if len(rows):
            part, own = batch.select(rows.numpy()), functions_of(functions, rows)
            put(solution, rows, self.found(select(asked, rows), select(best, rows), part, select(noise, rows), own))

    def _elsewhere(self, rows: Tensor, other: Any, solution: Solution) -> None:
        """Put other places of some queries into a solution."""
        parameters = other.unknowns[:, : solution.parameters.shape[1]]
        solution.elsewhere[rows] = torch.cat([parameters, self.readouts(other)], dim=1)

    def again(self, batch: Batch, noise: Noise, functions: Tensor, near: Solution) -> Solution:
        solution = replace(self.at(batch, noise, functions, near), elsewhere=near.elsewhere)
        given = torch.full_like(solution.misfit, torch.nan) if noise.by_query is None else noise.by_query
        free = solution.free_misfit, solution.free_freedom
        rows = larger_than_due(solution.misfit, solution.freedom.clamp_min(1), given, *free).nonzero().squeeze(1)
        if len(rows):
            other = self.at(batch.select(rows.numpy()), select(noise, rows), functions_of(functions, rows))
            better = other.converged & (other.misfit < solution.misfit[rows])
            put(solution, rows[better], select(other, better))
        return solution

    def looked_around(
        self, batch: Batch, noise: Noise, functions: Tensor, solution: Solution, estimated: bool
    ) -> tuple[Solution, Tensor]:
        asked = self.asked(batch, noise, functions)
        if estimated:
            asked = replace(asked, noise=torch.full_like(asked.noise, torch.nan))
        best = self.begun(asked, solution.parameters, solution.readouts)
        best = replace(best, converged=solution.converged, iterations=solution.iterations.clone())
        rows, count = solution.elsewhere.isfinite().all(1).nonzero().squeeze(1), solution.parameters.shape[1]
        rival = torch.full_like(solution.parameters, torch.nan)
        moved = rows[:0]
        if len(rows):
            part, before = select(asked, rows), select(best, rows)
            there = self.begun(part, *solution.elsewhere[rows].tensor_split([count], dim=1))
            other = self.onward(part, there, trained_bounds(self.basis.problem))
            apart = other.converged & far(before, other, solution.covariance[rows])
            error = self.truncation(part, before) + self.truncation(part, other)
            good = apart & as_good(before, other, part, error)
            better = apart & ~good & (other.misfit < before.misfit)
            second, moved = merge(other, before, better), rows[better]
            put(best, moved, select(other, better))
            self._found_better(moved, best, asked, batch, noise, functions, solution)
            self._elsewhere(rows, second, solution)
            rival[rows[good]] = second.unknowns[good, :count]
        return replace(solution, rival=rival, stretch=self.stretch(asked, best)), moved

    def _anew(self, asked: Any) -> Any:
        """Search from the nearest solved tasks, from others where that ends in a doubtful place."""
        nearest = asked.distances.argsort(dim=1)

        def doubtful(ended: Any) -> Tensor:
            due = larger_than_due(ended.misfit, asked.freedom, asked.noise, asked.free_misfit, asked.free_freedom)
            return ~ended.converged | due

        def searched(rows: Tensor, number: int, so_far: Any) -> Any:
            return self.anew(select(asked, rows), nearest[rows, number], so_far)

        best = self.anew(asked, nearest[:, 0])
        with_other_starts(best, nearest.shape[1], doubtful, searched)
        return best
