"""The estimates of all queries: their table, fitted solutions, intervals and unknown terms."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch

from ipbasis.errors import InputError
from ipbasis.estimates.intervals import intervals
from ipbasis.offline.artefact import Basis
from ipbasis.search.unknown_terms import Terms


@dataclass(frozen=True)
class Estimates:
    """Estimates of all queries.

    Args:
        table: one row per query: ``query``, for each parameter p ``p, p_std, p_low, p_high``, then
            ``noise_std, objective, iterations``, with re-simulation or polish ``resimulation_rms``, then
            ``status, message``, and ``<field>_noise_std`` where the problem has several fields.
        basis: the basis used.
        readouts: (queries, F, K).
        batches: of each batch its rows in the table and (rows, F, r, r) covariances of each field's readouts in r
            combinations of the functions; where there are no combinations, (rows, F, K, q) roots of the covariances,
            or nothing if the solver gives no error bars.
        combinations: (K, r), takes those to the readouts; None where there are none.
        correlation: (queries, P, P) of the parameters' errors, those of `basis.problem` in its order; NaN for known
            parameters and where the solver gives no error bars.
        freedom: (queries,) degrees of freedom of the noise estimate; infinite where the noise was given.
        found: the unknown terms of each batch and its rows in the table, where the problem has some.
    """

    table: pd.DataFrame
    basis: Basis
    readouts: np.ndarray
    batches: tuple[tuple[np.ndarray, np.ndarray], ...]
    combinations: np.ndarray | None
    correlation: np.ndarray
    freedom: np.ndarray
    found: tuple[tuple[np.ndarray, Terms], ...] = ()

    @cached_property
    def deviations(self) -> np.ndarray | None:
        """(queries, F, K, q) roots of the readouts' covariances, made on demand; None if the solver gives none."""
        roots = [(rows, self._roots(part)) for rows, part in self.batches if part.ndim == 4]
        if not roots:
            return None
        values = np.full((len(self.table), *roots[0][1].shape[1:]), np.nan)
        for rows, root in roots:
            values[rows] = root
        return values

    def _roots(self, part: np.ndarray) -> np.ndarray:
        """(rows, F, K, q) of what a batch keeps."""
        if self.combinations is None:
            return part
        sizes, directions = np.linalg.eigh(part)
        return self.combinations @ (directions * np.sqrt(sizes.clip(0))[..., None, :])

    def alone(self, row: int) -> "Estimates":
        """The estimates of one query."""
        kept = [(rows == row, part) for rows, part in self.batches if part.ndim == 4 and (rows == row).any()]
        return replace(
            self,
            table=self.table.iloc[[row]],
            readouts=self.readouts[[row]],
            batches=tuple((np.zeros(1, dtype=int), part[own]) for own, part in kept),
            freedom=self.freedom[[row]],
        )

    @property
    def readout_covariance(self) -> np.ndarray | None:
        """(queries, F, K, K) covariance of each field's readouts, or None if the solver gives none."""
        return None if self.deviations is None else self.deviations @ self.deviations.swapaxes(2, 3)

    def solution(self, points: np.ndarray) -> np.ndarray:
        """Fitted fields at points (n, d): (queries, n, F)."""
        return np.einsum("nk,qfk->qnf", self.basis.functions(points), self.readouts) * self.field_scales

    def solution_std(self, points: np.ndarray) -> np.ndarray:
        """Standard error of the fitted fields at points (n, d): (queries, n, F); NaN if not known."""
        queries, fields, _ = self.readouts.shape
        if self.deviations is None:
            return np.full((queries, len(points), fields), np.nan)
        own = np.einsum("nk,qfkl->qnfl", self.basis.functions(points), self.deviations, optimize=True)
        return np.linalg.norm(own, axis=3) * self.field_scales

    @property
    def field_scales(self) -> np.ndarray:
        """(F,) what one of each field in the units of the basis is."""
        units = self.basis.record.units
        return np.ones(self.readouts.shape[1]) if units is None else units.field_scales

    def intervals(self, confidence: float) -> tuple[np.ndarray, np.ndarray]:
        """Low and high ends (queries, P) of the intervals that hold the true parameters with this probability."""
        if not 0 < confidence < 1:
            raise InputError(
                f"confidence {confidence:g}: the probability of an interval lies between 0 and 1, such as 0.9"
            )
        names = list(self.basis.problem.parameters)
        values, std = self.table[names].to_numpy(), self.table[[f"{name}_std" for name in names]].to_numpy()
        units = self.basis.record.units
        if units is None:
            return intervals(values, std, self.freedom, confidence)
        own = units.to(values)
        low, high = intervals(own, std / units.slopes(own), self.freedom, confidence)
        return units.values(low), units.values(high)

    def terms(self, points: np.ndarray) -> np.ndarray:
        """Unknown terms along the fitted solutions at points (n, d): (queries, n, terms)."""
        return self._terms(self.solution(points), "terms")

    def terms_on(self, fields: np.ndarray) -> np.ndarray:
        """Unknown terms where the fields have the values (m, F): (queries, m, terms)."""
        return self._terms(np.broadcast_to(fields, (len(self.table), *np.shape(fields))), "terms")

    def terms_std_on(self, fields: np.ndarray) -> np.ndarray:
        """Standard deviation of `terms_on`, of the solver ``free_form`` only."""
        return self._terms(np.broadcast_to(fields, (len(self.table), *np.shape(fields))), "terms_std")

    def _terms(self, fields: np.ndarray, what: str) -> np.ndarray:
        parts = [getattr(found, what)(torch.tensor(fields[rows])).numpy() for rows, found in self.found]
        values = np.full((*fields.shape[:2], parts[0].shape[2] if parts else 0), np.nan)
        for (rows, _), part in zip(self.found, parts, strict=True):
            values[rows] = part
        return values
