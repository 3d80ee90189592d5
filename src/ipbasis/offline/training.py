"""Offline training of the trunk: one loop for all recipes and phases, with validation, early stopping and resume."""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ipbasis.features.trunk import Trunk, TrunkSettings
from ipbasis.files import replacing_file
from ipbasis.offline.forward import Evaluated, ForwardSettings
from ipbasis.offline.heads import RECIPES, CoveringProjection, Recipe, TrainingSettings
from ipbasis.offline.soap import Soap
from ipbasis.problem.declaration import Problem


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


class _FirstOrder:
    """First phase: Adam or SOAP on what the recipe gives at each step."""

    def __init__(self, recipe: Recipe, trunk: Trunk, settings: TrainingSettings):
        self._recipe, self._settings, self.name, self.epochs = recipe, settings, settings.recipe, 1
        parameters = [*trunk.parameters(), *recipe.heads.parameters()]
        self._optimisers = _optimisers(parameters, settings)
        self.steps, self.validate_every, self.patience = settings.steps, settings.validate_every, settings.patience

    def loss(self, trunk: Trunk, step: int) -> tuple[dict[str, Tensor], Evaluated]:
        return self._recipe.loss(trunk, step)

    def advance(self, trunk: Trunk, step: int, loss: Tensor) -> None:
        """Improve the trunk, given the loss before."""
        for optimiser in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self._settings.rate(step)
            optimiser.zero_grad()
        loss.backward()
        for optimiser in self._optimisers:
            optimiser.step()

    def state(self) -> dict:
        states = [optimiser.state_dict() for optimiser in self._optimisers]
        return {"heads": self._recipe.heads.state_dict(), "optimisers": states}

    def restore(self, state: Mapping) -> None:
        self._recipe.heads.load_state_dict(state["heads"])
        for optimiser, saved in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)


def _optimisers(parameters: list[Tensor], settings: TrainingSettings) -> list[torch.optim.Optimizer]:
    """The optimisers of the first phase; each parameter belongs to one of them."""
    if settings.optimiser == "soap":
        return [Soap(parameters, lr=settings.learning_rate)]
    hidden = [p for p in parameters if p.ndim == 2 and p.shape[0] == p.shape[1]] if settings.optimiser == "muon" else []
    rest = [p for p in parameters if not any(p is other for other in hidden)]
    found = [torch.optim.Adam(rest, lr=settings.learning_rate, fused=True)]
    if hidden:
        # steps of the size of Adam's, so that one learning rate serves both
        found.append(
            torch.optim.Muon(hidden, lr=settings.learning_rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
        )
    return found


class _Lbfgs:
    """Second phase: a round of L-BFGS at each step.

    Reference: Liu & Nocedal, Math. Program. 45 (1989) 503.
    """

    def __init__(self, recipe: CoveringProjection, trunk: Trunk, training: TrainingSettings):
        self._recipe, self._settings = recipe, training.lbfgs
        self.name, self.epochs = f"{training.recipe} L-BFGS", self._settings.iterations
        self.steps, self.validate_every = self._settings.rounds, self._settings.validate_every
        self.patience = self._settings.patience
        self._begin(trunk, 0)

    def _begin(self, trunk: Trunk, step: int) -> None:
        self._recipe.draw(step)
        self._optimiser = torch.optim.LBFGS(
            trunk.parameters(),
            max_iter=self._settings.iterations,
            history_size=self._settings.history,
            line_search_fn="strong_wolfe",
            tolerance_grad=0,
            tolerance_change=0,
        )

    def loss(self, trunk: Trunk, step: int) -> tuple[dict[str, Tensor], Evaluated]:
        if self._settings.redraw and step > 0:
            self._begin(trunk, step)
        return self._recipe.loss(trunk)

    def advance(self, trunk: Trunk, step: int, loss: Tensor) -> None:
        """Improve the trunk, given the loss before."""
        known = [loss]

        def closure() -> Tensor:
            self._optimiser.zero_grad()
            value = known.pop() if known else self._recipe.loss(trunk)[0]["loss"]
            value.backward()
            return value.detach()

        self._optimiser.step(closure)

    def state(self) -> dict:
        # where the next round draws its own tasks it starts from the trunk alone
        return {} if self._settings.redraw else {"optimiser": self._optimiser.state_dict()}

    def restore(self, state: Mapping) -> None:
        if state:
            self._optimiser.load_state_dict(state["optimiser"])


class _Session:
    """One training from its start or from a checkpoint: keeps the history and the best trunk over all phases.

    Args:
        trunk: the trunk in training.
        validator: scores it.
        identity: of problem and settings; a checkpoint of another identity is not used.
        checkpoint: file of the state, or None.
        checkpoint_seconds: time between two checkpoints.
        log: receives the metrics of every validation.
    """

    def __init__(
        self,
        trunk: Trunk,
        validator: Validator,
        identity: str,
        checkpoint: Path | None,
        checkpoint_seconds: float,
        log: Callable[[dict[str, float]], None],
    ):
        self._trunk, self._validator, self._identity, self._log = trunk, validator, identity, log
        self._checkpoint, self._checkpoint_seconds = checkpoint, checkpoint_seconds
        saved = torch.load(checkpoint, weights_only=True) if checkpoint is not None and checkpoint.exists() else {}
        self._saved = saved if saved.get("identity") == identity else {}
        self.result, self.best_trunk = Training(trunk), _values(trunk)
        if self._saved:
            self.result = Training(trunk, *(self._saved[key] for key in ("history", "best", "seconds")))
            self.best_trunk = self._saved["best_trunk"]
            validator.restore(self._saved["validator"])
        self._saved_at = time.perf_counter()
        self._started = self._saved_at - self.result.seconds

    def run(self, phase: _FirstOrder | _Lbfgs, position: int) -> None:
        """All steps of a phase, or as many as improve the score; none if the checkpoint is of a later phase."""
        first, begin = 0, self.result.history[-1]["step"] if self.result.history else 0
        if self._saved:
            if self._saved["phase"] != phase.name:
                return
            first, begin = self._saved["step"], self._saved["begin"]
            self._trunk.load_state_dict(self._saved["trunk"])
            phase.restore(self._saved["state"])
            self._saved = {}
        steps = range(first, phase.steps + 1)
        bar = tqdm(steps, phase.name, phase.steps + 1, initial=first, mininterval=1, position=position)
        for step in bar:
            self._save(phase, step, begin)
            # the first trunk of a later phase is the one that the phase before has scored
            due = (step % phase.validate_every == 0 and (step > 0 or begin == 0)) or step == phase.steps
            losses, evaluated = phase.loss(self._trunk, step)
            metrics = self._validator(self._trunk, evaluated, due)
            if due:
                row = {"step": begin + step * phase.epochs, **{k: v.item() for k, v in losses.items()}, **metrics}
                bar.set_postfix(loss=f"{row['loss']:.1e}", score=f"{row['score']:.1e}", refresh=False)
                since = self._note(row, begin) // (phase.validate_every * phase.epochs)
                if phase.patience is not None and since >= phase.patience:
                    break
            if step < phase.steps:
                phase.advance(self._trunk, step, losses["loss"])
        bar.close()

    def _note(self, row: dict[str, float], begin: int) -> int:
        """Keep the metrics, and the trunk if it is the best so far; returns the steps since the best of the phase."""
        self.result.history.append(row)
        self._log(row)
        if row["score"] < self.result.best.get("score", np.inf):
            self.result.best, self.best_trunk = row, _values(self._trunk)
        return row["step"] - max(self.result.best.get("step", 0), begin)

    def _save(self, phase: _FirstOrder | _Lbfgs, step: int, begin: int) -> None:
        if self._checkpoint is None or time.perf_counter() - self._saved_at <= self._checkpoint_seconds:
            return
        state = {
            "identity": self._identity,
            "phase": phase.name,
            "begin": begin,
            "step": step,
            "trunk": self._trunk.state_dict(),
            "best_trunk": self.best_trunk,
            "state": phase.state(),
            "validator": self._validator.state(),
            "history": self.result.history,
            "best": self.result.best,
            "seconds": time.perf_counter() - self._started,
        }
        with replacing_file(self._checkpoint) as temporary:
            torch.save(state, temporary)
        self._saved_at = time.perf_counter()

    def finish(self) -> Training:
        """The outcome; its checkpoint is no longer needed."""
        self.result.seconds = time.perf_counter() - self._started
        self._trunk.load_state_dict(self.best_trunk)
        self._trunk.requires_grad_(False)
        if self._checkpoint is not None:
            self._checkpoint.unlink(missing_ok=True)
        return self.result


def _values(trunk: Trunk) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trunk.state_dict().items()}


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
        problem: a problem without unknown terms.
        trunk_settings: size of the trunk.
        settings: recipe and budget.
        forward: how the forward problem is posed.
        validator: scores the trunk; the best one is kept.
        checkpoint: file to resume from and to save to; removed at the end. It is ignored if it was
            written with other settings.
        checkpoint_seconds: time between two checkpoints.
        log: receives the metrics of every validation, with their ``step``: steps of Adam, after them
            iterations of L-BFGS.
        position: line of the progress bar, where several trainings run side by side.

    Returns:
        the best trunk and how it came about; after variable projection in float64, whatever it was trained
        in. Resumed training gives the same result bit for bit.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    trunk = Trunk(problem.domain, trunk_settings, generator)
    recipe = RECIPES[settings.recipe](problem, trunk, settings, forward, generator)
    described = [part.model_dump_json() for part in (problem, trunk_settings, settings, forward)]
    identity = hashlib.sha256("".join([*described, validator.identity]).encode()).hexdigest()
    session = _Session(trunk, validator, identity, checkpoint, checkpoint_seconds, log)
    session.run(_FirstOrder(recipe, trunk, settings), position)
    if settings.lbfgs is not None:
        trunk.load_state_dict(session.best_trunk)
        trunk.double()
        covering = CoveringProjection(problem, trunk, settings, forward)
        session.run(_Lbfgs(covering, trunk, settings), position)
    trained = session.finish()
    if settings.recipe == "variable_projection":
        trunk.double()  # compression and queries build large readouts on small differences of features
    return trained
