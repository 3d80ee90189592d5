"""Offline training of the trunk: one loop for both recipes, with validation, early stopping and resume."""

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ipbasis.basis.forward import Evaluated, ForwardSettings
from ipbasis.basis.heads import RECIPES, TrainingSettings
from ipbasis.basis.network import Trunk, TrunkSettings
from ipbasis.files import replacing_file
from ipbasis.problem import Problem


class Validator(Protocol):
    """Scores a trunk on unseen inverse problems.

    Args:
        identity: what it depends on; training resumes only with the same.
    """

    identity: str

    def __call__(self, trunk: Trunk, evaluated: Evaluated, due: bool) -> Mapping[str, float] | None:
        """Called at every step; when `due`, returns metrics, of which ``score`` (lower is better) counts.

        Args:
            trunk: at this step.
            evaluated: its features at the collocation points of the step.
            due: whether metrics are wanted.
        """

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold to go on."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state."""


@dataclass
class Training:
    """State and outcome of a training.

    Args:
        trunk: the trunk with the best validation score.
        history: metrics by step.
        best: metrics of the best validation, with its ``step``.
        seconds: training time, over all sessions if it was interrupted.
    """

    trunk: Trunk
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


def train(
    problem: Problem,
    trunk_settings: TrunkSettings,
    settings: TrainingSettings,
    forward: ForwardSettings,
    validator: Validator,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 20,
    log: Callable[[dict[str, float]], None] = lambda row: None,
    position: int = 0,
) -> Training:
    """Train a trunk so that its features span the solutions of a problem.

    Args:
        problem: a problem with an affine split.
        trunk_settings: size of the trunk.
        settings: recipe and budget.
        forward: weight and points of the conditions.
        validator: scores the trunk; the best one is kept.
        checkpoint: file to resume from and to save to; removed at the end. It is ignored if it was
            written with other settings.
        checkpoint_seconds: time between two checkpoints.
        log: receives the metrics of every validation, with their ``step``.
        position: line of the progress bar, where several trainings run side by side.

    Returns:
        the best trunk and how it came about. Resumed training gives the same result bit for bit.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    trunk = Trunk(problem.domain, trunk_settings, generator)
    recipe = RECIPES[settings.recipe](problem, trunk, settings, forward, generator)
    optimiser = torch.optim.Adam(
        [*trunk.parameters(), *recipe.heads.parameters()], lr=settings.learning_rate, fused=True
    )
    described = [part.model_dump_json() for part in (problem, trunk_settings, settings, forward)]
    identity = hashlib.sha256("".join([*described, validator.identity]).encode()).hexdigest()
    result = Training(trunk)
    best = {name: value.clone() for name, value in trunk.state_dict().items()}
    first = 0
    if checkpoint is not None and checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        if saved["identity"] == identity:
            first, best = saved["step"], saved["best_trunk"]
            trunk.load_state_dict(saved["trunk"])
            recipe.heads.load_state_dict(saved["heads"])
            optimiser.load_state_dict(saved["optimiser"])
            validator.restore(saved["validator"])
            result = Training(trunk, saved["history"], saved["best"], saved["seconds"])

    started, saved_at = time.perf_counter() - result.seconds, time.perf_counter()
    progress = tqdm(
        range(first, settings.steps + 1),
        initial=first,
        total=settings.steps + 1,
        desc=settings.recipe,
        mininterval=1,
        position=position,
    )
    for step in progress:
        if checkpoint is not None and time.perf_counter() - saved_at > checkpoint_seconds:
            result.seconds = time.perf_counter() - started
            state = {
                "identity": identity,
                "step": step,
                "trunk": trunk.state_dict(),
                "best_trunk": best,
                "heads": recipe.heads.state_dict(),
                "optimiser": optimiser.state_dict(),
                "validator": validator.state(),
                "history": result.history,
                "best": result.best,
                "seconds": result.seconds,
            }
            with replacing_file(checkpoint) as temporary:
                torch.save(state, temporary)
            saved_at = time.perf_counter()
        due = step % settings.validate_every == 0 or step == settings.steps
        losses, evaluated = recipe.loss(trunk, step)
        metrics = validator(trunk, evaluated, due)
        if due:
            metrics = {**{name: value.item() for name, value in losses.items()}, **(metrics or {})}
            result.history.append({"step": step, **metrics})
            log(result.history[-1])
            if metrics["score"] < result.best.get("score", np.inf):
                result.best = {"step": step, **metrics}
                best = {name: value.clone() for name, value in trunk.state_dict().items()}
            progress.set_postfix(loss=f"{metrics['loss']:.1e}", score=f"{metrics['score']:.1e}", refresh=False)
            since = (step - result.best.get("step", 0)) // settings.validate_every
            if settings.patience is not None and since >= settings.patience:
                break
        if step == settings.steps:
            break
        if settings.decay:
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate * (0.01 + 0.495 * (1 + math.cos(math.pi * step / settings.steps)))
        optimiser.zero_grad()
        losses["loss"].backward()
        optimiser.step()
    progress.close()
    result.seconds = time.perf_counter() - started
    trunk.load_state_dict(best)
    trunk.requires_grad_(False)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return result
