"""Equations and conditions at points of a box, solved by least squares in the span of features.

Parameters may stand anywhere; nonlinear equations take Newton's steps. Neither an affine split nor a reference solver
is needed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ipbasis.features.interface import Features
from ipbasis.problem.equations import Jet, MultiIndex

_SETTLED = 1e-8  # share of the solution that is left to gain
_GAINED = 1e-3  # the last step takes no more than this share of the residual: equation and conditions contradict
_FAST = 0.1  # a matrix serves as long as each step is as much smaller than the one before
_STEPS, _HALVINGS = 40, 8
_KEPT = 4  # factors of a box: of as many lengths of its first coordinate


class NoSolutionError(Exception):
    """Newton's method did not converge."""


@dataclass(frozen=True)
class Place:
    """Where a box stands, which is [-1, 1] along each of its own coordinates.

    Args:
        domain: (d, 2) lower and upper end of each coordinate.
        sizes: (F,) size of each field.
    """

    domain: Tensor
    sizes: Tensor

    def coordinates(self, unit: Tensor) -> Sequence[Tensor]:
        """A tensor (n,) for each coordinate, of points (n, d) of the box."""
        low, high = self.domain.T
        return (low + (high - low) * (unit + 1) / 2).unbind(1)

    def units(self, jets: Sequence[Jet]) -> Tensor:
        """(J,) derivatives along the box's own coordinates, and the fields in their sizes, times this are the jets."""
        half = (self.domain[:, 1] - self.domain[:, 0]) / 2
        return torch.stack([self.sizes[jet.field] / half[list(jet.index)].prod() for jet in jets])


@dataclass(frozen=True)
class Part:
    """Equations at the points of a box or of a side of it.

    Args:
        points: (n, d) in the box.
        root: (n,) roots of the points' weights in a mean, times the weight of the equations.
        values: for each derivative (n, H) the features; on a periodic side the differences between both ends.
        jets: J fields and derivatives that the equations hold.
        function: residuals, then the partials of each by each jet, of coordinates, jets and parameters.
        equations: their number E.
        slopes: gives the function of the same arguments that gives the partials of each residual by each parameter,
            the last of them, the rate of the fading, apart.
    """

    points: Tensor
    root: Tensor
    values: Mapping[MultiIndex, Tensor]
    jets: tuple[Jet, ...]
    function: Callable[..., Sequence]
    equations: int
    slopes: Callable[[], Callable[..., Sequence]]

    def evaluate(self, readouts: Tensor, parameters: Tensor, place: Place) -> tuple[Tensor, Tensor]:
        """Residuals (E, n) and their partials (E, J, n) by the jets in units of the box, of readouts (F, H)."""
        units = place.units(self.jets)
        jets = [
            unit * (self.values[jet.index] @ readouts[jet.field]) for jet, unit in zip(self.jets, units, strict=True)
        ]
        found = self.function(place.coordinates(self.points), jets, parameters)
        rows = torch.stack([torch.as_tensor(v, dtype=self.root.dtype).expand(len(self.root)) for v in found])
        by_jet = rows[self.equations :].unflatten(0, (self.equations, -1))
        return rows[: self.equations], by_jet * units[:, None]

    def sizes(self, by_jet: Tensor) -> Tensor:
        """(E,) root mean square of each equation's terms for fields that vary by their sizes over the box, or 1."""
        sizes = ((by_jet * self.root).square().sum((1, 2)) / self.root.square().sum()).sqrt()
        return torch.where(sizes > 0, sizes, torch.ones_like(sizes))

    def fill(self, out: Tensor, by_jet: Tensor, sizes: Tensor) -> None:
        """Partials of the weighted residuals by the readouts, added to `out` (E n, F, H), which is zero."""
        out = out.unflatten(0, (self.equations, -1))
        factors = by_jet * (self.root / sizes[:, None])[:, None]
        for e in range(self.equations):
            for j, jet in enumerate(self.jets):
                if factors[e, j].any():
                    out[e, :, jet.field].addcmul_(factors[e, j, :, None], self.values[jet.index])


@dataclass(frozen=True)
class Solved:
    """A solution on a box.

    Args:
        readouts: (F, H), of fields in their sizes.
        misfit: root of the sum of squares of the weighted residuals and conditions.
        steps: of Newton's method.
    """

    readouts: Tensor
    misfit: float
    steps: int


@dataclass(frozen=True, eq=False)
class Box:
    """Equations and conditions on a box in the span of features.

    Args:
        features: on the box.
        parts: equations inside, at first, and on the sides.
        start: the initial conditions; their residuals are the jets less the values that are asked for.
        linear: whether one step solves them.
        autonomous: whether their linear part is the same wherever the box stands along the first coordinate.
    """

    features: Features
    parts: tuple[Part, ...]
    start: Part | None
    linear: bool
    autonomous: bool
    _factors: dict[bytes, "_Factor"] = field(default_factory=dict)

    def solve(self, parameters: Tensor, place: Place, targets: Sequence[Tensor], guess: Tensor) -> Solved:
        """The readouts of the smallest residual.

        Args:
            parameters: (P,).
            place: of the box.
            targets: values (n,) of each jet of `start` at its points.
            guess: (F, H) to begin with.

        Raises:
            NoSolutionError: if Newton's method does not converge.
        """
        task = _Task(self, parameters, place, targets)
        readouts, sizes, factor = guess, None, None
        evaluated, rest = task.evaluate(readouts, sizes)
        for step in range(1, _STEPS + 1):
            if factor is None:
                factor = self._factor(task, evaluated, sizes)
            if sizes is None:
                sizes, rest = factor.sizes, task.weighted(readouts, evaluated, factor.sizes)
            change, gain = factor.solve(rest)
            share, before, size = 1.0, rest.norm(), change.norm()
            for _ in range(_HALVINGS):
                trial = readouts - share * change.unflatten(0, guess.shape)
                evaluated, rest = task.evaluate(trial, sizes)
                if self.linear:
                    return Solved(trial, rest.norm().item(), step)
                left = factor.solve(rest)[0].norm() if rest.isfinite().all() else torch.inf
                # the residual may rise where the next step, by the same matrix, is smaller
                if left <= (1 - share / 4) * size or rest.norm() <= (1 - share / 4) * before:
                    break
                share /= 2
            else:
                raise NoSolutionError("no step makes residual or next step smaller")
            readouts = trial
            if share == 1 and (left <= _SETTLED * readouts.norm() or gain <= _GAINED * before):
                return Solved(readouts, rest.norm().item(), step)
            if share < 1 or left > _FAST * size:
                factor = None
        raise NoSolutionError(f"no convergence in {_STEPS} steps")

    def _factor(self, task: "_Task", evaluated: list[tuple[Tensor, Tensor]], sizes: list[Tensor] | None) -> "_Factor":
        """The matrix of a linear problem is kept: the same for all tasks of equal parameters and boxes of equal
        size."""
        domain = task.place.domain
        same = domain[:, 1] - domain[:, 0] if self.autonomous else domain
        key = torch.cat([task.parameters, same.flatten(), task.place.sizes]).numpy().tobytes()
        if not self.linear:
            return task.factor(evaluated, sizes)
        if key not in self._factors:
            if len(self._factors) == _KEPT:
                self._factors.pop(next(iter(self._factors)))
            self._factors[key] = task.factor(evaluated, sizes)
        return self._factors[key]


@dataclass(frozen=True)
class _Task:
    """One task on a box, see `Box.solve`."""

    box: Box
    parameters: Tensor
    place: Place
    targets: Sequence[Tensor]

    def evaluate(
        self, readouts: Tensor, sizes: list[Tensor] | None
    ) -> tuple[list[tuple[Tensor, Tensor]], Tensor | None]:
        """Residuals and partials of each part, and all weighted residuals in a row where sizes are given."""
        evaluated = [part.evaluate(readouts, self.parameters, self.place) for part in self.box.parts]
        if self.box.start is not None:
            residual, by_jet = self.box.start.evaluate(readouts, self.parameters, self.place)
            evaluated.append((residual - torch.stack([*self.targets]), by_jet))
        return evaluated, None if sizes is None else self.weighted(readouts, evaluated, sizes)

    @property
    def parts(self) -> list[Part]:
        return [*self.box.parts, *([] if self.box.start is None else [self.box.start])]

    def weighted(self, readouts: Tensor, evaluated: list[tuple[Tensor, Tensor]], sizes: list[Tensor]) -> Tensor:
        """(m,) weighted residuals of all parts in a row."""
        return torch.cat(
            [
                (residual / size[:, None] * part.root).flatten()
                for part, (residual, _), size in zip(self.parts, evaluated, sizes, strict=True)
            ]
        )

    def factor(self, evaluated: list[tuple[Tensor, Tensor]], sizes: list[Tensor] | None) -> "_Factor":
        """Of the partials of the weighted residuals by the readouts."""
        if sizes is None:
            sizes = [part.sizes(by_jet) for part, (_, by_jet) in zip(self.parts, evaluated, strict=True)]
        lengths = [part.equations * len(part.root) for part in self.parts]
        fields = len(self.place.sizes)
        rows = torch.zeros(sum(lengths), fields, self.box.features.feature_count, dtype=torch.float64)
        for part, block, (_, by_jet), size in zip(self.parts, rows.split(lengths), evaluated, sizes, strict=True):
            part.fill(block, by_jet, size)
        return _Factor.of(rows.flatten(1), sizes)


@dataclass(frozen=True, eq=False)
class _Factor:
    """Orthogonal factors of a matrix whose columns are scaled to size one.

    Args:
        sizes: of the equations whose rows they are.
        columns: (N,) sizes of the columns.
        reflectors: of LAPACK's ``geqrf``.
        scales: of the reflectors.
    """

    sizes: list[Tensor]
    columns: Tensor
    reflectors: Tensor
    scales: Tensor

    @classmethod
    def of(cls, rows: Tensor, sizes: list[Tensor]) -> "_Factor":
        columns = rows.norm(dim=0)
        columns = torch.where(columns > 0, columns, torch.ones_like(columns))
        return cls(sizes, columns, *torch.geqrf(rows / columns))

    def solve(self, right: Tensor) -> tuple[Tensor, float]:
        """(N,) least squares for a right-hand side (m,), and the norm of what it explains of it."""
        count = len(self.columns)
        rotated = torch.ormqr(self.reflectors, self.scales, right[:, None], left=True, transpose=True)
        found = torch.linalg.solve_triangular(self.reflectors[:count], rotated[:count], upper=True)
        return found[:, 0] / self.columns, rotated[:count].norm().item()
