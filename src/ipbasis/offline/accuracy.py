"""How accurate a basis is: forward solutions of unseen tasks within its span."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ipbasis.features.quadrature import Quadrature
from ipbasis.offline.artefact import Accuracy
from ipbasis.offline.evaluated import Evaluated
from ipbasis.offline.forward import ForwardProblem, JetValues
from ipbasis.offline.operators import FeatureMap
from ipbasis.offline.settings import ForwardSettings
from ipbasis.problem.declaration import Problem, Tasks


@dataclass(frozen=True)
class TaskErrors:
    """How well the span of features solves the forward problem of each task; means over the domain.

    Args:
        size: (tasks,) mean square of the solution, summed over the fields.
        residual: (tasks,) mean square of the residual, summed over the equations.
        solution: (tasks,) mean square error of the solution; None without a reference.
        approximation: (tasks,) the smallest mean square error that any readouts leave; None without a reference.
    """

    size: Tensor
    residual: Tensor
    solution: Tensor | None
    approximation: Tensor | None

    def accuracy(self) -> Accuracy:
        """Figures of the relative residual and the relative error over the tasks."""

        def rms(squares: Tensor | None) -> float | None:
            return None if squares is None else (squares / self.size).mean().sqrt().item()

        residual = (self.residual / self.size).sqrt()
        return Accuracy(
            residual=rms(self.residual),
            worst_residual=residual.max().item(),
            median_residual=residual.median().item(),
            solution=rms(self.solution),
            approximation=rms(self.approximation),
        )


def task_errors(
    solver: ForwardProblem,
    evaluated: Evaluated,
    quadrature: Quadrature,
    tasks: Tasks,
    truth: np.ndarray | None,
    reference: JetValues | None = None,
) -> TaskErrors:
    """Solve the forward problem of unseen tasks in the span of features and measure the errors of each.

    Args:
        solver: the forward problem.
        evaluated: features as the solver evaluates them, at the points of `quadrature`.
        quadrature: where residual and error are taken.
        tasks: unseen tasks.
        truth: (tasks, n, F) exact solutions at the points of `quadrature`, or None if there are none.
        reference: as `ForwardProblem.reference` gives it, if it is at hand.
    """
    solved = solver.solve(evaluated, quadrature, tasks, reference)
    features, weights = evaluated.features[()].detach().double(), quadrature.weights.double()[:, None]
    values = torch.einsum("nk,tfk->tnf", features, solved.readouts)
    exact = values if truth is None else torch.as_tensor(truth)
    size = (exact.square() * weights).sum((1, 2))
    if truth is None:
        return TaskErrors(size, solved.residual_mse, None, None)
    misfit = ((values - exact).square() * weights).sum((1, 2))
    best = _best_approximation(features * weights.sqrt(), exact * weights.sqrt())
    return TaskErrors(size, solved.residual_mse, misfit, best)


def measure_accuracy(
    problem: Problem,
    features: FeatureMap,
    quadrature: Quadrature,
    forward: ForwardSettings,
    tasks: Tasks,
    truth: np.ndarray | None,
) -> Accuracy:
    """Figures of the relative residual and the relative error over unseen tasks, see `task_errors`.

    Args:
        problem: the problem.
        features: the features.
        quadrature: where residual and error are taken.
        forward: how the forward problem is posed; of it the equation and its conditions.
        tasks: unseen tasks.
        truth: (tasks, n, F) exact solutions at the points of `quadrature`, or None if there are none.
    """
    solver = ForwardProblem(problem, forward.without_training_terms(), quadrature.points.dtype)
    with torch.no_grad():
        evaluated = solver.evaluate(features, quadrature.points)
    errors = task_errors(solver, evaluated, quadrature, tasks, truth)
    by_range = _by_range(problem, tasks, errors.residual / errors.size)
    return errors.accuracy().model_copy(update={"by_range": by_range})


def _by_range(problem: Problem, tasks: Tasks, squares: Tensor) -> dict[str, list[float | None]]:
    """Roots of the mean squares of the tasks in each quarter of the ranges they are drawn from, see `Accuracy`."""
    found = {}
    drawn = np.hstack([tasks.parameters, tasks.initial])
    for name, shares in zip(problem.known_names, problem.ranges.shares(drawn).T, strict=True):
        quarters = (shares * 4).astype(int).clip(0, 3)
        parts = [squares[torch.as_tensor(quarters == quarter)] for quarter in range(4)]
        found[name] = [part.mean().sqrt().item() if len(part) else None for part in parts]
    return found


def _best_approximation(features: Tensor, truth: Tensor) -> Tensor:
    """(tasks,) squared distance of each truth (tasks, n, F) to the span of features (n, K)."""
    directions, size, _ = torch.linalg.svd(features, full_matrices=False)
    # below some 500 units of float64's rounding, the error of the decomposition, directions are arbitrary
    span = directions[:, size > 1e-13 * size[0]]
    return (truth - span @ (span.T @ truth)).square().sum((1, 2))
