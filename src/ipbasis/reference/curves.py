"""Solutions of ordinary differential equations as functions of time, every task by itself."""

from collections.abc import Callable

import numpy as np

from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.reference.integrators import InitialValueProblem
from ipbasis.reference.ode import first_order_system

# (S, n) states at times (n,)
Curve = Callable[[np.ndarray], np.ndarray]

_EVALUATIONS = 200_000  # of the right-hand side, of a task; a few seconds


def curves(problem: Problem, tasks: Tasks, tolerance: float) -> list[Curve | None]:
    """The solution of each task; None where it ends before the domain does.

    Args:
        problem: an ODE with initial conditions alone.
        tasks: to solve.
        tolerance: relative error of a step.
    """
    system = first_order_system(problem)
    start = system.initial_state(tasks)
    low, high = problem.domain[0]

    def solved(number: int) -> Curve | None:
        own = tasks.parameters[number]
        one = InitialValueProblem(
            name=problem.name,
            right_side=lambda time, state: system.rates(time, state, own),
            start=start[:, number],
            low=low,
            groups=np.arange(len(start)),
            cases=np.zeros(len(start), dtype=int),
            methods=("LSODA",),
            options={},
            jumps=system.jumps,
        )
        try:
            return one.curve(high, tolerance, _EVALUATIONS)
        except ArithmeticError:
            return None

    return [solved(number) for number in range(len(tasks))]
