"""The published recipe of training: readouts of fixed tasks trained along with the trunk."""

import pytest
from trainings import FORWARD, SMALL, Scores, settings, train

from ipbasis.errors import InputError
from ipbasis.offline.settings import ForwardSettings
from ipbasis.problem.declaration import Problem, problem_directory
from ipbasis.published.trained_heads import ResidualRamp


def test_trained_heads_lower_their_loss(oscillator):
    chosen = settings("trained_heads", steps=600, learning_rate=1e-2, validate_every=600)
    first, last = train(oscillator, SMALL, chosen, FORWARD, Scores()).history
    assert last["loss"] < first["loss"] / 5


def test_published_recipe_of_a_nonlinear_problem():
    """Residual, initial values and data; every term is noted under its name in the tables."""
    problem = Problem.from_yaml(problem_directory() / "lotka_volterra.yaml")
    forward = ForwardSettings(
        condition_weight=1, condition_points=1, rank_tolerance=1e-6, data_weight=1, linearise="reference"
    )
    chosen = settings("trained_heads", steps=400, learning_rate=1e-2, collocation_points=50, validate_every=400)
    first, last = train(problem, SMALL, chosen, forward, Scores()).history
    assert last["loss"] < first["loss"] / 5
    for row in (first, last):
        assert row["loss"] == pytest.approx(row["ode_loss"] + row["ic_loss"] + row["data_loss"])


def test_published_recipe_with_given_tasks_and_a_growing_residual(quantum_oscillator):
    forward = ForwardSettings(
        condition_weight=1, boundary_weight=1e-3, condition_points=10, rank_tolerance=1e-3, data_weight=1
    )
    ramp = ResidualRamp(begin=0.25, end=0.75, low=0.1, high=0.5)
    chosen = settings(
        "trained_heads", steps=8, readouts=3, tasks={"k": [0, 1, 4]}, residual_ramp=ramp, validate_every=1,
        collocation_points=100,
    )  # fmt: skip
    history = train(quantum_oscillator, SMALL, chosen, forward, Scores()).history
    weights = [0, 0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5]
    for row, weight in zip(history, weights, strict=True):
        rest = row["ic_loss"] + 1e-3 * row["bc_loss"] + row["data_loss"]
        assert row["loss"] == pytest.approx(rest + weight * row["ode_loss"])


@pytest.mark.parametrize(
    ("tasks", "message"),
    [({"k": [0, 1]}, "2 values of k for 3 tasks"), ({"m": [0, 1, 2]}, "m given; quantum_oscillator needs k")],
)
def test_given_tasks_must_fit_the_problem(quantum_oscillator, tasks, message):
    chosen = settings("trained_heads", readouts=3, tasks=tasks)
    with pytest.raises(InputError, match=message):
        train(quantum_oscillator, SMALL, chosen, FORWARD, Scores())


def test_a_ramp_that_ends_before_it_begins_is_refused():
    with pytest.raises(InputError, match="shares of the steps"):
        ResidualRamp(begin=0.5, end=0.4, low=0, high=1)
