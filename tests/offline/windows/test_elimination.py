"""Least squares over windows against dense least squares, and where parts grow and decay by many powers of ten."""

import numpy as np
import pytest
import torch

from ipbasis.offline.windows.elimination import condense

BUBBLES, STATES, PARAMETERS = 3, 2, 2


def dense(rows: torch.Tensor) -> torch.Tensor:
    """The solution of one query's least squares, all unknowns in one vector: bubbles, states, parameters."""
    windows, count, columns = rows.shape
    states = windows * BUBBLES + STATES * torch.arange(windows + 1)
    size = windows * BUBBLES + STATES * (windows + 1) + PARAMETERS
    matrix, right = torch.zeros(windows * count, size, dtype=rows.dtype), rows[..., -1].flatten()
    for w in range(windows):
        here = matrix[w * count : (w + 1) * count]
        here[:, w * BUBBLES : (w + 1) * BUBBLES] = rows[w, :, :BUBBLES]
        here[:, states[w] : states[w] + 2 * STATES] = rows[w, :, BUBBLES : BUBBLES + 2 * STATES]
        here[:, size - PARAMETERS :] = rows[w, :, BUBBLES + 2 * STATES : columns - 1]
    return -torch.linalg.lstsq(matrix, right[:, None], driver="gelsd").solution[:, 0]


@pytest.mark.parametrize("windows", [1, 2, 3, 5, 8])
def test_solution_is_that_of_dense_least_squares(windows):
    rows = torch.tensor(
        np.random.default_rng(windows).normal(size=(4, windows, 9, BUBBLES + 2 * STATES + PARAMETERS + 1))
    )
    found = condense(rows, BUBBLES, STATES)
    triangle = found.root
    step = -torch.linalg.solve_triangular(triangle[:, :-1, :-1], triangle[:, :-1, -1:], upper=True)
    bubbles, states = found.spread(torch.cat([step, torch.ones_like(step[:, :1])], dim=1))
    for query in range(4):
        together = torch.cat([bubbles[query].flatten(), states[query].flatten(), step[query, STATES:, 0]])
        assert torch.allclose(together, dense(rows[query]), atol=1e-9)


def test_fewer_rows_than_unknowns_in_a_window_leave_them_to_the_others():
    rows = torch.tensor(np.random.default_rng(0).normal(size=(1, 3, 9, BUBBLES + 2 * STATES + PARAMETERS + 1)))
    poor = rows.clone()
    poor[:, 1, 4:] = 0  # four rows for three bubbles and four states: other windows tell the rest
    found = condense(poor, BUBBLES, STATES)
    step = -torch.linalg.solve_triangular(found.root[:, :-1, :-1], found.root[:, :-1, -1:], upper=True)
    bubbles, states = found.spread(torch.cat([step, torch.ones_like(step[:, :1])], dim=1))
    together = torch.cat([bubbles[0].flatten(), states[0].flatten(), step[0, STATES:, 0]])
    assert torch.allclose(together, dense(poor[0]), atol=1e-8)
