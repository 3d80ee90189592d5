"""Intervals, and the order of the statuses."""

import numpy as np
import pytest
from scipy.stats import norm

from ipbasis.estimates.checks import Grounds, judge
from ipbasis.estimates.intervals import intervals


def test_intervals_of_known_noise_are_normal():
    low, high = intervals(np.array([[1.0]]), np.array([[2.0]]), None)
    assert high[0, 0] - 1 == pytest.approx(2 * norm.ppf(0.975))
    assert 1 - low[0, 0] == pytest.approx(high[0, 0] - 1)


def test_intervals_of_estimated_noise_are_wider_for_few_observations():
    ends = [intervals(np.zeros((1, 1)), np.ones((1, 1)), np.array([f]))[1][0, 0] for f in (1, 5, 1e6)]
    assert ends[0] > ends[1] > ends[2]
    assert ends[2] == pytest.approx(1.96, abs=0.01)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
def test_intervals_cover_what_they_say(confidence):
    """20 000 draws of mean and variance from 6 normal values: the standard error of a share is at most 0.35 %."""
    draws = np.random.default_rng(0).normal(size=(20000, 6))
    mean, std = draws.mean(1, keepdims=True), draws.std(1, ddof=1, keepdims=True) / np.sqrt(6)
    low, high = intervals(mean, std, np.full(20000, 5.0), confidence)
    assert ((low < 0) & (high > 0)).mean() == pytest.approx(confidence, abs=0.01)


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({}, "ok", ""),
        ({"estimates": np.full((1, 3), np.nan)}, "failed", "no finite estimate"),
        ({"counts": np.array([3])}, "not_identifiable", "3 observations for 5 unknowns"),
        ({"freedom": np.array([0.4])}, "not_identifiable", "give noise_std"),
        ({"std": np.array([[0.1, 0.5, 0.1]])}, "not_identifiable", "a2"),
        ({"converged": np.array([False])}, "failed", "did not converge"),
        ({"low": np.array([[1.6, 0, 0]])}, "out_of_range", "a1"),
        ({"physics": np.array([100.0])}, "poor_fit", "100 times worse"),
        ({"physics": np.array([100.0]), "worst_physics": 60.0}, "ok", ""),
        ({"misfit": np.array([1e3]), "noise_given": True}, "poor_fit", "more than chance allows"),
        ({"misfit": np.array([3.0])}, "poor_fit", "does the equation hold"),
        ({"misfit": np.array([3.0]), "free_freedom": np.array([0.0])}, "ok", ""),
        ({"misfit": np.array([3.0]), "tolerated": np.array([0.6])}, "ok", ""),
        ({"std": np.full((1, 3), np.nan)}, "ok", "no error bars"),
        ({"bounds": np.array([[0.7, -9, -9], [9, 9, 9]])}, "not_identifiable", "drive a1 to its bound 0.7"),
        ({"jump": np.array([1.1])}, "poor_fit", "the data jump"),
        ({"basis_error": np.array([1.1])}, "poor_basis", "1.1 error bars off"),
        ({"total": np.array([1.0])}, "not_identifiable", "no more of the data than chance"),
        ({"rival": np.array([[0.7, 1.2, 0.0]])}, "not_identifiable", "a1 = 0.7, a2 = 1.2, a3 = 0 fit about as well"),
        ({"freedom": np.array([3.0])}, "not_identifiable", "give noise_std"),
        ({"freedom": np.array([3.0]), "misfit": np.array([0.03]), "noise_given": True}, "ok", ""),
        ({"freedom": np.array([79.0]), "outliers": True}, "not_identifiable", "at least 105 observations"),
        ({"freedom": np.array([81.0]), "outliers": True}, "ok", ""),
    ],
)
def test_statuses(oscillator, changes, status, reason):
    values = np.array([[0.7, 0.7, 0.0]])
    base = {
        "estimates": values,
        "std": np.full((1, 3), 0.1),
        "low": values - 0.2,
        "high": values + 0.2,
        "known": np.zeros((1, 3), dtype=bool),
        "unknowns": np.array([5]),
        "bounds": np.array([[-np.inf] * 3, [np.inf] * 3]),
        "noise_std": np.array([0.1]),
        "counts": np.array([100]),
        "freedom": np.array([95.0]),
        "total": np.array([100.0]),
        "misfit": np.array([0.95]),
        "free_misfit": np.array([0.86]),
        "free_freedom": np.array([86.0]),
        "tolerated": np.array([3e-9]),
        "physics": np.array([1.0]),
        "worst_physics": 2.0,
        "jump": np.array([0.0]),
        "basis_error": np.array([0.0]),
        "rival": np.full((1, 3), np.nan),
        "converged": np.array([True]),
        "noise_given": False,
        "outliers": False,
    }
    statuses, messages = judge(oscillator, Grounds(**{**base, **changes}))
    assert statuses == [status]
    assert reason in messages[0]
