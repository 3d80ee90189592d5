"""The ordinary equations that a partial one becomes on functions of space, and their solution.

The state holds the values of each field, and of its derivatives along time below the highest, where its equation holds
(see `collocation`); the conditions tell the rest of the coefficients at any time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from ipbasis.problem.declaration import Tasks
from ipbasis.problem.equations import Jet
from ipbasis.reference.collocation import Collocated, stacked
from ipbasis.reference.evolving import Evolution
from ipbasis.reference.integrators import InitialValueProblem

_ILL_CONDITIONED = 1e6  # largest coefficients in eigenvectors, relative to what they add up to


class Lines:
    """The ordinary equations for the state of one task.

    Args:
        evolution: of the problem.
        collocated: its functions of space.
        task: one.
    """

    def __init__(self, evolution: Evolution, collocated: Collocated, task: Tasks):
        self.evolution, self.collocated, self.task = evolution, collocated, task
        self.parameters = task.parameters[0]
        counts = [len(points) for points in collocated.points]
        self._ends = np.concatenate([[0], np.cumsum(counts)])
        sizes = [counts[jet.field] for jet in evolution.levels]
        self._slices = dict(
            zip(evolution.levels, map(slice, np.cumsum([0, *sizes[:-1]]), np.cumsum(sizes)), strict=True)
        )
        self.groups = np.repeat(np.arange(len(sizes)), sizes)
        parts = [evolution.start(jet, collocated.points[jet.field], task) for jet in evolution.levels]
        self.start = np.concatenate(parts)
        self._fixed = None if evolution.moving else self._maps_at(evolution.problem.domain[0, 0])

    def _maps_at(self, time: float) -> "_Maps":
        walls = [wall.rows(time, self.parameters) for wall in self.collocated.walls]
        rows = np.concatenate([self.collocated.values, *walls])
        scale = np.abs(rows).max(axis=1)
        inverse = np.linalg.inv(rows / scale[:, None]) / scale
        inside, beside = np.split(inverse, [self._ends[-1]], axis=1)
        size = self.collocated.size
        jets = [
            [
                (m @ inside[j.field * size :][:size], m @ beside[j.field * size :][:size])
                for m, j in zip(ms, e.jets, strict=True)
            ]
            for ms, e in zip(self.collocated.matrices, self.evolution.form.equations, strict=True)
        ]
        return _Maps(inside, beside, jets)

    def _maps(self, time: float) -> "_Maps":
        return self._fixed or self._maps_at(time)

    def _sources(self, time: float, level: int) -> np.ndarray:
        found = [wall.source(time, self.parameters, level) for wall in self.collocated.walls]
        return -np.concatenate(found) if found else np.zeros(0)

    def _level(self, state: np.ndarray, level: int) -> np.ndarray:
        """Values of all fields at one level; zero for those that have none."""
        values = np.zeros(self._ends[-1])
        for field in range(self.collocated.fields):
            if (own := self._slices.get(Jet(field, (0,) * level))) is not None:
                values[self._ends[field] : self._ends[field + 1]] = state[own]
        return values

    def _jets(self, time: float, state: np.ndarray) -> list[list[np.ndarray]]:
        """Per field, the jets of its equation where that holds."""
        maps, levels = self._maps(time), range(max(self.evolution.orders))
        values = [(self._level(state, level), self._sources(time, level)) for level in levels]
        return [
            [
                inside @ values[j.index.count(0)][0] + beside @ values[j.index.count(0)][1]
                for (inside, beside), j in zip(own, e.jets, strict=True)
            ]
            for own, e in zip(maps.jets, self.evolution.form.equations, strict=True)
        ]

    def _evaluated(self, functions: list[Callable], time: float, jets: list[list[np.ndarray]]) -> list[np.ndarray]:
        """Per field, (expressions, n) values of compiled expressions where its equation holds."""
        return [
            stacked(function(self.evolution.form.coordinates(points, time), own, self.parameters), points.shape[:1])
            for function, own, points in zip(functions, jets, self.collocated.points, strict=True)
        ]

    def right_side(self, time: float, state: np.ndarray) -> np.ndarray:
        """Derivative of the state along time."""
        rates = self._evaluated(self.evolution.right, time, self._jets(time, state))
        values = np.empty_like(state)
        for jet, own in self._slices.items():
            above = self._slices.get(Jet(jet.field, (*jet.index, 0)))
            values[own] = rates[jet.field][0] if above is None else state[above]
        return values

    def jacobian(self, time: float, state: np.ndarray) -> np.ndarray:
        """Derivative of the right side by the state."""
        maps = self._maps(time)
        partials = self._evaluated(self.evolution.partials, time, self._jets(time, state))
        matrix = np.zeros((len(state), len(state)))
        for jet, own in self._slices.items():
            above = self._slices.get(Jet(jet.field, (*jet.index, 0)))
            if above is not None:
                matrix[own, above] = np.eye(own.stop - own.start)
                continue
            equations = self.evolution.form.equations[jet.field]
            for other, factor, (inside, _) in zip(
                equations.jets, partials[jet.field], maps.jets[jet.field], strict=True
            ):
                self._add(matrix[own], factor[:, None] * inside, other.index.count(0))
        return matrix

    def _add(self, rows: np.ndarray, block: np.ndarray, level: int) -> None:
        """Add a matrix on the values of all fields at one level to rows of one on the state."""
        for field in range(self.collocated.fields):
            if (own := self._slices.get(Jet(field, (0,) * level))) is not None:
                rows[:, own] += block[:, self._ends[field] : self._ends[field + 1]]

    def coefficients(self, times: np.ndarray, tolerance: float, evaluations: int | None) -> np.ndarray:
        """(n, fields x functions) at times (n,), increasing.

        Raises:
            ArithmeticError: if the state cannot be integrated.
        """
        states = self._states(times, tolerance, evaluations)
        found = []
        for time, state in zip(times, states.T, strict=True):
            maps = self._maps(time)
            found.append(maps.inside @ self._level(state, 0) + maps.beside @ self._sources(time, 0))
        return np.array(found)

    def _states(self, times: np.ndarray, tolerance: float, evaluations: int | None) -> np.ndarray:
        """(state, n) at times."""
        low = self.evolution.problem.domain[0, 0]
        if self.evolution.autonomous:
            matrix, rest = self.jacobian(low, self.start), self.right_side(low, np.zeros_like(self.start))
            if (found := exponential(matrix, rest, self.start, times - low)) is not None:
                return found
        whole = InitialValueProblem(
            name=self.evolution.problem.name,
            right_side=self.right_side,
            start=self.start,
            low=low,
            groups=self.groups,
            cases=np.zeros_like(self.groups),
            methods=("LSODA", "Radau"),
            options={"jac": self.jacobian},
            jumps=self.evolution.jumps,
        )
        return whole.values(times, tolerance, evaluations)


@dataclass(frozen=True)
class _Maps:
    """What follows from the values where the equations hold, and from the sources of the conditions.

    Args:
        inside, beside: (fields x functions, values) and (fields x functions, conditions) to the coefficients.
        jets: per field, for each jet of its equation, both to that jet where the equation holds.
    """

    inside: np.ndarray
    beside: np.ndarray
    jets: list[list[tuple[np.ndarray, np.ndarray]]]


def exponential(matrix: np.ndarray, rest: np.ndarray, start: np.ndarray, times: np.ndarray) -> np.ndarray | None:
    """(components, n) solution of ``y' = A y + b`` at times after the start, by eigenvectors; None if those are bad."""
    rates, vectors = scipy.linalg.eig(matrix)
    try:
        first, second = scipy.linalg.solve(vectors, np.stack([start, rest], axis=1)).T
    except scipy.linalg.LinAlgError:
        return None
    for found, given in ((first, start), (second, rest)):
        if not np.linalg.norm(found) <= _ILL_CONDITIONED * np.linalg.norm(given):
            return None
    angles = rates[:, None] * times
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        grown = np.where(rates[:, None] == 0, times, np.expm1(angles) / rates[:, None])
        return (vectors @ (first[:, None] * np.exp(angles) + second[:, None] * grown)).real
