"""Times at which errors are reached for good."""

import numpy as np

from ipbasis.published.time_to_accuracy import time_to_accuracy

STEPS = [0, 10, 20, 30, 40]
SECONDS = [0.0, 1.5, 3.0, 4.5, 6.0]


def times(errors, targets):
    return time_to_accuracy(STEPS, SECONDS, errors, targets)


def test_a_level_counts_from_where_the_error_stays_under_it():
    table = times([0.05, 0.5, 0.08, 0.2, 0.01], [0.3, 0.1, 0.01])
    assert list(table["target"]) == [0.3, 0.1, 0.01]
    assert list(table["steps"]) == [20, 40, 40]
    assert list(table["seconds"]) == [3.0, 6.0, 6.0]


def test_a_level_that_always_held_takes_no_time():
    table = times([0.2, 0.1, 0.1, 0.1, 0.1], [0.5])
    assert table[["seconds", "steps"]].values.tolist() == [[0, 0]]


def test_a_level_lost_again_or_never_reached_is_nan():
    table = times([0.5, 0.4, 0.001, 0.3, 0.2], [0.1, 0.01])
    assert table[["seconds", "steps"]].isna().all(axis=None)


def test_an_error_that_is_no_number_is_above_every_level():
    assert list(times([np.nan, 0.1, np.nan, 0.1, 0.1], [1.0])["steps"]) == [30]
    assert times([0.1, 0.1, 0.1, 0.1, np.nan], [1.0])["steps"].isna().all()
