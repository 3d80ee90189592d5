"""Offline training: both recipes learn, the best trunk is kept, and interrupted training resumes exactly."""

import numpy as np
import pytest
import torch

from ipbasis.basis.accuracy import measure_accuracy
from ipbasis.basis.forward import ForwardSettings
from ipbasis.basis.heads import TrainingSettings
from ipbasis.basis.network import TrunkSettings
from ipbasis.basis.quadrature import gauss_legendre
from ipbasis.basis.training import train
from ipbasis.errors import InputError
from ipbasis.inverse.validation import AdamValidator, ValidationSettings
from ipbasis.reference.ode import integrate

FORWARD = ForwardSettings(condition_weight=1, condition_points=1, rank_tolerance=1e-3)
SMALL = TrunkSettings(width=8, depth=2, dtype="float64")


def settings(recipe, **changes):
    base = {
        "recipe": recipe,
        "readouts": 4,
        "steps": 60,
        "learning_rate": 3e-3,
        "decay": False,
        "collocation_points": 24,
        "validate_every": 10,
        "patience": None,
        "seed": 0,
    }
    return TrainingSettings(**{**base, **changes})


class Scores:
    """A validator that gives scores from a list, and counts its calls."""

    identity = ""

    def __init__(self, scores=None):
        self.scores, self.calls = scores, 0

    def __call__(self, trunk, evaluated, due):
        self.calls += 1
        if not due:
            return None
        return {"score": self.scores.pop(0) if self.scores else 1.0 / self.calls}

    def state(self):
        return {"calls": self.calls}

    def restore(self, state):
        self.calls = state["calls"]


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


def test_variable_projection_lowers_the_residual_of_unseen_tasks(oscillator):
    """A trunk too small to span the solutions untrained: training gains a factor of 6."""
    forward = ForwardSettings(condition_weight=10, condition_points=1, rank_tolerance=1e-8)
    chosen = settings(
        "variable_projection", steps=300, readouts=16, learning_rate=1e-2, decay=True, collocation_points=60,
        validate_every=300,
    )  # fmt: skip
    small = TrunkSettings(width=6, depth=2, dtype="float64")
    first, last = train(oscillator, small, chosen, forward, Residuals(oscillator, forward)).history
    assert last["score"] < first["score"] / 4


def test_trained_heads_lower_their_loss(oscillator):
    chosen = settings("trained_heads", steps=600, learning_rate=1e-2, validate_every=600)
    first, last = train(oscillator, SMALL, chosen, FORWARD, Scores()).history
    assert last["loss"] < first["loss"] / 5


class CutOffError(Exception):
    pass


@pytest.mark.parametrize("recipe", ["variable_projection", "trained_heads"])
@pytest.mark.parametrize(("cut", "decay"), [(7, False), (31, True)])
def test_resumed_training_is_the_same_bit_for_bit(oscillator, tmp_path, recipe, cut, decay):
    """Cut off in the middle, then started again from its checkpoint."""

    def validator():
        tasks = oscillator.sample_tasks(6, np.random.default_rng(9))
        points = np.linspace(0, 3, 10)[:, None]
        values = integrate(oscillator, tasks, points[:, 0])
        chosen = ValidationSettings(queries=6, observations=10, seed=0, learning_rate=1e-2)
        return AdamValidator(oscillator, 9, chosen, FORWARD, 24, tasks, points, values, torch.float64)

    chosen = settings(recipe, decay=decay)
    whole = train(oscillator, SMALL, chosen, FORWARD, validator())
    checkpoint = tmp_path / "state.pt"
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
    resumed = train(oscillator, SMALL, chosen, FORWARD, validator(), checkpoint, checkpoint_seconds=0)
    for one, other in zip(whole.trunk.parameters(), resumed.trunk.parameters(), strict=True):
        assert torch.equal(one, other)
    assert resumed.history == whole.history
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


def test_nonlinear_problems_are_refused(lotka_volterra):
    with pytest.raises(InputError, match="affine split"):
        train(lotka_volterra, SMALL, settings("variable_projection"), FORWARD, Scores())
