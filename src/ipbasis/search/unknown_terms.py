"""Unknown terms of an equation: what is found of them, and the problem with them left open."""

from typing import Protocol

from torch import Tensor

from ipbasis.errors import InputError
from ipbasis.problem.declaration import Problem


class Terms(Protocol):
    """Terms that were found, as functions of the fields."""

    def terms(self, fields: Tensor) -> Tensor:
        """(B, m, terms) values where the fields have the values (B, m, F)."""


def searched_problem(problem: Problem) -> Problem:
    """The problem with the parameters that equations and conditions hold: what can be searched, the truth left out."""
    values = problem.model_dump()
    values["parameters"] = {name: problem.parameters[name] for name in problem.used_parameters}
    for term in values["unknown_terms"].values():
        term["truth"] = None
    left_out = problem.parameters.keys() - values["parameters"]
    for kind in ("bounds", "priors", "fixed"):
        values[kind] = {name: given for name, given in values[kind].items() if name not in left_out}
    return Problem(**values)


def check_unknown_terms(problem: Problem, solver: str) -> None:
    """Raise an `InputError` where a solver of unknown terms has none to find."""
    if not problem.unknown_terms:
        raise InputError(f"{problem.name} has no unknown terms; the solver {solver!r} needs one")
