"""Ranges on their scales, and tasks that cover them."""

import numpy as np
import pytest

from ipbasis.problem.declaration import Problem
from ipbasis.problem.ranges import Interval, Ranges, as_interval

MIXED = Ranges([Interval(-1, 3), Interval(1e-3, 1e2, "log"), Interval(2, 5)])


def test_linear_draws_are_plain_uniform_ones():
    ranges = Ranges([Interval(-1, 3), Interval(0.1, 0.7)])
    expected = np.random.default_rng(7).uniform([-1, 0.1], [3, 0.7], size=(50, 2))
    assert (ranges.drawn(50, np.random.default_rng(7)) == expected).all()


def test_logarithmic_draws_cover_every_power_of_ten_alike():
    values = MIXED.drawn(20_000, np.random.default_rng(0))
    assert (values >= MIXED.ends[:, 0]).all()
    assert (values <= MIXED.ends[:, 1]).all()
    counts, _ = np.histogram(np.log10(values[:, 1]), bins=5, range=(-3, 2))
    assert np.abs(counts - 4000).max() < 5 * np.sqrt(4000)


def test_shares_are_the_inverse_of_values():
    unit = np.random.default_rng(0).random((20, 3))
    assert np.allclose(MIXED.shares(MIXED.at(unit)), unit, atol=1e-14)
    assert np.allclose(MIXED.at(np.full(3, 0.5)), [1, np.sqrt(0.1), 3.5])
    assert np.allclose(MIXED.at(np.array([[0.0] * 3, [1.0] * 3])).T, MIXED.ends, rtol=1e-15)


def test_sobol_tasks_are_balanced():
    """Of 64 points of a Sobol sequence every eighth of every range holds eight."""
    shares = MIXED.shares(MIXED.sobol(64, seed=3))
    for share in shares.T:
        assert (np.histogram(share, bins=8, range=(0, 1))[0] == 8).all()
    assert np.array_equal(MIXED.sobol(10, seed=3), MIXED.sobol(64, seed=3)[:10])
    assert not np.allclose(MIXED.sobol(10, seed=3), MIXED.sobol(10, seed=4))


@pytest.mark.parametrize(("count", "corners"), [(1, 2), (2, 4), (5, 32), (6, 16), (7, 16), (8, 32), (15, 32), (20, 64)])
def test_corners(count, corners):
    """All of them, or a design in which the ends of any three unknowns meet in every combination equally often."""
    unit = Ranges([Interval(0, 1)] * count).corners()
    assert len(np.unique(unit, axis=0)) == len(unit) == corners
    assert set(np.unique(unit)) == {0, 1}
    signs = 2 * unit - 1
    for i in range(count):
        for j in range(i):
            assert signs[:, i] @ signs[:, j] == 0
            assert (signs[:, i] * signs[:, j] @ signs[:, :j] == 0).all()


def test_tasks_of_a_problem(oscillator):
    assert len(oscillator.corner_tasks()) == 32
    tasks = oscillator.sobol_tasks(9, seed=0)
    assert tasks.parameters.shape == (9, 3)
    assert tasks.initial.shape == (9, 2)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([0, 1], Interval(0, 1)),
        ((0, 1), Interval(0, 1)),
        (["1e-3", "1e2"], Interval(1e-3, 100)),  # what YAML makes of numbers without a point
        ({"range": [1, 10], "scale": "log"}, Interval(1, 10, "log")),
        ({"range": [1, 10]}, Interval(1, 10)),
        (Interval(1, 10, "log"), Interval(1, 10, "log")),
    ],
)
def test_forms_of_an_interval(given, expected):
    assert as_interval(given) == expected
    assert as_interval(expected.declared) == expected


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([1, 0], "low must be below high"),
        ([1], "not a range"),
        ("01", "not a range"),
        (None, "not a range"),
        ([True, 2], "not a range"),
        (["a", 2], "both numbers"),
        ([0, float("nan")], "both finite"),
        ({"range": [0, 1], "scale": "log"}, "above zero"),
        ({"range": [-1, 1], "scale": "log"}, "above zero"),
        ({"range": [1, 2], "scale": "log10"}, "linear or log is right"),
        ({"range": [1, 2], "scales": "log"}, "no key 'scales'"),
        ({"scale": "log"}, "not a range"),
    ],
)
def test_faulty_intervals(given, reason):
    with pytest.raises(ValueError, match=reason):
        as_interval(given)


def test_declarations_survive_json():
    problem = Problem(
        name="p",
        coordinates={"t": [0, 1]},
        fields=["u"],
        parameters={"k": {"range": ["1e-3", 10], "scale": "log"}},
        equations=["u_t + k*u"],
        initial={"u": {"range": [1, 2], "scale": "log"}},
    )
    again = Problem.model_validate_json(problem.model_dump_json())
    assert again.model_dump() == problem.model_dump()
    assert again.parameters["k"] == Interval(1e-3, 10, "log")
    assert again.with_ranges(parameters={"k": [1, 2]}).parameters["k"] == Interval(1, 2, "log")
    assert again.with_ranges(parameters={"k": Interval(1, 2)}).parameters["k"] == Interval(1, 2)
    assert [*again.free_initial.values()] == [Interval(1, 2, "log")]
