"""Profile-likelihood intervals: those of the covariance where the model is linear, else as computed directly."""

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
from scipy.stats import t
from simulated import simulated

from ipbasis import estimate
from ipbasis.estimates.profile import _distances
from ipbasis.problem.declaration import Tasks
from ipbasis.reference.solutions import solutions

NAMES = ["a1", "a2", "a3"]


@pytest.mark.parametrize("noise_std", [0.001, None])
def test_small_noise_gives_the_intervals_of_the_covariance(basis, oscillator, noise_std):
    table, _, _ = simulated(oscillator, 30, 12, std=0.001)
    wald, found = (
        estimate(basis, table, noise_std=noise_std).table,
        estimate(basis, table, noise_std=noise_std, profile=True).table,
    )
    for name in NAMES:
        clear = (wald[f"{name}_std"] < 0.03).to_numpy()
        assert clear.sum() > 15
        for end in ("low", "high"):
            ratio = (found[f"{name}_{end}"] - found[name]) / (wald[f"{name}_{end}"] - wald[name])
            assert ratio[clear].to_numpy() == pytest.approx(1, abs=0.06)
    untouched = [c for c in wald if not c.endswith(("_low", "_high"))]
    pd.testing.assert_frame_equal(found[untouched], wald[untouched], rtol=1e-4, atol=1e-6)


def direct_end(problem, values, times, unknowns, column, step, rise):
    """An end of the profile interval from reference solutions, by SciPy: least squares within a bracketing search."""
    count, others = len(problem.parameters), np.arange(len(unknowns)) != column

    def fit(fixed, start):
        def residual(z):
            whole = np.empty(len(unknowns))
            whole[others], whole[column] = z, fixed
            return (solutions(problem, Tasks(whole[None, :count], whole[None, count:]), times)[0] - values).ravel()

        return scipy.optimize.least_squares(residual, start, jac="3-point")

    lowest = 2 * fit(unknowns[column], unknowns[others]).cost

    def excess(distance):
        return 2 * fit(unknowns[column] + distance, unknowns[others]).cost - lowest - rise

    while excess(step) < 0:
        step *= 1.5
    return unknowns[column] + scipy.optimize.brentq(excess, 0, step, rtol=1e-4)


def test_few_noisy_points_give_the_asymmetric_intervals_of_a_direct_search(basis, oscillator):
    """Queries whose intervals lie where the basis is good: to 1 % of their width, their asymmetry is up to 10 %."""
    number = 12
    table, tasks, _ = simulated(oscillator, 60, number, std=0.1, seed=4)
    found, wald = estimate(basis, table, profile=True).table, estimate(basis, table).table
    within = (found[["a1_low", "a2_low"]] > -0.5).all(axis=1) & (found[["a1_high", "a2_high"]] < 1.7).all(axis=1)
    chosen = found.index[within][:4]
    assert len(chosen) == 4
    times, asymmetry = np.linspace(0, 3, number)[None, :, None], []
    rise = t.ppf(0.975, number - 5) ** 2
    for i in chosen:
        values = table.loc[table["query"] == i, ["u"]].to_numpy()

        def residual(z, values=values):
            return (solutions(oscillator, Tasks(z[None, :3], z[None, 3:]), times)[0] - values).ravel()

        start = np.hstack([tasks.parameters[i], tasks.initial[i]])
        best = scipy.optimize.least_squares(residual, start, jac="3-point")
        variance = 2 * best.cost / (number - 5)
        for column, name in enumerate(NAMES[:2]):
            width = wald.loc[i, f"{name}_high"] - wald.loc[i, f"{name}_low"]
            for end, sign in (("low", -1), ("high", 1)):
                step = sign * width / 2
                exact = direct_end(oscillator, values, times, best.x, column, step, rise * variance)
                assert found.loc[i, f"{name}_{end}"] == pytest.approx(exact, abs=0.01 * width)
            asymmetry.append((found.loc[i, f"{name}_high"] + found.loc[i, f"{name}_low"] - 2 * best.x[column]) / width)
    assert np.abs(asymmetry).max() > 0.03  # else the test would not tell a profile from a covariance


def test_what_the_data_leave_open_is_infinite_and_known_values_stay(basis, oscillator):
    """Where u stands still at 1, only a2 + a3 = 0 is known, and nothing of a1."""
    table, _, _ = simulated(oscillator, 1, 30)
    still = table.assign(u=1 + 0.05 * np.random.default_rng(0).normal(size=30))
    found = estimate(basis, still.assign(a3=-0.5), profile=True, noise_std=0.05).table.iloc[0]
    assert np.isinf(found["a1_high"])
    assert found["a3_low"] == found["a3_high"] == -0.5


def test_ends_of_known_functions():
    """Linear, bent to either side, steep, flat, undefined beyond a point, and out of reach."""
    shapes = [
        lambda d: d / 2,
        lambda d: np.sqrt(d),
        lambda d: (d / 3) ** 3,
        lambda d: 100 * d,
        lambda d: 0 * d + 0.5,
        lambda d: np.where(d < 2, d / 1.8, np.nan),
        lambda d: d / 50,
    ]

    def rise(rows, distance):
        return np.array([shapes[row](d) for row, d in zip(rows, distance, strict=True)])

    first = np.array([1.0, np.nan, 1.0, 1.0, 1.0, 8.0, 1.0])
    found = _distances(rise, first, np.full(7, 10.0))
    assert found == pytest.approx([2, 1, 3, 0.01, np.inf, 1.8, np.inf], rel=2e-2)
    assert np.isnan(_distances(rise, np.array([1.0]), np.array([np.nan]))).all()
