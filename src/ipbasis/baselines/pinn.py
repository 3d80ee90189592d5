"""A plain physics-informed neural network: one network trained anew for every query."""

import time

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from ipbasis.baselines.fit import Fit
from ipbasis.basis.network import Trunk, TrunkSettings
from ipbasis.basis.quadrature import equispaced
from ipbasis.problem import Declared, Problem


class PinnSettings(Declared):
    """Settings of the plain PINN: Adam, then L-BFGS.

    Args:
        steps: Adam steps.
        learning_rate: of Adam.
        lbfgs_steps: iterations of L-BFGS at most.
        physics_weight: weight of the mean squared residual against the mean squared data misfit.
        collocation_points: equispaced points of the residual.
        seed: of the initial weights.
    """

    steps: PositiveInt
    learning_rate: PositiveFloat
    lbfgs_steps: NonNegativeInt
    physics_weight: PositiveFloat
    collocation_points: PositiveInt
    seed: int


def fit_pinn(
    problem: Problem, trunk_settings: TrunkSettings, points: np.ndarray, values: np.ndarray, settings: PinnSettings
) -> Fit:
    """Train network and parameters on one query.

    Loss: physics_weight × mean squared residual + mean squared data misfit, the form of the published
    online recipe, with every weight of the network free.

    Args:
        problem: the problem.
        trunk_settings: the network, the same as the basis has.
        points: (n, d) points of observation.
        values: (n, F) observations.
        settings: optimiser and weights.
    """
    started = time.perf_counter()
    system, fields = problem.system, len(problem.fields)
    generator = torch.Generator().manual_seed(settings.seed)
    trunk = Trunk(problem.domain, trunk_settings, generator)
    dtype = trunk.domain.dtype
    bound = (trunk.features - 1) ** -0.5
    draw = torch.rand((fields, trunk.features), generator=generator, dtype=torch.float64)
    readout = torch.nn.Parameter((bound * (2 * draw - 1)).to(dtype))
    parameters = torch.nn.Parameter(torch.as_tensor(problem.parameter_ranges.mean(1), dtype=dtype))
    collocation = equispaced(problem.domain, settings.collocation_points, dtype)
    observed = torch.tensor(points, dtype=dtype)
    targets = torch.tensor(values, dtype=dtype)
    everywhere = torch.cat([collocation, observed])
    residuals = system.compiled(system.residuals)
    coordinates = collocation.unbind(1)
    trained = [*trunk.parameters(), readout, parameters]

    def loss() -> torch.Tensor:
        features = trunk(everywhere, system.indices)
        jets = [features[jet.index][: len(collocation)] @ readout[jet.field] for jet in system.jets]
        residual = sum(r.square().mean() for r in residuals(coordinates, jets, parameters.unbind()))
        misfit = (features[()][len(collocation) :] @ readout.T - targets).square().mean()
        return settings.physics_weight * residual + misfit

    optimiser = torch.optim.Adam(trained, lr=settings.learning_rate, fused=True)
    history = []
    for step in range(settings.steps):
        optimiser.zero_grad()
        value = loss()
        value.backward()
        optimiser.step()
        if step % 100 == 0:
            history.append({"step": step, "loss": value.item()})
    polish = torch.optim.LBFGS(
        trained,
        max_iter=settings.lbfgs_steps,
        max_eval=4 * settings.lbfgs_steps,
        history_size=50,
        line_search_fn="strong_wolfe",
        tolerance_grad=0,
        tolerance_change=1e-14,
    )

    def closure() -> torch.Tensor:
        polish.zero_grad()
        value = loss()
        value.backward()
        return value

    if settings.lbfgs_steps:
        polish.step(closure)
    with torch.no_grad():
        final = loss().item()
    steps = settings.steps + int(polish.state[trained[0]].get("n_iter", 0))
    history.append({"step": steps, "loss": final})
    return Fit(parameters.detach().double().numpy(), final, time.perf_counter() - started, steps, history)
