"""Figures of solutions and unknown terms, fitted against exact. Each can be understood on its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ipbasis.evaluation.names import COLOURS, SOURCES


@dataclass(frozen=True)
class Fitted:
    """One query as the pictures show it.

    Args:
        title: says which query it is.
        observed: its observations, a column for each coordinate and field.
        exact: (n, F) exact solution at the points shown.
        fits: for each source (n, F).
        grid: (m, F) values of the fields at which unknown terms are shown.
        true_terms: (m, terms) there.
        terms: likewise by method.
    """

    title: str
    observed: pd.DataFrame
    exact: np.ndarray
    fits: Mapping[str, np.ndarray]
    grid: np.ndarray | None = None
    true_terms: np.ndarray | None = None
    terms: Mapping[str, np.ndarray] = field(default_factory=dict)


def plot_solutions(coordinate: str, fields: Sequence[str], times: np.ndarray, queries: Sequence[Fitted]) -> Figure:
    """Solutions of a few queries over one coordinate: observations, exact solution, each source, and errors.

    Args:
        coordinate: name of the coordinate.
        fields: names of the fields, a row of panels each.
        times: (n,) where the solutions are shown.
        queries: a column of panels each.
    """
    rows = len(fields) + 1
    figure = Figure(figsize=(3.2 * len(queries), 1.0 + 2.3 * rows), layout="constrained")
    grid = figure.subplots(rows, len(queries), sharex=True, squeeze=False)
    for column, query in enumerate(queries):
        for number, name in enumerate(fields):
            axes = grid[number, column]
            axes.plot(
                query.observed[coordinate], query.observed[name], ".", color="#BBBBBB", ms=4, label="observations"
            )
            axes.plot(times, query.exact[:, number], color="black", linewidth=1, label="exact solution")
            for source, values in query.fits.items():
                axes.plot(times, values[:, number], "--", color=COLOURS[source], label=SOURCES[source])
        errors = {source: np.abs(values - query.exact).max(axis=1) for source, values in query.fits.items()}
        for source, error in errors.items():
            grid[-1, column].plot(times, error.clip(1e-16), color=COLOURS[source])
        # the zeros that an error passes through would stretch the axis
        grid[-1, column].set_ylim(bottom=max(1e-16, 0.3 * min(np.quantile(e, 0.1) for e in errors.values())))
        grid[0, column].set_title(query.title, fontsize=9)
        grid[-1, column].set_yscale("log")
        grid[-1, column].set_xlabel(coordinate)
    for number, name in enumerate(fields):
        grid[number, 0].set_ylabel(name)
    grid[-1, 0].set_ylabel(f"|error of {fields[0]}|" if len(fields) == 1 else "largest |error|")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def plot_moduli(
    coordinates: Sequence[str], points: np.ndarray, name: str, queries: Sequence[Fitted], sources: Sequence[str]
) -> Figure:
    """Squared modulus of the fields over two coordinates: exact, each source, and the error of each.

    Args:
        coordinates: names of the two coordinates.
        points: (n, 2) an equispaced grid.
        name: what the squared modulus is called.
        queries: a row of panels each.
        sources: the sources to show.
    """
    axes_values = [np.unique(points[:, number]) for number in (0, 1)]
    shape = [len(values) for values in axes_values]
    columns = 1 + 2 * len(sources)
    figure = Figure(figsize=(2.35 * columns + 0.6, 0.8 + 2.2 * len(queries)), layout="constrained")
    grid = figure.subplots(len(queries), columns, sharex=True, sharey=True, squeeze=False)
    for row, query in zip(grid, queries, strict=True):
        exact = (query.exact**2).sum(1)
        found = {source: (query.fits[source] ** 2).sum(1) for source in sources}
        drawn = row[0].pcolormesh(*axes_values, exact.reshape(shape).T, vmin=0, vmax=exact.max(), cmap="magma")
        row[0].plot(*(query.observed[c] for c in coordinates), ".", color="#7FDBFF", markersize=2.0)
        row[0].set_title("exact, points of observation", fontsize=8)
        for axes, (source, values) in zip(row[1:], found.items(), strict=False):
            axes.pcolormesh(*axes_values, values.reshape(shape).T, vmin=0, vmax=exact.max(), cmap="magma")
            axes.set_title(SOURCES[source], fontsize=8)
        figure.colorbar(drawn, ax=row[: 1 + len(sources)], label=name, aspect=30)
        errors = {source: np.abs(values - exact) for source, values in found.items()}
        largest = max(error.max() for error in errors.values())
        for axes, (source, error) in zip(row[1 + len(sources) :], errors.items(), strict=True):
            drawn = axes.pcolormesh(*axes_values, error.reshape(shape).T, vmin=0, vmax=largest, cmap="viridis")
            axes.set_title(f"|error|, {SOURCES[source]}", fontsize=8)
        figure.colorbar(drawn, ax=row[1 + len(sources) :], label=f"|error of {name}|", aspect=30)
        row[0].set_ylabel(f"{query.title}\n{coordinates[1]}", fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel(coordinates[0])
    return figure


def plot_phase(fields: Sequence[str], rows: Mapping[str, Sequence[Fitted]]) -> Figure:
    """Phase portraits: observations, exact orbit and the orbit of each source.

    Args:
        fields: names of the two fields.
        rows: for each title the queries of one row of panels.
    """
    count = max(len(queries) for queries in rows.values())
    figure = Figure(figsize=(3.1 * count, 0.8 + 2.9 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), count, squeeze=False)
    for panels, (title, queries) in zip(grid, rows.items(), strict=True):
        for axes, query in zip(panels, queries, strict=True):
            axes.plot(*(query.observed[f] for f in fields), ".", color="#BBBBBB", markersize=5, label="observations")
            axes.plot(*query.exact.T, color="black", linewidth=1.2, label="exact")
            for source, values in query.fits.items():
                axes.plot(*values.T, "--", color=COLOURS[source], linewidth=1.2, label=SOURCES[source])
            axes.set_title(query.title, fontsize=9)
            axes.set_xlabel(fields[0])
        panels[0].set_ylabel(f"{title}\n{fields[1]}", fontsize=9)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _visited(grid: np.ndarray, orbit: np.ndarray) -> np.ndarray:
    """(m,) which points of a grid lie near an orbit, in units of its extent."""
    extent = orbit.max(axis=0) - orbit.min(axis=0)
    distance = np.linalg.norm((grid[:, None] - orbit[None]) / extent, axis=2).min(axis=1)
    return distance < 0.12


def _surface(axes: Axes, query: Fitted, values: np.ndarray, near: np.ndarray, limits: tuple[float, float]):
    side = round(len(query.grid) ** 0.5)
    x, y, shown = (v.reshape(side, side) for v in (*query.grid.T, np.where(near, values, np.nan)))
    drawn = axes.pcolormesh(x, y, np.ma.masked_invalid(shown), vmin=limits[0], vmax=limits[1], cmap="viridis")
    axes.plot(*query.exact.T, color="white", linewidth=1.6)
    axes.plot(*query.exact.T, color="black", linewidth=0.8)
    return drawn


def plot_terms(fields: Sequence[str], terms: Sequence[str], queries: Sequence[Fitted], methods: Mapping[str, str]):
    """Unknown terms as functions of the fields near the orbit: true and as each method found them.

    Args:
        fields: names of the two fields.
        terms: names of the terms.
        queries: one row of panels for each of them and each term.
        methods: what the methods of `Fitted.terms` are called.
    """
    shape = len(queries) * len(terms), 1 + len(methods)
    figure = Figure(figsize=(2.6 * shape[1] + 0.8, 0.6 + 2.4 * shape[0]), layout="constrained")
    grid = figure.subplots(*shape, squeeze=False)
    rows = [(query, number) for query in queries for number in range(len(terms))]
    for panels, (query, number) in zip(grid, rows, strict=True):
        near = _visited(query.grid, query.exact)
        true = query.true_terms[:, number]
        limits = true[near].min(), true[near].max()
        drawn = _surface(panels[0], query, true, near, limits)
        panels[0].set_title(f"true {terms[number]}", fontsize=9)
        for axes, (method, name) in zip(panels[1:], methods.items(), strict=True):
            found = query.terms[method][:, number]
            _surface(axes, query, found, near, limits)
            error = np.abs(found - true)[near].mean()
            axes.set_title(f"{name}\nmean |error| {error:.2g}", fontsize=9)
        figure.colorbar(drawn, ax=panels, label=terms[number], aspect=20)
        panels[0].set_ylabel(f"{query.title}\n{fields[1]}", fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel(fields[0])
    figure.suptitle("Unknown terms near the exact orbit (line)", fontsize=10)
    return figure
