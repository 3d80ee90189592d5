"""True values of a problem's unknown terms, for scores and pictures only."""

import numpy as np
import torch

from ipbasis.errors import InputError
from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.problem.equations import Equations
from ipbasis.reference.solutions import solutions


def _true_forms(problem: Problem) -> Equations:
    """The true forms of the unknown terms, checked to be functions of the fields and parameters alone."""
    notation, forms = problem.notation, []
    for name, term in problem.unknown_terms.items():
        if term.truth is None:
            raise InputError(f"{problem.name}: the unknown term {name!r} has no true form")
        form = notation.parse(term.truth)
        allowed = {notation.others[p] for p in problem.parameters} | {notation.parse(field) for field in term.of}
        if foreign := form.free_symbols - allowed:
            raise InputError(f"{problem.name}: unknown_terms.{name}: truth: {foreign.pop()} is not among {term.of}")
        forms.append(form)
    return Equations(notation, tuple(forms), problem.system.parameters)


def term_values(problem: Problem, parameters: np.ndarray, fields: np.ndarray) -> np.ndarray:
    """The true unknown terms at given values of the fields.

    Args:
        problem: a problem whose unknown terms have a ``truth``.
        parameters: (tasks, P).
        fields: (tasks or 1, n, F) values of the fields.

    Returns:
        (tasks, n, terms) in the order of `Problem.unknown_terms`.

    Raises:
        InputError: if a term has no true form, or one that is no function of its fields.
    """
    forms = _true_forms(problem)
    values = torch.tensor(np.asarray(fields, dtype=float))
    by_parameter = torch.tensor(np.asarray(parameters, dtype=float)).T[..., None]
    shape = torch.broadcast_shapes(values.shape[:2], (len(parameters), 1))
    jets = [values[..., jet.field] for jet in forms.jets]
    unused = [0.0] * len(problem.coordinates)
    terms = forms.compiled(forms.residuals)(unused, jets, by_parameter)
    columns = [torch.as_tensor(term, dtype=torch.float64).expand(shape) for term in terms]
    return torch.stack(columns, dim=-1).numpy() if columns else np.empty((*shape, 0))


def true_terms(problem: Problem, tasks: Tasks, points: np.ndarray) -> np.ndarray:
    """The unknown terms along the exact solutions.

    Args:
        problem: a problem whose unknown terms have a ``truth``.
        tasks: parameters and initial values.
        points: (1 or tasks, n, d).

    Returns:
        (tasks, n, terms) in the order of `Problem.unknown_terms`.
    """
    return term_values(problem, tasks.parameters, solutions(problem, tasks, points))
