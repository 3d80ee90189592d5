"""Windows of one coordinate: polynomials of each field in every window, and the equations as rows of least squares.

The unknowns of a window are, field by field, *bubbles*, polynomials whose values and derivatives below the order m of
the field vanish at both ends, and the *states* at its left and right end, those values and derivatives. Neighbours
share a state, so a solution is as smooth as its equation asks for without any condition. The equations are taken at as
many Gauss
points of a window as they have unknowns there: all of them can be met.

Reference: Ascher, Mattheij & Russell, Numerical Solution of Boundary Value Problems (1995), chapter 5.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.polynomial import legendre
from torch import Tensor

from ipbasis.features.piecewise import PiecewiseSettings
from ipbasis.problem.declaration import Problem
from ipbasis.problem.equations import Equations


def legendre_values(at: np.ndarray, degree: int, derivative: int = 0) -> np.ndarray:
    """(n, degree + 1) orthonormal Legendre polynomials of [-1, 1], or a derivative of them, at points (n,)."""
    coefficients = np.diag(np.sqrt(np.arange(degree + 1) + 0.5))
    return legendre.legval(at, legendre.legder(coefficients, derivative)).T.reshape(len(at), -1)


def _parts(order: int, degree: int, highest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coefficients of the bubbles (highest + 1, ...), and of functions that have one of the values at the left or the
    right end and none of the others (highest + 1, order), for a field of this order and degree."""
    ends = np.concatenate([legendre_values(np.array([-1.0, 1.0]), highest, k) for k in range(order)] or [[]])
    ends = ends.reshape(order, 2, highest + 1).transpose(1, 0, 2).reshape(2 * order, highest + 1)
    unused = np.eye(highest + 1)[degree + 1 :]
    rows = np.concatenate([ends, unused])
    if not len(rows):
        return np.eye(highest + 1), rows.T, rows.T
    _, _, directions = np.linalg.svd(rows)
    inverse = np.linalg.pinv(rows)
    return directions[len(rows) :].T, inverse[:, :order], inverse[:, order : 2 * order]


@dataclass(frozen=True)
class Condition:
    """An equation that holds at one place.

    Args:
        window: whose unknowns it is written in.
        at: the coordinate there.
        equation: with one residual.
        maps: (J, C) jets of the equation by the unknowns of the window.
    """

    window: int
    at: float
    equation: Equations
    maps: Tensor


@dataclass(frozen=True)
class Linearised:
    """Residuals of a batch and their derivatives, as rows for each window.

    Args:
        residual: (B, W, R).
        by_unknowns: (B, W, R, C).
        by_parameters: (B, W, R, P).
    """

    residual: Tensor
    by_unknowns: Tensor
    by_parameters: Tensor


@dataclass(frozen=True, eq=False)
class Grid:
    """See the top of this file.

    Args:
        problem: with one coordinate.
        edges: (W + 1,) ends of the windows.
        points: Gauss points in each of them.
    """

    problem: Problem
    edges: np.ndarray
    points: int

    @property
    def windows(self) -> int:
        """Number W."""
        return len(self.edges) - 1

    @property
    def orders(self) -> tuple[int, ...]:
        """Of each field: its highest derivative in the equations."""
        return self.problem.orders

    @cached_property
    def first_states(self) -> list[int]:
        """(F,) where the value of each field stands in a state, its derivatives behind it."""
        return np.cumsum([0, *self.orders])[:-1].tolist()

    @property
    def degree(self) -> int:
        """Of the polynomials, the highest among the fields."""
        return self.points + max(self.orders) - 1

    @property
    def states(self) -> int:
        """Number S of values at an edge."""
        return sum(self.orders)

    @property
    def bubbles(self) -> int:
        """Number of unknowns of a window that are its own."""
        return len(self.orders) * self.points - self.states

    @cached_property
    def half(self) -> Tensor:
        """(W,) half the width of each window."""
        return torch.as_tensor(np.diff(self.edges) / 2)

    @cached_property
    def coefficients(self) -> Tensor:
        """(W, F (degree + 1), C) takes the unknowns of a window (bubbles, left, right) to the readouts of the
        fields."""
        size, half = self.degree + 1, self.half.numpy()
        out = np.zeros((self.windows, len(self.orders) * size, self.bubbles + 2 * self.states))
        bubble, state = 0, 0
        for field, order in enumerate(self.orders):
            own, left, right = _parts(order, self.points + order - 1, self.degree)
            rows, units = slice(field * size, (field + 1) * size), half[:, None] ** np.arange(order)
            out[:, rows, bubble : bubble + own.shape[1]] = own
            for part, start in ((left, self.bubbles), (right, self.bubbles + self.states)):
                out[:, rows, start + state : start + state + order] = part * units[:, None]
            bubble, state = bubble + own.shape[1], state + order
        return torch.as_tensor(out)

    @cached_property
    def times(self) -> Tensor:
        """(W, Q) the Gauss points."""
        gauss, _ = legendre.leggauss(self.points)
        return torch.as_tensor(self.edges[:-1, None]) + (torch.as_tensor(gauss) + 1) * self.half[:, None]

    @cached_property
    def root(self) -> Tensor:
        """(W, Q) widths of the windows times the roots of the Gauss weights: a residual so weighted is the defect of a
        window."""
        _, weights = legendre.leggauss(self.points)
        return 2 * self.half[:, None] * torch.as_tensor(weights / 2).sqrt()

    def values(self, at: np.ndarray, window: int, field: int, derivative: int) -> np.ndarray:
        """(n, C) a derivative of a field at coordinates (n,), by the unknowns of a window."""
        half, size = float(self.half[window]), self.degree + 1
        table = legendre_values((at - self.edges[window]) / half - 1, self.degree, derivative) / half**derivative
        return table @ self.coefficients[window, field * size : (field + 1) * size].numpy()

    @cached_property
    def jets(self) -> Tensor:
        """(J, W, Q, C) jets of the equations at the Gauss points, by the unknowns of a window."""
        return torch.as_tensor(
            np.stack(
                [
                    [self.values(at, w, jet.field, len(jet.index)) for w, at in enumerate(self.times.numpy())]
                    for jet in self.problem.system.jets
                ]
            )
        )

    def window_of(self, at: np.ndarray) -> np.ndarray:
        """The window that a coordinate lies in; beyond the ends the nearest."""
        return np.searchsorted(self.edges[1:-1], at, side="right")

    @cached_property
    def conditions(self) -> tuple[Condition, ...]:
        """Those that hold for every query: fixed initial values, and conditions at the ends."""
        problem, found = self.problem, []
        start = problem.domain[0, 0]
        given = [(start, problem.notation.symbol(jet) - formula) for jet, formula in problem.fixed_initial.items()]
        for fixed, system in problem.boundary_systems:
            given += [(next(iter(fixed.values())), residual) for residual in system.residuals]
        for at, residual in given:
            equation = Equations(problem.notation, (residual,), problem.system.parameters)
            window = int(self.window_of(np.array(at)))
            maps = [self.values(np.array([at]), window, jet.field, len(jet.index))[0] for jet in equation.jets]
            found.append(Condition(window, float(at), equation, torch.as_tensor(np.array(maps))))
        return tuple(found)

    @cached_property
    def initial(self) -> Tensor:
        """(I, C) initial values that have a range, by the unknowns of the first window."""
        start = self.problem.domain[:1, 0]
        rows = [self.values(start, 0, jet.field, len(jet.index))[0] for jet in self.problem.free_initial]
        return torch.as_tensor(np.array(rows).reshape(-1, self.coefficients.shape[2]))

    @cached_property
    def initial_places(self) -> list[int]:
        """(I,) where the initial values that have a range stand in a state."""
        return [self.first_states[jet.field] + len(jet.index) for jet in self.problem.free_initial]

    @cached_property
    def _unit(self) -> Tensor:
        """(W, 1) size of the orthonormal functions of the whole domain in those of a window."""
        return (float(self.edges[-1] - self.edges[0]) / self.half).sqrt()[:, None]

    def readouts(self, unknowns: Tensor) -> Tensor:
        """(B, F, W (degree + 1), r) readouts of unknowns (B, W, C, r), those of `Piecewise` on the same cells."""
        rows = self.coefficients @ unknowns
        by_field = rows.unflatten(2, (len(self.orders), -1)).transpose(1, 2) / self._unit[..., None]
        return by_field.flatten(2, 3)

    def split(self, readouts: Tensor) -> tuple[Tensor, Tensor]:
        """Bubbles (B, W, bubbles) and states (B, W + 1, S) of readouts (B, F, W (degree + 1))."""
        rows = (readouts.unflatten(2, (self.windows, -1)) * self._unit).transpose(1, 2).flatten(2)
        unknowns = (torch.linalg.pinv(self.coefficients) @ rows[..., None]).squeeze(-1)
        bubbles, left, right = unknowns.split([self.bubbles, self.states, self.states], dim=2)
        return bubbles, torch.cat([left, right[:, -1:]], dim=1)

    def tail(self, unknowns: Tensor) -> Tensor:
        """(B, F, W) size of the polynomials' two highest coefficients: the error that two degrees less would leave."""
        return self._ends(unknowns)[0]

    def truncation(self, unknowns: Tensor) -> Tensor:
        """(B, F, W) error of the polynomials: their coefficients fall off like a geometric series, pair by pair."""
        last, before = self._ends(unknowns)
        return last * (last / before.clamp_min(torch.finfo(last.dtype).tiny)).clamp_max(1.0)

    def _ends(self, unknowns: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F, W) each: sizes of the last two coefficients, and of the two before them."""
        rows = (self.coefficients @ unknowns[..., None]).squeeze(-1)
        by_field = rows.unflatten(2, (len(self.orders), -1)).transpose(1, 2)
        ends = [self.points + order for order in self.orders]
        pairs = [
            torch.stack([by_field[:, f, :, end - far : end - far + 2].norm(dim=2) for f, end in enumerate(ends)], dim=1)
            for far in (2, 4)
        ]
        return pairs[0], pairs[1]

    def unknowns(self, bubbles: Tensor, states: Tensor) -> Tensor:
        """(B, W, C) all unknowns of each window, of its own (B, W, bubbles) and the states (B, W + 1, S)."""
        return torch.cat([bubbles, states[:, :-1], states[:, 1:]], dim=2)

    def interpolant(self, states: Tensor, values: Tensor) -> Tensor:
        """(B, W, bubbles) that come next to the values (B, F, W, Q) of the fields at the Gauss points."""
        ends = torch.cat([states[:, :-1], states[:, 1:]], dim=2)
        rest = values - torch.einsum("fwqc,bwc->bfwq", self._tables[..., self.bubbles :], ends)
        return torch.einsum("wkr,bwr->bwk", self._interpolation, rest.transpose(1, 2).flatten(2))

    @cached_property
    def _interpolation(self) -> Tensor:
        """(W, bubbles, F Q) takes values of the fields at the Gauss points, those by the states less, to bubbles."""
        return torch.linalg.pinv(self._tables[..., : self.bubbles].transpose(0, 1).flatten(1, 2))

    @cached_property
    def _tables(self) -> Tensor:
        """(F, W, Q, C) values of the fields at the Gauss points, by the unknowns."""
        return torch.as_tensor(
            np.stack(
                [
                    [self.values(at, w, field, 0) for w, at in enumerate(self.times.numpy())]
                    for field in range(len(self.orders))
                ]
            )
        )

    def field_values(self, unknowns: Tensor) -> Tensor:
        """(B, F, W, Q) values of the fields at the Gauss points, for unknowns (B, W, C)."""
        return torch.einsum("fwqc,bwc->bfwq", self._tables, unknowns)

    def equations(self, unknowns: Tensor, parameters: Tensor) -> tuple[Tensor, ...]:
        """Residuals (B, W, Q, E) at the Gauss points, and their partials by the jets (B, W, Q, E, J) and parameters
        (B, W, Q, E, P)."""
        system, shape = self.problem.system, (len(unknowns), *self.times.shape)
        jets = torch.einsum("jwqc,bwc->jbwq", self.jets, unknowns)
        columns = [column[:, None, None] for column in parameters.unbind(1)]
        values = system.linearised((self.times,), list(jets), columns)
        values = torch.stack([torch.as_tensor(v, dtype=torch.float64).expand(shape) for v in values], dim=-1)
        count, order = len(system.residuals), len(system.jets)
        residual, by_jet, by_parameter = values.split(
            [count, count * order, values.shape[-1] - count * (1 + order)], dim=-1
        )
        return residual, by_jet.unflatten(-1, (count, order)), by_parameter.unflatten(-1, (count, -1))


def grid_of(problem: Problem, settings: PiecewiseSettings) -> Grid:
    """The windows that piecewise polynomials of a problem stand for."""
    return Grid(problem, np.array(settings.breakpoints[0]), settings.degrees[0] + 1 - max(problem.orders))


def edges_of(problem: Problem, windows: int) -> np.ndarray:
    """Ends of windows of equal width, and of those at which a formula changes over."""
    low, high = problem.domain[0]
    jumps = [at for at in problem.system.jumps(0) if low < at < high]
    return np.unique([*np.linspace(low, high, windows + 1), *jumps])
