"""Bounds, distributions and given values of parameters and initial values."""

import numpy as np
import pytest
import torch
from simulated import observed, simulated

from ipbasis.errors import InputError
from ipbasis.estimates.estimate import estimate
from ipbasis.problem.declaration import Tasks
from ipbasis.search.priors import priors_of

NAMES = ["a1", "a2", "a3"]


def test_residual_and_slope_of_priors(oscillator):
    declared = oscillator.with_knowledge(
        bounds={"a3": [None, 1]}, priors={"a1": {"normal": [0.5, 0.1]}, "a2": {"lognormal": [2, 0.5]}}
    )
    priors = priors_of(declared)
    parameters = torch.tensor([[0.7, 4.0, 0.3]], dtype=torch.float64, requires_grad=True)
    residual = priors.residual(parameters)
    assert residual.detach().numpy() == pytest.approx(np.array([[2.0, np.log(2) / 0.5, 0.0]]))
    (slope,) = torch.autograd.grad(residual.sum(), parameters)
    assert priors.slope(parameters.detach()).numpy() == pytest.approx(slope.numpy())
    clipped = priors.clip(torch.tensor([[-5.0, -5.0, 5.0]], dtype=torch.float64))
    assert clipped[0, [0, 2]].tolist() == [-5, 1]
    assert clipped[0, 1] > 0


@pytest.mark.parametrize(
    ("name_of_basis", "beyond", "noise"),
    # a bound so far off that the equation is not met at all has several solutions where it is not linear
    [("basis", [1.3, 1.4], 0.01), ("lotka_volterra_basis", [1.3, 1.35], 0.03)],
)
def test_estimates_keep_to_bounds_and_are_as_good_as_can_be_there(name_of_basis, beyond, noise, request):
    """A bound that cuts the optimum off: the others are estimated as if the parameter were fixed at the bound."""
    basis = request.getfixturevalue(name_of_basis)
    problem = basis.problem
    name = next(iter(problem.parameters))
    tasks = problem.with_ranges(parameters={name: beyond}).sample_tasks(8, np.random.default_rng(0))
    tasks = Tasks(tasks.parameters, np.abs(tasks.initial) + 0.2)
    table, _ = observed(problem, tasks, 60, std=noise)
    bounded = estimate(basis.for_problem(problem.with_knowledge(bounds={name: [None, 1.2]})), table, noise_std=noise)
    fixed = estimate(basis.for_problem(problem.with_knowledge(fixed={name: 1.2})), table, noise_std=noise)
    assert (bounded.table[name] == 1.2).all()
    assert (bounded.table[f"{name}_high"] <= 1.2).all()
    others = [other for other in problem.parameters if other != name]
    difference = (bounded.table[others] - fixed.table[others]).abs()
    assert (difference < 0.4 * fixed.table[[f"{other}_std" for other in others]].to_numpy()).all(axis=None)
    assert not (bounded.table["status"] == "ok").any()


def test_a_normal_prior_counts_like_one_more_observation(basis, oscillator):
    """Where the likelihood is nearly normal, precision adds up and the estimate is the weighted mean."""
    table, _, _ = simulated(oscillator, 40, 40, std=0.05)
    alone = estimate(basis, table, noise_std=0.05).table
    mean, std = 0.6, float(alone["a2_std"].median())
    known = basis.for_problem(oscillator.with_knowledge(priors={"a2": {"normal": [mean, std]}}))
    both = estimate(known, table, noise_std=0.05).table
    precision = 1 / alone["a2_std"] ** 2 + 1 / std**2
    expected = (alone["a2"] / alone["a2_std"] ** 2 + mean / std**2) / precision
    clear = alone["a2_std"] < 0.2
    assert clear.sum() > 10
    assert np.abs(both["a2_std"] * np.sqrt(precision) - 1)[clear].median() < 0.05
    assert (np.abs(both["a2"] - expected) / both["a2_std"])[clear].median() < 0.1


def test_a_lognormal_prior_keeps_a_parameter_positive(basis, oscillator):
    table, _, _ = simulated(oscillator, 40, 40, std=1, parameters={"a1": [0.01, 0.02]})
    free = estimate(basis, table).table
    known = basis.for_problem(oscillator.with_knowledge(priors={"a1": {"lognormal": [0.015, 0.3]}}))
    found = estimate(known, table).table
    assert (free["a1"] < 0).any()
    assert (found["a1"] > 0).all()
    assert (found["a1"] - 0.015).abs().max() < 0.02


@pytest.mark.parametrize("name_of_basis", ["basis", "lotka_volterra_basis"])
def test_given_initial_values_sharpen_the_estimate(name_of_basis, request):
    """Given for some queries and one of the initial values only; the error bar must shrink and stay honest."""
    basis = request.getfixturevalue(name_of_basis)
    problem = basis.problem
    tasks = problem.sample_tasks(60, np.random.default_rng(3))
    tasks = Tasks(tasks.parameters, np.abs(tasks.initial) + 0.2)
    table, _ = observed(problem, tasks, np.linspace(*problem.domain[0], 30)[1:], std=0.05)
    name = problem.known_names[-1]
    given = np.where(np.arange(60) < 40, tasks.initial[:, -1], np.nan)
    free = estimate(basis, table, noise_std=0.05)
    told = estimate(basis, table.assign(**{name: given[table["query"]]}), noise_std=0.05)
    first = next(iter(problem.parameters))
    ratio = told.table[f"{first}_std"] / free.table[f"{first}_std"]
    assert ratio[:40].median() < 0.98
    assert ratio[40:].to_numpy() == pytest.approx(1, abs=1e-2)
    jet = list(problem.free_initial)[-1]
    start = np.array([[problem.domain[0, 0]]])
    features = basis.functions(start, "t" * len(jet.index))[0]
    fitted = told.readouts[:, jet.field] @ features
    spread = np.std(tasks.initial[:, -1])
    assert np.abs(fitted - tasks.initial[:, -1])[:40].max() < 0.02 * spread
    error = (told.table[first] - tasks.parameters[:, 0]).abs() / told.table[f"{first}_std"]
    assert (error[:40] < 3).mean() > 0.9


def test_queries_that_give_initial_values_may_settle_first(basis, oscillator):
    """Clean and given beside noisy and open, either way round: each as if it were alone."""
    table, tasks, _ = simulated(oscillator, 2, 40)
    noisy = table["query"] == 1
    noise = 0.5 * np.random.default_rng(0).standard_normal(len(table))
    table["u"] += noise * noisy
    for given in (0, 1):
        initial = np.where(table["query"] == given, tasks.initial[given, 0], np.nan)
        both = estimate(basis, table.assign(initial_u=initial), noise_std=0.5).table
        for query in (0, 1):
            part = table["query"] == query
            alone = estimate(basis, table.assign(initial_u=initial)[part], noise_std=0.5).table
            assert (both.loc[query, NAMES] - alone.loc[0, NAMES]).abs().max() < 1e-3 * both.loc[query, "a1_std"]


def test_a_value_in_the_table_stands_before_a_fixed_one(basis, oscillator):
    table, _, _ = simulated(oscillator, 3, 40, std=0.3)
    fixed = basis.for_problem(oscillator.with_knowledge(fixed={"a1": 0.5}))
    given = table.assign(a1=np.where(table["query"] == 1, 0.7, np.nan))
    assert estimate(fixed, given).table["a1"].tolist() == [0.5, 0.7, 0.5]


def test_few_data_and_distributions_leave_degrees_of_freedom(basis, oscillator):
    """Six observations of three parameters that are known beforehand: four are left after the initial values."""
    tasks = Tasks(np.zeros((300, 3)), oscillator.sample_tasks(300, np.random.default_rng(0)).initial)
    priors = {name: {"normal": [0, 1e-4]} for name in NAMES}
    shifted = oscillator.with_knowledge(priors=priors)
    table, _ = observed(oscillator, tasks, 6, std=0.3)
    found = estimate(basis.for_problem(shifted), table)
    assert np.sqrt((found.table["noise_std"] ** 2).mean()) == pytest.approx(0.3, rel=0.1)
    assert found.freedom == pytest.approx(4, abs=0.1)


def test_parameters_of_very_different_size(basis, oscillator):
    """a1 in units of 1e-8 and a2 in units of 1e6: the same estimates, digit by digit."""
    scaled = type(oscillator)(
        **oscillator.model_dump()
        | {
            "name": "scaled",
            "parameters": {"a1": [0, 1.5e-8], "a2": [0, 1.5e6], "a3": [-1.5, 1.5]},
            "equations": ["u_tt + 1e8*a1*u_t + a2/1e6*u + a3"],
        }
    )
    table, _, _ = simulated(oscillator, 40, 40, std=0.05)
    plain, other = estimate(basis, table).table, estimate(basis.for_problem(scaled), table).table
    factors = {"a1": 1e8, "a2": 1e-6, "a3": 1.0}
    for name, factor in factors.items():
        error = (other[name] * factor - plain[name]).abs() / plain[f"{name}_std"]
        assert error.max() < 1e-3
        assert (other[f"{name}_std"] * factor).to_numpy() == pytest.approx(plain[f"{name}_std"].to_numpy(), rel=1e-3)


@pytest.mark.parametrize(
    ("knowledge", "message"),
    [
        ({"fixed": {"a9": 1}}, "fixed: there is no 'a9'; there are a1, a2, a3, initial_u, initial_u_t"),
        ({"priors": {"a9": {"normal": [0, 1]}}}, "priors: there is no 'a9'"),
        ({"priors": {"a1": {"normal": [0, 0]}}}, "standard deviation above zero"),
        ({"priors": {"a1": {"lognormal": [0, 1]}}}, "median must be above zero"),
        ({"priors": {"a1": {}}}, "either normal"),
        ({"bounds": {"a1": [3, 4]}}, "leaves no start"),
        ({"bounds": {"a1": [1, 0]}}, "low must be below high"),
        ({"fixed": {"a1": 1}, "bounds": {"a1": [0, None]}}, "cannot have bounds"),
        ({"fixed": {"a1": np.nan}}, "not a finite number"),
    ],
)
def test_bad_knowledge(oscillator, knowledge, message):
    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        oscillator.with_knowledge(**knowledge)
