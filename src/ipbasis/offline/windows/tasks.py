"""Solutions of tasks on windows: by integration where the equations can be integrated, then by steps of Newton."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ipbasis.errors import InputError
from ipbasis.offline.windows.grid import Grid
from ipbasis.offline.windows.newton import Posed, State, search
from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.reference.curves import Curve, curves
from ipbasis.reference.ode import first_order_system

_STEPS = 40
_SOLVED = 1e-8  # root mean square relative defect


@dataclass(frozen=True)
class Solutions:
    """Solutions of tasks.

    Args:
        tasks: (T rows).
        state: (T) fields.
        solved: (T,) whether Newton converged.
    """

    tasks: Tasks
    state: State
    solved: Tensor

    def __getitem__(self, rows: Tensor) -> "Solutions":
        return Solutions(self.tasks[rows.numpy()], self.state[rows], self.solved[rows])


def integrated(problem: Problem, tasks: Tasks, tolerance: float) -> list[Curve | None] | None:
    """The solutions of tasks as functions of time; None if the problem cannot be integrated from its start."""
    try:
        return curves(problem, tasks, tolerance)
    except InputError:
        return None


def state_of(grid: Grid, solutions: list[Curve | None], parameters: Tensor) -> State:
    """Curves on windows; zero where there is none."""
    system = first_order_system(grid.problem)
    fields = [row for row, jet in enumerate(system.state) if jet.index == ()]
    times = grid.times.numpy()
    nothing = np.zeros((len(system.state), 1))

    def at(curve: Curve | None, where: np.ndarray) -> np.ndarray:
        return nothing.repeat(where.size, 1) if curve is None else curve(where.ravel())

    states = np.stack([at(curve, grid.edges).T for curve in solutions])
    values = np.stack([at(curve, times)[fields].reshape(len(fields), *times.shape) for curve in solutions])
    states = torch.as_tensor(states)
    return State(grid.interpolant(states, torch.as_tensor(values)), states, parameters)


def solve(grid: Grid, tasks: Tasks, start: State, sizes: Tensor) -> Solutions:
    """Solutions of tasks by steps of Newton from a start."""
    count, columns = len(tasks), grid.coefficients.shape[2]
    nothing = torch.zeros(count, grid.windows, 0, columns, dtype=torch.float64)
    free = torch.zeros(count, len(grid.problem.parameters), dtype=torch.bool)
    infinite = torch.full((len(grid.initial) + free.shape[1],), torch.inf, dtype=torch.float64)
    posed = Posed(
        data=nothing,
        target=nothing[..., 0],
        initial=torch.as_tensor(tasks.initial),
        free=free,
        bounds=torch.stack([-infinite, infinite]),
        sizes=sizes,
    )
    level = torch.ones(count, dtype=torch.float64)
    found = search(grid, posed, start, level, _STEPS, gain=1e-24)
    solved = (found.objective / grid.windows).sqrt() < _SOLVED
    return Solutions(tasks, found.state, solved)


def solve_by_continuation(grid: Grid, tasks: Tasks, sizes: Tensor) -> Solutions:
    """Solutions of tasks without an integrator: the first from fields of one size, the others from solved neighbours.

    A linear problem is solved by one step from anywhere.
    """
    count = len(tasks)
    states = sizes.expand(count, grid.windows + 1, -1) * torch.tensor(
        [1.0 if k == 0 else 0.0 for m in grid.orders for k in range(m)]
    )
    bubbles = torch.zeros(count, grid.windows, grid.bubbles, dtype=torch.float64)
    start = State(bubbles, states.clone(), torch.as_tensor(tasks.parameters))
    found = solve(grid, tasks, start, sizes)
    place = torch.as_tensor(grid.problem.ranges.shares(np.hstack([tasks.parameters, tasks.initial])))
    for _ in range(count):
        open_, done = (~found.solved).nonzero().squeeze(1), found.solved.nonzero().squeeze(1)
        if not len(open_) or not len(done):
            break
        near = done[torch.cdist(place[open_], place[done]).argmin(1)]
        begin = State(found.state.bubbles[near], found.state.states[near], torch.as_tensor(tasks.parameters)[open_])
        again = solve(grid, tasks[open_.numpy()], begin, sizes)
        if not again.solved.any():
            break
        new = open_[again.solved]
        part = again.state[again.solved]
        found.state.bubbles[new], found.state.states[new] = part.bubbles, part.states
        found.solved[new] = True
    return found
