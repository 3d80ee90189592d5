"""The online problem of a batch of queries as small least-squares forms.

Observations and equation are both reduced to roots of their normal matrices over the K functions of the
basis, so that the cost of an iteration depends neither on the number of observations nor of collocation
points. Roots rather than normal matrices are kept: squaring would cost half of the digits.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import sympy
import torch
from torch import Tensor

from ipbasis.observations.long_form import Batch
from ipbasis.offline.artefact import Accuracy, Basis
from ipbasis.offline.forward import energy_coordinates
from ipbasis.offline.operators import conditions, residual_factor, theta
from ipbasis.problem.equations import Equations, MultiIndex
from ipbasis.search.priors import Priors, priors_of
from ipbasis.search.rows import numbers

_CONDITION_POINTS = 101
_POINTS_AT_ONCE = 20_000
_IN_CACHE = 2**18  # entries of the normal matrices that are worked on at once
_FEW = 24  # queries, for which no large table is read
_PAIRS, _PRODUCTS = 2, 2**24  # of jets for each equation and pair of fields, and entries of their products, at most


@dataclass(frozen=True)
class Physics:
    """Equation and conditions in the span of a basis.

    The unknowns c are readouts w = coordinates c in combinations of the functions that are orthonormal in
    value and derivatives together: in them the residual is well conditioned, and a large weight on it
    does no harm.

    Args:
        system: the equations.
        coordinates: (F K, N), the readouts of all fields in a row.
        condition_rows: (C, N), ``|condition_rows c - condition_target|²`` is the mean squared error of the
            conditions that are the same for every task.
        condition_target: (C,).
        initial_rows: (I, N) the same of the initial values that differ from task to task.
        initial_selection: (I, free initial values), the target of those rows is its product with the values.
        determined: whether the conditions leave no freedom: the same solution for all tasks of equal parameters.
    """

    system: Equations
    coordinates: Tensor
    condition_rows: Tensor
    condition_target: Tensor
    initial_rows: Tensor
    initial_selection: Tensor
    determined: bool

    @property
    def energy(self) -> Tensor:
        """(K, r) the readouts of one field in a combination of the functions."""
        fields = len(self.system.notation.fields)
        return self.coordinates[: len(self.coordinates) // fields, self.own(0)]

    def own(self, field: int) -> slice:
        """Where the unknowns of one field stand among all."""
        width = self.coordinates.shape[1] // len(self.system.notation.fields)
        return slice(field * width, (field + 1) * width)


@dataclass(frozen=True)
class AffinePhysics(Physics):
    """Equations with an affine split, reduced to one small factor.

    Args:
        factor: (Q, m, N + 1), ``|Σ_q θ_q factor_q (c, 1)|²`` is the mean squared residual.
    """

    factor: Tensor

    def thetas(self, parameters: Tensor) -> Tensor:
        """(B, Q) values of the parameter functions."""
        return theta(self.system, parameters)[0]

    @cached_property
    def gram(self) -> Tensor:
        """(Q (Q + 1) / 2, N, N) ``A_qᵀA_r + A_rᵀA_q`` of the operators, of which those of a query are a combination."""
        operators = self.factor[..., :-1]
        pairs = torch.triu_indices(len(operators), len(operators))
        products = operators[pairs[0]].mT @ operators[pairs[1]]
        return (products + products.mT) / 2

    def normal(self, thetas: Tensor) -> Tensor:
        """(B, N, N) normal matrix of the residual for parameter functions (B, Q)."""
        pairs = torch.triu_indices(thetas.shape[1], thetas.shape[1])
        twice = 2 - (pairs[0] == pairs[1]).to(thetas.dtype)
        products = thetas[:, pairs[0]] * thetas[:, pairs[1]] * twice
        return (products @ self.gram.flatten(1)).unflatten(1, self.gram.shape[1:])

    @cached_property
    def _stacked(self) -> tuple[Tensor, Tensor]:
        """The operators below each other (Q' m, N), and side by side (m, Q' N), mere sources left out."""
        operators = self.factor[self._acting, :, :-1]
        return operators.flatten(0, 1), operators.transpose(0, 1).flatten(1).contiguous()

    @cached_property
    def _acting(self) -> Tensor:
        """(Q') numbers of the operators that are not sources only."""
        return self.factor[..., :-1].abs().amax((1, 2)).nonzero().squeeze(1)

    def apply(self, thetas: Tensor, unknowns: Tensor) -> Tensor:
        """(B, k, m) rows of the residual without its source, for unknowns (B, k, N)."""
        applied = (unknowns @ self._stacked[0].T).unflatten(2, (len(self._acting), -1))
        return _combined(thetas[:, self._acting], applied)

    def adjoint(self, thetas: Tensor, rows: Tensor) -> Tensor:
        """(B, k, N) transpose of `apply`, for rows (B, k, m)."""
        applied = (rows @ self._stacked[1]).unflatten(2, (len(self._acting), -1))
        return _combined(thetas[:, self._acting], applied)

    def source(self, thetas: Tensor) -> Tensor:
        """(B, m) residual of unknowns of zero."""
        return thetas @ self.factor[..., -1]

    def operator_slope(self, parameters: Tensor, unknowns: Tensor) -> Tensor:
        """(B, m, P) derivative of the residual's rows by the parameters, the unknowns (B, N) held fixed."""
        _, slopes = theta(self.system, parameters)
        applied = unknowns @ self.factor[..., :-1].flatten(0, 1).T + self.factor[..., -1].flatten()
        return torch.einsum("bqp,bqm->bmp", slopes, applied.unflatten(1, self.factor.shape[:2]))


def _combined(thetas: Tensor, applied: Tensor) -> Tensor:
    """(B, k, m) sum over q of thetas (B, Q) times operators applied (B, k, Q, m)."""
    total = thetas[:, 0, None, None] * applied[:, :, 0]
    for q in range(1, thetas.shape[1]):
        total.addcmul_(thetas[:, q, None, None], applied[:, :, q])
    return total


@dataclass(frozen=True)
class _Block:
    """The part of the normal matrix of equations at points that belongs to the unknowns of two fields.

    It is the sum over pairs of jets, one of each field, and points of the outer products of their features, times
    factors that are all that differs from query to query: one product of large matrices serves all queries. The rows
    belong to the second field, which is the later one; of a block of one field only the lower triangle is kept.

    Args:
        pairs: numbers (i, j) of the jets that meet in an equation, their factors not constant.
        products: (pairs n, m) outer products of their features, pairs and points in a row; None without pairs.
        same: (m,) sum over the pairs of constant factors.
    """

    pairs: list[tuple[int, int]]
    products: Tensor | None
    same: Tensor


@dataclass(frozen=True)
class PointwisePhysics(Physics):
    """Any other equations, taken at the points of a quadrature.

    Args:
        points: coordinates of the points, a tensor (n,) each.
        root: (n,) roots of the quadrature's weights.
        features: for each derivative (n, r), in the coordinates of the unknowns of one field.
        accuracy: of the functions.
        leading: the same in the span of the first functions alone, where there are many: a cheap problem to search
            first. Its unknowns are the first ones of each field, and the roots of its data the leading blocks. None
            where there are few functions.
    """

    points: tuple[Tensor, ...]
    root: Tensor
    features: Mapping[MultiIndex, Tensor]
    accuracy: Accuracy
    leading: "PointwisePhysics | None"

    def jets(self, unknowns: Tensor) -> list[Tensor]:
        """(B, n) values of the fields and derivatives that the equations hold, for unknowns (B, N)."""
        by_field = unknowns.unflatten(1, (-1, self.features[()].shape[1]))
        return [by_field[:, jet.field] @ self.features[jet.index].T for jet in self.system.jets]

    def widened(self, unknowns: Tensor) -> Tensor:
        """(B, N) those of fewer leading functions, of which the others have no part."""
        by_field = unknowns.unflatten(1, (len(self.system.notation.fields), -1))
        return torch.nn.functional.pad(by_field, (0, self.energy.shape[1] - by_field.shape[2])).flatten(1)

    def at(self, basis: Basis, points: Tensor) -> "PointwisePhysics":
        """The same equations at other points (n, d), all of equal weight."""
        features = basis.function_map(points, self.system.indices)
        features = {index: values @ self.energy for index, values in features.items()}
        root = points.new_full((len(points),), len(points) ** -0.5)
        return replace(self, points=points.unbind(1), root=root, features=features)

    def evaluate(self, expressions: Sequence[sympy.Expr], unknowns: Tensor, parameters: Tensor) -> Tensor:
        """(B, len(expressions), n) values of expressions in the equations' names at every point."""
        return self._stacked(self.system.compiled(expressions), unknowns, parameters)

    def linearised(self, unknowns: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Residuals (B, E, n) and their partials by the jets (B, E, J, n) and the parameters (B, E, P, n)."""
        values = self._stacked(self.system.linearised, unknowns, parameters)
        equations, jets = len(self.system.residuals), len(self.system.jets)
        residual, by_jet, by_parameter = values.split(
            [equations, equations * jets, values.shape[1] - equations * (1 + jets)], dim=1
        )
        return residual, by_jet.unflatten(1, (equations, jets)), by_parameter.unflatten(1, (equations, -1))

    def _stacked(self, function: Callable, unknowns: Tensor, parameters: Tensor) -> Tensor:
        values = function(self.points, self.jets(unknowns), [column[:, None] for column in parameters.unbind(1)])
        shape = (len(unknowns), len(self.root))
        return torch.stack([torch.as_tensor(v, dtype=self.root.dtype).expand(shape) for v in values], dim=1)

    def applied(self, by_jet: Tensor, unknowns: Tensor) -> Tensor:
        """(B, E, n) derivative of quantities whose partials by the jets are (B, E, J, n), along unknowns (B, N)."""
        return sum(by_jet[:, :, j] * jet[:, None] for j, jet in enumerate(self.jets(unknowns)))

    def adjoint(self, by_jet: Tensor, rows: Tensor) -> Tensor:
        """(B, k, N) transpose of `applied`, for rows (B, E, k, n)."""
        out = rows.new_zeros(len(rows), rows.shape[2], self.coordinates.shape[1])
        for j, jet in enumerate(self.system.jets):
            out[..., self.own(jet.field)] += (by_jet[:, :, j, None] * rows).sum(1) @ self.features[jet.index]
        return out

    def normal(self, by_jet: Tensor, out: Tensor) -> None:
        """Normal matrix of quantities by the unknowns, written to `out` (B, N, N): the lower triangle at least.

        Args:
            by_jet: (B, E, J, n) partials of the quantities by the jets.
            out: where to write.
        """
        width = self.features[()].shape[1]
        if self._blocks is None or len(out) < _FEW:
            for part in chunks(len(out), len(self.coordinates[0])):
                matrix = self._spread(by_jet[part]).flatten(1, 2)
                out[part] = matrix.mT @ matrix
            return
        for (first, second), block in self._blocks.items():
            place, entries = out[:, self.own(second), self.own(first)], block.same
            if block.pairs:
                factors = torch.stack([(by_jet[:, :, i] * by_jet[:, :, j]).sum(1) for i, j in block.pairs], dim=1)
                entries = torch.addmm(entries, factors.flatten(1), block.products)
            if first == second:
                entries = entries[..., self._unfolded]
            place.copy_(entries.unflatten(-1, (width, width)))

    @cached_property
    def _blocks(self) -> "dict[tuple[int, int], _Block] | None":
        """What the normal matrix is made of, for the unknowns of two fields each.

        None where the pairs of jets are so many that the normal matrix of each query is formed faster.
        """
        by_jet, _ = self.system.partials()
        jets, width, device = self.system.jets, self.features[()].shape[1], self.root.device
        fields = sorted({jet.field for jet in jets})
        rows, columns = torch.tril_indices(width, width, device=device)

        def outer(i: int, j: int) -> Tensor:
            """(n, r²) products of the features of two jets; (n, r (r + 1) / 2) of two jets of one field."""
            product = self.features[jets[j].index][:, :, None] * self.features[jets[i].index][:, None]
            if jets[i].field != jets[j].field:
                return product.flatten(1)
            return (product if i == j else product + product.mT)[:, rows, columns]

        varying, constant = {}, {}
        for i, j in itertools.combinations_with_replacement(sorted(range(len(jets)), key=lambda j: jets[j].field), 2):
            products = [partials[i] * partials[j] for partials in by_jet]
            if not all(product.is_number for product in products):
                varying.setdefault((jets[i].field, jets[j].field), []).append((i, j))
            elif sum(products) != 0:
                constant.setdefault((jets[i].field, jets[j].field), []).append((i, j, float(sum(products))))
        count = sum(map(len, varying.values()))
        most = _PAIRS * len(by_jet) * len(self.system.notation.fields) ** 2
        if count > most or count * len(self.root) * width**2 > _PRODUCTS:
            return None
        blocks = {}
        for first, second in itertools.combinations_with_replacement(fields, 2):
            same = self.root.new_zeros(len(rows) if first == second else width**2)
            for i, j, factor in constant.get((first, second), []):
                same += factor * (self.root.square() @ outer(i, j))
            pairs = varying.get((first, second), [])
            products = torch.cat([outer(i, j) for i, j in pairs]) if pairs else None
            blocks[first, second] = _Block(pairs, products, same)
        return blocks

    @cached_property
    def _unfolded(self) -> Tensor:
        """(r²,) where the entries of a symmetric matrix stand in its lower triangle."""
        width, device = self.features[()].shape[1], self.root.device
        rows, columns = torch.tril_indices(width, width, device=device)
        places = torch.empty(width, width, dtype=torch.long, device=device)
        places[rows, columns] = places[columns, rows] = torch.arange(len(rows), device=device)
        return places.flatten()

    def _spread(self, by_jet: Tensor) -> Tensor:
        """(B, E, n, N) derivative by the unknowns of quantities whose partials by the jets are (B, E, J, n)."""
        out = by_jet.new_zeros(*by_jet.shape[:2], len(self.root), self.coordinates.shape[1])
        for j, jet in enumerate(self.system.jets):
            out[..., self.own(jet.field)].addcmul_(by_jet[:, :, j, :, None], self.features[jet.index])
        return out


def chunks(queries: int, size: int, entries: int = _IN_CACHE) -> Iterator[slice]:
    """Parts of the queries whose matrices (size, size) hold so many entries together, which a core's cache keeps."""
    step = max(1, entries // size**2)
    return (slice(at, min(at + step, queries)) for at in range(0, queries, step))


@dataclass(frozen=True)
class Online:
    """Least-squares forms of a batch in N = F K unknowns a query (see `Physics`).

    Args:
        physics: equation and conditions in the span of the basis.
        data_root: (B or 1, F or 1, R, r), ``|data_root c - data_target|² + data_rest`` is the weighted data misfit of
            a field with unknowns c; once if the queries, or the fields, share it.
        data_normal: (B or 1, F or 1, r, r) its normal matrix.
        data_target: (B, F, R).
        data_rest: (B, F) part of the misfit that no readout can remove.
        counts: (B, F) observed values.
        amplitude: (B,) root mean square of the observed values.
        weight: (B,) root mean square of their weights.
        known: (B, P) given values of parameters, NaN for those to estimate.
        initial: (B, free initial values) given ones, NaN for those that the data are to tell.
        gives_initial: whether any query of the whole batch gives one.
        ranges: (P, 2) trained range of each parameter.
        priors: bounds and distributions of the parameters.
    """

    physics: Physics
    data_root: Tensor
    data_normal: Tensor
    data_target: Tensor
    data_rest: Tensor
    counts: Tensor
    amplitude: Tensor
    weight: Tensor
    known: Tensor
    initial: Tensor
    gives_initial: bool
    ranges: Tensor
    priors: Priors

    def __len__(self) -> int:
        return len(self.data_target)

    @property
    def free(self) -> Tensor:
        """(B, P) 1 for each parameter to estimate, else 0."""
        return self.known.isnan().to(self.known.dtype)

    @cached_property
    def given_initial(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows (I, N) of the initial values if any query gives one, right-hand sides (B, I), and (B, I) 1 if given."""
        given, chosen = self.initial.isfinite(), self.physics.initial_selection
        if not self.gives_initial:
            return self.physics.initial_rows[:0], self.initial[:, :0], self.initial[:, :0]
        counts = given.to(chosen.dtype) @ (chosen != 0).to(chosen.dtype).T
        return self.physics.initial_rows, self.initial.nan_to_num(0.0) @ chosen.T, counts

    @property
    def free_freedom(self) -> Tensor:
        """(B,) observations less the readouts that they can determine, field by field."""
        return (self.counts - self.data_root.shape[3]).clamp_min(0).sum(1)

    @property
    def fields(self) -> int:
        """Number F of fields."""
        return self.data_target.shape[1]

    @property
    def size(self) -> int:
        """Number N of unknowns."""
        return self.physics.coordinates.shape[1]

    def observed(self, unknowns: Tensor) -> Tensor:
        """(B, k, F R) weighted values at the observations, reduced to their roots, for unknowns (B, k, N)."""
        by_field = unknowns.chunk(self.fields, dim=2)
        return torch.cat([own @ root.mT for own, root in zip(by_field, self.roots, strict=True)], dim=2)

    def observed_adjoint(self, rows: Tensor) -> Tensor:
        """(B, k, N) transpose of `observed`, for rows (B, k, F R)."""
        by_field = rows.chunk(self.fields, dim=2)
        return torch.cat([own @ root for own, root in zip(by_field, self.roots, strict=True)], dim=2)

    @property
    def roots(self) -> tuple[Tensor, ...]:
        """(B, R, r) of `data_root` for each field; (R, r) where the queries share it, for one product of matrices."""
        roots = self.data_root[0] if len(self.data_root) == 1 else self.data_root.transpose(0, 1)
        return roots.expand(self.fields, *roots.shape[1:]).unbind(0)

    @property
    def data_normals(self) -> Tensor:
        """(B or 1, F, r, r) `data_normal` of every field."""
        return self.data_normal.expand(-1, self.fields, -1, -1)

    @property
    def data_size(self) -> Tensor:
        """(B or 1,) root of the sum of squares of the data's rows."""
        return self.data_normals.diagonal(dim1=2, dim2=3).sum((1, 2)).sqrt()

    def add_data_normal(self, normal: Tensor, factor: Tensor) -> None:
        """Add the data's normal matrix times a factor (B,) to the first N rows and columns of matrices (B, n, n)."""
        for own, block in zip(self.blocks(normal), self.data_normals.unbind(1), strict=True):
            own.addcmul_(block, factor[:, None, None])

    def data_trace(self, matrices: Tensor) -> Tensor:
        """(B, F) traces of the products of the fields' normal matrices and those parts of others (B, n, n)."""
        products = zip(self.blocks(matrices), self.data_normals.unbind(1), strict=True)
        return torch.stack([(own * block).sum((1, 2)) for own, block in products], dim=1)

    def blocks(self, matrices: Tensor) -> list[Tensor]:
        """(B, r, r) for each field: the parts of matrices (B, n, n) that belong to its unknowns alone."""
        own = [self.physics.own(field) for field in range(self.fields)]
        return [matrices[:, rows, rows] for rows in own]

    def weighted(self, factor: Tensor) -> "Online":
        """The same with the data weights of each query multiplied by a factor (B,)."""
        return replace(
            self,
            data_root=self.data_root * factor[:, None, None, None],
            data_normal=self.data_normal * factor.square()[:, None, None, None],
            data_target=self.data_target * factor[:, None, None],
            data_rest=self.data_rest * factor.square()[:, None],
            weight=self.weight * factor,
        )

    def select(self, rows: Tensor | slice) -> "Online":
        """The queries in `rows`."""
        rows = numbers(rows)
        own = ["data_target", "data_rest", "counts", "amplitude", "weight", "known", "initial"]
        if len(self.data_root) > 1:
            own += ["data_root", "data_normal"]
        return replace(self, **{name: getattr(self, name)[rows] for name in own})


@lru_cache(maxsize=4)
def reduce_physics(basis: Basis) -> AffinePhysics | PointwisePhysics:
    """Equation and conditions of a basis as small forms, once per basis."""
    system = basis.problem.system
    at_quadrature = features, root = _at_quadrature(basis)
    weighted = {index: values * root[:, None] for index, values in features.items()}
    energy = energy_coordinates(weighted, basis.problem.domain, 1e-14)
    if system.affine is None:
        return _pointwise(basis, _nested(energy) if basis.record.leading else energy, at_quadrature)
    common = _common(basis, energy)
    factor = compact(residual_factor(basis.problem, features, basis.quadrature, common["coordinates"]))
    return AffinePhysics(**common, factor=factor)


def _at_quadrature(basis: Basis) -> tuple[Mapping[MultiIndex, Tensor], Tensor]:
    """For each derivative (n, K) the functions at the points of the quadrature, and (n,) the roots of its weights."""
    features = basis.function_map(basis.quadrature.points, basis.problem.system.indices)
    return features, basis.quadrature.weights.double().sqrt()


def _nested(energy: Tensor) -> Tensor:
    """The coordinates (K, K) turned so that the first ones are combinations of the first functions alone."""
    _, triangular = torch.linalg.qr(energy.flip(0).T, mode="r")
    return triangular.T.flip(0, 1)


def _common(basis: Basis, energy: Tensor) -> dict[str, Any]:
    """What equations of every kind have, see `Physics`."""
    problem = basis.problem
    coordinates = torch.block_diag(*[energy] * len(problem.fields))
    given = conditions(problem, _CONDITION_POINTS, torch.float64)
    rows = given.rows(basis.function_map(given.points, given.indices)) @ coordinates
    same = ~given.selection.any(dim=1)
    _, triangular = torch.linalg.qr(torch.cat([rows[same], given.fixed[same, None]], dim=1), mode="r")
    return {
        "system": problem.system,
        "coordinates": coordinates,
        "condition_rows": triangular[:, :-1],
        "condition_target": triangular[:, -1],
        "initial_rows": rows[~same],
        "initial_selection": given.selection[~same],
        "determined": not problem.free_initial,
    }


def _pointwise(
    basis: Basis, energy: Tensor, at_quadrature: tuple[Mapping[MultiIndex, Tensor], Tensor]
) -> PointwisePhysics:
    """Equations at points in the coordinates `energy` (K, r), and those of the leading functions.

    Args:
        basis: the functions.
        energy: the coordinates.
        at_quadrature: from `_at_quadrature`.
    """
    features, root = at_quadrature
    leading = None
    if basis.record.leading:
        functions = max(basis.record.leading)
        fewer = basis.leading(functions)
        leading = _pointwise(fewer, energy[:functions, :functions], _at_quadrature(fewer))
    return PointwisePhysics(
        **_common(basis, energy),
        points=basis.quadrature.points.double().unbind(1),
        root=root,
        features={index: values @ energy for index, values in features.items()},
        accuracy=basis.record.accuracy,
        leading=leading,
    )


def compact(factor: Tensor) -> Tensor:
    """An equal factor (Q, m, N + 1) with as few rows m as its rank."""
    # each operator by its own size: parameters may be of any magnitude
    size = torch.linalg.matrix_norm(factor).clamp_min(torch.finfo(factor.dtype).tiny)
    flat = torch.cat([*(factor / size[:, None, None])], dim=1)
    _, sizes, directions = torch.linalg.svd(flat, full_matrices=False)
    keep = sizes > 1e-14 * sizes[0]
    rows = (sizes[keep, None] * directions[keep]).unflatten(1, (len(factor), -1)).transpose(0, 1)
    return (rows * size[:, None, None]).contiguous()


def observed_features(basis: Basis, batch: Batch) -> Tensor:
    """(B or 1, n, K) functions at the points of observation; once if all queries share their points."""
    points = batch.points[:1] if (batch.points == batch.points[:1]).all() else batch.points
    flat = torch.tensor(points.reshape(-1, points.shape[2]))
    features = torch.cat([basis.function_map(part)[()] for part in flat.split(_POINTS_AT_ONCE)])
    return features.unflatten(0, points.shape[:2])


def data_forms(features: Tensor, values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Roots of the weighted data misfit of each query, by QR.

    Args:
        features: (B or 1, n, K).
        values: (B, n, F).
        weights: (B, n, F) one over the standard deviation; zero where not observed.

    Returns:
        root (B or 1, F or 1, R, K), target (B, F, R) and rest (B, F), see `Online`.
    """
    alike = bool((weights == weights[..., :1]).all())  # the fields are observed alike
    if len(features) == 1 and bool((weights == weights[:1, :1]).all()):
        orthogonal, triangular = torch.linalg.qr(features[0])
        right = values * weights
        target = torch.einsum("nr,bnf->bfr", orthogonal, right)
        rest = (right - torch.einsum("nr,bfr->bnf", orthogonal, target)).square().sum(1)
        by_field = weights[0, 0, :1] if alike else weights[0, 0]
        return (triangular * by_field[:, None, None])[None], target, rest
    queries, count, width = len(values), *features.shape[1:]
    height = min(count, width)
    features, fields = features.expand(queries, -1, -1), values.shape[2]
    root = values.new_empty(queries, 1 if alike else fields, height, width)
    target, rest = values.new_empty(queries, fields, height), values.new_empty(queries, fields)
    for number in range(root.shape[1]):
        own = slice(None) if alike else slice(number, number + 1)
        for part in chunks(queries, max(count, width)):
            both = torch.cat([features[part], values[part, :, own]], dim=2) * weights[part, :, number, None]
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
    features: Tensor | None = None,
    rows: Tensor | None = None,
) -> Online:
    """The online problem of a batch.

    Args:
        basis: the functions.
        physics: from `reduce_physics`, once per basis, or that of the leading functions.
        batch: the observations.
        std: (B, n, F) standard deviation of each observation's error, the basis error included; None to
            weight all alike.
        features: from `observed_features`, if they are at hand.
        rows: the queries, None for all.
    """
    features = observed_features(basis, batch) if features is None else features
    if rows is not None:
        batch, std = batch.select(rows.cpu().numpy()), None if std is None else std[rows]
        features = features if len(features) == 1 else features[rows]
    observed = torch.as_tensor(batch.observed)
    values = torch.as_tensor(batch.values)
    weights = observed.double() if std is None else torch.where(observed, 1 / std, 0.0)
    root, target, rest = data_forms(features[..., : len(physics.energy)], values, weights)
    root = root @ physics.energy
    return Online(
        physics=physics,
        data_root=root,
        data_normal=root.mT @ root,
        data_target=target,
        data_rest=rest,
        counts=observed.sum(1),
        amplitude=amplitude(batch),
        weight=(weights.square().sum((1, 2)) / observed.sum((1, 2)).clamp_min(1)).sqrt(),
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
