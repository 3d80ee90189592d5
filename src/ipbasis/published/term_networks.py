"""The published recipe for unknown terms: a small network per query stands for them, all queries at once.

Readouts, networks and unknown parameters are trained together by Adam on the residual and the data. Nothing
loops over queries, and the gradient is written out: a step is some twenty products of stacked matrices.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import sympy
import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from tqdm import tqdm

from ipbasis.features.quadrature import equispaced
from ipbasis.observations.long_form import Batch
from ipbasis.offline.artefact import Basis
from ipbasis.problem.declaration import Declared, Problem
from ipbasis.problem.equations import compile_torch
from ipbasis.published.misfit import Misfit, reduce_misfit
from ipbasis.published.stacked_networks import StackedNetworks

# The published loss is a mean over 100 queries; here each has a loss of its own. Against gradients that are
# a hundred times larger, this ε is the usual 1e-8.
_EPSILON = 1e-6


class TermNetworkSettings(Declared):
    """Settings of the published recipe for unknown terms; the defaults are those of Lotka-Volterra.

    Args:
        solver: names it.
        steps: Adam steps.
        learning_rate: the same all along.
        physics_weight: weight of the mean squared residual against the mean squared data misfit.
        collocation_points: equispaced points of the residual.
        hidden: widths of the hidden layers of the networks.
        seed: of their initial weights, which are the same for every query.
    """

    solver: Literal["term_networks"] = "term_networks"
    steps: PositiveInt = 10000
    learning_rate: PositiveFloat = 3e-3
    physics_weight: PositiveFloat = 0.1
    collocation_points: PositiveInt = 100
    hidden: tuple[PositiveInt, ...] = (20, 20, 20)
    seed: NonNegativeInt = 0


def _inputs_of_terms(problem: Problem) -> dict[tuple[int, ...], list[int]]:
    """Terms by the fields they depend on: those with the same ones are outputs of one network."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, term in enumerate(problem.unknown_terms.values()):
        groups.setdefault(tuple(problem.fields.index(name) for name in term.of), []).append(number)
    return groups


@dataclass(frozen=True)
class TermNetworks:
    """What the recipe found for each query of a batch, at its step of the lowest loss.

    Args:
        problem: the problem.
        parameters: (B, P); NaN for those that are not given and stand in no equation.
        readouts: (B, F, K).
        loss: (B,) weighted residual and data misfit.
        misfit: (B,) mean squared data misfit.
        networks: the unknown terms as functions of the fields, in the order of `_inputs_of_terms`.
    """

    problem: Problem
    parameters: Tensor
    readouts: Tensor
    loss: Tensor
    misfit: Tensor
    networks: tuple[StackedNetworks, ...]

    def terms(self, fields: Tensor) -> Tensor:
        """Values (B, n, terms) of the unknown terms where the fields have the values (B or 1, n, F)."""
        queries = len(self.parameters)
        groups = _inputs_of_terms(self.problem)
        values = fields.new_zeros(queries, fields.shape[1], len(self.problem.unknown_terms))
        for network, (inputs, numbers) in zip(self.networks, groups.items(), strict=True):
            columns = fields[..., list(inputs)].mT.expand(queries, -1, -1)
            values[..., numbers] = network(columns.to(network.weights[0].dtype)).mT.to(values.dtype)
        return values


class _Residual:
    """The equations at the collocation points, with the gradient of their mean square.

    Args:
        basis: the functions.
        collocation_points: number of equispaced points.
        searched: numbers of the parameters that the gradient is asked for.
    """

    def __init__(self, basis: Basis, collocation_points: int, searched: list[int]):
        problem, system, dtype = basis.problem, basis.problem.system, basis.features.dtype
        points = equispaced(problem.domain, collocation_points, dtype)
        features = basis.function_map(points, system.indices)
        self.count = len(points)
        self.features = torch.cat([features[index] for index in system.indices]).to(dtype)
        self._indices, self._jets = system.indices, system.jets
        self._coordinates = points.unbind(1)
        jets = tuple(system.notation.symbol(jet) for jet in system.jets)
        terms = tuple(system.notation.others[name] for name in problem.unknown_terms)
        unknowns = (*jets, *(system.parameters[p] for p in searched), *terms)
        # which equation and which unknown each partial derivative belongs to, those that vanish left out
        slopes = [(e, j, sympy.diff(r, u)) for e, r in enumerate(system.residuals) for j, u in enumerate(unknowns)]
        slopes = [(e, j, slope) for e, j, slope in slopes if slope != 0]
        self._places = [(e, j) for e, j, _ in slopes]
        self._equations, self._sizes = len(system.residuals), (len(jets), len(searched), len(terms))
        arguments = (tuple(system.notation.coordinates.values()), jets, system.parameters, terms)
        self._compiled = compile_torch(arguments, (*system.residuals, *(slope for *_, slope in slopes)))

    def fields(self, readouts: Tensor) -> Tensor:
        """(B, F, derivatives, n) of readouts (B, F, K); the value comes first."""
        applied = readouts.flatten(0, 1) @ self.features.T
        return applied.view(*readouts.shape[:2], -1, self.count)

    def by_readouts(self, by_fields: Tensor) -> Tensor:
        """(B, F, K) gradient by the readouts, given that by the fields and derivatives."""
        return (by_fields.view(-1, len(self.features)) @ self.features).unflatten(0, by_fields.shape[:2])

    def __call__(self, fields: Tensor, parameters: Tensor, terms: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, list]:
        """The mean squared residual, summed over the equations, and half its gradient.

        Args:
            fields: (B, F, derivatives, n).
            parameters: (B, P).
            terms: values of each unknown term, (B, n).

        Returns:
            mean square (B,); gradients by fields and derivatives (B, F, derivatives, n), by the parameters
            searched (B, searched), and by each term (B, n).
        """
        jets = [fields[:, jet.field, self._indices.index(jet.index)] for jet in self._jets]
        columns = [column[:, None] for column in parameters.unbind(1)]
        evaluated = self._compiled(self._coordinates, jets, columns, terms)
        residuals, slopes = evaluated[: self._equations], evaluated[self._equations :]
        shape = fields.shape[::3]
        residuals = [torch.as_tensor(r, dtype=fields.dtype).expand(shape) for r in residuals]
        square = sum(r.square().sum(1) for r in residuals) / self.count
        weighted = [r / self.count for r in residuals]
        gradients: list[Tensor | None] = [None] * sum(self._sizes)
        for (equation, unknown), slope in zip(self._places, slopes, strict=True):
            part = weighted[equation] * slope
            gradients[unknown] = part if gradients[unknown] is None else gradients[unknown] + part
        jet_count, searched, _ = self._sizes
        by_fields = torch.zeros_like(fields)
        for jet, gradient in zip(self._jets, gradients, strict=False):
            if gradient is not None:
                by_fields[:, jet.field, self._indices.index(jet.index)] = gradient
        nothing = fields.new_zeros(shape)
        rest = [nothing if g is None else g for g in gradients[jet_count:]]
        by_parameters = torch.stack([g.sum(1) for g in rest[:searched]], dim=1) if searched else nothing[:, :0]
        return square, by_fields, by_parameters, rest[searched:]


class _Search:
    """Readouts, parameters and networks of a batch in training.

    Args:
        basis: the functions.
        misfit: of the data.
        known: (B, P) given parameters, NaN for those to search.
        settings: of the recipe.
    """

    def __init__(self, basis: Basis, misfit: Misfit, known: Tensor, settings: TermNetworkSettings):
        problem, dtype = basis.problem, basis.features.dtype
        self._settings, self._misfit = settings, misfit.to(dtype)
        queries = len(known)
        self.groups = _inputs_of_terms(problem)
        generator = torch.Generator().manual_seed(settings.seed)
        self.networks = [
            StackedNetworks.start([len(inputs), *settings.hidden, len(numbers)], queries, generator, dtype)
            for inputs, numbers in self.groups.items()
        ]
        self.readouts = torch.zeros(queries, len(problem.fields), basis.record.functions, dtype=dtype)
        middle = torch.as_tensor(problem.parameter_ranges.mean(1)).expand_as(known)
        self.parameters = torch.where(known.isnan(), middle, known).to(dtype)
        occurring = set().union(*(r.free_symbols for r in problem.system.residuals))
        occurs = torch.tensor([p in occurring for p in problem.system.parameters])
        self.undetermined = known.isnan() & ~occurs
        free = known.isnan() & occurs
        self._searched = free.any(0).nonzero().flatten().tolist()
        self._free = free[:, self._searched].to(dtype)
        self._residual = _Residual(basis, settings.collocation_points, self._searched)
        self._optimiser = torch.optim.Adam(self.variables, lr=settings.learning_rate, eps=_EPSILON, fused=True)

    @cached_property
    def variables(self) -> list[Tensor]:
        """All that is trained, a row or a stack of rows per query."""
        return [self.readouts, self.parameters, *(weight for network in self.networks for weight in network.weights)]

    def _terms(self, fields: Tensor) -> tuple[dict[int, Tensor], list[list[Tensor]]]:
        """Values (B, n) of each unknown term, and what the networks' backward passes need."""
        terms, passes = {}, []
        for network, (inputs, numbers) in zip(self.networks, self.groups.items(), strict=True):
            rows = [fields[:, field, 0] for field in inputs]
            outputs, given = network.forward(torch.stack([*rows, torch.ones_like(rows[0])], dim=1))
            passes.append(given)
            terms |= dict(zip(numbers, outputs.unbind(1), strict=True))
        return terms, passes

    def _through_terms(self, by_terms: list[Tensor], passes: list[list[Tensor]], by_fields: Tensor) -> list[Tensor]:
        """Gradients by the networks' weights; that by the values of the fields is added to `by_fields`."""
        gradients: list[Tensor] = []
        for network, given, (inputs, numbers) in zip(self.networks, passes, self.groups.items(), strict=True):
            by_inputs, by_weights = network.backward(torch.stack([by_terms[i] for i in numbers], dim=1), given)
            for field, gradient in zip(inputs, by_inputs.unbind(1), strict=True):
                by_fields[:, field, 0] += gradient
            gradients += by_weights
        return gradients

    def evaluate(self) -> Tensor:
        """The loss of each query (B,); its gradient is left at the variables."""
        fields = self._residual.fields(self.readouts)
        terms, passes = self._terms(fields)
        ordered = [terms[number] for number in range(len(terms))]
        square, by_fields, by_parameters, by_terms = self._residual(fields, self.parameters, ordered)
        by_weights = self._through_terms(by_terms, passes, by_fields)
        weight = self._settings.physics_weight
        by_readouts = self._residual.by_readouts(by_fields).mul_(weight)
        difference = self._misfit.residual(self.readouts.flatten(1))
        self._misfit.add_gradient(by_readouts.flatten(1), difference)
        self.readouts.grad = by_readouts.mul_(2)
        self.parameters.grad = torch.zeros_like(self.parameters)
        if self._searched:
            self.parameters.grad[:, self._searched] = by_parameters * self._free * (2 * weight)
        for variable, gradient in zip(self.variables[2:], by_weights, strict=True):
            variable.grad = gradient.mul_(2 * weight)
        return weight * square + self._misfit.squares(difference)

    def step(self) -> None:
        """One Adam step along the gradient that is left at the variables."""
        self._optimiser.step()


def fit_term_networks(basis: Basis, batch: Batch, settings: TermNetworkSettings) -> TermNetworks:
    """Fit readouts, unknown terms and unknown parameters to a batch, in the number type of the basis' trunk.

    The equations need no affine split. Without unknown terms there is no network, and only the parameters
    are searched.

    Args:
        basis: the functions, of a problem with or without unknown terms.
        batch: the observations; queries may differ in points and number of them.
        settings: of the recipe.
    """
    misfit = reduce_misfit(basis, batch)
    search = _Search(basis, misfit, torch.as_tensor(batch.known), settings)
    best = [variable.clone() for variable in search.variables]
    lowest = misfit.rest.new_full((len(best[0]),), torch.inf).to(best[0].dtype)
    for _ in tqdm(range(settings.steps), desc="term networks", mininterval=1):
        loss = search.evaluate()
        better = loss < lowest
        torch.minimum(loss, lowest, out=lowest)
        for kept, variable in zip(best, search.variables, strict=True):
            torch.where(better.view(-1, *[1] * (variable.ndim - 1)), variable, kept, out=kept)
        search.step()
    readouts, parameters, *weights = best
    networks = []
    for network in search.networks:
        networks.append(StackedNetworks(weights[: len(network.weights)]))
        weights = weights[len(network.weights) :]
    return TermNetworks(
        problem=basis.problem,
        parameters=parameters.double().masked_fill(search.undetermined, torch.nan),
        readouts=readouts.double(),
        loss=lowest.double() + misfit.rest,
        misfit=misfit(readouts.double().flatten(1)),
        networks=tuple(networks),
    )
