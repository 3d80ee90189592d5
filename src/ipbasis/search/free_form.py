"""Unknown terms without a formula: Gaussian processes of the fields along smooth fits of the data."""

import itertools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import sympy
import torch
from torch import Tensor

from ipbasis.errors import InputError
from ipbasis.features.quadrature import equispaced
from ipbasis.observations.long_form import Batch, Observations
from ipbasis.offline.artefact import Basis
from ipbasis.problem.declaration import Declared, Problem
from ipbasis.search.assemble import assemble
from ipbasis.search.noise import Errors, Noise, basis_error
from ipbasis.search.pointwise import PointwisePhysics
from ipbasis.search.reweighting import Fit, fit_once
from ipbasis.search.smoothing import Smooth, propagate, smooth
from ipbasis.search.solver import Ability, OnPhysics, Solver, physics_of
from ipbasis.search.unknown_terms import check_unknown_terms, searched_problem

_TERM_POINTS = 100  # of each coordinate, at which the terms are taken
# Grid over which the evidence of a Gaussian process is maximised: length scales in standard deviations of the
# fields, variances in those of the term, and factors on the variances of its values.
_LENGTHS, _VARIANCES, _INFLATIONS = (0.5, 1.0, 2.0, 4.0), (1.0, 10.0, 100.0), (1.0, 10.0, 100.0)
_JITTER = 1e-8


class FreeForm(Declared, Solver):
    """Unknown terms without a formula; every parameter in the equations must be known (see `free_terms`)."""

    solver: Literal["free_form"] = "free_form"

    abilities: ClassVar[frozenset[Ability]] = frozenset({"noise_std"})

    def check(self, problem: Problem) -> None:
        check_unknown_terms(problem, self.solver)

    def searched(self, problem: Problem) -> Problem:
        return searched_problem(problem)

    def prepare(self, declared: Problem, basis: Basis, errors: Errors, device: torch.device) -> "FreeFormSearch":
        return FreeFormSearch(basis, physics_of(basis, device))


class FreeFormSearch(OnPhysics):
    """Smooth fits of the data, and the unknown terms that they show."""

    def solve(self, batch: Batch, noise: Noise) -> Fit:
        """Fits of a batch, and its terms."""
        basis, problem = self.basis, self.basis.problem
        total = noise.with_basis_error(basis_error(basis, batch))
        online = assemble(basis, self.physics, batch, total.by_observation)
        smoothed = smooth(online, total.by_query)
        points = equispaced(problem.domain, _TERM_POINTS ** len(problem.domain), torch.float64)
        found = free_terms(problem, self.physics.at(basis, points), smoothed, online.known)
        return fit_once(batch, noise, total, smoothed.solution(online, total.by_query), found)

    def unusable(self, observations: Observations) -> dict[Hashable, str]:
        """Queries that do not give every parameter.

        Raises:
            InputError: if there is no column for one of them.
        """
        problem, unusable = self.basis.problem, {}
        for name in problem.parameters.keys() - problem.fixed:
            reason = f"without a formula of its terms {name} cannot be told from them: give it in a column {name!r}"
            if name not in observations.table:
                raise InputError(f"{problem.name}: {reason}, or use a library")
            missing = observations.table["query"][observations.table[name].isna()]
            unusable |= dict.fromkeys(missing.unique(), reason)
        return unusable


@dataclass(frozen=True)
class GaussianProcess:
    """A function of the fields for each query, fitted to values with error bars.

    Kernel: v exp(-|z - z'|² / (2 l²)) + 1 + z·z' on standardised fields; v, l and a factor on the error
    bars maximise the evidence of each query.

    Reference: Rasmussen & Williams, Gaussian Processes for Machine Learning (2006), chapters 2 and 5.

    Args:
        columns: which fields it depends on.
        inputs: (B, n, of) standardised fields.
        centre, scale: (B, 1, of) of the standardisation.
        weights: (B, n) so that the mean is ``kernel(z, inputs) weights``, in units of the term.
        factor: (B, n, n) Cholesky factor of the values' covariance.
        size: (B,) standard deviation of the term's values.
        length, variance: (B,) of the kernel.
    """

    columns: tuple[int, ...]
    inputs: Tensor
    centre: Tensor
    scale: Tensor
    weights: Tensor
    factor: Tensor
    size: Tensor
    length: Tensor
    variance: Tensor

    @classmethod
    def fit(cls, columns: Sequence[int], fields: Tensor, values: Tensor, variances: Tensor) -> "GaussianProcess":
        """Fit to values (B, n) of variance (B, n) where the fields are (B, n, F)."""
        raw = fields[..., list(columns)]
        centre, scale = raw.mean(1, keepdim=True), raw.std(1, keepdim=True).clamp_min(1e-12)
        inputs = (raw - centre) / scale
        size = values.std(1).clamp_min(1e-12)
        target, noise = values / size[:, None], variances / size[:, None].square()
        length, variance, inflation = _most_evident(inputs[:, ::2], target[:, ::2], noise[:, ::2])
        kernel = _kernel(inputs, inputs, length[:, None, None], variance[:, None, None])
        variances = inflation[:, None] * noise + _JITTER * variance[:, None]
        factor, _ = torch.linalg.cholesky_ex(kernel + torch.diag_embed(variances))
        weights = torch.cholesky_solve(target[..., None], factor).squeeze(2) * size[:, None]
        return cls(tuple(columns), inputs, centre, scale, weights, factor, size, length, variance)

    def on(self, fields: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (B, m) where the fields have the values (B, m, F)."""
        inputs = (fields[..., list(self.columns)] - self.centre) / self.scale
        length, variance = self.length[:, None, None], self.variance[:, None, None]
        across = _kernel(inputs, self.inputs, length, variance)
        own = self.variance[:, None] + 1 + inputs.square().sum(2)
        explained = torch.linalg.solve_triangular(self.factor, across.mT, upper=False).square().sum(1)
        std = (own - explained).clamp_min(0).sqrt() * self.size[:, None]
        return (across @ self.weights[..., None]).squeeze(2), std


def _most_evident(inputs: Tensor, target: Tensor, noise: Tensor) -> Tensor:
    """(3, B) length, variance and inflation of the largest evidence; half of the points are enough to tell."""
    grid = torch.tensor(list(itertools.product(_LENGTHS, _VARIANCES, _INFLATIONS)), dtype=inputs.dtype)
    costs = []
    for length, variance, inflation in grid:
        kernel = _kernel(inputs, inputs, length, variance)
        factor, _ = torch.linalg.cholesky_ex(kernel + torch.diag_embed(inflation * noise + _JITTER * variance))
        solved = torch.linalg.solve_triangular(factor, target[..., None], upper=False).square().sum((1, 2))
        costs.append(solved + 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1))
    return grid[torch.stack(costs).nan_to_num(torch.inf, torch.inf, torch.inf).argmin(0)].T


def _kernel(one: Tensor, other: Tensor, length, variance) -> Tensor:
    """(B, m, n) kernel between points (B, m, d) and (B, n, d)."""
    distance = torch.cdist(one, other).square()
    return variance * torch.exp(-distance / (2 * length**2)) + 1 + one @ other.mT


@dataclass(frozen=True)
class FreeTerms:
    """Terms without a formula: a Gaussian process of the fields for each."""

    processes: tuple[GaussianProcess, ...]

    def terms(self, fields: Tensor) -> Tensor:
        """(B, m, terms) values where the fields have the values (B, m, F)."""
        return torch.stack([process.on(fields)[0] for process in self.processes], dim=2)

    def terms_std(self, fields: Tensor) -> Tensor:
        """(B, m, terms) standard deviations, large where no data came near."""
        return torch.stack([process.on(fields)[1] for process in self.processes], dim=2)


def free_terms(problem: Problem, physics: PointwisePhysics, smoothed: Smooth, parameters: Tensor) -> FreeTerms:
    """Unknown terms in closed form, no shape assumed but smoothness.

    The equations are solved for the terms at the points of `physics`, on a smooth fit of the data and with
    its error bars (they are wide at the ends of the data); a Gaussian process over the fields joins what the
    trajectory shows of a term whenever it passes by.

    Args:
        problem: with as many unknown terms as the equations determine.
        physics: the equations where the terms are taken.
        smoothed: fits of the data.
        parameters: (B, P) known parameters.

    Raises:
        InputError: if the equations do not determine the terms.
    """
    notation, system = problem.notation, problem.system
    symbols = [notation.others[name] for name in problem.unknown_terms]
    solved = sympy.solve(system.residuals, symbols, dict=True)
    if len(solved) != 1 or set(solved[0]) != set(symbols):
        raise InputError(f"{problem.name}: the equations do not determine {', '.join(problem.unknown_terms)}")
    expressions = [solved[0][symbol] for symbol in symbols]
    slopes = [sympy.diff(e, notation.symbol(jet)) for e in expressions for jet in system.jets]
    values = physics.evaluate(expressions, smoothed.mean, parameters)
    by_jet = physics.evaluate(slopes, smoothed.mean, parameters).unflatten(1, (len(symbols), -1))
    variances = propagate(smoothed.jet_covariance(physics), by_jet)
    width = physics.functions[()].shape[1]
    fields = torch.einsum("nr,bfr->bnf", physics.functions[()], smoothed.mean.unflatten(1, (-1, width)))
    return FreeTerms(
        tuple(
            GaussianProcess.fit([problem.fields.index(f) for f in term.of], fields, values[:, k], variances[:, k])
            for k, term in enumerate(problem.unknown_terms.values())
        )
    )
