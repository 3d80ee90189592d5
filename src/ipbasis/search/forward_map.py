"""Solutions of tasks in the span of a basis, with their derivatives by the unknowns, for a whole batch.

Equations and conditions are those that the basis was trained with, at the same points:

    r(c, q) = 0 in the least squares,   Aᵀ r = 0,   dc/dq = -(Aᵀ A)⁻¹ Aᵀ ∂r/∂q,   A = ∂r/∂c

with the coordinates c of the fields in combinations of the functions and the unknowns q of a task, its parameters and
free initial values. The curvature of r, times a residual as small as that of a basis, is left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ipbasis.offline.artefact import Basis
from ipbasis.offline.collocation import Part, Place
from ipbasis.offline.evaluated import energy_coordinates
from ipbasis.offline.reduced import reduced_of

_STEPS = 8  # of Newton's method, from a point next to a solution
_SETTLED = 1e-3  # share of a solution, below which a step of Newton's method is the last: the next one is its square
_SLOW = 0.5  # a step more than this share of the one before leads nowhere
_RIDGE = 1e-14  # of the diagonal of a normal matrix
_AT_ONCE = 2**22  # entries of the partials that are held at once


@dataclass(frozen=True)
class _Rows:
    """A part of the equations and conditions, in coordinates of the span.

    Args:
        coordinates: (n,) of its points, a tensor each.
        root: (n,) roots of their weights.
        maps: for each jet its field and (n, r) what takes the coordinates of that field to it.
        units: (J,) of the jets, see `Place`.
        function, slopes: see `Part`.
        equations: their number E.
    """

    coordinates: Sequence[Tensor]
    root: Tensor
    maps: tuple[tuple[int, Tensor], ...]
    units: Tensor
    function: Callable[..., Sequence]
    slopes: Callable[..., Sequence]
    equations: int

    @classmethod
    def of(cls, part: Part, place: Place, energy: Tensor) -> "_Rows":
        """A part of a box that stands at a place."""
        units = place.units(part.jets)
        return cls(
            coordinates=place.coordinates(part.points),
            root=part.root,
            maps=tuple(
                (jet.field, unit * part.values[jet.index] @ energy) for jet, unit in zip(part.jets, units, strict=True)
            ),
            units=units,
            function=part.function,
            slopes=part.slopes(),
            equations=part.equations,
        )

    def evaluate(self, coordinates: Tensor, task: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Residuals (B, E, n), their partials by the jets (B, E, J, n) and by the unknowns (B, E, U, n).

        Args:
            coordinates: (B, F, r) of the fields.
            task: (B, U + 1) unknowns, and the rate of the fading.
        """
        jets = [coordinates[:, field] @ functions.T for field, functions in self.maps]
        arguments = self.coordinates, jets, [column[:, None] for column in task.unbind(1)]
        shape = (len(task), len(self.root))

        def stacked(values: Sequence) -> Tensor:
            columns = [torch.as_tensor(value, dtype=self.root.dtype).expand(shape) for value in values]
            return torch.stack(columns, dim=1) if columns else self.root.new_zeros(len(task), 0, len(self.root))

        residual, by_jet = stacked(self.function(*arguments)).tensor_split([self.equations], dim=1)
        by_jet = by_jet.unflatten(1, (self.equations, -1))
        return residual, by_jet, stacked(self.slopes(*arguments)).unflatten(1, (self.equations, -1))


@dataclass(frozen=True)
class _Normal:
    """Normal equations of a batch.

    Args:
        matrix: (B, N, N) AᵀA.
        right: (B, N, 1 + U) Aᵀ (r, ∂r/∂q).
        residual: (B,) mean square of the equations' residuals.
    """

    matrix: Tensor
    right: Tensor
    residual: Tensor


@dataclass(frozen=True)
class SolvedTasks:
    """Solutions of a batch of tasks in the span of a basis.

    Args:
        unknowns: (B, U).
        coordinates: (B, N).
        slopes: (B, N, U) dc/dq.
        residual: (B,) root mean square of the equations' residuals, in units of the solution.
        found: (B,) whether they are solutions: Newton's method converged.
    """

    unknowns: Tensor
    coordinates: Tensor
    slopes: Tensor
    residual: Tensor
    found: Tensor

    def __len__(self) -> int:
        return len(self.unknowns)


@dataclass(frozen=True, eq=False)
class ForwardMap:
    """Takes unknowns of tasks to their solutions in the span of a basis.

    Args:
        energy: (K, r) readouts of a field by its coordinates.
        fields: number F.
        rate: of the fading of conditions that do not fit the initial state.
        parts: the equations, then the conditions.
    """

    energy: Tensor
    fields: int
    rate: float
    parts: tuple[_Rows, ...]

    @classmethod
    def of(cls, basis: Basis) -> "ForwardMap":
        """That of a basis whose tasks are solved from their conditions, in its own units."""
        reduced = reduced_of(basis)
        inside, place = reduced.box.parts[0], reduced.place
        weighted = {index: values * inside.root[:, None] for index, values in inside.values.items()}
        unit = torch.tensor([[-1.0, 1.0]]).expand(len(basis.problem.coordinates), 2).numpy()
        energy = energy_coordinates(weighted, unit, 1e-14)
        parts = tuple(_Rows.of(part, place, energy) for part in reduced.box.parts)
        return cls(energy, len(basis.problem.fields), _rate(basis), parts)

    def readouts(self, coordinates: Tensor) -> Tensor:
        """(B, F, K, m) readouts of coordinates (B, N, m)."""
        return self.energy @ coordinates.unflatten(1, (self.fields, -1))

    def coordinates(self, readouts: Tensor) -> Tensor:
        """(B, N) coordinates of readouts (B, F K)."""
        return (readouts.unflatten(1, (self.fields, -1)) @ torch.linalg.pinv(self.energy).mT).flatten(1)

    def solve(self, unknowns: Tensor, near: SolvedTasks) -> SolvedTasks:
        """Solutions of tasks (B, U) from those of other tasks, as near as may be."""
        ahead = (near.slopes @ (unknowns - near.unknowns)[..., None]).squeeze(2)
        return self.settled(unknowns, near.coordinates + ahead)

    def settled(self, unknowns: Tensor, coordinates: Tensor) -> SolvedTasks:
        """Solutions of tasks (B, U) by Newton's method from coordinates (B, N)."""
        best = SolvedTasks(
            unknowns=unknowns,
            coordinates=coordinates.clone(),
            slopes=coordinates.new_zeros(*coordinates.shape, unknowns.shape[1]),
            residual=torch.full_like(coordinates[:, 0], torch.inf),
            found=torch.zeros(len(coordinates), dtype=torch.bool),
        )
        rows, before = torch.arange(len(coordinates)), torch.full_like(best.residual, torch.inf)
        for _ in range(_STEPS):
            normal = self._normal(best.coordinates[rows], unknowns[rows])
            normal.matrix.diagonal(dim1=1, dim2=2).mul_(1 + _RIDGE)
            factor, failed = torch.linalg.cholesky_ex(normal.matrix)
            step = -torch.cholesky_solve(normal.right, factor)
            best.coordinates[rows] += step[..., 0]
            best.slopes[rows] = step[..., 1:]
            size = self.readouts(best.coordinates[rows, :, None]).flatten(1).norm(dim=1)
            best.residual[rows] = normal.residual.sqrt() / size
            length = step[..., 0].norm(dim=1) / best.coordinates[rows].norm(dim=1)
            sound = (failed == 0) & step.isfinite().all((1, 2))
            best.found[rows] = sound & (length <= _SETTLED)
            kept = sound & (length > _SETTLED) & (length <= _SLOW * before[rows])
            before[rows] = length
            rows = rows[kept]
            if not len(rows):
                break
        return best

    def _normal(self, coordinates: Tensor, unknowns: Tensor) -> _Normal:
        """Normal equations at coordinates (B, N) and unknowns (B, U)."""
        width, count = coordinates.shape[1], unknowns.shape[1]
        most = max(len(part.root) * part.equations for part in self.parts) * (width + count)
        blocks = torch.arange(len(coordinates)).split(max(1, _AT_ONCE // most))
        found = [self._normal_of(coordinates[block], unknowns[block]) for block in blocks]
        return _Normal(*(torch.cat([getattr(one, name) for one in found]) for name in _Normal.__dataclass_fields__))

    def _normal_of(self, coordinates: Tensor, unknowns: Tensor) -> _Normal:
        queries, width = coordinates.shape
        matrix, residuals = coordinates.new_zeros(queries, width, width), None
        right = coordinates.new_zeros(queries, width, 1 + unknowns.shape[1])
        by_field = coordinates.unflatten(1, (self.fields, -1))
        task = torch.cat([unknowns, unknowns.new_full((queries, 1), self.rate)], dim=1)
        for part in self.parts:
            residual, by_jet, slopes = part.evaluate(by_field, task)
            if residuals is None:
                residuals = (residual * part.root).square().sum((1, 2))
            # every equation by the size that its terms have, as in the training
            terms = by_jet * (part.units[:, None] * part.root)
            size = (terms.square().sum((2, 3)) / part.root.square().sum()).sqrt()
            weight = part.root / torch.where(size > 0, size, torch.ones_like(size))[..., None]
            rows = coordinates.new_zeros(queries, part.equations, len(part.root), self.fields, width // self.fields)
            for number, (field, functions) in enumerate(part.maps):
                rows[..., field, :].addcmul_((by_jet[:, :, number] * weight)[..., None], functions)
            rows = rows.flatten(3).flatten(1, 2)
            known = torch.cat([residual[:, :, None], slopes], dim=2) * weight[:, :, None]
            matrix += rows.mT @ rows
            right += rows.mT @ known.movedim(2, 3).flatten(1, 2)
        return _Normal(matrix, right, residuals)


def _rate(basis: Basis) -> float:
    """Of the fading, see `Marcher.task`."""
    low, high = basis.problem.domain[0]
    return 1 / (basis.record.settings["fading"] * (high - low))
