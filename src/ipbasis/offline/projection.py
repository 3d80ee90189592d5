"""Variable projection: each step draws tasks and eliminates their readouts by linear algebra."""

from collections.abc import Iterator

import numpy as np
import torch
from scipy.stats import qmc
from torch import Tensor, nn

from ipbasis.features.quadrature import Quadrature, stratified
from ipbasis.features.trunk import Trunk
from ipbasis.offline.evaluated import Evaluated
from ipbasis.offline.forward import ForwardProblem, JetValues
from ipbasis.offline.phases import FirstOrder, Lbfgs, Phase
from ipbasis.offline.settings import ForwardSettings, ProjectionSettings
from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.problem.equations import Jet


def projection_phases(
    problem: Problem, trunk: Trunk, training: ProjectionSettings, forward: ForwardSettings
) -> Iterator[Phase]:
    """Variable projection of a trunk, phase by phase; it leaves the trunk in float64.

    Each phase is to be run before the next is asked for, which begins with the trunk that it left.

    Args:
        problem: a problem without unknown terms.
        trunk: the trunk to train.
        training: the budget.
        forward: how the forward problem is posed.
    """
    dtype, name = trunk.domain.dtype, training.recipe
    yield FirstOrder(VariableProjection(problem, training, forward, dtype), trunk, training, name)
    trunk.double()  # compression and queries build large readouts on small differences of features
    if training.lbfgs is not None:
        covering = CoveringProjection(problem, training, forward, trunk.domain.dtype)
        yield Lbfgs(covering, trunk, training.lbfgs, f"{name} L-BFGS")


def eliminated_losses(
    forward: ForwardProblem, trunk: Trunk, quadrature: Quadrature, tasks: Tasks, reference: JetValues | None = None
) -> tuple[dict[str, Tensor], Evaluated]:
    """Terms of the loss of each task with the best readouts that the trunk allows, and the features behind them.

    The best readouts w*(R) of the trunk R are found by least squares; by the envelope theorem the gradient
    of a task's loss by R is the one with w* held fixed. That holds only where the residuals are orthogonal to
    the features, and large readouts cancel in them: from the features on everything is in float64, so that
    the gradient is good to a few digits for a trunk in float32, too.

    Args:
        forward: the forward problem.
        trunk: the trunk R.
        quadrature: collocation points, all of the same weight.
        tasks: parameters and initial values.
        reference: what `ForwardProblem.reference` gives for them, if it is at hand.

    Reference: Golub & Pereyra, SIAM J. Numer. Anal. 10 (1973) 413.
    """
    reference = reference or forward.reference(tasks, quadrature.points)
    evaluated = forward.evaluate(trunk, quadrature.points)
    readouts, linearised = forward.solve_fast(evaluated, quadrature, tasks, reference)
    points = quadrature.points.double()
    return forward.losses(evaluated.double(), points, tasks, readouts, linearised, reference), evaluated


def _relative(losses: dict[str, Tensor], size: Tensor | float = 1.0) -> dict[str, Tensor]:
    """Means over the tasks, of the loss that of its root relative to the size of the solution.

    Of the losses themselves few hard tasks would hide all others.
    """
    means = {name: values.mean() for name, values in losses.items()}
    return {**means, "loss": (losses["loss"] / size).sqrt().mean()}


class VariableProjection:
    """Tasks and points drawn anew each step, readouts eliminated."""

    def __init__(self, problem: Problem, settings: ProjectionSettings, forward: ForwardSettings, dtype: torch.dtype):
        self.problem, self.settings, self._dtype = problem, settings, dtype
        self.forward = ForwardProblem(problem, forward, dtype)
        self.trained = nn.Module()

    def loss(self, trunk: Trunk, step: int) -> tuple[dict[str, Tensor], Evaluated]:
        """Terms of the loss at a step, of which ``loss`` is to be minimised, and the features behind it."""
        rng = np.random.default_rng([self.settings.seed, step])
        tasks = covering_tasks(self.problem, self.settings.readouts, rng, scramble=True)
        drawn = stratified(self.problem.domain, self.settings.collocation_points, rng, self._dtype)
        losses, evaluated = eliminated_losses(self.forward, trunk, self.forward.with_conditions(drawn), tasks)
        return _relative(losses), evaluated


def covering_tasks(problem: Problem, count: int, rng: np.random.Generator, scramble: bool = False) -> Tasks:
    """Tasks that cover the ranges and crowd towards their ends, where the solutions are hardest to span.

    A Latin hypercube with the density of the Chebyshev nodes along each axis.

    Args:
        problem: its ranges are covered.
        count: tasks.
        rng: source of the draw.
        scramble: whether each task lies anywhere in its cell of the hypercube, not at the centre.
    """
    unit = qmc.LatinHypercube(len(problem.ranges.intervals), scramble=scramble, rng=rng).random(count)
    return problem.tasks(problem.ranges.at((1 - np.cos(np.pi * unit)) / 2))


class CoveringProjection:
    """Readouts eliminated for tasks that cover the ranges; within a round of L-BFGS nothing changes."""

    def __init__(self, problem: Problem, settings: ProjectionSettings, forward: ForwardSettings, dtype: torch.dtype):
        self.problem, self.settings, self._dtype = problem, settings, dtype
        self.forward = ForwardProblem(problem, forward, dtype)

    def draw(self, round_number: int) -> None:
        """Draw the tasks and points of a round."""
        chosen, rng = self.settings.lbfgs, np.random.default_rng([self.settings.seed, round_number])
        self._tasks = covering_tasks(self.problem, chosen.tasks, rng)
        drawn = stratified(self.problem.domain, chosen.collocation_points, rng, self._dtype)
        self._points = self.forward.with_conditions(drawn)
        self._reference = self.forward.reference(self._tasks, self._points.points)
        self._size: Tensor | float = 1.0
        if self._reference is not None:
            values = [self._reference[Jet(field, ())] for field in range(len(self.problem.fields))]
            self._size = sum(value.square().mean(1) for value in values)

    def loss(self, trunk: Trunk) -> tuple[dict[str, Tensor], Evaluated]:
        """Terms of the loss, of which ``loss`` is to be minimised, and the features behind it."""
        losses, evaluated = eliminated_losses(self.forward, trunk, self._points, self._tasks, self._reference)
        return _relative(losses, self._size), evaluated
