"""Validation of trunks in training, and the basis that a trunk becomes."""

from functools import partial

import numpy as np
import pytest
import torch

from ipbasis import Basis, InputError
from ipbasis.estimates.validation import GaussNewtonValidator
from ipbasis.features.quadrature import gauss_legendre
from ipbasis.features.trunk import Trunk, TrunkSettings
from ipbasis.offline.build import build_basis
from ipbasis.offline.compression import CompressionSettings
from ipbasis.offline.forward import ForwardSettings
from ipbasis.offline.heads import TrainingSettings
from ipbasis.offline.validation import ForwardValidator, ValidationSettings
from ipbasis.problem.declaration import Problem, problem_directory
from ipbasis.published.validation import AdamValidator, make_validator
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


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({}, ForwardValidator),
        ({"observations": 30}, GaussNewtonValidator),
        ({"observations": 30, "learning_rate": 1e-2}, AdamValidator),
    ],
)
def test_settings_choose_the_validator(oscillator, values, kind):
    tasks, truth = unseen(oscillator, 3)
    trunk = TrunkSettings(width=8, depth=2, dtype="float64")
    training = TrainingSettings(
        recipe="variable_projection", readouts=3, steps=1, learning_rate=1e-3, decay=False, collocation_points=20,
        validate_every=1, patience=None, seed=0,
    )  # fmt: skip
    forward = FORWARD.model_copy(update={"linearise": None})
    chosen = ValidationSettings(queries=3, seed=0, **values)
    build = partial(build_basis, oscillator)
    validator = make_validator(oscillator, trunk, training, forward, chosen, POINTS, build, tasks, truth)
    assert isinstance(validator, kind)


def test_a_learning_rate_needs_observations():
    with pytest.raises(InputError, match="learning_rate"):
        ValidationSettings(queries=3, seed=0, learning_rate=1e-2)


def test_basis_of_a_nonlinear_problem_is_kept_on_disk(problem, tmp_path):
    """Built of a trunk that has become float64 in training, compressed, saved and read again."""
    trunk = trunk_of(problem, 40)
    settings = TrunkSettings(width=40, depth=2, dtype="float32", first_layer_scale=5)
    compression = CompressionSettings(tasks=100, tolerance=1e-3, seed=1)
    tasks, truth = unseen(problem)
    basis = build_basis(problem, trunk, settings, FORWARD, compression, POINTS, tasks, truth)
    assert basis.record.trunk.dtype == "float64"
    assert basis.record.functions < 41
    assert basis.record.accuracy.approximation < 1e-2
    basis.save(tmp_path)
    times = np.linspace(0, 10, 30)
    assert np.array_equal(Basis.load(tmp_path).functions(times, "t"), basis.functions(times, "t"))
