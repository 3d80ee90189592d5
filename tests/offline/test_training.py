"""Offline training: both recipes learn, the best trunk is kept, and interrupted training resumes exactly."""

import numpy as np
import pytest
import torch
from trainings import FORWARD, SMALL, CutOffError, Scores, settings, train

from ipbasis import estimate
from ipbasis.errors import InputError
from ipbasis.features.quadrature import gauss_legendre
from ipbasis.features.trunk import Trunk, TrunkSettings
from ipbasis.observations.simulate import long_table
from ipbasis.offline.accuracy import measure_accuracy
from ipbasis.offline.build import build_basis
from ipbasis.offline.projection import covering_tasks
from ipbasis.offline.settings import BuildSettings, CompressionSettings, ForwardSettings, LbfgsSettings
from ipbasis.problem.declaration import Problem, problem_directory
from ipbasis.published.validation import AdamValidationSettings, AdamValidator
from ipbasis.reference.ode import integrate


class Residuals(Scores):
    """Scores by the relative residual of the forward problem on unseen tasks."""

    def __init__(self, problem, forward):
        super().__init__()
        self.problem, self.forward = problem, forward
        self.tasks = problem.sample_tasks(60, np.random.default_rng(3))

    def __call__(self, trunk, evaluated, due):
        if not due:
            return None
        quadrature = gauss_legendre(self.problem.domain, 100)
        with torch.no_grad():
            accuracy = measure_accuracy(self.problem, trunk, quadrature, self.forward, self.tasks, None)
        return {"score": accuracy.residual}


@pytest.mark.parametrize("optimiser", ["adam", "muon"])
def test_variable_projection_lowers_the_residual_of_unseen_tasks(oscillator, optimiser):
    """A trunk too small to span the solutions untrained: training gains a factor of 6."""
    forward = ForwardSettings(condition_weight=10, condition_points=1, rank_tolerance=1e-8)
    chosen = settings(
        "variable_projection", steps=300, readouts=16, learning_rate=1e-2, decay=True, collocation_points=60,
        validate_every=300, optimiser=optimiser,
    )  # fmt: skip
    small = TrunkSettings(width=6, depth=2, dtype="float64")
    first, last = train(oscillator, small, chosen, forward, Residuals(oscillator, forward)).history
    assert last["score"] < first["score"] / 4


@pytest.mark.parametrize("recipe", ["variable_projection", "trained_heads"])
@pytest.mark.parametrize(
    ("cut", "decay", "optimiser"), [(7, False, "adam"), (31, True, "adam"), (13, True, "soap"), (9, True, "muon")]
)
def test_resumed_training_is_the_same_bit_for_bit(oscillator, tmp_path, recipe, cut, decay, optimiser):
    """Cut off in the middle, then started again from its checkpoint."""

    def validator():
        if recipe == "variable_projection":
            return Scores()
        tasks = oscillator.sample_tasks(6, np.random.default_rng(9))
        chosen = AdamValidationSettings(queries=6, observations=10, seed=0, learning_rate=1e-2)
        trunk = Trunk(oscillator.domain, SMALL, torch.Generator())
        return AdamValidator(oscillator, tasks, chosen, FORWARD, 24, trunk)

    chosen = settings(recipe, decay=decay, optimiser=optimiser)
    whole = train(oscillator, SMALL, chosen, FORWARD, validator())
    checkpoint, logged = tmp_path / "state.pt", []
    interrupted = validator()
    calls = 0
    step = interrupted.__call__

    class Cut:
        state, restore, identity = interrupted.state, interrupted.restore, interrupted.identity

        def __call__(self, *arguments):
            nonlocal calls
            calls += 1
            if calls > cut:
                raise CutOffError
            return step(*arguments)

    with pytest.raises(CutOffError):
        train(oscillator, SMALL, chosen, FORWARD, Cut(), checkpoint, checkpoint_seconds=0)
    assert checkpoint.exists()
    resumed = train(
        oscillator, SMALL, chosen, FORWARD, validator(), checkpoint, checkpoint_seconds=0, log=logged.append
    )
    for one, other in zip(whole.trunk.parameters(), resumed.trunk.parameters(), strict=True):
        assert torch.equal(one, other)
    assert resumed.history == logged == whole.history
    assert not checkpoint.exists()


def test_a_checkpoint_of_other_settings_is_not_used(oscillator, tmp_path):
    checkpoint = tmp_path / "state.pt"

    class Cut(Scores):
        def __call__(self, trunk, evaluated, due):
            if self.calls > 5:
                raise CutOffError
            return super().__call__(trunk, evaluated, due)

    with pytest.raises(CutOffError):
        train(oscillator, SMALL, settings("trained_heads"), FORWARD, Cut(), checkpoint, checkpoint_seconds=0)
    other = settings("trained_heads", seed=1)
    fresh = train(oscillator, SMALL, other, FORWARD, Scores())
    found = train(oscillator, SMALL, other, FORWARD, Scores(), checkpoint)
    assert found.history == fresh.history


def test_the_best_trunk_is_kept_and_patience_stops(oscillator):
    scores = [5.0, 1.0, 2.0, 3.0, 4.0]
    trained = train(oscillator, SMALL, settings("trained_heads", patience=2), FORWARD, Scores(scores))
    assert trained.best["step"] == 10
    assert trained.history[-1]["step"] == 30
    shorter = train(oscillator, SMALL, settings("trained_heads", steps=10), FORWARD, Scores([5.0, 1.0]))
    for one, other in zip(trained.trunk.parameters(), shorter.trunk.parameters(), strict=True):
        assert torch.equal(one, other)


def test_seeds_decide(oscillator):
    first, again, other = (
        train(oscillator, SMALL, settings("variable_projection", steps=10, seed=s), FORWARD, Scores()).history
        for s in (0, 0, 1)
    )
    assert first == again
    assert first != other


def lotka_volterra_known() -> Problem:
    return Problem.from_yaml(problem_directory() / "lotka_volterra.yaml")


def lbfgs(**changes):
    base = {
        "rounds": 4, "iterations": 5, "redraw": False, "tasks": 8, "collocation_points": 60, "history": 10,
        "validate_every": 1, "patience": None,
    }  # fmt: skip
    return LbfgsSettings(**{**base, **changes})


RIDGE = ForwardSettings(
    condition_weight=10, condition_points=1, rank_tolerance=1e-12, ridge={"float64": 1e-12}, linearise="reference"
)


@pytest.mark.parametrize("redraw", [False, True])
def test_lbfgs_lowers_the_residual_of_unseen_tasks(redraw):
    """A nonlinear problem on a trunk too small to span its solutions untrained: less than 60 % of the residual."""
    problem = lotka_volterra_known().with_ranges(initial={"x": [0.5, 2], "y": [0.5, 2]})
    chosen = settings("variable_projection", steps=0, lbfgs=lbfgs(rounds=8, tasks=40, redraw=redraw))
    trunk = TrunkSettings(width=20, depth=2, dtype="float64", first_layer_scale=5)
    history = train(problem, trunk, chosen, RIDGE, Residuals(problem, RIDGE)).history
    assert history[-1]["score"] < 0.6 * history[0]["score"]


def test_a_nonlinear_problem_of_three_fields_is_trained_and_estimated(epidemic):
    size = TrunkSettings(width=24, depth=3, dtype="float64", first_layer_scale=3)
    forward = ForwardSettings(condition_weight=10, condition_points=1, rank_tolerance=1e-12, linearise="reference")
    chosen = settings("variable_projection", steps=0, lbfgs=lbfgs(rounds=2, tasks=20, collocation_points=100))
    trained = train(epidemic, size, chosen, forward, Scores())
    tasks, times = epidemic.sample_tasks(40, np.random.default_rng(0)), np.linspace(0, 20, 40)
    truth = integrate(epidemic, tasks, gauss_legendre(epidemic.domain, 60).points[:, 0].numpy())
    compression = CompressionSettings(tasks=100, tolerance=1e-6, seed=1)
    built = BuildSettings(trunk=size, forward=forward, compression=compression, quadrature_points=60)
    basis = build_basis(epidemic, trained.trunk, built, tasks, truth)
    found = estimate(basis, long_table(epidemic, times[None, :, None], integrate(epidemic, tasks, times))).table
    assert np.abs(found[["beta", "gamma"]].to_numpy() - tasks.parameters).max() < 1e-3


@pytest.mark.parametrize("redraw", [False, True])
@pytest.mark.parametrize("cut", [3, 9, 12])
def test_resumed_lbfgs_is_the_same_bit_for_bit(oscillator, tmp_path, redraw, cut):
    """Cut off during Adam, at the first round of L-BFGS, and between later rounds; float32 until then."""
    chosen = settings("variable_projection", steps=8, validate_every=4, lbfgs=lbfgs(redraw=redraw))
    small = TrunkSettings(width=8, depth=2, dtype="float32")

    class Cut(Scores):
        def __call__(self, *arguments):
            if self.calls >= cut:
                raise CutOffError
            return super().__call__(*arguments)

    whole = train(oscillator, small, chosen, RIDGE, Scores())
    checkpoint = tmp_path / "state.pt"
    with pytest.raises(CutOffError):
        train(oscillator, small, chosen, RIDGE, Cut(), checkpoint, checkpoint_seconds=0)
    resumed = train(oscillator, small, chosen, RIDGE, Scores(), checkpoint, checkpoint_seconds=0)
    for one, other in zip(whole.trunk.parameters(), resumed.trunk.parameters(), strict=True):
        assert one.dtype == torch.float64
        assert torch.equal(one, other)
    assert resumed.history == whole.history
    assert [row["step"] for row in whole.history] == [0, 4, 8, 13, 18, 23, 28]
    assert not checkpoint.exists()


def test_lbfgs_starts_from_the_best_trunk_of_adam_and_has_its_own_patience(oscillator):
    scores = [3.0, 1.0, 2.0, 2.5, 0.5, 0.7, 0.6]
    chosen = settings("variable_projection", validate_every=1, patience=2, lbfgs=lbfgs(rounds=9, patience=2))
    trained = train(oscillator, SMALL, chosen, FORWARD, Scores(scores))
    # Adam stops at step 3; rounds of 5 iterations follow
    assert [row["step"] for row in trained.history] == [0, 1, 2, 3, 8, 13, 18]
    assert trained.best["step"] == 13 - 5
    assert not scores


def test_learning_rate_rises_and_falls():
    plain = settings("variable_projection", learning_rate=0.1)
    assert [plain.rate(step) for step in (0, 30, 60)] == [0.1] * 3
    falling = settings("variable_projection", learning_rate=0.1, decay=True, warm_up=10)
    assert falling.rate(0) == pytest.approx(0.01)
    assert falling.rate(30) == pytest.approx(0.0505)
    assert falling.rate(60) == pytest.approx(0.001)


def test_covering_tasks_reach_the_ends_of_every_range():
    problem = lotka_volterra_known()
    tasks = covering_tasks(problem, 50, np.random.default_rng(0))
    values = np.hstack([tasks.parameters, tasks.initial])
    ranges = problem.unknown_ranges
    unit = (values - ranges[:, 0]) / (ranges[:, 1] - ranges[:, 0])
    nodes = (1 - np.cos(np.pi * (np.arange(50) + 0.5) / 50)) / 2
    assert np.allclose(np.sort(unit, axis=0), nodes[:, None])
    assert np.abs(np.corrcoef(unit.T) - np.eye(6)).max() < 0.5


def test_scrambled_covering_tasks_leave_no_share_of_a_range_out(quantum_oscillator):
    draws = [
        np.sort(covering_tasks(quantum_oscillator, 8, np.random.default_rng(s), scramble=True).parameters[:, 0])
        for s in range(2)
    ]
    cells = 5 * (1 - np.cos(np.pi * np.arange(9) / 8)) / 2
    for draw in draws:
        assert (cells[:-1] <= draw).all()
        assert (draw <= cells[1:]).all()
    assert not np.isclose(*draws).any()


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        ("trained_heads", {"lbfgs": lbfgs()}, "TrainedHeadsSettings: lbfgs: "),
        ("trained_heads", {"steps": 0}, "TrainedHeadsSettings: steps: "),
        ("variable_projection", {"tasks": {"k": [1]}}, "ProjectionSettings: tasks: "),
        ("variable_projection", {"residual_ramp": None}, "ProjectionSettings: residual_ramp: "),
        ("variable_projection", {"steps": 0}, "steps: 0 leaves nothing to train with"),
    ],
)
def test_settings_of_another_recipe_are_refused(recipe, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        settings(recipe, **changes)
    assert "\n" not in str(caught.value)


def test_scale_of_the_first_layer(oscillator):
    """Weights and biases of the first layer alone are multiplied."""
    plain, scaled = (
        Trunk(oscillator.domain, SMALL.model_copy(update={"first_layer_scale": s}), torch.Generator().manual_seed(0))
        for s in (1.0, 3.0)
    )
    for (name, one), other in zip(plain.named_parameters(), scaled.parameters(), strict=True):
        assert torch.allclose(other, 3 * one if name in ("weight0", "bias0") else one)


def test_unknown_terms_are_refused(lotka_volterra):
    with pytest.raises(InputError, match="without unknown terms"):
        train(lotka_volterra, SMALL, settings("variable_projection"), RIDGE, Scores())
