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
        forward: weight and points of the conditions.
        tasks: unseen tasks.
        truth: (tasks, n, F) exact solutions at the points of `quadrature`, or None if there are none.

    Returns:
        root mean squares over the tasks of the relative residual and the relative error.
    """
    solver = ForwardProblem(problem, forward, quadrature.points.dtype)
    with torch.no_grad():
        evaluated = solver.evaluate(features, quadrature.points).detached()
    solved = solver.solve(evaluated, quadrature, tasks)
    values = torch.einsum("nk,tfk->tnf", evaluated.features[()], solved.readouts)
    weights = quadrature.weights.double()[:, None]
    size = (values.square() * weights).sum((1, 2))
    residual = (solved.residual_mse / size).mean().sqrt().item()
    if truth is None:
        return Accuracy(residual=residual, solution=None)
    errors = ((values - torch.as_tensor(truth)).square() * weights).sum((1, 2))
    return Accuracy(residual=residual, solution=(errors / size).mean().sqrt().item())
