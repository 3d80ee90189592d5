"""Reference solutions of problems without time: boundary value problems, in one coordinate or several.

Equations and conditions hold at points for functions of all coordinates (see `collocation`): linear ones are solved at
once, others by Newton's method from zero. The number of functions along each axis grows until the last eighth of them
has no share in the solution.
"""

from functools import lru_cache

import numpy as np

from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.reference.collocation import Collocated, on_axes, resolved, stacked
from ipbasis.reference.form import Form, steady_equations

_STEPS, _HALVINGS = 50, 20  # of Newton's method, and of each of its steps
_LAST_STEP = 1e-11  # relative to the coefficients: smaller ones are rounding


class Steady:
    """A problem without time.

    Raises:
        InputError: if it has another form; says what is in the way.
    """

    def __init__(self, problem: Problem):
        self.form = Form(problem, steady_equations(problem), range(len(problem.coordinates)))
        self.is_linear = problem.truth.is_linear
        self.residuals = [one.evaluated(one.residuals) for one in self.form.equations]
        self.partials = [one.evaluated(one.partials()[0][0]) for one in self.form.equations]


class Balance:
    """The algebraic equations for the coefficients of one task."""

    def __init__(self, steady: Steady, collocated: Collocated, parameters: np.ndarray):
        self.steady, self.collocated, self.parameters = steady, collocated, parameters
        none = np.zeros((0, collocated.fields * collocated.size))
        self._rows = np.concatenate([none, *(wall.rows(None, parameters) for wall in collocated.walls)])
        self._sources = np.concatenate([np.zeros(0), *(wall.source(None, parameters) for wall in collocated.walls)])

    def _parts(self, coefficients: np.ndarray, functions: list) -> list[np.ndarray]:
        """Per field, (expressions, n) values of compiled expressions where its equation holds."""
        collocated, form = self.collocated, self.steady.form
        own = coefficients.reshape(collocated.fields, -1)
        return [
            stacked(
                function(
                    form.coordinates(points, None),
                    [matrix @ own[jet.field] for matrix, jet in zip(matrices, equations.jets, strict=True)],
                    self.parameters,
                ),
                points.shape[:1],
            )
            for function, points, matrices, equations in zip(
                functions, collocated.points, collocated.matrices, form.equations, strict=True
            )
        ]

    def residual(self, coefficients: np.ndarray) -> np.ndarray:
        """What coefficients leave of equations and conditions."""
        inside = [rows[0] for rows in self._parts(coefficients, self.steady.residuals)]
        return np.concatenate([*inside, self._rows @ coefficients + self._sources])

    def jacobian(self, coefficients: np.ndarray) -> np.ndarray:
        """Its derivative by them."""
        collocated, rows = self.collocated, []
        for factors, matrices, equations in zip(
            self._parts(coefficients, self.steady.partials),
            collocated.matrices,
            self.steady.form.equations,
            strict=True,
        ):
            block = np.zeros((len(matrices[0]), collocated.fields, collocated.size))
            for factor, matrix, jet in zip(factors, matrices, equations.jets, strict=True):
                block[:, jet.field] += factor[:, None] * matrix
            rows.append(block.reshape(len(block), -1))
        return np.concatenate([*rows, self._rows])

    def solved(self) -> np.ndarray:
        """(1, fields x functions) coefficients of the solution.

        Raises:
            ArithmeticError: if there is none, or Newton's method does not find it.
        """
        coefficients = np.zeros(self.collocated.fields * self.collocated.size)
        for _ in range(1 if self.steady.is_linear else _STEPS):
            step = self._step(coefficients)
            coefficients = self._moved(coefficients, step)
            if np.linalg.norm(step) <= _LAST_STEP * np.linalg.norm(coefficients):
                return coefficients[None]
        if self.steady.is_linear and np.isfinite(coefficients).all():
            return coefficients[None]
        raise ArithmeticError(
            f"{self.steady.form.problem.name}: no solution found by {_STEPS} steps of Newton's method"
        )

    def _step(self, coefficients: np.ndarray) -> np.ndarray:
        matrix, rest = self.jacobian(coefficients), self.residual(coefficients)
        scale = np.abs(matrix).max(axis=1)
        try:
            return -np.linalg.solve(matrix / scale[:, None], rest / scale)
        except np.linalg.LinAlgError:
            raise ArithmeticError(f"{self.steady.form.problem.name}: no solution is determined") from None

    def _moved(self, coefficients: np.ndarray, step: np.ndarray) -> np.ndarray:
        """A step as long as it makes the next one smaller, as in Deuflhard's damped Newton method."""
        if self.steady.is_linear:
            return coefficients + step
        matrix = self.jacobian(coefficients)
        for halving in range(_HALVINGS):
            moved = coefficients + step / 2**halving
            rest = self.residual(moved)
            if np.isfinite(rest).all() and np.linalg.norm(np.linalg.solve(matrix, rest)) < np.linalg.norm(step):
                break
        return moved


@lru_cache(maxsize=16)
def _steady(declaration: str) -> Steady:
    return Steady(Problem.model_validate_json(declaration))


def steady(problem: Problem) -> Steady:
    """The problem as one without time, derived once per problem."""
    return _steady(problem.model_dump_json())


@lru_cache(maxsize=8)
def _collocated(declaration: str, counts: tuple[int, ...]) -> Collocated:
    return on_axes(_steady(declaration).form, counts)


def solve_steady(problem: Problem, tasks: Tasks, points: np.ndarray, tolerance: float = 1e-10) -> np.ndarray:
    """Solutions of many tasks of a problem without time at scattered points.

    Args:
        problem: a boundary value problem, see `Steady`.
        tasks: parameters.
        points: (1 or tasks, n, d) coordinates.
        tolerance: error allowed, relative to the size of the solution.

    Returns:
        (tasks, n, fields) values of the fields.

    Raises:
        InputError: if the problem has another form.
        ArithmeticError: if a solution is too fine for the functions, or none is found.
    """
    found, declaration, counts = steady(problem), problem.model_dump_json(), None
    values = []
    for number, parameters in enumerate(tasks.parameters):
        coefficients, collocated = resolved(
            lambda on, parameters=parameters: Balance(found, on, parameters).solved(),
            lambda counts: _collocated(declaration, counts),
            found.form,
            parameters,
            tolerance,
            counts,
        )
        counts = tuple(axis.count for axis in collocated.axes)
        values.append(collocated.evaluated(coefficients, points[number % len(points)]))
    return np.array(values)
