"""A trunk trained along gradients until tasks at the corners of the ranges are solved best in its span.

What is minimised is the error of a task's solution u in the norm of the equations: least squares in the span of the
features h solve ``min_c |A (h c - u)|``, with equations and conditions A linearised about u. What is left has a
gradient by the features in which c counts as constant.

Reference: Golub & Pereyra, SIAM J. Numer. Anal. 10 (1973) 413.
"""

import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ipbasis.features.piecewise import Piecewise
from ipbasis.features.trunk import Trunk
from ipbasis.features.untrained import Spread
from ipbasis.offline.box import box_of
from ipbasis.offline.collocation import Part, Place
from ipbasis.offline.evaluated import Evaluated
from ipbasis.offline.modes import modes_of
from ipbasis.offline.phases import Lbfgs
from ipbasis.offline.pilot import Told
from ipbasis.offline.settings import LbfgsSettings
from ipbasis.offline.training import train_trunk
from ipbasis.offline.tuned import Tuned, Tuning

_DEPTH = 3  # layers, as published
_TASKS = 24  # on which it is trained, at most
_FEATURES, _FEWEST, _MOST = 8, 60, 400  # for each function that the solutions are combined of, and bounds of them
_POINTS = 4  # per feature
_ITERATIONS, _HISTORY, _PATIENCE, _ROUNDS = 5, 50, 10, 1000  # of L-BFGS: of a round, and rounds
_RIDGE = 1e-10  # of the readouts, as a share of the matrix: it keeps the gradient free of rounding


@dataclass(frozen=True)
class _Target:
    """A task of which the solution is known.

    Args:
        partials: (E, J, n) of each part of the equations by their jets there.
        sizes: (E,) of each part.
        values: (m,) the solution in rows like those of the features, in units of its size.
    """

    partials: list[Tensor]
    sizes: list[Tensor]
    values: Tensor


class Recipe:
    """The loss of a trunk, see the top of this file.

    Args:
        tuning: the tasks that are looked at.
        features: with which the trunk begins.
    """

    def __init__(self, tuning: Tuning, features: Tuned):
        self._tuning = tuning
        self._rules = features.spread.rules(_POINTS * features.width)
        polynomials = box_of(tuning.problem, Piecewise(tuning.grid), self._rules, faded=False)
        parts = _parts(polynomials.parts, polynomials.start)
        self._targets = [self._target(parts, int(number)) for number in tuning.hardest]

    def _target(self, parts: list[Part], number: int) -> _Target:
        tuning = self._tuning
        task = tuning.problem.tasks(tuning.known.unknowns[number : number + 1])
        readouts = tuning.true[number]
        arguments = torch.as_tensor([*task.parameters[0], *task.initial[0], 0.0])
        place = Place(torch.as_tensor(tuning.problem.domain), torch.ones(len(readouts), dtype=torch.float64))
        partials = [part.evaluate(readouts, arguments, place)[1] for part in parts]
        sizes = [part.sizes(by_jet) for part, by_jet in zip(parts, partials, strict=True)]
        values = torch.cat(
            [
                (_along(part, by_jet, readouts) * (part.root / size[:, None])).flatten()
                for part, by_jet, size in zip(parts, partials, sizes, strict=True)
            ]
        )
        return _Target(partials, sizes, values / readouts.norm())

    def draw(self, round_number: int) -> None:
        """Tasks and points are the same in all rounds."""

    def loss(self, trunk: Trunk) -> tuple[dict[str, Tensor], Evaluated]:
        """Mean over the tasks, and the features at the points inside."""
        box = box_of(self._tuning.problem, trunk, self._rules, faded=False)
        parts = _parts(box.parts, box.start)
        lengths = [part.equations * len(part.root) for part in parts]
        fields, losses = len(self._tuning.problem.fields), []
        for target in self._targets:
            rows = []
            for part, length, by_jet, size in zip(parts, lengths, target.partials, target.sizes, strict=True):
                rows.append(torch.zeros(length, fields, trunk.feature_count, dtype=torch.float64))
                part.fill(rows[-1], by_jet, size)
            losses.append(_left(torch.cat(rows).flatten(1), target.values))
        inside = Evaluated(parts[0].values, torch.zeros(0, fields * trunk.feature_count))
        return {"loss": torch.stack(losses).mean()}, inside


def _along(part: Part, by_jet: Tensor, readouts: Tensor) -> Tensor:
    """(E, n) derivative of the equations, whose partials by the jets are (E, J, n), along readouts (F, H)."""
    jets = torch.stack([part.values[jet.index] @ readouts[jet.field] for jet in part.jets])
    return (by_jet * jets).sum(1)


def _parts(parts: tuple[Part, ...], start: Part | None) -> list[Part]:
    return [*parts, *([] if start is None else [start])]


def _left(rows: Tensor, values: Tensor) -> Tensor:
    """What least squares leave of values, the combination held constant in the gradient."""
    with torch.no_grad():
        ridge = _RIDGE * rows.norm() * torch.eye(rows.shape[1], dtype=torch.float64)
        right = torch.cat([values, values.new_zeros(rows.shape[1])])
        found = torch.linalg.lstsq(torch.cat([rows, ridge]), right[:, None], driver="gels").solution[:, 0]
    return (rows @ found - values).norm()


class _Validator:
    """The error of the tasks, solved in the span of a trunk."""

    identity = ""

    def __init__(self, tuning: Tuning, features: Tuned):
        self._tuning, self._features = tuning, features

    def __call__(self, trunk: Trunk, evaluated: Evaluated, due: bool) -> dict[str, float] | None:
        if not due:
            return None
        frozen = deepcopy(trunk).requires_grad_(False)
        return {"score": replace(self._tuning, family=lambda spread, width: frozen).measured(self._features).error}

    def state(self) -> dict:
        return {}

    def restore(self, state: Mapping) -> None:
        pass


class _InTime(Lbfgs):
    """Rounds of L-BFGS, as many as there is time for."""

    def __init__(self, recipe: Recipe, trunk: Trunk, settings: LbfgsSettings, until: float):
        super().__init__(recipe, trunk, settings, "training")
        self._until = until

    def advance(self, trunk: Trunk, step: int, loss: Tensor) -> None:
        """Improve the trunk, given the loss before."""
        super().advance(trunk, step, loss)
        if time.monotonic() > self._until:
            self.patience = 0  # the next validation is the last


def width_of(tuning: Tuning, accuracy: float) -> int:
    """Features of a trunk: some times as many as functions that the known solutions are combined of."""
    functions = modes_of(tuning.grid, tuning.true, tuning.problem.system.indices, accuracy).count
    return min(max(_FEATURES * functions, _FEWEST), _MOST)


def untrained(spread: Spread, width: int) -> Trunk:
    """With which a training begins."""
    return spread.untrained(width, _DEPTH)


def trained_trunk(tuning: Tuning, features: Tuned, until: float, told: Told) -> Trunk:
    """A trunk trained in the time there is.

    Args:
        tuning: how features are judged; those of `untrained` are its kind.
        features: with which the trunk begins.
        until: when the time is over, of `time.monotonic`.
        told: receives what is being done, in words.
    """
    trunk = tuning.family(features.spread, features.width).requires_grad_(True)
    settings = LbfgsSettings(
        rounds=_ROUNDS,
        iterations=_ITERATIONS,
        redraw=False,
        tasks=_TASKS,
        collocation_points=_POINTS * features.width,
        history=_HISTORY,
        validate_every=1,
        patience=_PATIENCE,
    )
    phase = _InTime(Recipe(tuning.focused(features, _TASKS), features), trunk, settings, until)
    done = train_trunk(trunk, [phase], _Validator(tuning, features), identity="")
    first, best = done.history[0]["score"], done.best["score"]
    told(f"error of the worst task {first:.1e}, after {done.history[-1]['step']} steps of training {best:.1e}")
    return trunk
