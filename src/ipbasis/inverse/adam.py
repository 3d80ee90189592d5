"""The published online recipe: readouts and parameters of all queries by Adam."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import sympy
import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from tqdm import tqdm

from ipbasis.basis.operators import theta
from ipbasis.equations import Equations
from ipbasis.problem import Declared


class AdamSettings(Declared):
    """Settings of the published online recipe; the defaults are those of the damped oscillator.

    Args:
        solver: names it.
        steps: Adam steps.
        learning_rate: at the start.
        drop_after: steps after which the rate falls to a tenth.
        physics_weight: weight of the mean squared residual against the mean squared data misfit.
        collocation_points: equispaced points of the residual.
    """

    solver: Literal["adam"] = "adam"
    steps: PositiveInt = 15000
    learning_rate: PositiveFloat = 5e-2
    drop_after: NonNegativeInt | None = 5000
    physics_weight: PositiveFloat = 1e-3
    collocation_points: PositiveInt = 30


@dataclass(frozen=True)
class QuadraticForms:
    """The published loss of many queries; it is quadratic in the readouts.

    Args:
        system: the equations, with an affine split.
        data: (R, N) with the means over observations taken: ``|data w - targets|²`` is the data loss.
        targets: (B, R).
        factor: (Q, m, N + 1), ``|Σ_q θ_q factor_q (w, 1)|²`` is the residual loss.
    """

    system: Equations
    data: Tensor
    targets: Tensor
    factor: Tensor

    @cached_property
    def operators(self) -> Tensor:
        """(Q m, N) rows of the operators, in one piece for fast products."""
        return self.factor[..., :-1].flatten(0, 1).contiguous()

    @cached_property
    def sources(self) -> Tensor:
        """(Q m,) their sources."""
        return self.factor[..., -1].flatten().contiguous()


class AdamReadouts:
    """Readouts and parameters of many queries in training.

    The gradient of the quadratic loss is written out: two matrix products for all queries together.

    Args:
        system: the equations, with an affine split.
        start: (P,) parameters that every query starts from.
        queries: number of queries B.
        unknowns: readouts of a query N = F (H + 1).
        settings: of the recipe.
        dtype: number type.
    """

    def __init__(
        self, system: Equations, start: Tensor, queries: int, unknowns: int, settings: AdamSettings, dtype: torch.dtype
    ):
        self.settings, self._system = settings, system
        self.readouts = torch.zeros(queries, unknowns, dtype=dtype)
        self.parameters = start.to(dtype).repeat(queries, 1)
        self._optimiser = torch.optim.Adam([self.readouts, self.parameters], lr=settings.learning_rate, fused=True)
        # θ is affine in the parameters for most equations; then value and slope need no evaluation
        origin, self._slope = (part[0].to(dtype) for part in theta(system, torch.zeros_like(start)[None].double()))
        pairs = ((t, p, q) for t in system.affine.thetas for p in system.parameters for q in system.parameters)
        self._origin = origin if all(sympy.diff(t, p, q) == 0 for t, p, q in pairs) else None

    def step(self, forms: QuadraticForms, number: int, free: Tensor | None = None) -> Tensor:
        """One Adam step; returns the loss of each query (B,) before it.

        Args:
            forms: the loss.
            number: of the step, for the learning rate.
            free: (B, P) zero for parameters to hold; None to search all.
        """
        settings = self.settings
        if settings.drop_after is not None and number == settings.drop_after:
            self._optimiser.param_groups[0]["lr"] = settings.learning_rate / 10
        if self._origin is None:
            thetas, slopes = theta(self._system, self.parameters)
        else:
            thetas = torch.addmm(self._origin, self.parameters, self._slope.T)
            slopes = self._slope
        count, height, _ = forms.factor.shape
        applied = torch.addmm(forms.sources, self.readouts, forms.operators.T).view(-1, count, height)
        residual = torch.bmm(thetas[:, None], applied).squeeze(1)
        misfit = torch.addmm(forms.targets, self.readouts, forms.data.T, beta=-1)
        loss = settings.physics_weight * residual.square().sum(1) + misfit.square().sum(1)
        weighted = (thetas[..., None] * residual[:, None]).flatten(1)
        # the published loss is a mean over the queries; Adam does not see the scale of each one's share
        gradient = torch.mm(weighted, forms.operators).mul_(settings.physics_weight).addmm_(misfit, forms.data)
        by_theta = torch.bmm(applied, residual[..., None]).squeeze(2)
        by_parameter = by_theta @ slopes if slopes.ndim == 2 else torch.einsum("bq,bqp->bp", by_theta, slopes)
        scale = 2 / len(loss)
        self.readouts.grad = gradient.mul_(scale)
        self.parameters.grad = by_parameter.mul_(scale * settings.physics_weight)
        if free is not None:
            self.parameters.grad *= free
        self._optimiser.step()
        return loss

    def state(self) -> dict:
        """What is needed to go on."""
        return {"readouts": self.readouts, "parameters": self.parameters, "optimiser": self._optimiser.state_dict()}

    def restore(self, state: dict) -> None:
        """Go on from a state."""
        self.readouts.copy_(state["readouts"])
        self.parameters.copy_(state["parameters"])
        self._optimiser.load_state_dict(state["optimiser"])


def adam(forms: QuadraticForms, start: Tensor, known: Tensor, settings: AdamSettings) -> tuple[AdamReadouts, Tensor]:
    """Run the published recipe.

    Args:
        forms: the loss of all queries.
        start: (P,) parameters that every query starts from.
        known: (B, P) given parameters, NaN for those to search.
        settings: of the recipe.

    Returns:
        the trained readouts and parameters, and the loss of each query (B,) at the last step.
    """
    search = AdamReadouts(forms.system, start, len(known), forms.data.shape[1], settings, forms.data.dtype)
    given = ~known.isnan()
    search.parameters[given] = known[given].to(search.parameters.dtype)
    free = (~given).to(search.parameters.dtype) if given.any() else None
    for number in tqdm(range(settings.steps), desc="adam", mininterval=1):
        loss = search.step(forms, number, free)
    return search, loss
