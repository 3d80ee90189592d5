"""Linear least squares over windows: unknowns of a window eliminated, then edges between neighbours, pair by pair.

Every window brings rows in the columns (bubbles, left state, right state, parameters, right-hand side). A QR
decomposition eliminates the bubbles; what is left is a small triangle in the other columns. Two neighbouring triangles
below each other are again rows, in which the state between them is eliminated in the same way, until one triangle is
left for the whole
domain: cost is linear in the number of windows, and no product of transition matrices is ever formed, so that neither
growing nor decaying solutions lose digits. Triangles rather than normal matrices are kept: squaring would cost half of
the digits, and equations may outweigh data by many powers of ten.

Reference: Wright, SIAM J. Sci. Stat. Comput. 13 (1992) 742, for the elimination; Bierman, Factorization Methods for
Discrete Sequential Estimation (1977), for triangles as information.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Triangles:
    """The upper rows of a decomposition, which give what was eliminated from what was not.

    Args:
        rows: (B, n, k, k + m) triangles in k eliminated columns and m others.
        odd: whether a last window without a partner was passed on.
    """

    rows: Tensor
    odd: bool

    def solve(self, others: Tensor) -> Tensor:
        """(B, n, k, r) eliminated unknowns, for the others (B, n, m, r), the last of which multiplies the right
        side."""
        size = self.rows.shape[2]
        if size == 0:
            return others[:, :, :0]
        right = self.rows[..., size:] @ others
        return -torch.linalg.solve_triangular(self.rows[..., :size], right, upper=True)


@dataclass(frozen=True)
class Condensed:
    """Least squares over all windows, reduced to the state at the start and the parameters.

    Args:
        root: (B, S + P + 1, S + P + 1) triangle in the columns (state at the start, parameters, right-hand side).
        last: of the state at the end.
        edges: of the states between windows, the last merged first.
        own: of the bubbles.
    """

    root: Tensor
    last: Triangles
    edges: tuple[Triangles, ...]
    own: Triangles

    def spread(self, unknowns: Tensor) -> tuple[Tensor, Tensor]:
        """Bubbles (B, W, bubbles, r) and states (B, W + 1, S, r) that belong to unknowns of the root.

        Args:
            unknowns: (B, S + P + 1, r) state at the start, parameters, and 1 for the solution or 0 for a derivative.
        """
        size = self.last.rows.shape[2]
        start, rest = unknowns[:, :size], unknowns[:, size:]
        end = self.last.solve(unknowns[:, None])[:, 0]
        states = torch.stack([start, end], dim=1)
        for part in self.edges:
            pairs = part.rows.shape[1]
            ends = torch.cat([states[:, :pairs], states[:, 1 : pairs + 1]], dim=2)
            middle = part.solve(torch.cat([ends, rest[:, None].expand(-1, pairs, -1, -1)], dim=2))
            finer = states.new_empty(len(states), 2 * pairs + 1 + part.odd, *states.shape[2:])
            finer[:, 0 : 2 * pairs + 1 : 2], finer[:, 1 : 2 * pairs : 2] = states[:, : pairs + 1], middle
            if part.odd:
                finer[:, -1] = states[:, -1]
            states = finer
        ends = torch.cat([states[:, :-1], states[:, 1:]], dim=2)
        windows = ends.shape[1]
        return self.own.solve(torch.cat([ends, rest[:, None].expand(-1, windows, -1, -1)], dim=2)), states


def triangle(rows: Tensor, least: int) -> Tensor:
    """(..., max(least, columns), columns) triangle of which the squares are those of the rows (..., n, columns)."""
    if rows.shape[-2] < least:
        rows = torch.nn.functional.pad(rows, (0, 0, 0, least - rows.shape[-2]))
    return torch.linalg.qr(rows, mode="r").R


def condense(rows: Tensor, bubbles: int, states: int) -> Condensed:
    """Eliminate all but the state at the start and the parameters.

    Args:
        rows: (B, W, R, bubbles + 2 states + P + 1) rows of which the sum of squares is minimised, large ones first.
        bubbles: unknowns of a window that are its own.
        states: unknowns at an edge.
    """
    kept = rows.shape[3] - bubbles
    upper = triangle(rows, bubbles + kept)
    own = Triangles(upper[:, :, :bubbles], odd=False)
    current = upper[:, :, bubbles : bubbles + kept, bubbles:]
    edges: list[Triangles] = []
    while current.shape[1] > 1:
        pairs, odd = divmod(current.shape[1], 2)
        left, right = current[:, 0 : 2 * pairs : 2], current[:, 1 : 2 * pairs : 2]
        nothing = left.new_zeros(*left.shape[:3], states)
        left = torch.cat([left[..., states : 2 * states], left[..., :states], nothing, left[..., 2 * states :]], dim=3)
        right = torch.cat([right[..., :states], nothing, right[..., states:]], dim=3)
        upper = triangle(torch.cat([left, right], dim=2), states + kept)
        edges.insert(0, Triangles(upper[:, :, :states], bool(odd)))
        current = torch.cat([upper[:, :, states : states + kept, states:], current[:, 2 * pairs :]], dim=1)
    whole = current[:, 0]
    turned = torch.cat([whole[..., states : 2 * states], whole[..., :states], whole[..., 2 * states :]], dim=2)
    upper = triangle(turned, kept)
    return Condensed(upper[:, states:, states:], Triangles(upper[:, None, :states], False), tuple(edges), own)
