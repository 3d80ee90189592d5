"""The published recipe from a problem to a basis: the features of the trained trunk, as they are."""

from pathlib import Path

import numpy as np
import torch

from ipbasis.errors import InputError
from ipbasis.features.trunk import Trunk
from ipbasis.offline.artefact import Basis
from ipbasis.offline.build import build_basis
from ipbasis.offline.phases import FirstOrder
from ipbasis.offline.settings import BuildSettings, ValidationSettings
from ipbasis.offline.training import Log, Validator, identity_of, no_log, train_trunk
from ipbasis.offline.validation import ForwardValidator, unseen_tasks
from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.published.trained_heads import TrainedHeads, TrainedHeadsSettings
from ipbasis.published.validation import AdamValidationSettings, AdamValidator


class PublishedSettings(BuildSettings):
    """All that decides what `train_published` makes of a problem.

    Args:
        training: recipe and budget.
        validation: what the trunk is scored on: the forward problem, or inverse problems trained beside it.
        compression: none is published.
    """

    training: TrainedHeadsSettings
    validation: AdamValidationSettings | ValidationSettings
    compression: None = None


def published_validator(
    problem: Problem, settings: PublishedSettings, trunk: Trunk, tasks: Tasks, truth: np.ndarray | None
) -> Validator:
    """The validator that the settings ask for.

    Args:
        problem: the problem.
        settings: of the basis.
        trunk: the trunk in training.
        tasks: unseen tasks.
        truth: (tasks, n, F) their solutions at the quadrature points, or None.

    Raises:
        InputError: if inverse problems are asked for without a learning rate, or without a reference solution.
    """
    validation, forward = settings.validation, settings.forward
    if isinstance(validation, AdamValidationSettings):
        return AdamValidator(problem, tasks, validation, forward, settings.training.collocation_points, trunk)
    if validation.observations is not None:
        raise InputError("validation.observations: need a learning_rate, by which the inverse problems are trained")
    return ForwardValidator(problem, forward, settings.quadrature_points, tasks, truth)


def train_published(
    problem: Problem,
    settings: PublishedSettings,
    *,
    checkpoint: Path | None = None,
    log: Log = no_log,
    position: int = 0,
) -> Basis:
    """Train a trunk and the readouts of fixed tasks together; the basis is all of its features.

    Args:
        problem: a problem without unknown terms.
        settings: all that decides the result.
        checkpoint: as in `ipbasis.offline.trained.train_trunk_basis`, and so are `log` and `position`.
        log: receives the metrics of every validation.
        position: line of the progress bar.

    Raises:
        InputError: if the problem cannot be trained so.

    Reference: Manor & Kohandel, arXiv 2509.07245.
    """
    training, forward = settings.training, settings.forward
    tasks, truth = unseen_tasks(problem, settings.validation, settings.quadrature_points)
    generator = torch.Generator().manual_seed(training.seed)
    trunk = Trunk(problem.domain, settings.trunk, generator)
    validator = published_validator(problem, settings, trunk, tasks, truth)
    phase = FirstOrder(TrainedHeads(problem, trunk, training, forward, generator), trunk, training, training.recipe)
    identity = identity_of(problem, settings.trunk, training, forward)
    trained = train_trunk(trunk, [phase], validator, identity, checkpoint, log=log, position=position)
    return build_basis(problem, trunk, settings, tasks, truth, trained.figures)
