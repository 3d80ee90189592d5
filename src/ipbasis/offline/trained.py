"""From a problem to its basis: the trunk trained, compressed, and its accuracy measured."""

from pathlib import Path

import torch

from ipbasis.errors import InputError
from ipbasis.features.trunk import Trunk
from ipbasis.offline.artefact import Basis
from ipbasis.offline.build import build_basis
from ipbasis.offline.projection import projection_phases
from ipbasis.offline.settings import BasisSettings
from ipbasis.offline.training import Log, Validator, identity_of, no_log, train_trunk
from ipbasis.offline.validation import ForwardValidator, unseen_tasks
from ipbasis.problem.declaration import Problem


def train_trunk_basis(
    problem: Problem,
    settings: BasisSettings,
    *,
    validator: Validator | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 20,
    log: Log = no_log,
    position: int = 0,
) -> Basis:
    """Train a trunk along gradients until its functions span the solutions of a problem over the ranges of its
    parameters.

    Args:
        problem: a problem without unknown terms.
        settings: all that decides the result, but for a validator that is given.
        validator: scores the trunk in training, and the best one is kept; None for one that solves the forward
            problem of unseen tasks.
        checkpoint: file to resume an interrupted training from, bit for bit, and to save its state to; removed at
            the end. One of another problem or other settings is ignored.
        checkpoint_seconds: time between two states that are saved.
        log: receives the metrics of every validation, with their ``step``: steps of Adam, after them
            iterations of L-BFGS; in a resumed training first those from before the interruption.
        position: line of the progress bar, where several trainings run side by side.

    Returns:
        the basis; its record holds the settings, and of the training the best validation and the ``seconds``.

    Raises:
        InputError: if the problem cannot be trained so, or the settings want a validator that is not given.
    """
    validation = settings.validation
    if validator is None and validation.observations is not None:
        raise InputError(
            "validation.observations: only a validator that estimates parameters observes; give it to train, such as "
            "ipbasis.estimates.validation.GaussNewtonValidator, or leave the observations out"
        )
    tasks, truth = unseen_tasks(problem, validation, settings.quadrature_points)
    scored = validator or ForwardValidator(problem, settings.forward, settings.quadrature_points, tasks, truth)
    trunk = Trunk(problem.domain, settings.trunk, torch.Generator().manual_seed(settings.training.seed))
    phases = projection_phases(problem, trunk, settings.training, settings.forward)
    identity = identity_of(problem, settings.trunk, settings.training, settings.forward)
    trained = train_trunk(trunk, phases, scored, identity, checkpoint, checkpoint_seconds, log, position)
    return build_basis(problem, trunk, settings, tasks, truth, trained.figures)
