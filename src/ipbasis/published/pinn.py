"""A plain physics-informed neural network: one network trained anew for every query."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from ipbasis.baselines.fit import BaselineFit, BaselineQuery, Snapshot, Stopwatch, best_so_far
from ipbasis.features.quadrature import equispaced
from ipbasis.features.trunk import Trunk, TrunkSettings
from ipbasis.offline.operators import check_plain, conditions
from ipbasis.problem.declaration import Declared, Problem
from ipbasis.problem.equations import compile_torch


class PinnSettings(Declared):
    """Settings of the plain PINN: Adam, then L-BFGS.

    Args:
        steps: Adam steps.
        physics_after: of these, how many heed observations and conditions alone; then the residual joins.
        learning_rate: of Adam.
        lbfgs_steps: iterations of L-BFGS at most.
        physics_weight: weight of the mean squared residual against the mean squared data misfit.
        collocation_points: points of the residual, an equispaced grid.
        points_per_step: of these, how many an Adam step draws; None for all of them.
        condition_weight: weight of the mean squared misfit to each condition that is the same for every task.
        condition_points: equispaced points of a condition along each open coordinate.
        term_width: neurons per layer of the network that stands for the unknown terms.
        term_depth: its hidden layers.
        record_every: steps from one record of the training to the next.
        seed: of the initial weights and draws.
    """

    steps: PositiveInt
    physics_after: NonNegativeInt = 0
    learning_rate: PositiveFloat
    lbfgs_steps: NonNegativeInt
    physics_weight: PositiveFloat
    collocation_points: PositiveInt
    points_per_step: PositiveInt | None = None
    condition_weight: NonNegativeFloat = 1e-2
    condition_points: PositiveInt = 1
    term_width: PositiveInt = 20
    term_depth: PositiveInt = 3
    record_every: PositiveInt = 100
    seed: int


class PinnTerms(nn.Module):
    """The unknown terms as functions of the fields: one tanh network for all terms of the same fields.

    Args:
        problem: declares the terms.
        width: neurons per layer.
        depth: hidden layers.
        dtype: number type.
    """

    def __init__(self, problem: Problem, width: int, depth: int, dtype: torch.dtype):
        super().__init__()
        groups: dict[tuple[int, ...], list[str]] = {}
        for name, term in problem.unknown_terms.items():
            groups.setdefault(tuple(problem.fields.index(field) for field in term.of), []).append(name)
        self._inputs = list(groups)
        order = [name for names in groups.values() for name in names]
        self._columns = [order.index(name) for name in problem.unknown_terms]
        self._networks = nn.ModuleList()
        for inputs, names in groups.items():
            sizes = [len(inputs), *[width] * depth]
            hidden = [
                layer
                for before, after in pairwise(sizes)
                for layer in (nn.Linear(before, after, dtype=dtype), nn.Tanh())
            ]
            self._networks.append(nn.Sequential(*hidden, nn.Linear(width, len(names), dtype=dtype)))

    def forward(self, fields: Tensor) -> Tensor:
        """(n, terms) for values (n, F) of the fields."""
        values = [net(fields[:, inputs]) for inputs, net in zip(self._inputs, self._networks, strict=True)]
        return torch.cat(values, dim=1)[:, self._columns] if values else fields[:, :0]


class Pinn(nn.Module):
    """Solution, parameters and unknown terms of one query.

    Args:
        problem: the problem.
        trunk_settings: the network, the same as the basis has.
        settings: size of the term networks, seed.
        known: (P,) given parameters, NaN for those to train; they start in the middle of their ranges.
    """

    def __init__(self, problem: Problem, trunk_settings: TrunkSettings, settings: PinnSettings, known: np.ndarray):
        super().__init__()
        generator = torch.Generator().manual_seed(settings.seed)
        self.trunk = Trunk(problem.domain, trunk_settings, generator)
        dtype = self.trunk.domain.dtype
        bound = (self.trunk.feature_count - 1) ** -0.5
        draw = torch.rand((len(problem.fields), self.trunk.feature_count), generator=generator, dtype=torch.float64)
        self.readout = nn.Parameter((bound * (2 * draw - 1)).to(dtype))
        self.free_parameters = nn.Parameter(torch.as_tensor(problem.parameter_ranges.mean(1), dtype=dtype))
        self.register_buffer("known", torch.as_tensor(known, dtype=dtype))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.terms = PinnTerms(problem, settings.term_width, settings.term_depth, dtype)
        self._system = system = problem.system
        notation = problem.notation
        used = {symbol for residual in system.residuals for symbol in residual.free_symbols}
        self._occurs = torch.tensor([parameter in used for parameter in system.parameters])
        arguments = (
            tuple(notation.coordinates.values()),
            tuple(notation.symbol(jet) for jet in system.jets),
            system.parameters,
            tuple(notation.others[name] for name in problem.unknown_terms),
        )
        self._residuals = compile_torch(arguments, system.residuals)

    def parameters_in_use(self) -> Tensor:
        """(P,) known or trained."""
        return torch.where(self.known.isnan(), self.free_parameters, self.known)

    def residual(self, points: Tensor) -> Tensor:
        """Mean square of the residual at points (n, d), the sum over the equations."""
        features = self.trunk(points, self._system.indices)
        jets = [features[jet.index] @ self.readout[jet.field] for jet in self._system.jets]
        terms = self.terms(features[()] @ self.readout.T).unbind(1)
        residuals = self._residuals(points.unbind(1), jets, self.parameters_in_use().unbind(), terms)
        return sum(r.square().mean() for r in residuals)

    @torch.no_grad()
    def estimates(self, points: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Parameters (P,), NaN where one is neither given nor in the equations, and terms (n, terms) at points."""
        parameters = torch.where(self._occurs, self.parameters_in_use(), self.known)
        terms = self.terms(self.trunk(points)[()] @ self.readout.T)
        return parameters.double().numpy(), terms.double().numpy()


class PinnMisfit:
    """What a solution is held to besides the equation: the observations and the conditions.

    Only conditions that are the same for every task count; initial values that differ from task to task are
    not known.

    Args:
        problem: the problem.
        query: the observations.
        settings: weight and points of the conditions.
        dtype: number type.
    """

    def __init__(self, problem: Problem, query: BaselineQuery, settings: PinnSettings, dtype: torch.dtype):
        self.observed = torch.tensor(query.points, dtype=dtype)
        values = torch.tensor(query.values, dtype=dtype)
        self._targets = values.nan_to_num()
        seen = (~values.isnan()).to(dtype)
        self._weights = seen / seen.sum()
        check_plain(problem)
        found = conditions(problem, settings.condition_points, dtype)
        self._given = (found.selection == 0).all(dim=1)
        self._conditions = found if self._given.any() else None
        self._weight = settings.condition_weight
        self._points = torch.cat([self.observed, found.points]) if self._conditions else self.observed
        self._indices = found.indices if self._conditions else ((),)

    def __call__(self, model: Pinn) -> Tensor:
        """Mean squared data misfit plus the weighted mean squares of the conditions."""
        features = model.trunk(self._points, self._indices)
        count = len(self.observed)
        data = ((features[()][:count] @ model.readout.T - self._targets).square() * self._weights).sum()
        if self._conditions is None:
            return data
        rows = self._conditions.rows({index: values[count:] for index, values in features.items()})
        difference = rows @ model.readout.flatten() - self._conditions.fixed
        return data + self._weight * difference[self._given].square().sum()


def _adam(
    model: Pinn, loss: Callable[[Tensor | None], Tensor], points: Tensor, settings: PinnSettings, record: Callable
) -> None:
    """Adam on all of the collocation points, or on a fresh draw of them at every step."""
    generator = torch.Generator().manual_seed(settings.seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, fused=True)

    def drawn() -> Tensor:
        if settings.points_per_step is None:
            return points
        return points[torch.randint(len(points), (settings.points_per_step,), generator=generator)]

    for step in range(settings.steps):
        if step % settings.record_every == 0:
            record(step)
        optimiser.zero_grad()
        loss(None if step < settings.physics_after else drawn()).backward()
        optimiser.step()


def _lbfgs(model: Pinn, loss: Callable[[], Tensor], settings: PinnSettings, record: Callable) -> int:
    """L-BFGS until it stands still; returns its iterations."""
    optimiser = torch.optim.LBFGS(
        model.parameters(),
        max_iter=settings.record_every,
        max_eval=100 * settings.record_every,
        history_size=50,
        line_search_fn="strong_wolfe",
        tolerance_grad=0,
        tolerance_change=1e-14,
    )
    (group,) = optimiser.param_groups
    state = optimiser.state[group["params"][0]]

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    done = 0
    while done < settings.lbfgs_steps:
        record(settings.steps + done)
        group["max_iter"] = min(settings.record_every, settings.lbfgs_steps - done)
        optimiser.step(closure)
        moved, done = state["n_iter"] - done, state["n_iter"]
        if moved < group["max_iter"]:
            break
    return done


def fit_pinn(
    problem: Problem, trunk_settings: TrunkSettings, query: BaselineQuery, settings: PinnSettings
) -> BaselineFit:
    """Train network, parameters and unknown terms on one query.

    Loss: physics_weight × mean squared residual + condition_weight × mean squared misfit to initial and
    boundary conditions + mean squared data misfit, the form of the published online recipe, with every
    weight of the network free. The recorded state with the smallest loss is kept.

    Args:
        problem: the problem.
        trunk_settings: the network, the same as the basis has.
        query: observations and known parameters.
        settings: optimiser and weights.
    """
    torch.optim.Adam([torch.zeros(1)])  # loads what PyTorch loads at the first optimiser, which is no training
    clock = Stopwatch()
    model = Pinn(problem, trunk_settings, settings, query.known)
    dtype = model.trunk.domain.dtype
    collocation = equispaced(problem.domain, settings.collocation_points, dtype)
    misfit = PinnMisfit(problem, query, settings, dtype)
    history: list[Snapshot] = []

    def loss(points: Tensor | None = collocation) -> Tensor:
        """With the residual at some points, or without it."""
        return misfit(model) if points is None else misfit(model) + settings.physics_weight * model.residual(points)

    def record(step: int) -> None:
        seconds = clock.seconds
        with clock.paused(), torch.no_grad():
            history.append(Snapshot(step, seconds, loss().item(), *model.estimates(misfit.observed)))

    _adam(model, loss, collocation, settings, record)
    steps = settings.steps + _lbfgs(model, loss, settings, record)
    record(steps)
    kept = best_so_far(history)[-1]
    return BaselineFit(kept.parameters, kept.terms, kept.loss, kept.seconds, steps, history)
