"""A solver on a basis, ready for any number of batches."""

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from torch import Tensor

from ipbasis.observations.long_form import Batch, Observations
from ipbasis.offline.artefact import Basis
from ipbasis.search.noise import Errors, Noise
from ipbasis.search.reweighting import Fit, fit_in_rounds
from ipbasis.search.solution import Solution

# queries, and points after padding, that are held at once
_BATCH, _BATCH_POINTS = 5000, 1_000_000


class Prepared:
    """A solver on a basis, for any number of batches.

    Args:
        basis: for the problem that is searched.
    """

    basis: Basis

    @property
    def combinations(self) -> np.ndarray | None:
        """(K, r) takes the unknowns of a field to its readouts; None if the solver gives no error bars."""
        return None

    @property
    def has_likelihood(self) -> bool:
        """Whether the objective, a parameter held, is the likelihood of solutions, with no weight of a search."""
        return False

    def unsure(self, fit: Fit, rejected: np.ndarray) -> np.ndarray:
        """(B,) queries whose estimates and error bars are to be left to solutions of the equations, not to this solver.

        Args:
            fit: of it.
            rejected: (B,) of which it says that the equations do not hold.
        """
        return np.zeros(len(rejected), dtype=bool)

    def solve(self, batch: Batch, noise: Noise) -> Fit:
        """Estimates of a batch."""
        raise NotImplementedError

    def most_queries(self, longest: int) -> int | None:
        """Queries of a batch at most, if the longest has so many observations; None for all at once."""
        return min(_BATCH, max(1, _BATCH_POINTS // longest))

    def unusable(self, observations: Observations) -> dict[Hashable, str]:
        """Queries that this solver cannot estimate, each with the reason."""
        return {}

    def columns(self, fit: Fit) -> Mapping[str, list]:
        """Further columns of the table of estimates, by name."""
        return {}

    @property
    def text_columns(self) -> list[str]:
        """Names of those of `columns` that hold text."""
        return []


class InRounds(Prepared):
    """A solver by least squares on the observations, in as many rounds as their errors ask for.

    Args:
        errors: kind of the observations' errors.
    """

    errors: Errors

    @property
    def has_likelihood(self) -> bool:
        return True

    def at(self, batch: Batch, noise: Noise, functions: Tensor | None = None, near: Solution | None = None) -> Solution:
        """Estimates of a batch by least squares.

        Args:
            batch: the observations.
            noise: of these, the error of the basis included.
            functions: (B or 1, n, K) at the points of observation, if they are at hand.
            near: solutions that the search goes on from; None to search from no guess.
        """
        raise NotImplementedError

    def again(self, batch: Batch, noise: Noise, functions: Tensor, near: Solution) -> Solution:
        """The same where a fit with other weights of the observations is at hand."""
        return self.at(batch, noise, functions)

    def looked_around(
        self, batch: Batch, noise: Noise, functions: Tensor, solution: Solution, estimated: bool
    ) -> tuple[Solution, Tensor]:
        """A solution with what is known of the likelihood away from it, and the queries (rows) that a better one was
        found of.

        Args:
            batch, noise, functions: as the solution was found with.
            solution: of the solver.
            estimated: whether the size of the noise is.
        """
        return solution, torch.arange(0)

    def beside(self, batch: Batch, noise: Noise, near: Solution) -> Solution:
        """Estimates of a batch by least squares from solutions near by."""
        return self.at(batch, noise, near=near)

    def solve(self, batch: Batch, noise: Noise) -> Fit:
        """Estimates of a batch."""
        return fit_in_rounds(self.basis, batch, noise, self.errors, self)
