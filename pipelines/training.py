"""The step that makes a basis, for stages and studies."""

import time
from functools import partial
from pathlib import Path

import numpy as np

from ipbasis.features.quadrature import gauss_legendre
from ipbasis.features.trunk import TrunkSettings
from ipbasis.offline.artefact import Basis
from ipbasis.offline.build import build_basis
from ipbasis.offline.compression import CompressionSettings
from ipbasis.offline.forward import ForwardSettings
from ipbasis.offline.training import Training, TrainingSettings, train
from ipbasis.offline.validation import ValidationSettings
from ipbasis.problem.declaration import Problem
from ipbasis.published.validation import make_validator
from ipbasis.reference.solutions import has_reference, solutions
from ipbasis.tracking import Tracker
from pipelines.common import Settings, one_thread

_SECONDS_BETWEEN_LOGS = 5
# figures of the best validation that the tables note, where a training has them
_BEST = ("ode_loss", "data_loss", "ic_loss", "validation_loss", "validation_parameter_mse")


def train_basis(
    settings: Settings, checkpoint: Path | None, tracker: Tracker, position: int = 0
) -> tuple[Basis, Training]:
    """Train the basis that the configuration describes; its progress bar stands in the line `position`."""
    one_thread()
    problem, offline = Problem(**settings["problem"]), settings["offline"]
    size = settings["basis"]
    trunk_settings = TrunkSettings(
        width=size["width"],
        depth=size["depth"],
        dtype=offline["dtype"],
        first_layer_scale=offline["first_layer_scale"],
    )
    training = TrainingSettings(**offline["training"])
    forward = ForwardSettings(**offline["forward"])
    compression = CompressionSettings(**offline["compression"]) if offline["compression"] else None
    validation = ValidationSettings(**offline["validation"])

    tasks = problem.sample_tasks(validation.queries, np.random.default_rng(validation.seed))
    quadrature = gauss_legendre(problem.domain, size["quadrature_points"])
    truth = solutions(problem, tasks, quadrature.points.numpy()[None]) if has_reference(problem) else None
    build = partial(
        build_basis,
        problem,
        trunk_settings=trunk_settings,
        forward=forward,
        compression=compression,
        quadrature_points=size["quadrature_points"],
        tasks=tasks,
        truth=truth,
    )
    validator = make_validator(
        problem, trunk_settings, training, forward, validation, size["quadrature_points"], build, tasks, truth
    )
    waiting: list[dict[str, float]] = []
    sent = time.perf_counter()

    def send() -> None:
        nonlocal sent
        tracker.history(waiting, prefix=f"{settings['recipe']['source']}_")
        waiting.clear()
        sent = time.perf_counter()

    def log(row: dict[str, float]) -> None:
        """Send metrics every few seconds: one by one they would cost more than the training."""
        waiting.append(row)
        if time.perf_counter() - sent > _SECONDS_BETWEEN_LOGS:
            send()

    trained = train(problem, trunk_settings, training, forward, validator, checkpoint, log=log, position=position)
    send()
    basis = build(
        trained.trunk,
        settings={"basis": size, "offline": offline, "recipe": settings["recipe"], "profile": settings["profile"]},
        figures={**trained.best, "seconds": trained.seconds},
    )
    return basis, trained


def offline_row(settings: Settings, basis: Basis, trained: Training) -> dict:
    """Row of the offline table."""
    training = settings["offline"]["training"]
    return {
        "source": settings["recipe"]["source"],
        "readouts": settings["basis"]["readouts"],
        "width": settings["basis"]["width"],
        "epochs": trained.history[-1]["step"],
        "learning_rate": training["learning_rate"],
        "derivative_mode": "forward",
        **settings["observations"]["training_label"],
        "validation_queries": settings["offline"]["validation"]["queries"],
        "train_loss": trained.best["loss"],
        **{name: trained.best[name] for name in _BEST if name in trained.best},
        "seconds": trained.seconds,
        "best_epoch": trained.best["step"],
        "functions": basis.record.functions,
        "residual_accuracy": basis.record.accuracy.residual,
        "solution_accuracy": basis.record.accuracy.solution,
    }
