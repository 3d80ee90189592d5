"""Reference solutions of ordinary differential equations, integrated from the declared equations."""

from functools import lru_cache

import numpy as np

from ipbasis.errors import InputError
from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.problem.equations import Jet
from ipbasis.problem.functions import compile_numbers, compile_numpy
from ipbasis.reference.integrators import InitialValueProblem


class FirstOrderSystem:
    """An ODE problem as ``y' = f(t, y, p)``; the state lists each field and its lower derivatives.

    Raises:
        InputError: if the problem is no ODE with initial conditions alone, or cannot be solved for its highest
            derivatives.
    """

    def __init__(self, problem: Problem):
        if len(problem.coordinates) != 1 or problem.truth is None:
            raise InputError(f"{problem.name}: only an ODE with every term known can be integrated")
        if problem.boundary:
            raise InputError(f"{problem.name}: only an ODE with initial conditions alone can be integrated")
        notation, parameters = problem.notation, problem.truth.parameters
        fields = [Jet(field, ()) for field in range(len(problem.fields))]
        self._jets, orders = tuple(dict.fromkeys([*problem.truth.jets, *fields])), problem.orders
        self.state = tuple(Jet(f, (0,) * d) for f, order in enumerate(orders) for d in range(order))
        if 0 in orders:
            raise InputError(f"{problem.name}: field {problem.fields[orders.index(0)]!r} occurs without a derivative")
        highest = [Jet(f, (0,) * order) for f, order in enumerate(orders)]
        solved = problem.truth.solved_for(highest)
        if solved is None:
            raise InputError(f"{problem.name}: the equations do not determine the highest derivatives, linearly")
        rates = dict(zip(highest, solved, strict=True))
        following = [Jet(jet.field, (*jet.index, 0)) for jet in self.state]
        right = [rates.get(jet, notation.symbol(jet)) for jet in following]
        time = next(iter(notation.coordinates.values()))
        symbols = tuple(notation.symbol(jet) for jet in self.state)
        self._right = compile_numpy((time, symbols, parameters), tuple(right))
        self._rates = compile_numbers((time, symbols, parameters), tuple(right))
        low, high = problem.domain[0]
        self.jumps = tuple(at for at in problem.truth.jumps(0) if low < at < high)
        self._free = list(problem.free_initial)
        self._fixed = {jet: n for n, jet in enumerate(problem.fixed_initial)}
        self._formulas = compile_numpy((parameters,), tuple(problem.fixed_initial.values()))

    def fields_of(self, state: np.ndarray) -> np.ndarray:
        """(tasks, n, fields) values of the fields in states (state, tasks, n)."""
        rows = [row for row, jet in enumerate(self.state) if jet.index == ()]
        return state[rows].transpose(1, 2, 0)

    def jets_of(self, times: np.ndarray, state: np.ndarray, parameters: np.ndarray) -> dict[Jet, np.ndarray]:
        """Every jet of the equations and every field along solutions, the highest derivatives by the right-hand side.

        Args:
            times: (n,) or (tasks, n).
            state: (state, tasks, n).
            parameters: (parameters, tasks).

        Returns:
            (tasks, n) values by jet.
        """
        values = dict(zip(self.state, state, strict=True))
        rates = self.right_side(times, state, parameters[..., None])
        values |= {Jet(jet.field, (*jet.index, 0)): rate for jet, rate in zip(self.state, rates, strict=True)}
        return {jet: values[jet] for jet in self._jets}

    def right_side(self, time: float | np.ndarray, state: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        """Time derivative of a state (state, tasks, ...); parameters (parameters, tasks, ...) broadcast against it."""
        return np.stack(np.broadcast_arrays(*self._right(time, state, parameters), state[0])[:-1])

    def rates(self, time: float, state: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        """(S,) time derivative of the state (S,) of one task."""
        try:
            return np.array(self._rates(float(time), state.tolist(), parameters.tolist()))
        except (ArithmeticError, ValueError):  # no finite value
            return self.right_side(time, state[:, None], parameters[:, None])[:, 0]

    def initial_state(self, tasks: Tasks) -> np.ndarray:
        """(state, tasks) values at the start."""
        fixed = [np.broadcast_to(value, len(tasks)) for value in self._formulas(tasks.parameters.T)]
        rows = [
            tasks.initial[:, self._free.index(jet)] if jet in self._free else fixed[self._fixed[jet]]
            for jet in self.state
        ]
        return np.stack(rows).astype(float)


@lru_cache(maxsize=16)
def _first_order_system(declaration: str) -> FirstOrderSystem:
    return FirstOrderSystem(Problem.model_validate_json(declaration))


def first_order_system(problem: Problem) -> FirstOrderSystem:
    """The problem as a first-order system, derived once per problem."""
    return _first_order_system(problem.model_dump_json())


def integrate_state(
    problem: Problem, tasks: Tasks, times: np.ndarray, tolerance: float = 1e-10, evaluations: int | None = None
) -> np.ndarray:
    """(state, tasks, n) states of many tasks of an ODE problem; see `integrate`.

    Raises:
        ArithmeticError: if a solution ends within the domain, or more than `evaluations` of the right-hand side
            are needed.
    """
    system = first_order_system(problem)
    start = system.initial_state(tasks)
    shape = len(tasks), len(system.state)
    unique, inverse = np.unique(np.asarray(times, dtype=float), return_inverse=True)

    def right_side(time: float, state: np.ndarray) -> np.ndarray:
        return system.right_side(time, state.reshape(shape).T, tasks.parameters.T).T.ravel()

    # the state of one task after that of another, so that derivatives lie in a band
    whole = InitialValueProblem(
        name=problem.name,
        right_side=right_side,
        start=start.T.ravel(),
        low=problem.domain[0, 0],
        groups=np.arange(start.size),
        cases=np.repeat(np.arange(shape[0]), shape[1]),
        methods=("DOP853", "LSODA"),
        options={"lband": shape[1] - 1, "uband": shape[1] - 1},
        jumps=system.jumps,
    )
    values = whole.values(unique, tolerance, evaluations)
    return values.reshape(*shape, -1).transpose(1, 0, 2)[..., inverse]


def integrate(problem: Problem, tasks: Tasks, times: np.ndarray, tolerance: float = 1e-10) -> np.ndarray:
    """Solutions of many tasks of an ODE problem.

    All tasks are integrated as one system by an explicit Runge-Kutta method of order 8 (DOP853), or where that takes
    too long, by one for stiff equations (LSODA).

    Args:
        problem: an ODE problem.
        tasks: parameters and initial values.
        times: (n,) times within the domain, in any order.
        tolerance: error allowed in each step, relative to the size of each task's solution.

    Returns:
        (tasks, n, fields) values of the fields.
    """
    return first_order_system(problem).fields_of(integrate_state(problem, tasks, times, tolerance))
