"""Solutions of ordinary differential equations as functions of time, stiff or not, every task by itself."""

import warnings
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from scipy.integrate import solve_ivp

from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.reference.ode import FirstOrderSystem, first_order_system

# (S, n) states at times (n,)
Curve = Callable[[np.ndarray], np.ndarray]

_COARSE, _FINE = 1e-4, 1e-9  # relative errors of a step
_ABSOLUTE = 1e-2  # absolute errors, as a share of that in units of the state's usual size


def curves(problem: Problem, tasks: Tasks) -> list[Curve | None]:
    """The solution of each task, by LSODA with a step and a method that change as stiffness asks; None where it ends
    before the domain does.

    Args:
        problem: an ODE with initial conditions alone.
        tasks: to solve.
    """
    system = first_order_system(problem)
    ends = [problem.domain[0, 0], *system.jumps, problem.domain[0, 1]]
    start = system.initial_state(tasks)
    sizes = _first_sizes(system, start, tasks.parameters.T, ends[0], ends[-1] - ends[0])
    grid = np.concatenate([np.linspace(ends[0], ends[-1], 64), ends[0] + np.diff(ends[:: len(ends) - 1]) * np.logspace(-12, 0, 64)])
    few = range(0, len(tasks), max(1, len(tasks) // 8))
    coarse = [_integrated(system, start[:, n], tasks.parameters[n], ends, sizes, _COARSE) for n in few]
    reached = [np.abs(curve(grid)).max(axis=1) for curve in coarse if curve is not None]
    if reached:
        sizes = np.max(reached, axis=0)
    sizes = np.where(sizes > 0, sizes, 1.0)
    return [_integrated(system, start[:, n], tasks.parameters[n], ends, sizes, _FINE) for n in range(len(tasks))]


def _first_sizes(
    system: FirstOrderSystem, start: np.ndarray, parameters: np.ndarray, begin: float, length: float
) -> np.ndarray:
    """(S,) sizes of the states: those at the start; of those that start at zero, what their rates bring them to.

    Rates of rates bring on what depends on them, so there are as many rounds as states.
    """
    sizes = np.abs(start).max(axis=1)
    with np.errstate(all="ignore"):
        for _ in sizes:
            reached = np.where(sizes[:, None] > 0, start, 0.0) + np.where(sizes > 0, 0.0, 1e-300)[:, None]
            rates = np.abs(system.right_side(begin, reached, parameters)).max(axis=1) * length
            grown = np.where((sizes == 0) & np.isfinite(rates), rates, sizes)
            if (grown == sizes).all():
                break
            start = np.where((sizes == 0)[:, None], grown[:, None], start)
            sizes = grown
    return np.where(sizes > 0, sizes, 1.0)


def _integrated(
    system: FirstOrderSystem, start: np.ndarray, parameters: np.ndarray, ends: list[float], sizes: np.ndarray, tolerance: float
) -> Curve | None:
    """The solution of one task, piece by piece between the times at which its equations jump."""
    own, state, pieces = parameters[:, None], start, []

    def rates(time: float, values: np.ndarray, low: float, high: float) -> np.ndarray:
        # at its very ends a condition such as t < 5 may already be that of the next piece
        inside = min(max(time, np.nextafter(low, high)), np.nextafter(high, low))
        return system.right_side(inside, values[:, None], own)[:, 0]

    for low, high in pairwise(ends):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # LSODA tells by its outcome, too
            found = solve_ivp(
                rates,
                (low, high),
                state,
                method="LSODA",
                dense_output=True,
                args=(low, high),
                rtol=tolerance,
                atol=tolerance * _ABSOLUTE * sizes,
            )
        if not found.success or not np.isfinite(found.y).all():
            return None
        pieces.append(found.sol)
        state = found.y[:, -1]

    def curve(times: np.ndarray) -> np.ndarray:
        number = np.searchsorted(ends[1:-1], times, side="right")
        out = np.empty((len(start), len(times)))
        for own_number, piece in enumerate(pieces):
            out[:, number == own_number] = piece(times[number == own_number]) if (number == own_number).any() else 0
        return out

    return curve
