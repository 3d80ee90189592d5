"""Initial value problems in any unit, stiff or not."""

import numpy as np
import pytest

from ipbasis.problem.declaration import Problem
from ipbasis.reference.solutions import solutions


def chain(first, second, third, time):
    """Reactions a -> b -> c in units of their own: a small, short-lived b beside a large a."""
    return Problem(
        name="chain",
        coordinates={"t": [0, 3 * time]},
        fields=["a", "b", "c"],
        parameters={"k": [0.5, 2]},
        equations=[
            f"{time}*a_t + k*a",
            f"{time}*b_t - {second / first}*k*a + 1000*b",
            f"{time}*c_t - {third / second}*1000*b + 3*k*c",
        ],
        initial={"a": repr(float(first)), "b": "0", "c": "0"},
    )


@pytest.mark.parametrize("units", [(1, 1, 1, 1), (1e-9, 1e9, 1e-12, 1e-6), (1e12, 1e-3, 1e6, 1e9)])
def test_every_component_is_as_exact_in_any_unit(units):
    problem, times = chain(*units), np.linspace(0.01, 3, 50)
    found = solutions(problem, problem.tasks(np.array([[1.5]])), units[3] * times[None, :, None])[0] / units[:3]
    k = 1.5
    a = np.exp(-k * times)
    b = k / (1000 - k) * (a - np.exp(-1000 * times))
    c = k * 1000 / (1000 - k) * ((a - np.exp(-3 * k * times)) / (2 * k))
    c -= k * 1000 / (1000 - k) * (np.exp(-3 * k * times) - np.exp(-1000 * times)) / (1000 - 3 * k)
    for number, exact in enumerate((a, b, c)):
        assert np.abs(found[:, number] - exact).max() < 1e-8 * np.abs(exact).max()


def test_what_starts_from_rest_is_as_exact_in_any_unit():
    """u'' + u = A sin(2t) from rest: all start values are zero, and so are the first rates."""
    for unit in (1e-12, 1.0, 1e12):
        driven = Problem(
            name="driven",
            coordinates={"t": [0, 10]},
            fields=["u"],
            parameters={"A": [unit, 2 * unit]},
            equations=["u_tt + u - A*sin(2*t)"],
            initial={"u": "0", "u_t": "0"},
        )
        times = np.linspace(0, 10, 40)
        found = solutions(driven, driven.tasks(np.array([[unit]])), times[None, :, None])[0, :, 0] / unit
        assert found == pytest.approx((2 * np.sin(times) - np.sin(2 * times)) / 3, abs=1e-9)


def test_times_between_the_steps_of_a_stiff_solution():
    """An explicit method held by stability has a wrong interpolant; here no time is a step of any method."""
    decay = Problem(
        name="decay",
        coordinates={"t": [0, 1]},
        fields=["u", "v"],
        parameters={"k": [100, 1000]},
        equations=["u_t + u", "v_t + k*(v - u)"],
        initial={"u": "1", "v": "1"},
    )
    times = np.sort(np.random.default_rng(0).random(200))
    found = solutions(decay, decay.tasks(np.array([[900.0]])), times[None, :, None])[0, :, 1]
    exact = 900 / 899 * np.exp(-times) - np.exp(-900 * times) / 899
    assert np.abs(found - exact).max() < 1e-10
