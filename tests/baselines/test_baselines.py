"""The baselines do what they are compared for."""

import numpy as np
import pytest

from ipbasis.baselines.least_squares import LeastSquaresSettings, fit_least_squares
from ipbasis.baselines.pinn import PinnSettings, fit_pinn
from ipbasis.basis.network import TrunkSettings
from ipbasis.reference.ode import integrate


def clean(problem, times):
    tasks = problem.sample_tasks(1, np.random.default_rng(8))
    return integrate(problem, tasks, times)[0], tasks.parameters[0]


def test_least_squares_is_exact_on_clean_data(oscillator):
    times = np.linspace(0, 3, 40)
    values, truth = clean(oscillator, times)
    found = fit_least_squares(oscillator, times, values, LeastSquaresSettings(starts=2, tolerance=1e-10, seed=0))
    assert found.parameters == pytest.approx(truth, abs=1e-5)
    assert found.effort > 10


def test_least_squares_fits_several_fields(lotka_volterra):
    times = np.linspace(0, 5, 40)
    values, truth = clean(lotka_volterra, times)
    found = fit_least_squares(lotka_volterra, times, values, LeastSquaresSettings(starts=3, tolerance=1e-10, seed=0))
    assert found.parameters == pytest.approx(truth, abs=1e-4)


def test_pinn_approaches_the_parameters(oscillator):
    times = np.linspace(0, 3, 60)
    values, truth = clean(oscillator, times)
    trunk = TrunkSettings(width=20, depth=2, dtype="float64")
    base = {"steps": 300, "learning_rate": 5e-3, "physics_weight": 0.1, "collocation_points": 30, "seed": 0}
    found = fit_pinn(oscillator, trunk, times[:, None], values, PinnSettings(lbfgs_steps=300, **base))
    short = fit_pinn(oscillator, trunk, times[:, None], values, PinnSettings(lbfgs_steps=0, **base))
    assert found.loss < 1e-4
    assert found.loss < short.loss / 10
    assert np.abs(found.parameters - truth)[:2].max() < 0.1
    assert [row["step"] for row in short.history] == [0, 100, 200, 300]
    assert found.effort > 300
