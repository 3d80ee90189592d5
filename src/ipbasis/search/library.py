"""Unknown terms as combinations of library functions: which the data ask for, and with which coefficients."""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import sympy
import torch
from pydantic import NonNegativeInt
from torch import Tensor

from ipbasis.errors import InputError
from ipbasis.observations.long_form import Batch
from ipbasis.offline.artefact import Basis
from ipbasis.problem.declaration import Declared, Problem
from ipbasis.problem.equations import compile_torch
from ipbasis.search.noise import Errors, Noise
from ipbasis.search.reweighting import Fit
from ipbasis.search.settings import GaussNewtonSettings
from ipbasis.search.solver import Ability, LeastSquares, Solver, physics_of
from ipbasis.search.unknown_terms import check_unknown_terms, searched_problem

# Coefficients of a library are searched without bounds that matter; the columns are scaled inside.
_COEFFICIENTS = (-1e3, 1e3)


class Library(Declared, Solver):
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

    abilities: ClassVar[frozenset[Ability]] = frozenset({"noise_std", "errors", "device"})

    def check(self, problem: Problem) -> None:
        check_unknown_terms(problem, self.solver)

    def searched(self, problem: Problem) -> Problem:
        return with_library(problem, self)

    def prepare(self, declared: Problem, basis: Basis, errors: Errors, device: torch.device) -> "LibrarySearch":
        optional = torch.tensor([name not in declared.parameters for name in basis.problem.parameters])
        physics = physics_of(basis, device)
        return LibrarySearch(basis, physics, self.search, errors, optional, declared=declared, library=self)

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


@dataclass(frozen=True)
class LibrarySearch(LeastSquares):
    """The coefficients of a library among the parameters.

    Args:
        declared: the problem with its unknown terms.
        library: their functions.
    """

    declared: Problem = field(kw_only=True)
    library: Library = field(kw_only=True)

    def solve(self, batch: Batch, noise: Noise) -> Fit:
        """Estimates of a batch, and the terms that they mean."""
        fit = super().solve(batch, noise)
        found = library_terms(self.declared, self.library, self.basis.problem, fit.solution.parameters)
        return replace(fit, terms=found)

    def columns(self, fit: Fit) -> Mapping[str, list]:
        """The terms as formulas."""
        return fit.terms.formulas()

    @property
    def text_columns(self) -> list[str]:
        """Names of the terms."""
        return list(self.declared.unknown_terms)


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
