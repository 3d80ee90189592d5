"""Small trainings that the tests of all recipes share."""

from collections.abc import Iterable

import torch

from ipbasis.features.trunk import Trunk, TrunkSettings
from ipbasis.offline.phases import FirstOrder, Phase
from ipbasis.offline.projection import projection_phases
from ipbasis.offline.settings import ForwardSettings, ProjectionSettings
from ipbasis.offline.training import Training, identity_of, train_trunk
from ipbasis.published.trained_heads import TrainedHeads, TrainedHeadsSettings

RECIPES = {"variable_projection": ProjectionSettings, "trained_heads": TrainedHeadsSettings}
FORWARD = ForwardSettings(condition_weight=1, condition_points=1, rank_tolerance=1e-3)
SMALL = TrunkSettings(width=8, depth=2, dtype="float64")


def settings(recipe, **changes):
    base = {
        "readouts": 4,
        "steps": 60,
        "learning_rate": 3e-3,
        "decay": False,
        "collocation_points": 24,
        "validate_every": 10,
        "patience": None,
        "seed": 0,
    }
    return RECIPES[recipe](**{**base, **changes})


def train(problem, size, training, forward, validator, checkpoint=None, **course) -> Training:
    """Train a trunk by the recipe that the settings are of."""
    generator = torch.Generator().manual_seed(training.seed)
    trunk = Trunk(problem.domain, size, generator)
    phases: Iterable[Phase]
    if isinstance(training, TrainedHeadsSettings):
        recipe = TrainedHeads(problem, trunk, training, forward, generator)
        phases = [FirstOrder(recipe, trunk, training, training.recipe)]
    else:
        phases = projection_phases(problem, trunk, training, forward)
    identity = identity_of(problem, size, training, forward)
    return train_trunk(trunk, phases, validator, identity, checkpoint, **course)


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


class CutOffError(Exception):
    """A training is cut off."""
