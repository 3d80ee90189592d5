"""Equation and conditions of a basis reduced to small forms, once per basis."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import sympy
import torch
from torch import Tensor

from ipbasis.errors import InputError
from ipbasis.offline.artefact import Basis
from ipbasis.offline.evaluated import energy_coordinates
from ipbasis.offline.operators import (
    Operators,
    boundary_points,
    conditions,
    parametric_conditions,
    residual_factor,
    with_parametric_conditions,
)
from ipbasis.problem.declaration import Problem
from ipbasis.problem.equations import MultiIndex
from ipbasis.search.physics import AffinePhysics
from ipbasis.search.pointwise import PointwisePhysics

_CONDITION_POINTS = 101  # along each side of the domain that has conditions


@lru_cache(maxsize=4)
def reduce_physics(basis: Basis) -> AffinePhysics | PointwisePhysics:
    """Equation and conditions of a basis as small forms, once per basis."""
    system = basis.problem.system
    at_quadrature = functions, root = _at_quadrature(basis)
    weighted = {index: values * root[:, None] for index, values in functions.items()}
    energy = energy_coordinates(weighted, basis.problem.domain, 1e-14)
    if system.affine is None:
        return _pointwise(basis, _nested(energy) if basis.record.leading else energy, at_quadrature)
    common = _common(basis, energy)
    held = parametric_conditions(basis.problem)
    if not held:
        factor = residual_factor(basis.problem, functions, basis.quadrature, common["combinations"])
        return AffinePhysics(**common, factor=compact(factor))
    return _with_conditions(basis, common, functions, held)


def _with_conditions(
    basis: Basis,
    common: dict[str, Any],
    functions: Mapping[MultiIndex, Tensor],
    held: list[tuple[dict[int, float], sympy.Expr]],
) -> AffinePhysics:
    """Equations and the conditions that hold parameters as one factor: they are combinations by parameters, too.

    Args:
        basis: the basis.
        common: what `_common` gives.
        functions: at the points of the quadrature.
        held: from `parametric_conditions`.

    Raises:
        InputError: if parameters and coordinates do not separate in a condition.
    """
    problem, own = basis.problem, basis.problem.system
    system = with_parametric_conditions(problem)
    if system.affine is None:
        raise _unsolved(problem)
    fields, reduced = len(problem.fields), common["combinations"]
    parts = []
    for number, known in enumerate([None, *(known for known, _ in held)]):
        if known is None:
            points, at, rows = basis.quadrature.points.double(), functions, slice(0, len(own.residuals))
            root = basis.quadrature.weights.double().sqrt()
        else:
            points = boundary_points(problem, known, _CONDITION_POINTS)
            at = basis.function_map(points, system.indices)
            rows = slice(len(own.residuals) + number - 1, len(own.residuals) + number)
            root = points.new_full((len(points),), len(points) ** -0.5)
        operators = Operators(system, points, fields)
        missing = [index for index in system.indices if index not in at]
        at = at if not missing else basis.function_map(points, system.indices)
        blocks = operators.blocks(at) * root[:, None]
        if len(blocks) > blocks.shape[1]:
            _, blocks = torch.linalg.qr(blocks, mode="r")
        parts.append(operators.assemble(blocks)[:, rows].flatten(1, 2))
    whole = torch.cat(parts, dim=1)
    whole = torch.cat([whole[..., :-1] @ reduced, whole[..., -1:]], dim=2)
    return AffinePhysics(**{**common, "system": system}, factor=compact(whole))


def _at_quadrature(basis: Basis) -> tuple[Mapping[MultiIndex, Tensor], Tensor]:
    """For each derivative (n, K) the functions at the points of the quadrature, and (n,) the roots of its weights."""
    functions = basis.function_map(basis.quadrature.points, basis.problem.system.indices)
    return functions, basis.quadrature.weights.double().sqrt()


def _nested(energy: Tensor) -> Tensor:
    """The combinations (K, K) turned so that the first ones are combinations of the first functions alone."""
    _, triangular = torch.linalg.qr(energy.flip(0).T, mode="r")
    return triangular.T.flip(0, 1)


def _common(basis: Basis, energy: Tensor) -> dict[str, Any]:
    """What equations of every kind have, see `Physics`."""
    problem = basis.problem
    combinations = torch.block_diag(*[energy] * len(problem.fields))
    given = conditions(problem, _CONDITION_POINTS, torch.float64)
    rows = given.rows(basis.function_map(given.points, given.indices)) @ combinations
    same = ~given.selection.any(dim=1)
    _, triangular = torch.linalg.qr(torch.cat([rows[same], given.fixed[same, None]], dim=1), mode="r")
    return {
        "system": problem.system,
        "combinations": combinations,
        "condition_rows": triangular[:, :-1],
        "condition_target": triangular[:, -1],
        "initial_rows": rows[~same],
        "initial_selection": given.selection[~same],
        "determined": not problem.free_initial,
    }


def _pointwise(
    basis: Basis, energy: Tensor, at_quadrature: tuple[Mapping[MultiIndex, Tensor], Tensor]
) -> PointwisePhysics:
    """Equations at points in the combinations `energy` (K, r), and those of the leading functions.

    Args:
        basis: the functions.
        energy: the combinations.
        at_quadrature: from `_at_quadrature`.
    """
    if parametric_conditions(basis.problem):
        raise _unsolved(basis.problem)
    functions, root = at_quadrature
    leading = None
    if basis.record.leading:
        count = max(basis.record.leading)
        fewer = basis.leading(count)
        leading = _pointwise(fewer, energy[:count, :count], _at_quadrature(fewer))
    return PointwisePhysics(
        **_common(basis, energy),
        points=basis.quadrature.points.double().unbind(1),
        root=root,
        functions={index: values @ energy for index, values in functions.items()},
        accuracy=basis.record.accuracy,
        leading=leading,
    )


def _unsolved(problem: Problem) -> InputError:
    """What is wrong where conditions with parameters are no linear rows, and there are no solutions to follow."""
    return InputError(
        f"{problem.name}: parameters in initial or boundary conditions, where the equation is nonlinear or parameters "
        "and coordinates do not separate: a basis that `ipbasis train` made of solutions in time is right, this one is "
        "not"
    )


def compact(factor: Tensor) -> Tensor:
    """An equal factor (Q, m, N + 1) with as few rows m as its rank."""
    # each operator by its own size: parameters may be of any magnitude
    size = torch.linalg.matrix_norm(factor).clamp_min(torch.finfo(factor.dtype).tiny)
    flat = torch.cat([*(factor / size[:, None, None])], dim=1)
    _, sizes, directions = torch.linalg.svd(flat, full_matrices=False)
    keep = sizes > 1e-14 * sizes[0]
    rows = (sizes[keep, None] * directions[keep]).unflatten(1, (len(factor), -1)).transpose(0, 1)
    # what is not there stays so: beside small fields a source of the size of rounding errors is a force
    return rows * size[:, None, None] * (factor != 0).any(1, keepdim=True)
