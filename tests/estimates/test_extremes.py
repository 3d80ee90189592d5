"""Numbers that nobody measures: their query fails, the others are estimated as if it were not there."""

import numpy as np
import pytest
import torch
from simulated import simulated

from ipbasis import InputError, estimate
from ipbasis.estimates import estimator
from ipbasis.estimates.estimator import prepare
from ipbasis.observations.long_form import check_observations


@pytest.fixture(scope="module")
def table(oscillator):
    return simulated(oscillator, 4, 30, noise=1)[0]


def assert_others_unchanged(found, whole, row=1):
    """To rounding, which a batch of other queries may change: 1e-6 error bars."""
    others = [i for i in range(len(whole)) if i != row]
    assert found["query"].tolist() == whole["query"].tolist()
    assert found["status"][others].tolist() == whole["status"][others].tolist()
    for name in ("a1", "a2", "a3"):
        change = (found[name] - whole[name]).abs()[others] / whole[f"{name}_std"][others]
        assert (change < 1e-6).all()


@pytest.mark.parametrize("value", [1e300, -1e101])
@pytest.mark.parametrize("column", ["a1", "initial_u", "u"])
def test_a_number_too_large_fails_its_query_alone(basis, table, column, value):
    first = (table["query"] == 1) & (table["query"].shift() != 1)
    spoilt = table.assign(**{column: table["u"].where(~first, value) if column == "u" else np.nan})
    if column != "u":
        spoilt.loc[spoilt["query"] == 1, column] = value
    found = estimate(basis, spoilt).table
    assert found["status"][1] == "failed"
    assert f"column '{column}': {value:g}; numbers up to 1e+100 can be computed with" in found["message"][1]
    assert_others_unchanged(found, estimate(basis, table).table)


def test_values_too_small_fail_their_query_alone(basis, table):
    found = estimate(basis, table.assign(u=table["u"].where(table["query"] != 1, table["u"] * 1e-150))).table
    assert found["status"][1] == "failed"
    assert found["message"][1] == "values of u below 1e-100; other units would help"
    assert_others_unchanged(found, estimate(basis, table).table)


@pytest.mark.parametrize(("size", "told"), [(1e-300, "from 1e-100 on can be divided by"), (1e300, "up to 1e+100")])
def test_a_standard_deviation_out_of_reach_fails_its_query_alone(basis, table, size, told):
    given = table.assign(u_std=0.02)
    found = estimate(basis, given.assign(u_std=given["u_std"].where(table["query"] != 1, size))).table
    assert found["status"][1] == "failed"
    assert told in found["message"][1]
    assert_others_unchanged(found, estimate(basis, given).table)


@pytest.mark.parametrize("value", [1e99, -1e60, 1e10])
@pytest.mark.parametrize("column", ["a1", "initial_u", "u"])
def test_numbers_within_reach_leave_the_others_alone(basis, table, column, value):
    changed = table["u"] * value if column == "u" else value
    start = table["u"] if column == "u" else np.nan
    found = estimate(basis, table.assign(**{column: np.where(table["query"] == 1, changed, start)})).table
    if column != "u":
        assert found["status"][1] != "ok"
    assert_others_unchanged(found, estimate(basis, table).table)


@pytest.mark.parametrize(
    ("knowledge", "told"),
    [
        ({"fixed": {"a1": 1e200}}, "fixed.a1: 1e[+]200; numbers up to 1e[+]100 are right"),
        ({"priors": {"a1": {"normal": (1e308, 1)}}}, r"priors.a1: \[1e[+]308, 1\]: sizes of 1e-100 to 1e[+]100"),
        ({"priors": {"a1": {"normal": (1, 1e-308)}}}, r"priors.a1: \[1, 1e-308\]: sizes of"),
        ({"bounds": {"a1": (0, 1e300)}}, "bounds.a1: .* null for an end that is left open"),
    ],
)
def test_knowledge_out_of_reach_is_refused(oscillator, knowledge, told):
    with pytest.raises(InputError, match=told):
        oscillator.with_knowledge(**knowledge)


@pytest.mark.parametrize("std", [1e-200, 1e200, {"u": 1e200}])
def test_a_given_noise_out_of_reach_is_refused(basis, table, std):
    with pytest.raises(InputError, match=r"noise_std 1e[+-]200: sizes of 1e-100 to 1e\+100 are right"):
        estimate(basis, table, noise_std=std)


def test_a_query_that_breaks_the_search_fails_alone(basis, table, monkeypatch):
    """As where a library of linear algebra raises for a whole batch."""
    ready = prepare(basis, correlations=True)
    whole = estimate(basis, table, correlations=True)
    solve = type(ready.prepared).solve

    def breaking(self, batch, noise):
        if 1 in batch.queries:
            raise torch.linalg.LinAlgError("the input matrix contained non-finite values\nand more")
        return solve(self, batch, noise)

    monkeypatch.setattr(type(ready.prepared), "solve", breaking)
    found = estimate(basis, table, correlations=True)
    assert found.table["status"][1] == "failed"
    assert "cannot be computed with these numbers (the input matrix" in found.table["message"][1]
    assert list(found.table) == list(whole.table)
    assert_others_unchanged(found.table, whole.table)
    assert np.isnan(found.readouts[1]).all()
    assert np.isnan(found.correlation[1]).all()
    assert np.isfinite(found.deviations[[0, 2, 3]]).all()
    observations = check_observations(table[table["query"] == 1], basis.problem)
    ((alone, fit),) = prepare(basis).batches(observations)
    assert fit is None
    assert alone["status"].tolist() == ["failed"]


def test_what_is_a_fault_of_the_input_is_not_taken_for_one_of_the_numbers(basis, table, monkeypatch):
    def refuse(*_, **__):
        raise InputError("no such thing")

    monkeypatch.setattr(estimator, "estimates_table", refuse)
    with pytest.raises(InputError, match="no such thing"):
        estimate(basis, table)


@pytest.mark.parametrize("device", ["hpu", "meta", "no such device", "cuda:99"])
def test_a_device_that_is_not_there_is_one_line(basis, table, device):
    with pytest.raises(InputError, match=rf"device '{device}' is not to be had here \(.*\); 'cpu' always is"):
        estimate(basis, table, device=device)
