"""Observations as rows of the windows that they lie in."""

import numpy as np
import torch
from torch import Tensor

from ipbasis.offline.windows.grid import Grid, legendre_values


def data_rows(grid: Grid, points: np.ndarray, values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of which the squares are the weighted misfit of the observations.

    Args:
        grid: the windows.
        points: (B, n) coordinates.
        values: (B, n, F) observed values times their weights.
        weights: (B, n, F) zero where nothing was observed.

    Returns:
        (B, W, F R, C) rows in the unknowns of each window, field by field, their right-hand sides (B, W, F R), and
        (B, F, W) the sums of the squared weights.
    """
    queries, _, fields = values.shape
    window = grid.window_of(points)
    order = np.argsort(window, axis=1, kind="stable")
    window, points = np.take_along_axis(window, order, 1), np.take_along_axis(points, order, 1)
    counts = (window[:, :, None] == np.arange(grid.windows)).sum(1)
    first = np.cumsum(counts, axis=1) - counts
    place = np.arange(points.shape[1]) - np.take_along_axis(first, window, 1)
    unit = (points - grid.edges[window]) / grid.half.numpy()[window] - 1
    table = torch.as_tensor(legendre_values(unit.ravel(), grid.degree)).unflatten(0, unit.shape)
    pick = torch.as_tensor(order)[..., None].expand(-1, -1, fields)
    weights, values = weights.gather(1, pick), values.gather(1, pick)
    rows = torch.cat([table[:, :, None] * weights[..., None], values[..., None]], dim=3)
    most = max(int(counts.max()), 1)
    by_window = rows.new_zeros(queries, grid.windows, fields, most, rows.shape[3])
    by_window[np.arange(queries)[:, None], window, :, place] = rows
    if most > rows.shape[3]:
        by_window = torch.linalg.qr(by_window, mode="r").R
    size = grid.degree + 1
    own = grid.coefficients.unflatten(1, (fields, size))
    data = torch.einsum("bwfrk,wfkc->bwfrc", by_window[..., :size], own)
    number = torch.as_tensor(window)[..., None].expand(-1, -1, fields)
    squares = weights.new_zeros(queries, grid.windows, fields).scatter_add(1, number, weights.square())
    return data.flatten(2, 3), by_window[..., size].flatten(2), squares.mT
