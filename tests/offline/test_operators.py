"""Rows of the conditions that are the same for every task."""

import torch

from ipbasis.offline.operators import conditions
from ipbasis.problem.declaration import Problem


def test_there_may_be_none():
    """Initial values and walls that all hold a parameter."""
    problem = Problem(
        name="bath",
        coordinates={"t": [0, 1], "x": [0, 1]},
        fields=["u"],
        parameters={"b": [0, 1]},
        equations=["u_t - u_xx"],
        initial={"u": "b"},
        boundary=[{"at": {"x": wall}, "equations": ["u - b"]} for wall in (0, 1)],
    )
    found = conditions(problem, 5, torch.float64)
    features = {index: torch.ones(len(found.points), 3, dtype=torch.float64) for index in {*found.indices, ()}}
    assert found.rows(features).shape == (0, 3)
    assert found.targets(torch.zeros(4, 0, dtype=torch.float64)).shape == (4, 0)
