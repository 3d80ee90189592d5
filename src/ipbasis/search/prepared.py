"""A solver on a basis, ready for any number of batches."""

from collections.abc import Hashable, Mapping

import numpy as np

from ipbasis.observations.long_form import Batch, Observations
from ipbasis.offline.artefact import Basis
from ipbasis.search.noise import Noise
from ipbasis.search.reweighting import Fit

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
