"""Validation of trunks in training, and the basis that a trunk becomes."""

import numpy as np
import pytest
import torch

from ipbasis import Basis, InputError
from ipbasis.features.quadrature import gauss_legendre
from ipbasis.features.trunk import Trunk, TrunkSettings
from ipbasis.offline.build import build_basis
from ipbasis.offline.settings import BuildSettings, CompressionSettings, ForwardSettings, ValidationSettings
from ipbasis.offline.validation import ForwardValidator
from ipbasis.problem.declaration import Problem, problem_directory
from ipbasis.published.train import PublishedSettings, published_validator
from ipbasis.published.trained_heads import TrainedHeadsSettings
from ipbasis.published.validation import AdamValidator
from ipbasis.reference.solutions import solutions

POINTS = 100
FORWARD = ForwardSettings(condition_weight=10, condition_points=1, rank_tolerance=1e-12, linearise="reference")


@pytest.fixture(scope="module")
def problem() -> Problem:
    return Problem.from_yaml(problem_directory() / "lotka_volterra.yaml")


def unseen(problem, count=20):
    tasks = problem.sample_tasks(count, np.random.default_rng(0))
    return tasks, solutions(problem, tasks, gauss_legendre(problem.domain, POINTS).points.numpy()[None])


def trunk_of(problem, width):
    settings = TrunkSettings(width=width, depth=2, dtype="float64", first_layer_scale=5)
    return Trunk(problem.domain, settings, torch.Generator().manual_seed(0)).requires_grad_(False)


def test_forward_validator_prefers_the_trunk_that_spans_more(problem):
    validator = ForwardValidator(problem, FORWARD, POINTS, *unseen(problem))
    small, large = (validator(trunk_of(problem, width), None, True) for width in (10, 40))
    assert large["score"] < small["score"] / 10
    assert large["validation_solution_error"] < small["validation_solution_error"]
    assert large["validation_worst_residual"] >= large["score"] == large["validation_loss"] ** 0.5
    assert validator(trunk_of(problem, 10), None, False) is None


def test_forward_validator_takes_a_trunk_that_has_changed_its_number_type(problem):
    validator = ForwardValidator(problem, FORWARD, POINTS, *unseen(problem))
    trunk = trunk_of(problem, 20)
    double = validator(trunk, None, True)["score"]
    assert validator(trunk.float(), None, True)["score"] == pytest.approx(double, rel=0.5)


def test_forward_validator_without_a_reference(quantum_oscillator):
    forward = FORWARD.model_copy(update={"condition_points": 10, "rank_tolerance": 1e-6})
    tasks = quantum_oscillator.sample_tasks(5, np.random.default_rng(0))
    validator = ForwardValidator(quantum_oscillator, forward, 20, tasks, None)
    assert "validation_solution_error" not in validator(trunk_of(quantum_oscillator, 20), None, True)


def test_validators_differ_in_their_identity(problem):
    """A checkpoint of a training with other unseen tasks must not be used."""
    tasks, truth = unseen(problem)
    other, _ = unseen(problem, 21)
    found = {ForwardValidator(problem, FORWARD, POINTS, t, truth).identity for t in (tasks, tasks, other)}
    assert len(found) == 2


def published(problem, **validation):
    """The validator for the published recipe on unseen tasks."""
    training = TrainedHeadsSettings(
        readouts=3, steps=1, learning_rate=1e-3, decay=False, collocation_points=20, validate_every=1, patience=None,
        seed=0,
    )  # fmt: skip
    chosen = PublishedSettings(
        trunk=TrunkSettings(width=8, depth=2, dtype="float64"),
        training=training,
        forward=FORWARD.model_copy(update={"linearise": None}),
        validation={"queries": 3, "seed": 0, **validation},
        quadrature_points=POINTS,
    )
    return published_validator(problem, chosen, trunk_of(problem, 8), *unseen(problem, 3))


@pytest.mark.parametrize(
    ("values", "kind"),
    [({}, ForwardValidator), ({"observations": 30, "learning_rate": 1e-2}, AdamValidator)],
)
def test_settings_choose_the_validator(oscillator, values, kind):
    assert isinstance(published(oscillator, **values), kind)


@pytest.mark.parametrize("given", [{"learning_rate": 1e-2}, {"observations": 30}])
def test_a_learning_rate_needs_observations_and_they_need_it(oscillator, given):
    with pytest.raises(InputError, match=r"learning_rate|observations") as caught:
        published(oscillator, **given)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="learning_rate"):
        ValidationSettings(queries=3, seed=0, learning_rate=1e-2)


def test_basis_of_a_nonlinear_problem_is_kept_on_disk(problem, tmp_path):
    """Built of a trunk that has become float64 in training, compressed, saved and read again."""
    trunk = trunk_of(problem, 40)
    settings = TrunkSettings(width=40, depth=2, dtype="float32", first_layer_scale=5)
    compression = CompressionSettings(tasks=100, tolerance=1e-3, seed=1)
    tasks, truth = unseen(problem)
    chosen = BuildSettings(trunk=settings, forward=FORWARD, compression=compression, quadrature_points=POINTS)
    basis = build_basis(problem, trunk, chosen, tasks, truth)
    assert basis.record.features.dtype == "float64"
    assert basis.record.functions < 41
    assert basis.record.accuracy.approximation < 1e-2
    basis.save(tmp_path)
    times = np.linspace(0, 10, 30)
    assert np.array_equal(Basis.load(tmp_path).functions(times, "t"), basis.functions(times, "t"))
