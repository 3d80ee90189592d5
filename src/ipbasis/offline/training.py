"""Offline training of the trunk: one loop for all recipes and phases, with validation, early stopping and resume."""

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ipbasis.features.trunk import Trunk
from ipbasis.files import replacing_file
from ipbasis.offline.evaluated import Evaluated
from ipbasis.offline.phases import Phase
from ipbasis.problem.declaration import Declared

# Receives the metrics of a validation, with their ``step``
Log = Callable[[dict[str, float]], None]


def no_log(row: dict[str, float]) -> None:
    """A log for those who want none."""


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

    @property
    def figures(self) -> dict[str, float]:
        """What the record of a basis holds of it: the best validation and ``seconds``."""
        return {**self.best, "seconds": self.seconds}


class _Checkpoint:
    """Where the state of a training is kept, so that it can go on after an interruption.

    Args:
        path: of the file, or None to keep nothing.
        identity: of problem and settings; a file of another identity is not used.
        seconds: time between two states.
    """

    def __init__(self, path: Path | None, identity: str, seconds: float):
        self._path, self._identity, self._seconds = path, identity, seconds
        self._saved_at = time.perf_counter()

    def load(self) -> dict:
        """The state, empty if there is none."""
        saved = torch.load(self._path, weights_only=True) if self._path is not None and self._path.exists() else {}
        return saved if saved.get("identity") == self._identity else {}

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        return self._path is not None and time.perf_counter() - self._saved_at > self._seconds

    def save(self, state: dict) -> None:
        with replacing_file(self._path) as temporary:
            torch.save({"identity": self._identity, **state}, temporary)
        self._saved_at = time.perf_counter()

    def remove(self) -> None:
        """Remove the file, which is no longer needed."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


class _Session:
    """One training from its start or from a checkpoint: keeps the history and the best trunk over all phases.

    Args:
        trunk: the trunk in training.
        validator: scores it.
        checkpoint: where the state is kept.
        log: receives the metrics of every validation, those before an interruption too.
    """

    def __init__(self, trunk: Trunk, validator: Validator, checkpoint: _Checkpoint, log: Log):
        self._trunk, self._validator, self._checkpoint, self._log = trunk, validator, checkpoint, log
        self._saved = checkpoint.load()
        self.result, self._best_trunk = Training(trunk), _values(trunk)
        if self._saved:
            self.result = Training(trunk, *(self._saved[key] for key in ("history", "best", "seconds")))
            self._best_trunk = self._saved["best_trunk"]
            validator.restore(self._saved["validator"])
        self._started = time.perf_counter() - self.result.seconds
        for row in self.result.history:
            log(row)

    def run(self, phase: Phase, position: int) -> None:
        """All steps of a phase, or as many as improve the score; none if the checkpoint is of a later phase.

        Then the trunk is the best so far.
        """
        if not self._saved or self._saved["phase"] == phase.name:
            first, begin = self._enter(phase)
            steps = range(first, phase.steps + 1)
            bar = tqdm(steps, phase.name, phase.steps + 1, initial=first, mininterval=1, position=position)
            for step in bar:
                if self._checkpoint.due:
                    self._save(phase, step, begin)
                if self._step(phase, step, begin, bar):
                    break
            bar.close()
        self._trunk.load_state_dict(self._best_trunk)

    def _enter(self, phase: Phase) -> tuple[int, int]:
        """The step at which a phase starts or goes on, and the step of the history at which it began."""
        if not self._saved:
            return 0, self.result.history[-1]["step"] if self.result.history else 0
        saved, self._saved = self._saved, {}
        self._trunk.load_state_dict(saved["trunk"])
        phase.restore(saved["state"])
        return saved["step"], saved["begin"]

    def _step(self, phase: Phase, step: int, begin: int, bar: tqdm) -> bool:
        """One step, with a validation where it is due; returns whether patience is at its end."""
        # the first trunk of a later phase is the one that the phase before has scored
        due = (step % phase.validate_every == 0 and (step > 0 or begin == 0)) or step == phase.steps
        losses, evaluated = phase.loss(self._trunk, step)
        metrics = self._validator(self._trunk, evaluated, due)
        if due:
            row = {"step": begin + step * phase.epochs, **{k: v.item() for k, v in losses.items()}, **metrics}
            bar.set_postfix(loss=f"{row['loss']:.1e}", score=f"{row['score']:.1e}", refresh=False)
            since = self._note(row, begin) // (phase.validate_every * phase.epochs)
            if phase.patience is not None and since >= phase.patience:
                return True
        if step < phase.steps:
            phase.advance(self._trunk, step, losses["loss"])
        return False

    def _note(self, row: dict[str, float], begin: int) -> int:
        """Keep the metrics, and the trunk if it is the best so far; returns the steps since the best of the phase."""
        self.result.history.append(row)
        self._log(row)
        if row["score"] < self.result.best.get("score", np.inf):
            self.result.best, self._best_trunk = row, _values(self._trunk)
        return row["step"] - max(self.result.best.get("step", 0), begin)

    def _save(self, phase: Phase, step: int, begin: int) -> None:
        self._checkpoint.save(
            {
                "phase": phase.name,
                "begin": begin,
                "step": step,
                "trunk": self._trunk.state_dict(),
                "best_trunk": self._best_trunk,
                "state": phase.state(),
                "validator": self._validator.state(),
                "history": self.result.history,
                "best": self.result.best,
                "seconds": time.perf_counter() - self._started,
            }
        )

    def finish(self) -> Training:
        """The outcome; its checkpoint is no longer needed."""
        self.result.seconds = time.perf_counter() - self._started
        self._trunk.requires_grad_(False)
        self._checkpoint.remove()
        return self.result


def _values(trunk: Trunk) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trunk.state_dict().items()}


def identity_of(*described: Declared) -> str:
    """Checksum of what a training depends on: a checkpoint with another is not used."""
    return hashlib.sha256("".join(part.model_dump_json() for part in described).encode()).hexdigest()


def train_trunk(
    trunk: Trunk,
    phases: Iterable[Phase],
    validator: Validator,
    identity: str,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 20,
    log: Log = no_log,
    position: int = 0,
) -> Training:
    """Train a trunk so that its features span the solutions of a problem.

    Args:
        trunk: the untrained trunk, which is trained in place.
        phases: how; each is run before the next is asked for, which begins with the best trunk so far.
        validator: scores the trunk; the best one is kept.
        identity: of problem and settings, from `identity_of`.
        checkpoint: file to resume from and to save to; removed at the end. It is ignored if it was
            written with another identity or validator.
        checkpoint_seconds: time between two checkpoints.
        log: receives the metrics of every validation, with their ``step``: steps of Adam, after them
            iterations of L-BFGS; in a resumed training first those from before the interruption.
        position: line of the progress bar, where several trainings run side by side.

    Returns:
        the best trunk and how it came about. Resumed training gives the same result bit for bit.
    """
    session = _Session(
        trunk, validator, _Checkpoint(checkpoint, identity + validator.identity, checkpoint_seconds), log
    )
    for phase in phases:
        session.run(phase, position)
    return session.finish()
