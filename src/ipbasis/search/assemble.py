"""The online problem of a batch of queries as small least-squares forms.

Observations and equation are both reduced to roots of their normal matrices over the K functions of the
basis, so that the cost of an iteration depends neither on the number of observations nor of collocation
points. Roots rather than normal matrices are kept: squaring would cost half of the digits.
"""

import numpy as np
import torch
from torch import Tensor

from ipbasis.observations.long_form import Batch
from ipbasis.offline.artefact import Basis
from ipbasis.search.online import Online
from ipbasis.search.physics import Physics
from ipbasis.search.priors import priors_of
from ipbasis.search.rows import chunks

_POINTS_AT_ONCE = 20_000


def observed_functions(basis: Basis, batch: Batch) -> Tensor:
    """(B or 1, n, K) functions at the points of observation; once if all queries share their points."""
    points = batch.points[:1] if (batch.points == batch.points[:1]).all() else batch.points
    flat = torch.tensor(points.reshape(-1, points.shape[2]))
    functions = torch.cat([basis.function_map(part)[()] for part in flat.split(_POINTS_AT_ONCE)])
    return functions.unflatten(0, points.shape[:2])


def functions_of(functions: Tensor, rows: Tensor) -> Tensor:
    """Functions (B or 1, n, K) at the points of some queries; once if all share them."""
    return functions if len(functions) == 1 else functions[rows]


def initial_values(basis: Basis, readouts: Tensor) -> Tensor:
    """(B, free initial values) of readouts (B, F K), at the low end of the first coordinate."""
    problem = basis.problem
    by_field = readouts.unflatten(1, (len(problem.fields), -1))
    jets = list(problem.free_initial)
    start = torch.tensor(problem.domain[None, :, 0])
    functions = basis.function_map(start, tuple(jet.index for jet in jets))
    columns = [by_field[:, jet.field] @ functions[jet.index][0] for jet in jets]
    return torch.stack(columns, dim=1) if jets else readouts[:, :0]


def data_forms(functions: Tensor, values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Roots of the weighted data misfit of each query, by QR.

    Args:
        functions: (B or 1, n, K).
        values: (B, n, F).
        weights: (B, n, F) one over the standard deviation; zero where not observed.

    Returns:
        root (B or 1, F or 1, R, K), target (B, F, R) and rest (B, F), see `Online`.
    """
    alike = bool((weights == weights[..., :1]).all())  # the fields are observed alike
    if len(functions) == 1 and bool((weights == weights[:1, :1]).all()):
        orthogonal, triangular = torch.linalg.qr(functions[0])
        right = values * weights
        target = torch.einsum("nr,bnf->bfr", orthogonal, right)
        rest = (right - torch.einsum("nr,bfr->bnf", orthogonal, target)).square().sum(1)
        by_field = weights[0, 0, :1] if alike else weights[0, 0]
        return (triangular * by_field[:, None, None])[None], target, rest
    queries, count, width = len(values), *functions.shape[1:]
    height = min(count, width)
    functions, fields = functions.expand(queries, -1, -1), values.shape[2]
    root = values.new_empty(queries, 1 if alike else fields, height, width)
    target, rest = values.new_empty(queries, fields, height), values.new_empty(queries, fields)
    for number in range(root.shape[1]):
        own = slice(None) if alike else slice(number, number + 1)
        for part in chunks(queries, max(count, width)):
            both = torch.cat([functions[part], values[part, :, own]], dim=2) * weights[part, :, number, None]
            _, triangular = torch.linalg.qr(both, mode="r")
            root[part, number] = triangular[:, :height, :width]
            target[part, own] = triangular[:, :height, width:].mT
            rest[part, own] = triangular[:, height:, width:].square().sum(1)
    return root, target, rest


def assemble(
    basis: Basis,
    physics: Physics,
    batch: Batch,
    std: Tensor | None,
    functions: Tensor | None = None,
    rows: Tensor | None = None,
) -> Online:
    """The online problem of a batch.

    Args:
        basis: the functions.
        physics: from `reduce_physics`, once per basis, or that of the leading functions.
        batch: the observations.
        std: (B, n, F) standard deviation of each observation's error, the basis error included; None to
            weight all alike.
        functions: from `observed_functions`, if they are at hand.
        rows: the queries, None for all.
    """
    functions = observed_functions(basis, batch) if functions is None else functions
    if rows is not None:
        batch, std = batch.select(rows.cpu().numpy()), None if std is None else std[rows]
        functions = functions_of(functions, rows)
    observed = torch.as_tensor(batch.observed)
    values = torch.as_tensor(batch.values)
    weights = observed.double() if std is None else torch.where(observed, 1 / std, 0.0)
    root, target, rest = data_forms(functions[..., : len(physics.energy)], values, weights)
    root = root @ physics.energy
    return Online(
        physics=physics,
        data_root=root,
        data_normal=root.mT @ root,
        data_target=target,
        data_rest=rest,
        counts=observed.sum(1),
        amplitude=amplitude(batch),
        weight=mean_weight(weights, observed),
        known=torch.as_tensor(batch.known),
        initial=torch.as_tensor(batch.initial),
        gives_initial=bool(np.isfinite(batch.initial).any()),
        ranges=torch.as_tensor(basis.problem.parameter_ranges),
        priors=priors_of(basis.problem),
    )


def amplitude(batch: Batch) -> Tensor:
    """(B,) root mean square of the observed values, all fields together: the scale of a query's errors."""
    by_field = (batch.values**2).sum(1) / np.maximum(batch.observed.sum(1), 1)
    size = np.sqrt(by_field.sum(1))
    return torch.as_tensor(np.where(size > 0, size, 1.0))


def mean_weight(weights: Tensor, observed: Tensor) -> Tensor:
    """(B,) root mean square of the weights (B, n, F) of what was observed (B, n, F)."""
    return (weights.square().sum((1, 2)) / observed.sum((1, 2)).clamp_min(1)).sqrt()
