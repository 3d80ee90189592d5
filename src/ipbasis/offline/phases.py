"""Phases of offline training: how a trunk is improved step by step, whatever the loss."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from ipbasis.features.trunk import Trunk
from ipbasis.offline.evaluated import Evaluated
from ipbasis.offline.settings import LbfgsSettings, TrainingSettings
from ipbasis.offline.soap import Soap


class Phase(Protocol):
    """A part of a training that improves the trunk in one way.

    Args:
        name: of the phase, in checkpoints and the progress bar.
        steps: at most.
        epochs: what a step counts in the history.
        validate_every: steps between two validations.
        patience: validations without a better score after which it ends; None for all steps.
    """

    name: str
    steps: int
    epochs: int
    validate_every: int
    patience: int | None

    def loss(self, trunk: Trunk, step: int) -> tuple[dict[str, Tensor], Evaluated]:
        """Terms of the loss at a step, of which ``loss`` is to be minimised, and the features behind it."""

    def advance(self, trunk: Trunk, step: int, loss: Tensor) -> None:
        """Improve the trunk, given the loss before."""

    def state(self) -> dict:
        """What a checkpoint must hold to go on."""

    def restore(self, state: Mapping) -> None:
        """Go on from a state."""


class Recipe(Protocol):
    """Gives the loss of one step, and the tensors to train besides the trunk."""

    trained: nn.Module

    def loss(self, trunk: Trunk, step: int) -> tuple[dict[str, Tensor], Evaluated]:
        """Terms of the loss at a step, of which ``loss`` is to be minimised, and the features behind it."""


class RoundRecipe(Protocol):
    """Gives a loss that stays the same within a round of L-BFGS."""

    def draw(self, round_number: int) -> None:
        """Draw what the loss of a round is taken of."""

    def loss(self, trunk: Trunk) -> tuple[dict[str, Tensor], Evaluated]:
        """Terms of the loss, of which ``loss`` is to be minimised, and the features behind it."""


class FirstOrder:
    """Steps along the gradient of what the recipe gives at each: Adam, SOAP or Muon."""

    def __init__(self, recipe: Recipe, trunk: Trunk, settings: TrainingSettings, name: str):
        self._recipe, self._settings, self.name, self.epochs = recipe, settings, name, 1
        parameters = [*trunk.parameters(), *recipe.trained.parameters()]
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
        return {"trained": self._recipe.trained.state_dict(), "optimisers": states}

    def restore(self, state: Mapping) -> None:
        self._recipe.trained.load_state_dict(state["trained"])
        for optimiser, saved in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)


def _optimisers(parameters: list[Tensor], settings: TrainingSettings) -> list[torch.optim.Optimizer]:
    """The optimisers of a phase of the first order; each parameter belongs to one of them."""
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


class Lbfgs:
    """A round of L-BFGS at each step.

    Reference: Liu & Nocedal, Math. Program. 45 (1989) 503.
    """

    def __init__(self, recipe: RoundRecipe, trunk: Trunk, settings: LbfgsSettings, name: str):
        self._recipe, self._settings, self.name, self.epochs = recipe, settings, name, settings.iterations
        self.steps, self.validate_every, self.patience = settings.rounds, settings.validate_every, settings.patience
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
