"""The published online recipe: readouts and parameters of all queries by Adam."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import sympy
import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from tqdm import tqdm

from ipbasis.features.quadrature import equispaced
from ipbasis.offline.artefact import Basis
from ipbasis.offline.operators import Operators, check_plain, conditions, theta
from ipbasis.problem.declaration import Declared
from ipbasis.problem.equations import Equations
from ipbasis.published.misfit import Misfit
from ipbasis.search.reduce import compact


class AdamSettings(Declared):
    """Settings of the published online recipe; the defaults are those of the damped oscillator.

    Args:
        solver: names it.
        steps: Adam steps.
        learning_rate: at the start.
        drop_after: steps after which the rate falls.
        drop_factor: what it is divided by then.
        physics_weight: weight of the mean squared residual against the mean squared data misfit.
        collocation_points: equispaced points of the residual.
        condition_weight: weight of the mean squared error of the initial values that are the same for every
            task, and of that at each part of the boundary.
        condition_points: equispaced points of those conditions along each coordinate.
        averaged_queries: queries that the published loss is a mean over: it sets the size of the gradients
            against Adam's ε. None for the queries at hand.
    """

    solver: Literal["adam"] = "adam"
    steps: PositiveInt = 15000
    learning_rate: PositiveFloat = 5e-2
    drop_after: NonNegativeInt | None = 5000
    drop_factor: PositiveFloat = 10.0
    physics_weight: PositiveFloat = 1e-3
    collocation_points: PositiveInt = 30
    condition_weight: NonNegativeFloat = 0.0
    condition_points: PositiveInt = 100
    averaged_queries: PositiveInt | None = None


@dataclass(frozen=True)
class OwnData:
    """The data loss of queries that were observed at points of their own, by its normal matrices.

    Every step reads the matrices of all queries: roots, read for the residual and again for the gradient,
    would take twice the time. The loss itself is then exact to the rounding of the mean squared data only.

    Args:
        matrix: (B G, K, K) for G groups of fields that share their points (see `Misfit`).
        right: (B G, K, F / G).
        constant: (B,) loss at readouts of zero.
    """

    matrix: Tensor
    right: Tensor
    constant: Tensor

    @classmethod
    def of(cls, misfit: Misfit, dtype: torch.dtype) -> "OwnData":
        """The normal matrices of a misfit, less its rest."""
        matrix, right = misfit.root.mT @ misfit.root, misfit.root.mT @ misfit.targets
        return cls(matrix.to(dtype), right.to(dtype), misfit.squares(misfit.targets).to(dtype))

    def loss(self, readouts: Tensor, gradient: Tensor) -> Tensor:
        """The loss (B,) of readouts (B, N); half its gradient is added to `gradient` (B, N)."""
        shape = (len(self.matrix), -1, self.matrix.shape[2])
        columns = readouts.view(shape).mT
        half = torch.bmm(self.matrix, columns).sub_(self.right)
        gradient.view(shape).add_(half.mT)
        return (half - self.right).mul_(columns).view(len(readouts), -1).sum(1).add_(self.constant)


@dataclass(frozen=True)
class QuadraticForms:
    """The published loss of many queries; it is quadratic in the readouts.

    Args:
        system: the equations, with an affine split.
        data: (R, N) rows that all queries share, weights and means taken: ``|data w - targets|²`` is the loss
            of the conditions and, where all queries were observed at the same points, of the data.
        targets: (B, R).
        factor: (Q, m, N + 1), ``|Σ_q θ_q factor_q (w, 1)|²`` is the residual loss.
        own: the data loss of queries that were observed at points of their own.
    """

    system: Equations
    data: Tensor
    targets: Tensor
    factor: Tensor
    own: OwnData | None = None

    @cached_property
    def operators(self) -> Tensor:
        """(Q m, N) rows of the operators, in one piece for fast products."""
        return self.factor[..., :-1].flatten(0, 1).contiguous()

    @cached_property
    def sources(self) -> Tensor:
        """(Q m,) their sources."""
        return self.factor[..., -1].flatten().contiguous()


def quadratic_forms(basis: Basis, misfit: Misfit, settings: AdamSettings) -> tuple[QuadraticForms, Tensor]:
    """The published loss on the functions of a basis, in the number type of its features.

    Args:
        basis: the functions, of a problem with an affine split.
        misfit: of the observations, from `reduce_misfit`.
        settings: of the recipe.

    Returns:
        the forms, and the part of each query's data and condition loss that no readout can remove (B,).
    """
    dtype = basis.features.dtype
    data, target = condition_rows(basis, settings)
    targets = target.expand(len(misfit.rest), -1)
    rest = misfit.rest
    if misfit.shared:
        data, targets = torch.cat([misfit.root, data]), torch.cat([misfit.targets, targets], dim=1)
    if len(data) > data.shape[1]:
        orthogonal, data = torch.linalg.qr(data)
        reduced = targets @ orthogonal
        rest = rest + (targets - reduced @ orthogonal.T).square().sum(1)
        targets = reduced
    parts = (part.to(dtype) for part in (data, targets, residual_rows(basis, settings)))
    return QuadraticForms(basis.problem.system, *parts, None if misfit.shared else OwnData.of(misfit, dtype)), rest


def condition_rows(basis: Basis, settings: AdamSettings) -> tuple[Tensor, Tensor]:
    """Weighted rows (C, N) and targets (C,) of the conditions that are the same for every task."""
    fields = len(basis.problem.fields)
    check_plain(basis.problem)
    given = conditions(basis.problem, settings.condition_points, torch.float64)
    same = ~given.selection.any(dim=1)
    if not settings.condition_weight or not same.any():
        return torch.zeros(0, fields * basis.record.functions, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    rows = given.rows(basis.function_map(given.points, given.indices))[same]
    augmented = _few_rows(torch.cat([rows, given.fixed[same, None]], dim=1), basis.features.dtype)
    augmented *= (settings.condition_weight / fields) ** 0.5  # a mean over the fields, like that of the data
    return augmented[:, :-1], augmented[:, -1]


def residual_rows(basis: Basis, settings: AdamSettings) -> Tensor:
    """(Q, m, N + 1) few rows of the residual's mean square on the collocation points."""
    problem = basis.problem
    points = equispaced(problem.domain, settings.collocation_points, basis.features.dtype)
    operators = Operators(problem.system, points.double(), len(problem.fields))
    rows = operators.rows(basis.function_map(points, problem.system.indices))
    rows = (rows * len(points) ** -0.5).flatten(1, 2)
    count, height, width = rows.shape
    if height <= count * width:
        return compact(rows)
    few = _few_rows(torch.cat([*rows], dim=1), points.dtype)
    return few.unflatten(1, (count, width)).transpose(0, 1).contiguous()


def _few_rows(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows with the same normal matrix, but for what a number type cannot hold beside the largest of them."""
    if len(rows) > rows.shape[1]:
        rows = torch.linalg.qr(rows, mode="r").R
    _, sizes, directions = torch.linalg.svd(rows, full_matrices=False)
    keep = sizes > torch.finfo(dtype).eps * sizes[0]
    return sizes[keep, None] * directions[keep]


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
            self._optimiser.param_groups[0]["lr"] = settings.learning_rate / settings.drop_factor
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
        if forms.own is not None:
            loss += forms.own.loss(self.readouts, gradient)
        by_theta = torch.bmm(applied, residual[..., None]).squeeze(2)
        by_parameter = by_theta @ slopes if slopes.ndim == 2 else torch.einsum("bq,bqp->bp", by_theta, slopes)
        scale = 2 / (settings.averaged_queries or len(loss))
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
