"""Reference solutions of linear evolution equations in one space coordinate, zero at both walls.

Galerkin's method in space with combinations of Legendre polynomials that vanish at the walls, which converges
faster than any power where coefficients and initial values are smooth; the eigenvectors of the resulting matrix
carry the solution to any time without a time step.

Where the initial values are not quite zero at a wall they contradict the boundary conditions, and the solution is
defined only as far as that contradiction is small. They are brought to zero in a thin layer at the wall. For the
quantum oscillator, whose initial values are 1.6e-8 at the left wall, this changes the solution by 1e-9 on average, by
less than 1e-8 from t = 0.01 on, and by up to 2e-8 near that wall before; all other errors are below 1e-9.

Reference: J. Shen, Efficient spectral-Galerkin method I, SIAM J. Sci. Comput. 15 (1994).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import sympy
from numpy.polynomial import legendre

from ipbasis.errors import InputError
from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.problem.equations import AffineSplit, Equations, Jet, compile_numpy

MODES = (32, 48, 64, 96, 128, 192, 256)  # numbers of functions, tried in this order until one resolves the solution
_CHECKED_TIMES = 9
_CONTRADICTION = 1e-6  # largest that is accepted, relative to the initial values
_LAYER = 60  # exponent of the layer at a wall, which falls to one half within 1.2 % of the interval


class LinearEvolution:
    """A problem as ``u_t = Σ_q θ_q(p) A_q[u]`` with operators in x alone, and u = 0 at both walls.

    Args:
        problem: with two coordinates, time and space.

    Raises:
        InputError: if the problem has another form; says what is in the way.
    """

    def __init__(self, problem: Problem):
        self.problem = problem
        self.time, self.space = self._coordinates()
        self.split = self._explicit()
        self._check_boundary()
        self.initial = self._initial_values()
        self.contradiction = self._contradiction()

    def _refuse(self, what: str) -> InputError:
        return InputError(f"{self.problem.name}: no reference solution: {what}")

    def _coordinates(self) -> list[sympy.Symbol]:
        problem = self.problem
        if len(problem.coordinates) != 2 or problem.truth is None:
            raise self._refuse("needs two coordinates, time and space, and every term known")
        return list(problem.notation.coordinates.values())

    def _explicit(self) -> AffineSplit:
        """The equations solved for the time derivatives, parameters and space apart."""
        truth, notation = self.problem.truth, self.problem.notation
        if not truth.is_linear:
            raise self._refuse("the equations are not linear in the fields")
        spatial = [jet for jet in truth.jets if jet.index != (0,)]
        if any(0 in jet.index for jet in spatial):
            raise self._refuse(f"the equations must be of first order in {self.time}")
        if max((len(jet.index) for jet in spatial), default=0) != 2:
            raise self._refuse(f"the equations must be of second order in {self.space}")
        right = truth.solved_for([Jet(field, (0,)) for field in range(len(self.problem.fields))])
        if right is None:
            raise self._refuse(f"the equations do not determine every derivative along {self.time}")
        if any(self.time in side.free_symbols for side in right):
            raise self._refuse(f"the coefficients depend on {self.time}")
        split = Equations(notation, right, truth.parameters).affine
        if split is None:
            raise self._refuse("parameters and coordinates do not separate in the coefficients")
        if any(source != 0 for operator in split.operators for source in operator.sources):
            raise self._refuse("the equations have a part without the fields")
        return split

    def _check_boundary(self) -> None:
        fields = {self.problem.notation.symbol(Jet(field, ())) for field in range(len(self.problem.fields))}
        for wall in self.problem.domain[1]:
            conditions = [s for at, s in self.problem.boundary_systems if at == {1: wall}]
            residuals = [r for system in conditions for r in system.residuals]
            values = {symbol for residual in residuals for symbol in residual.free_symbols} <= fields
            if not values or sympy.solve(residuals, list(fields), dict=True) != [dict.fromkeys(fields, 0)]:
                raise self._refuse(f"every field must be zero at {self.space} = {wall:g}, and nothing more")
        if len(self.problem.boundary) != 2:
            raise self._refuse(f"boundary conditions must be at the two ends of {self.space} alone")

    def _initial_values(self) -> list[Callable[[np.ndarray], np.ndarray]]:
        """Per field, the initial values as a function of the position."""
        problem, given = self.problem, self.problem.fixed_initial
        if set(given) != {Jet(field, ()) for field in range(len(problem.fields))} or problem.free_initial:
            raise self._refuse("every field needs a formula as its initial value, and nothing more")
        if any(given[jet].free_symbols - {self.space} for jet in given):
            raise self._refuse("the initial values hold parameters")
        return [self.in_space(given[jet]) for jet in sorted(given, key=lambda j: j.field)]

    def _contradiction(self) -> float:
        """Initial values at the walls, relative to the largest."""
        left, right = self.problem.domain[1]
        values = np.abs([initial(np.linspace(left, right, 1001)) for initial in self.initial])
        size = float(values[:, [0, -1]].max() / max(values.max(), np.finfo(float).tiny))
        if not size <= _CONTRADICTION:
            raise self._refuse(f"the initial values are not zero at the ends of {self.space}")
        return size

    def in_space(self, expression: sympy.Expr) -> Callable[[np.ndarray], np.ndarray]:
        """An expression in the space coordinate as a function of positions (n,)."""
        function = compile_numpy((self.space,), (expression,))
        return lambda positions: np.broadcast_to(np.asarray(function(positions)[0], dtype=float), positions.shape)


@lru_cache(maxsize=16)
def _linear_evolution(declaration: str) -> LinearEvolution:
    return LinearEvolution(Problem.model_validate_json(declaration))


def linear_evolution(problem: Problem) -> LinearEvolution:
    """The problem as a linear evolution equation, derived once per problem."""
    return _linear_evolution(problem.model_dump_json())


class Discretisation:
    """``c' = Σ_q θ_q(p) A_q c`` for the coefficients of orthonormal functions.

    The functions are ``L_k - L_{k+2}`` (Legendre polynomials, on the interval), orthonormalised in this order:
    function k has degree k + 2.

    Args:
        evolution: what to discretise.
        modes: number of functions per field.
    """

    def __init__(self, evolution: LinearEvolution, modes: int):
        self.modes = modes
        self._evolution = evolution
        left, right = evolution.problem.domain[1]
        self._middle, self._half = (left + right) / 2, (right - left) / 2
        unit, weights = legendre.leggauss(2 * modes + 32)
        self._nodes, weights = self._middle + self._half * unit, self._half * weights
        self._combinations = np.eye(modes + 2, modes) - np.eye(modes + 2, modes, -2)
        self._combinations /= np.sqrt(4 * np.arange(modes) + 6)
        raw = self.functions(self._nodes)
        mass = raw.T @ (weights[:, None] * raw)
        self._combinations = np.linalg.solve(np.linalg.cholesky(mass), self._combinations.T).T

        tested = (weights[:, None] * self.functions(self._nodes)).T
        self._matrices = self._operators(tested)
        self._initial = np.stack([tested @ self._compatible(e) for e in evolution.initial])
        self._thetas = compile_numpy((evolution.problem.truth.parameters,), evolution.split.thetas)

    def _compatible(self, initial: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Initial values on the nodes, brought to zero at the walls."""
        unit = (self._nodes - self._middle) / self._half
        layers = np.stack([(1 - unit) / 2, (1 + unit) / 2]) ** _LAYER
        return initial(self._nodes) - initial(self._evolution.problem.domain[1]) @ layers

    def _operators(self, tested: np.ndarray) -> np.ndarray:
        """(operators, F N, F N) matrices; tested (N, nodes) holds functions times quadrature weights."""
        derivatives = [self.functions(self._nodes, order) for order in range(3)]
        operators, fields = self._evolution.split.operators, len(self._evolution.initial)
        matrices = np.zeros((len(operators), fields, self.modes, fields, self.modes))
        for q, operator in enumerate(operators):
            for row, coefficients in enumerate(operator.coefficients):
                for jet, coefficient in coefficients.items():
                    factor = self._evolution.in_space(coefficient)(self._nodes)[:, None]
                    matrices[q, row, :, jet.field] += tested @ (factor * derivatives[len(jet.index)])
        return matrices.reshape(len(operators), fields * self.modes, -1)

    def functions(self, positions: np.ndarray, order: int = 0) -> np.ndarray:
        """(n, N) values of the functions, or of their derivatives, at positions (n,)."""
        combinations = legendre.legder(self._combinations, order) / self._half**order
        unit = (positions - self._middle) / self._half
        return legendre.legvander(unit, len(combinations) - 1) @ combinations

    def motion(self, parameters: np.ndarray) -> "Motion":
        """The solution for one set of parameters (P,)."""
        thetas = np.array([float(theta) for theta in self._thetas(parameters)])
        rates, vectors, start = _eigen(np.tensordot(thetas, self._matrices, 1), self._initial.ravel())
        vectors = (vectors * start).reshape(*self._initial.shape, -1)
        # of a conjugate pair, which has one real part, the first stands for both
        slack = 1e-12 * np.abs(rates).max()
        weight = np.where(rates.imag > slack, 2.0, 1.0)
        kept = rates.imag >= -slack
        return Motion(rates[kept], (weight * vectors)[..., kept])


def _eigen(matrix: np.ndarray, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors of a matrix, and the coefficients of a vector in them."""
    largest = np.abs(matrix).max()
    for sign, factor in ((1, 1), (-1, 1j)):  # symmetric, skew
        if np.abs(matrix - sign * matrix.T).max() <= 1e-9 * largest:
            values, vectors = np.linalg.eigh(factor * (matrix + sign * matrix.T) / 2)
            return values / factor, vectors, vectors.conj().T @ vector
    values, vectors = np.linalg.eig(matrix)
    coefficients = np.linalg.solve(vectors, vector)
    if not np.linalg.norm(coefficients) <= 1e6 * np.linalg.norm(vector):
        raise ArithmeticError("the discretised operator has no well-conditioned eigenvectors")
    return values, vectors, coefficients


@dataclass(frozen=True)
class Motion:
    """Coefficients ``c(t) = Re Σ_m vectors_m exp(rates_m t)`` of one solution.

    Args:
        rates: (M,) eigenvalues.
        vectors: (F, N, M) eigenvectors times their coefficients in the initial values.
    """

    rates: np.ndarray
    vectors: np.ndarray

    def coefficients(self, times: np.ndarray) -> np.ndarray:
        """(F, N, n) coefficients of the space functions at times (n,) after the start."""
        with np.errstate(over="ignore", invalid="ignore"):
            return (self.vectors @ np.exp(self.rates[:, None] * times)).real

    def values(self, times: np.ndarray, functions: np.ndarray) -> np.ndarray:
        """(n, F) values at scattered points.

        Args:
            times: (n,) times after the start.
            functions: (n, N) values of the space functions at the positions.
        """
        angles = times[:, None] * self.rates.imag
        growth = np.exp(times[:, None] * self.rates.real) if self.rates.real.any() else 1.0
        cosine, sine = growth * np.cos(angles), growth * np.sin(angles)
        columns = [
            np.einsum("nm,nm->n", functions @ v.real, cosine) - np.einsum("nm,nm->n", functions @ v.imag, sine)
            for v in self.vectors
        ]
        return np.stack(columns, axis=1)


@lru_cache(maxsize=16)
def _discretisation(declaration: str, modes: int) -> Discretisation:
    return Discretisation(_linear_evolution(declaration), modes)


def discretisation(problem: Problem, modes: int) -> Discretisation:
    """The discretised problem, set up once per problem and number of functions."""
    return _discretisation(problem.model_dump_json(), modes)


def unresolved(motion: Motion, duration: float) -> float:
    """Largest share of the last quarter of the functions in a solution, over time."""
    coefficients = motion.coefficients(np.linspace(0, duration, _CHECKED_TIMES))
    last = coefficients[:, 3 * coefficients.shape[1] // 4 :]
    return float(np.linalg.norm(last, axis=(0, 1)).max() / np.linalg.norm(coefficients, axis=(0, 1)).max())


def solve_linear(problem: Problem, tasks: Tasks, points: np.ndarray, tolerance: float = 1e-10) -> np.ndarray:
    """Solutions of many tasks of a linear evolution equation at scattered points.

    The number of functions grows until their last quarter has no share in the solution beyond the tolerance, or
    beyond a tenth of the contradiction of initial and boundary values, where that is larger.

    Args:
        problem: a linear problem of first order in time with all fields zero at both ends of space.
        tasks: parameters.
        points: (1 or tasks, n, 2) times and positions.
        tolerance: error allowed, relative to the size of the solution in the mean square.

    Returns:
        (tasks, n, fields) values of the fields.

    Raises:
        InputError: if the problem has another form.
        ArithmeticError: if the solution is too fine for the largest number of functions.
    """
    start, end = problem.domain[0]
    limit = max(tolerance, linear_evolution(problem).contradiction / 10)
    values = np.empty((len(tasks), points.shape[1], len(problem.fields)))
    remaining = range(len(tasks))
    for modes in MODES:
        space = discretisation(problem, modes)
        common = space.functions(points[0, :, 1]) if len(points) == 1 else None
        too_fine = []
        for row in remaining:
            motion = space.motion(tasks.parameters[row])
            if not unresolved(motion, end - start) <= limit:
                too_fine.append(row)
                continue
            times, positions = points[row % len(points)].T
            functions = space.functions(positions) if common is None else common
            values[row] = motion.values(times - start, functions)
        if not too_fine:
            return values
        remaining = too_fine
    wrong = ", ".join(f"{n} = {v:g}" for n, v in zip(problem.parameters, tasks.parameters[remaining[0]], strict=True))
    raise ArithmeticError(f"{problem.name}: {MODES[-1]} functions do not resolve the solution at {wrong}")
