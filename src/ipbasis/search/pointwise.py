"""Equations without an affine split, taken at the points of a quadrature."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import sympy
import torch
from torch import Tensor

from ipbasis.offline.artefact import Accuracy, Basis
from ipbasis.problem.equations import MultiIndex
from ipbasis.search.physics import Physics
from ipbasis.search.rows import chunks

_FEW = 24  # queries, for which no large table is read
_PAIRS, _PRODUCTS = 2, 2**24  # of jets for each equation and pair of fields, and entries of their products, at most


@dataclass(frozen=True)
class _Block:
    """The part of the normal matrix of equations at points that belongs to the unknowns of two fields.

    It is the sum over pairs of jets, one of each field, and points of the outer products of their functions, times
    factors that are all that differs from query to query: one product of large matrices serves all queries. The rows
    belong to the second field, which is the later one; of a block of one field only the lower triangle is kept.

    Args:
        pairs: numbers (i, j) of the jets that meet in an equation, their factors not constant.
        products: (pairs n, m) outer products of their functions, pairs and points in a row; None without pairs.
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
        functions: for each derivative (n, r) their combinations, those of which the unknowns of one field are
            coordinates.
        accuracy: of the basis.
        leading: the same in the span of the first functions alone, where there are many: a cheap problem to search
            first. Its unknowns are the first ones of each field, and the roots of its data the leading blocks. None
            where there are few functions.
    """

    points: tuple[Tensor, ...]
    root: Tensor
    functions: Mapping[MultiIndex, Tensor]
    accuracy: Accuracy
    leading: "PointwisePhysics | None"

    def jets(self, unknowns: Tensor) -> list[Tensor]:
        """(B, n) values of the fields and derivatives that the equations hold, for unknowns (B, N)."""
        by_field = unknowns.unflatten(1, (-1, self.functions[()].shape[1]))
        return [by_field[:, jet.field] @ self.functions[jet.index].T for jet in self.system.jets]

    def widened(self, unknowns: Tensor) -> Tensor:
        """(B, N) those of fewer leading functions, of which the others have no part."""
        by_field = unknowns.unflatten(1, (len(self.system.notation.fields), -1))
        return torch.nn.functional.pad(by_field, (0, self.energy.shape[1] - by_field.shape[2])).flatten(1)

    def at(self, basis: Basis, points: Tensor) -> "PointwisePhysics":
        """The same equations at other points (n, d), all of equal weight."""
        values = basis.function_map(points, self.system.indices)
        functions = {index: own @ self.energy for index, own in values.items()}
        root = points.new_full((len(points),), len(points) ** -0.5)
        return replace(self, points=points.unbind(1), root=root, functions=functions)

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
        out = rows.new_zeros(len(rows), rows.shape[2], self.combinations.shape[1])
        for j, jet in enumerate(self.system.jets):
            out[..., self.own(jet.field)] += (by_jet[:, :, j, None] * rows).sum(1) @ self.functions[jet.index]
        return out

    def normal(self, by_jet: Tensor, out: Tensor) -> None:
        """Normal matrix of quantities by the unknowns, written to `out` (B, N, N): the lower triangle at least.

        Args:
            by_jet: (B, E, J, n) partials of the quantities by the jets.
            out: where to write.
        """
        width = self.functions[()].shape[1]
        if self._blocks is None or len(out) < _FEW:
            for part in chunks(len(out), len(self.combinations[0])):
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
        jets, width, device = self.system.jets, self.functions[()].shape[1], self.root.device
        fields = sorted({jet.field for jet in jets})
        rows, columns = torch.tril_indices(width, width, device=device)

        def outer(i: int, j: int) -> Tensor:
            """(n, r²) products of the functions of two jets; (n, r (r + 1) / 2) of two jets of one field."""
            product = self.functions[jets[j].index][:, :, None] * self.functions[jets[i].index][:, None]
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
        width, device = self.functions[()].shape[1], self.root.device
        rows, columns = torch.tril_indices(width, width, device=device)
        places = torch.empty(width, width, dtype=torch.long, device=device)
        places[rows, columns] = places[columns, rows] = torch.arange(len(rows), device=device)
        return places.flatten()

    def _spread(self, by_jet: Tensor) -> Tensor:
        """(B, E, n, N) derivative by the unknowns of quantities whose partials by the jets are (B, E, J, n)."""
        out = by_jet.new_zeros(*by_jet.shape[:2], len(self.root), self.combinations.shape[1])
        for j, jet in enumerate(self.system.jets):
            out[..., self.own(jet.field)].addcmul_(by_jet[:, :, j, :, None], self.functions[jet.index])
        return out
