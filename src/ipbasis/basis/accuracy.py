"""How accurate a basis is: forward solutions of unseen tasks within its span."""

import numpy as np
import torch

from ipbasis.basis.artefact import Accuracy
from ipbasis.basis.forward import ForwardProblem, ForwardSettings
from ipbasis.basis.operators import FeatureMap
from ipbasis.basis.quadrature import Quadrature
from ipbasis.problem import Problem, Tasks


def measure_accuracy(
    problem: Problem,
    features: FeatureMap,
    quadrature: Quadrature,
    forward: ForwardSettings,
    tasks: Tasks,
    truth: np.ndarray | None,
) -> Accuracy:
    """Solve the forward problem of unseen tasks in the span of features and measure the errors.

    Args:
        problem: the problem.
        features: the features.
        quadrature: where residual and error are taken.
        forward: how the forward problem is posed; of it the equation and its conditions.
        tasks: unseen tasks.
        truth: (tasks, n, F) exact solutions at the points of `quadrature`, or None if there are none.

    Returns:
        figures of the relative residual and the relative error over the tasks.
    """
    solver = ForwardProblem(problem, forward.without_training_terms(), quadrature.points.dtype)
    with torch.no_grad():
        evaluated = solver.evaluate(features, quadrature.points).detached()
    solved = solver.solve(evaluated, quadrature, tasks)
    values = torch.einsum("nk,tfk->tnf", evaluated.features[()], solved.readouts)
    exact = values if truth is None else torch.as_tensor(truth)
    weights = quadrature.weights.double()[:, None]
    size = (exact.square() * weights).sum((1, 2))
    residual = (solved.residual_mse / size).sqrt()
    figures = {
        "residual": residual.square().mean().sqrt().item(),
        "worst_residual": residual.max().item(),
        "median_residual": residual.median().item(),
        "solution": None,
    }
    if truth is not None:
        misfit = ((values - exact).square() * weights).sum((1, 2))
        best = _best_approximation(evaluated.features[()] * weights.sqrt(), exact * weights.sqrt())
        figures["solution"] = (misfit / size).mean().sqrt().item()
        figures["approximation"] = (best / size).mean().sqrt().item()
    return Accuracy(**figures)


def _best_approximation(features: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """(tasks,) squared distance of each truth (tasks, n, F) to the span of features (n, K)."""
    directions, size, _ = torch.linalg.svd(features, full_matrices=False)
    span = directions[:, size > 1e-13 * size[0]]
    return (truth - span @ (span.T @ truth)).square().sum((1, 2))
