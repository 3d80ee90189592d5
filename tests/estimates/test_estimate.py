"""Online inference: exact on clean data, at the statistical limit on noisy data, honest about what it cannot do."""

import numpy as np
import pandas as pd
import pytest
import torch
from simulated import cramer_rao, observed, simulated

from ipbasis import InputError, estimate
from ipbasis.observations.long_form import check_observations
from ipbasis.problem.declaration import Tasks
from ipbasis.reference.ode import integrate
from ipbasis.search import gauss_newton as gn
from ipbasis.search.assemble import assemble
from ipbasis.search.elimination import Rows, eliminate, reduced_jacobian
from ipbasis.search.reduce import reduce_physics
from ipbasis.search.settings import GaussNewtonSettings
from ipbasis.search.starts import candidates
from ipbasis.search.weights import weights_for

NAMES = ["a1", "a2", "a3"]


@pytest.mark.parametrize("half_range", [5, 40])
@pytest.mark.parametrize("layout", ["equispaced", "own"])
def test_clean_data_give_the_parameters(basis, oscillator, layout, half_range):
    wide = {"u": [-half_range, half_range], "u_t": [-half_range, half_range]}
    table, tasks, _ = simulated(oscillator, 60, layout=layout, initial=wide)
    found = estimate(basis, table).table
    error = np.abs(found[NAMES].to_numpy() - tasks.parameters)
    assert error[:, :2].max() < 1e-6
    assert (found["status"] == "ok").all()


def test_errors_reach_the_cramer_rao_bound_and_intervals_cover(basis, oscillator):
    """1 % noise, 400 queries: root mean square of error over bound near 1, coverage near 95 %.

    The standard error of the root mean square is 0.02 if the errors are normal, of the coverage 1.1 %.
    """
    table, tasks, std = simulated(oscillator, 400, noise=1)
    found = estimate(basis, table).table
    bound = cramer_rao(oscillator, tasks, np.linspace(0, 3, 100), std)
    identifiable = (bound < 0.2).all(axis=1)
    errors = (found[NAMES].to_numpy() - tasks.parameters)[identifiable] / bound[identifiable]
    assert identifiable.sum() > 100
    assert np.median(np.abs(errors), axis=0) == pytest.approx([0.674] * 3, abs=0.11)
    assert np.sqrt((errors**2).mean(axis=0)) == pytest.approx([1] * 3, abs=0.15)
    assert np.median(found.loc[identifiable, "a1_std"] / bound[identifiable, 0]) == pytest.approx(1, rel=0.05)
    for column, name in enumerate(NAMES):
        inside = (found[f"{name}_low"] <= tasks.parameters[:, column]) & (
            tasks.parameters[:, column] <= found[f"{name}_high"]
        )
        assert inside[identifiable].mean() == pytest.approx(0.95, abs=0.045)
    assert found["noise_std"].median() / np.median(std) == pytest.approx(1, abs=0.1)


def test_given_noise_counts(basis, oscillator):
    table, _, _ = simulated(oscillator, 20, noise=1)
    narrow = estimate(basis, table, noise_std=0.01).table
    wide = estimate(basis, table, noise_std=0.02).table
    assert wide["a1_std"].to_numpy() == pytest.approx(2 * narrow["a1_std"].to_numpy(), rel=0.05)
    assert narrow["noise_std"].to_numpy() == pytest.approx(0.01, rel=1e-3)


def test_noise_by_cell_equals_noise_by_number(basis, oscillator):
    table, _, _ = simulated(oscillator, 10, noise=1)
    by_number = estimate(basis, table, noise_std=0.05).table
    by_cell = estimate(basis, table.assign(u_std=0.05)).table
    columns = [n + s for n in NAMES for s in ("", "_std", "_low", "_high")]
    assert by_cell[columns].to_numpy() == pytest.approx(by_number[columns].to_numpy(), rel=1e-4, abs=1e-8)


def test_own_points_equal_common_points(basis, oscillator):
    """One query with other points forces the path for points of their own; the others must not change."""
    table, _, _ = simulated(oscillator, 8, noise=1)
    extra = table[table["query"] == 0].assign(query=99, t=lambda d: d["t"] * 0.9)
    common = estimate(basis, table).table
    own = estimate(basis, pd.concat([table, extra])).table.head(8)
    assert own[NAMES].to_numpy() == pytest.approx(common[NAMES].to_numpy(), rel=1e-5, abs=1e-6)


def test_a_query_does_not_depend_on_its_neighbours_or_on_the_order_of_rows(basis, oscillator):
    table, _, _ = simulated(oscillator, 6, noise=1)
    alone = estimate(basis, table[table["query"] == 3]).table
    shuffled = estimate(basis, table.sample(frac=1, random_state=0)).table.set_index("query").loc[[3]]
    assert alone[NAMES].to_numpy() == pytest.approx(shuffled[NAMES].to_numpy(), rel=1e-5, abs=1e-6)


def test_missing_cells_are_left_out(basis, oscillator):
    table, tasks, _ = simulated(oscillator, 5)
    table.loc[::3, "u"] = np.nan
    found = estimate(basis, table).table
    assert np.abs(found[NAMES].to_numpy() - tasks.parameters).max() < 1e-6
    kept = estimate(basis, table.dropna()).table
    assert found[NAMES].to_numpy() == pytest.approx(kept[NAMES].to_numpy(), abs=1e-7)


def test_known_parameters_are_held(basis, oscillator):
    table, tasks, _ = simulated(oscillator, 10, noise=2)
    table["a3"] = tasks.parameters[table["query"], 2]
    held = estimate(basis, table).table
    assert held["a3"].to_numpy() == pytest.approx(tasks.parameters[:, 2])
    assert (held["a3_std"] == 0).all()
    free = estimate(basis, table.drop(columns="a3")).table
    assert (held["a1_std"] < free["a1_std"]).all()


def test_solution_and_band_follow_the_data(basis, oscillator):
    table, tasks, std = simulated(oscillator, 10, noise=1)
    found = estimate(basis, table)
    times = np.linspace(0, 3, 40)
    error = found.solution(times)[..., 0] - integrate(oscillator, tasks, times)[..., 0]
    band = found.solution_std(times)[..., 0]
    assert (np.sqrt((error**2).mean(axis=1)) < std).all()
    assert np.mean(np.abs(error) < 1.96 * band) > 0.8
    assert (np.median(band, axis=1) < std).all()


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        (lambda t: t.head(4), "not_identifiable", "4 observations for 5 unknowns"),
        (lambda t: t.head(5), "not_identifiable", "too few observations to estimate the noise"),
        (lambda t: t.assign(u=1.0), "not_identifiable", "do not determine a1, a2, a3"),
    ],
)
def test_status_says_what_is_wrong(basis, oscillator, change, status, reason):
    table, _, _ = simulated(oscillator, 1)
    found = estimate(basis, change(table)).table.iloc[0]
    assert found["status"] == status
    assert reason in found["message"]


@pytest.mark.parametrize("disturbance", [lambda t: 0.5 * np.sin(9 * t), lambda t: 0.3 * (t > 1.5)])
def test_data_of_another_equation_are_told(basis, oscillator, disturbance):
    """A driving force or a jump that the equation does not have, far above the noise: no query may be called ok."""
    table, _, _ = simulated(oscillator, 20, noise=0.2)
    found = estimate(basis, table.assign(u=table["u"] + disturbance(table["t"]))).table
    assert not (found["status"] == "ok").any()
    assert (found["status"] == "poor_fit").any()


@pytest.mark.parametrize("noise", [0, 0.01, 1, 20])
def test_the_right_equation_is_not_suspected(basis, oscillator, noise):
    """Also where its weight beside much noise does not press the residual down to what the basis can reach."""
    table, _, _ = simulated(oscillator, 200, noise=noise, seed=3)
    found = estimate(basis, table).table
    assert not found["status"].isin(["poor_fit", "failed"]).any()


def test_parameters_that_trade_off_do_not_stall_the_search(basis, oscillator):
    """Nearly a single exponential: a1, a2 and a3 trade off, with a condition number near 1e15."""
    tasks = Tasks(
        np.array([[0.589736, 0.030277, -0.140829], [1.398095, 0.110707, 0.540540]]),
        np.array([[-12.940750, 9.375751], [-1.961634, -3.017793]]),
    )
    table, _ = observed(oscillator, tasks)
    found = estimate(basis, table).table
    assert np.abs(found[NAMES].to_numpy() - tasks.parameters).max() < 1e-4


def test_parameters_outside_the_trained_range_are_told(basis, oscillator):
    table, _, _ = simulated(oscillator, 20, parameters={"a1": [2.5, 3], "a2": [2.5, 3]})
    found = estimate(basis, table).table
    assert (found["status"] == "out_of_range").mean() > 0.9
    assert not (found["status"] == "ok").any()


def test_a_misfit_larger_than_the_given_noise_is_told(basis, oscillator):
    table, _, std = simulated(oscillator, 5, noise=5)
    found = estimate(basis, table, noise_std=float(std.min()) / 20).table
    assert not (found["status"] == "ok").any()


def test_table_has_the_columns_of_the_contract(basis, oscillator):
    table, _, _ = simulated(oscillator, 2)
    found = estimate(basis, table).table
    expected = ["query", *(n + s for n in NAMES for s in ("", "_std", "_low", "_high"))]
    assert list(found) == [*expected, "noise_std", "objective", "iterations", "status", "message"]


def test_broken_queries_keep_their_place_and_leave_the_others_alone(basis, oscillator):
    table, _, _ = simulated(oscillator, 5, noise=1)
    broken = table.assign(t=table["t"].where(table["query"] != 2, 7.0), u=table["u"].mask(table["query"] == 4))
    whole, found = estimate(basis, table[~table["query"].isin([2, 4])]), estimate(basis, broken)
    assert found.table["query"].tolist() == [0, 1, 2, 3, 4]
    assert found.table["status"].tolist() == [*whole.table["status"][:2], "failed", whole.table["status"][2], "failed"]
    assert found.table.loc[[2, 4], NAMES].isna().all(axis=None)
    assert found.table.loc[[2, 4], "message"].tolist() == [
        "row 200, column 't': 7 is outside the basis domain [0, 3]",
        "no observation in u",
    ]
    pd.testing.assert_frame_equal(found.table.loc[[0, 1, 3]].reset_index(drop=True), whole.table)
    assert found.solution([1.0])[[0, 1, 3]] == pytest.approx(whole.solution([1.0]))
    assert found.solution_std([1.0])[[0, 1, 3]] == pytest.approx(whole.solution_std([1.0]))
    assert np.isnan(found.solution([1.0])[[2, 4]]).all()


def test_a_table_of_broken_queries_only(basis, oscillator):
    table, _, _ = simulated(oscillator, 2)
    found = estimate(basis, table.assign(t=7.0))
    assert found.table["status"].tolist() == ["failed", "failed"]
    assert list(found.table) == list(estimate(basis, table).table)
    assert found.solution([1.0]).shape == (2, 1, 1)


@pytest.mark.parametrize("noise_std", [None, 0.1])
def test_intervals_at_any_level_agree_with_those_of_the_table(basis, oscillator, noise_std):
    table, _, _ = simulated(oscillator, 3, noise=1, points=8)  # few: Student's t is far from normal
    found = estimate(basis, table, noise_std=noise_std)
    low, high = found.intervals(0.95)
    assert low == pytest.approx(found.table[[f"{name}_low" for name in NAMES]].to_numpy(), rel=1e-12)
    assert high == pytest.approx(found.table[[f"{name}_high" for name in NAMES]].to_numpy(), rel=1e-12)
    narrow = found.intervals(0.5)
    assert (low < narrow[0]).all()
    assert (narrow[0] < narrow[1]).all()
    assert (narrow[1] < high).all()
    with pytest.raises(InputError, match="confidence 95"):
        found.intervals(95)


def test_noise_given_twice_is_refused(basis, oscillator):
    table, _, _ = simulated(oscillator, 1)
    with pytest.raises(InputError, match="given twice"):
        estimate(basis, table.assign(u_std=0.1), noise_std=0.1)


def test_unknown_solver_and_faulty_noise(basis, oscillator):
    table, _, _ = simulated(oscillator, 1)
    with pytest.raises(InputError, match="there are gauss_newton, free_form, library"):
        estimate(basis, table, solver="newton")
    with pytest.raises(InputError, match="above zero"):
        estimate(basis, table, noise_std=0.0)


@pytest.fixture
def online(basis, oscillator):
    table, tasks, std = simulated(oscillator, 6, noise=1)
    (batch,) = check_observations(table, oscillator).batches(10)
    problem = assemble(basis, reduce_physics(basis), batch, None)
    weights = weights_for(problem, torch.as_tensor(std), basis.record.accuracy, None)
    return problem, weights, torch.as_tensor(tasks.parameters) + 0.1


def test_gradient_of_the_profiled_objective_agrees_with_differences(online):
    problem, weights, parameters = online
    point = eliminate(problem, parameters, weights)
    jacobian = reduced_jacobian(problem, point, weights)
    gradient = 2 * (jacobian.mT @ point.residual[..., None]).squeeze(2)
    step = 1e-5
    for column in range(3):
        shift = torch.zeros(3, dtype=torch.float64)
        shift[column] = step
        ahead, behind = (eliminate(problem, parameters + s * shift, weights).objective for s in (1, -1))
        differences = (ahead - behind) / (2 * step)
        assert gradient[:, column].numpy() == pytest.approx(differences.numpy(), rel=1e-3, abs=1e-3)


def test_eliminated_readouts_are_optimal(online):
    """The residual is orthogonal to every column: what refinement is for, at weights of 1e5 to 1."""
    problem, weights, parameters = online
    point = eliminate(problem, parameters, weights)
    identity = torch.eye(point.coordinates.shape[1], dtype=torch.float64).expand(len(parameters), -1, -1)
    columns = Rows(problem, point.thetas, weights).apply(identity).mT
    columns = columns / columns.norm(dim=1, keepdim=True)
    slope = (columns.mT @ point.residual[..., None]).squeeze(2)
    assert (slope.abs().amax(1) / point.residual.norm(dim=1)).max() < 1e-4


def test_every_start_ends_at_the_same_optimum(online, basis):
    accuracy = basis.record.accuracy
    problem, weights, _ = online
    ends = []
    for start in candidates(problem, weights):
        found, _ = gn._minimise(problem, start, weights, accuracy, GaussNewtonSettings(), 1e-3)
        ends.append(eliminate(problem, found, weights).objective)
    for other in ends[1:]:
        assert other.numpy() == pytest.approx(ends[0].numpy(), rel=1e-5)


def test_the_same_observations_give_the_same_bits_whatever_went_before(basis, oscillator, monkeypatch):
    """Memory that was used before is no input: LAPACK's gelsy takes pivots from it, which PyTorch leaves unset."""
    drivers, solve = [], torch.linalg.lstsq

    def lstsq(*arguments, driver=None, **options):
        drivers.append(driver)
        return solve(*arguments, driver=driver, **options)

    monkeypatch.setattr(torch.linalg, "lstsq", lstsq)
    table = simulated(oscillator, 5, 20, noise=1)[0]
    first = estimate(basis, table).table
    used = [torch.full((size,), 7, dtype=torch.int32) for size in (1, 2, 3, 4, 8, 14, 16, 32) for _ in range(20)]
    del used
    pd.testing.assert_frame_equal(estimate(basis, table).table, first, check_exact=True)
    assert set(drivers) == {"gelsd"}
