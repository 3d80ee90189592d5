"""Correlations of the parameters' errors."""

import numpy as np
import pytest

from ipbasis import estimate
from ipbasis.estimates.intervals import correlations
from ipbasis.observations.simulate import long_table
from ipbasis.reference.ode import integrate


def test_correlations_of_a_covariance():
    covariance = np.array([[[4.0, 3.0, 0.0], [3.0, 9.0, 0.0], [0.0, 0.0, 0.0]]])
    found = correlations(covariance)[0]
    assert found[:2, :2] == pytest.approx(np.array([[1, 0.5], [0.5, 1]]))
    assert np.isnan(found[2]).all()


def test_correlations_are_those_of_repeated_experiments(basis, oscillator):
    """400 draws of the noise of one task: empirical correlations are known to 0.05."""
    task, times = oscillator.sample_tasks(1, np.random.default_rng(2)), np.linspace(0, 3, 60)
    values = integrate(oscillator, task, times) + 0.02 * np.random.default_rng(0).normal(size=(400, 60, 1))
    found = estimate(basis, long_table(oscillator, times[None, :, None], values), correlations=True)
    empirical = np.corrcoef(found.table[["a1", "a2", "a3"]].to_numpy().T)
    assert np.median(found.correlation, axis=0) == pytest.approx(empirical, abs=0.15)
    assert np.abs(empirical[np.triu_indices(3, 1)]).max() > 0.5
    assert list(found.table)[-3:] == ["corr_a1_a2", "corr_a1_a3", "corr_a2_a3"]
    assert (found.table["corr_a1_a3"] == found.correlation[:, 0, 2]).all()


def test_known_parameters_have_none(basis, oscillator):
    task, times = oscillator.sample_tasks(2, np.random.default_rng(2)), np.linspace(0, 3, 60)
    table = long_table(oscillator, times[None, :, None], integrate(oscillator, task, times))
    found = estimate(basis, table.assign(a3=task.parameters[table["query"], 2])).correlation
    assert np.isnan(found[:, 2]).all()
    assert np.isfinite(found[:, :2, :2]).all()
