"""Unknown terms of an equation in closed form: without a formula, or as a combination of library functions."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import sympy
import torch
from pydantic import NonNegativeInt
from torch import Tensor

from ipbasis.errors import InputError
from ipbasis.problem.declaration import Declared, Problem
from ipbasis.problem.equations import compile_torch
from ipbasis.search.assemble import PointwisePhysics
from ipbasis.search.gauss_newton import GaussNewtonSettings
from ipbasis.search.smoothing import Smooth, propagate

# Coefficients of a library are searched without bounds that matter; the columns are scaled inside.
_COEFFICIENTS = (-1e3, 1e3)
# Grid over which the evidence of a Gaussian process is maximised: length scales in standard deviations of the
# fields, variances in those of the term, and factors on the variances of its values.
_LENGTHS, _VARIANCES, _INFLATIONS = (0.5, 1.0, 2.0, 4.0), (1.0, 10.0, 100.0), (1.0, 10.0, 100.0)
_JITTER = 1e-8


class Terms(Protocol):
    """Terms that were found, as functions of the fields."""

    def terms(self, fields: Tensor) -> Tensor:
        """(B, m, terms) values where the fields have the values (B, m, F)."""


def searched_problem(problem: Problem) -> Problem:
    """The problem with only those parameters that its equations hold: what can be searched, the truth left out."""
    used = {symbol for residual in problem.system.residuals for symbol in residual.free_symbols}
    values = problem.model_dump()
    values["parameters"] = {k: v for k, v in problem.parameters.items() if problem.notation.others[k] in used}
    for term in values["unknown_terms"].values():
        term["truth"] = None
    left_out = problem.parameters.keys() - values["parameters"]
    for kind in ("bounds", "priors", "fixed"):
        values[kind] = {name: given for name, given in values[kind].items() if name not in left_out}
    return Problem(**values)


class FreeForm(Declared):
    """Unknown terms without a formula; every parameter in the equations must be known (see `free_terms`)."""

    solver: Literal["free_form"] = "free_form"


class Library(Declared):
    """Unknown terms as combinations of functions of the fields, by Gauss-Newton.

    Functions that the data do not ask for are left out, by the Bayesian information criterion.

    Args:
        solver: names it.
        degree: all monomials up to this degree, the constant included.
        expressions: further functions, such as ``"x/(1 + x)"``.
        search: of the solver behind.
    """

    solver: Literal["library"] = "library"
    degree: NonNegativeInt = 2
    expressions: list[str] = []
    search: GaussNewtonSettings = GaussNewtonSettings()

    def functions(self, problem: Problem, term: str) -> dict[str, sympy.Expr]:
        """The functions for one unknown term, named as they are written.

        Raises:
            InputError: if an expression does not parse, or holds anything but fields the term depends on.
        """
        notation, of = problem.notation, problem.unknown_terms[term].of
        fields = [notation.parse(name) for name in of]
        found = {}
        for degree in range(self.degree + 1):
            for factors in itertools.combinations_with_replacement(fields, degree):
                monomial = sympy.prod(factors)
                found[str(monomial)] = monomial
        for text in self.expressions:
            try:
                expression = notation.parse(text)
            except InputError as error:
                raise InputError(f"library: {error}") from None
            if foreign := expression.free_symbols - set(fields):
                raise InputError(
                    f"library: {text!r} holds {min(map(str, foreign))}, but {term} is a function of {', '.join(of)}"
                )
            if expression not in found.values():
                found[text] = expression
        return found


def coefficient_name(term: str, function: str) -> str:
    """Column of a coefficient: ``f_1`` of the constant, ``f_xy`` of ``x*y``, ``f_x2`` of ``x**2``."""
    return f"{term}_{re.sub(r'[^0-9A-Za-z]+', '', function.replace('**', ''))}"


def with_library(problem: Problem, library: Library) -> Problem:
    """The problem with each unknown term written out, its coefficients as ordinary parameters.

    Raises:
        InputError: if the library does not fit the problem.
    """
    if not problem.unknown_terms:
        raise InputError(f"{problem.name} has no unknown terms; a library needs one")
    plain = searched_problem(problem)
    values = plain.model_dump() | {"unknown_terms": {}}
    for term in problem.unknown_terms:
        names = {coefficient_name(term, function): function for function in library.functions(problem, term)}
        if len(names) < len(library.functions(problem, term)):
            raise InputError(f"library: two functions of {term} would share a column; write one of them differently")
        written = " + ".join(f"{name}*({function})" for name, function in names.items())
        values["equations"] = [re.sub(rf"\b{term}\b", f"({written})", text) for text in values["equations"]]
        values["parameters"] |= dict.fromkeys(names, _COEFFICIENTS)
    return Problem(**values)


@dataclass(frozen=True)
class LibraryTerms:
    """Terms as combinations of library functions.

    Args:
        functions: per term, its functions by name.
        fields: symbols of the fields.
        coefficients: per term (B, functions).
    """

    functions: dict[str, dict[str, sympy.Expr]]
    fields: tuple[sympy.Symbol, ...]
    coefficients: dict[str, Tensor]

    def terms(self, fields: Tensor) -> Tensor:
        """(B, m, terms) values where the fields have the values (B, m, F)."""
        columns = fields.unbind(2)
        values = []
        for term, functions in self.functions.items():
            parts = compile_torch(self.fields, tuple(functions.values()))(*columns)
            stacked = torch.stack([torch.as_tensor(v, dtype=fields.dtype).expand_as(columns[0]) for v in parts], dim=2)
            values.append((stacked @ self.coefficients[term][..., None]).squeeze(2))
        return torch.stack(values, dim=2)

    def formulas(self, digits: int = 4) -> dict[str, list[str]]:
        """Each term of each query as text."""
        texts: dict[str, list[str]] = {}
        for term, functions in self.functions.items():
            texts[term] = []
            for row in self.coefficients[term].tolist():
                parts = [
                    f"{value:.{digits}g}" + ("" if name == "1" else f"*{name}")
                    for name, value in zip(functions, row, strict=True)
                    if value != 0
                ]
                texts[term].append(" + ".join(parts).replace("+ -", "- ") or "0")
        return texts


def library_terms(problem: Problem, library: Library, searched: Problem, parameters: Tensor) -> LibraryTerms:
    """The terms that parameters (B, P) of the problem `with_library` mean."""
    functions = {term: library.functions(problem, term) for term in problem.unknown_terms}
    columns = list(searched.parameters)
    coefficients = {
        term: parameters[:, [columns.index(coefficient_name(term, name)) for name in names]]
        for term, names in functions.items()
    }
    fields = tuple(problem.notation.parse(name) for name in problem.fields)
    return LibraryTerms(functions, fields, coefficients)


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
    width = physics.features[()].shape[1]
    fields = torch.einsum("nr,bfr->bnf", physics.features[()], smoothed.mean.unflatten(1, (-1, width)))
    return FreeTerms(
        tuple(
            GaussianProcess.fit([problem.fields.index(f) for f in term.of], fields, values[:, k], variances[:, k])
            for k, term in enumerate(problem.unknown_terms.values())
        )
    )
