"""Reference solutions of partial equations that evolve in time: functions of space, integrated in time.

The state holds the values of each field, and of its derivatives along time below the highest, where its equation holds
(see `collocation`); the conditions tell the rest of the coefficients at any time. Linear equations with constant
coefficients are solved by eigenvectors, without a step in time, all others by SciPy's implicit integrators. The number
of functions along each axis grows until the last eighth of them has no share in the solution.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import scipy.linalg

from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.problem.equations import Equations, Jet
from ipbasis.reference.collocation import Collocated, Form, on_axes, resolved, stacked
from ipbasis.reference.integrators import InitialValueProblem, jumps

_STEPWISE = 1 / 30  # share of the tolerance allowed in a step: errors of early steps grow
_ILL_CONDITIONED = 1e6  # largest coefficients in eigenvectors, relative to what they add up to


class Evolution:
    """A problem in time and space, solved for the highest derivatives along time.

    Raises:
        InputError: if the problem has another form; says what is in the way.
    """

    def __init__(self, problem: Problem):
        notation, truth, self.orders = problem.notation, problem.truth, problem.orders
        fields = range(len(problem.fields))
        self.problem = problem
        highest = [Jet(field, (0,) * order) for field, order in zip(fields, self.orders, strict=True)]
        rates = truth.solved_for(highest) if 0 not in self.orders else None
        equations = [Equations(notation, (rate,), truth.parameters) for rate in rates or ()]
        self.form = Form(problem, equations, range(1, len(problem.coordinates)))
        if rates is None:
            raise self.form.refuse("the equations do not determine the highest derivatives along time")
        if any(jet.index.count(0) >= self.orders[jet.field] for one in equations for jet in one.jets):
            raise self.form.refuse("a highest derivative along time is differentiated along space too")
        self._check_conditions()
        self.levels = [
            Jet(f, (0,) * level) for level in range(max(self.orders)) for f in fields if level < self.orders[f]
        ]
        given = {**problem.free_initial, **problem.fixed_initial}
        if missing := [notation.jet_name(jet) for jet in self.levels if jet not in given]:
            raise self.form.refuse(f"no initial value for {missing[0]}")
        self.right = [one.evaluated(one.residuals) for one in equations]
        self.partials = [one.evaluated(one.partials()[0][0]) for one in equations]
        everything = [*self.form.equations, *(condition.equations for condition in self.form.conditions)]
        residuals = [residual for one in everything for residual in one.residuals]
        self.jumps = jumps(residuals, self.form.time, problem.domain[0])
        self._starts = {
            jet: Equations(notation, (formula,), truth.parameters).evaluated([formula])
            for jet, formula in problem.fixed_initial.items()
        }

    def _check_conditions(self) -> None:
        for condition in self.form.conditions:
            held = condition.equations.jets
            if any(0 in jet.index for jet in held):
                raise self.form.refuse("a condition holds a derivative along time")
            if not condition.equations.is_linear:
                raise self.form.refuse("a condition is not linear in the fields")
            if len({self.orders[jet.field] for jet in held}) > 1 or (
                self._moves(condition.equations) and max(self.orders) > 1
            ):
                raise self.form.refuse("conditions tie fields of different order in time, or change with time")

    def _moves(self, equations: Equations) -> bool:
        """Whether coefficients of a condition depend on time."""
        return any(self.form.time in partial.free_symbols for partial in equations.partials()[0][0])

    @cached_property
    def moving(self) -> bool:
        """Whether coefficients of any condition depend on time."""
        return any(self._moves(condition.equations) for condition in self.form.conditions)

    @cached_property
    def autonomous(self) -> bool:
        """Whether the equations are linear, and nothing in them or the conditions depends on time."""
        everything = [*self.form.equations, *(condition.equations for condition in self.form.conditions)]
        return all(
            one.is_linear and not any(self.form.time in residual.free_symbols for residual in one.residuals)
            for one in everything
        )

    def start(self, jet: Jet, points: np.ndarray, task: Tasks) -> np.ndarray:
        """(n,) initial values of a field or its derivative along time at points (n, space)."""
        if jet in self._starts:
            coordinates = self.form.coordinates(points, self.problem.domain[0, 0])
            return stacked(self._starts[jet](coordinates, (), task.parameters[0]), points.shape[:1])[0]
        return np.full(len(points), task.initial[0, list(self.problem.free_initial).index(jet)])


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


@lru_cache(maxsize=16)
def _evolution(declaration: str) -> Evolution:
    return Evolution(Problem.model_validate_json(declaration))


def evolution(problem: Problem) -> Evolution:
    """The problem as one that evolves, derived once per problem."""
    return _evolution(problem.model_dump_json())


@lru_cache(maxsize=32)
def _collocated(declaration: str, counts: tuple[int, ...]) -> Collocated:
    return on_axes(_evolution(declaration).form, counts)


def solve_evolution(
    problem: Problem, tasks: Tasks, points: np.ndarray, tolerance: float = 1e-10, evaluations: int | None = None
) -> np.ndarray:
    """Solutions of many tasks of a partial equation in time at scattered points.

    Args:
        problem: with one or two coordinates of space; see `Evolution`.
        tasks: parameters and initial values.
        points: (1 or tasks, n, d) coordinates, time first.
        tolerance: error allowed, relative to the size of the solution.
        evaluations: of the right-hand side, at most.

    Returns:
        (tasks, n, fields) values of the fields.

    Raises:
        InputError: if the problem has another form.
        ArithmeticError: if a solution is too fine for the functions, or cannot be integrated.
    """
    found, counts = [], None
    for number in range(len(tasks)):
        places = points[number % len(points)]
        values, counts = _solved(problem, tasks[number : number + 1], places, tolerance, evaluations, counts)
        found.append(values)
    return np.array(found)


def _solved(
    problem: Problem,
    task: Tasks,
    points: np.ndarray,
    tolerance: float,
    evaluations: int | None,
    counts: tuple[int, ...] | None,
) -> tuple[np.ndarray, tuple[int, ...]]:
    """(n, fields) the solution of one task, and how many functions it took; those that are given are tried first."""
    evolving, declaration, low = evolution(problem), problem.model_dump_json(), problem.domain[0, 0]
    late = points[:, 0] > low
    times, place = np.unique(points[late, 0], return_inverse=True)
    values = np.empty((len(points), len(problem.fields)))
    for field in range(len(problem.fields)):
        # exact where it starts, even if that does not agree with the conditions
        values[~late, field] = evolving.start(Jet(field, ()), points[~late, 1:], task)
    if not late.any():
        return values, counts
    coefficients, on = resolved(
        lambda on: Lines(evolving, on, task).coefficients(times, _STEPWISE * tolerance, evaluations),
        lambda counts: _collocated(declaration, counts),
        evolving.form,
        task.parameters[0],
        tolerance,
        counts,
    )
    values[late] = on.evaluated(coefficients[place], points[late, 1:])
    return values, tuple(axis.count for axis in on.axes)
