"""A picture per query: what was observed, what was fitted, what the fit leaves; and an index of them."""

import re
import warnings
from collections import Counter
from collections.abc import Hashable, Sequence
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ipbasis.errors import InputError
from ipbasis.estimates.result import Estimates
from ipbasis.files import replacing_file
from ipbasis.observations.long_form import InputWarning, Observations
from ipbasis.problem.declaration import Problem

mpl.use("Agg")
INDEX = "index.csv"  # which query has which picture
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")  # ids that name a file everywhere
_LONGEST_TITLE = 60  # of an id


def plot_query(estimates: Estimates, observations: pd.DataFrame, row: int) -> Figure:
    """Data and fit of one query, and what the fit leaves.

    Over one coordinate with the 95 % band of the fit; over two coordinates as maps.

    Args:
        estimates: of all queries.
        observations: of this query.
        row: of the query in the estimates.
    """
    figure = _DRAWN[len(estimates.basis.problem.coordinates)](estimates.alone(row), observations)
    figure.suptitle(_title(estimates, row), fontsize=9, parse_math=False)
    return figure


def _title(estimates: Estimates, row: int) -> str:
    """Status of a query, its estimates with 95 % half-widths, and the formulas of its unknown terms."""
    table, record = estimates.table, estimates.table.iloc[row]
    names = [name.removesuffix("_std") for name in table if name.endswith("_std") and not name.endswith("noise_std")]
    formulas = [n for n in table if n not in ("query", "status", "message") and isinstance(record[n], str)]
    shown = [] if formulas else [name for name in names if record[f"{name}_std"] != 0]
    found = [f"{p} = {record[p]:.4g} ± {(record[f'{p}_high'] - record[f'{p}_low']) / 2:.2g}" for p in shown]
    lines = [", ".join(found[i : i + 3]) for i in range(0, len(found), 3)] + [f"{f} = {record[f]}" for f in formulas]
    if found:
        lines[-1] += "  (95 %)"
    query = str(record["query"])
    query = query if len(query) <= _LONGEST_TITLE else f"{query[:_LONGEST_TITLE]}..."
    return "\n".join([f"query {query}: {record['status']}", *lines])


def _over_one_coordinate(one: Estimates, observations: pd.DataFrame) -> Figure:
    problem = one.basis.problem
    (coordinate,) = problem.coordinates
    times = np.linspace(*problem.domain[0], 300)
    fit, std = one.solution(times)[0], one.solution_std(times)[0]
    at_data = one.solution(observations[coordinate].to_numpy())[0]
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    for number, field in enumerate(problem.fields):
        colour = f"C{number}"
        band = 1.96 * std[:, number]
        upper.plot(times, fit[:, number], color=colour, label=f"{field}: fit")
        for axes, centre, label in ((upper, fit[:, number], None), (lower, 0, f"{field}: 95 % band of the fit")):
            axes.fill_between(times, centre - band, centre + band, color=colour, alpha=0.3, linewidth=0, label=label)
        circles = {"markersize": 3.5, "markerfacecolor": "none", "color": "black" if number == 0 else colour}
        upper.plot(observations[coordinate], observations[field], "o", label=f"{field}: observations", **circles)
        lower.plot(observations[coordinate], observations[field] - at_data[:, number], "o", **circles)
    upper.set_ylabel(", ".join(problem.fields))
    upper.legend(fontsize=8)
    lower.axhline(0, color="#888888", linewidth=0.8)
    lower.set_ylabel("observation - fit")
    lower.set_xlabel(coordinate)
    lower.legend(fontsize=8)
    return figure


def _over_two_coordinates(one: Estimates, observations: pd.DataFrame) -> Figure:
    """For each field the fit with the observations on it in the same colours, and observation minus fit."""
    problem = one.basis.problem
    names = list(problem.coordinates)
    lines = [np.linspace(low, high, 80) for low, high in problem.domain]
    grid = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, 2)
    places = observations[names].to_numpy()
    fit, at_data = one.solution(grid)[0], one.solution(places)[0]
    figure = Figure(figsize=(4.6 * len(problem.fields), 6.4), layout="constrained")
    panels = figure.subplots(2, len(problem.fields), sharex=True, sharey=True, squeeze=False)
    size = np.clip(1500 / len(places), 1, 30)
    for number, field in enumerate(problem.fields):
        upper, lower = panels[:, number]
        seen = observations[field].to_numpy()
        limit = max(np.abs(fit[:, number]).max(), np.nanquantile(np.abs(seen), 0.98))
        scale = {"vmin": -limit, "vmax": limit, "cmap": "RdBu_r"}
        drawn = upper.pcolormesh(*lines, fit[:, number].reshape(80, 80).T, **scale)
        upper.scatter(*places.T, c=seen, s=size, edgecolors="black", linewidths=0.3 if size > 4 else 0, **scale)
        figure.colorbar(drawn, ax=upper, label=field)
        upper.set_title(f"{field}: fit, and observations in the same colours", fontsize=9)
        left = seen - at_data[:, number]
        limit = np.nanmax(np.abs(left)) or 1.0
        dots = lower.scatter(*places.T, c=left, s=2 * size, vmin=-limit, vmax=limit, cmap="PuOr")
        figure.colorbar(dots, ax=lower, label=f"{field}: observation - fit")
        lower.set_title(f"{field}: observation - fit", fontsize=9)
        lower.set_xlabel(names[0])
    for axes in panels[:, 0]:
        axes.set_ylabel(names[1])
    return figure


_DRAWN = {1: _over_one_coordinate, 2: _over_two_coordinates}


def check_drawable(problem: Problem) -> None:
    """Refuse a problem whose queries cannot be drawn.

    Raises:
        InputError: if it has too many coordinates.
    """
    if (count := len(problem.coordinates)) not in _DRAWN:
        raise InputError(f"figures: {problem.name} has {count} coordinates; one or two can be drawn")


def picture_names(queries: Sequence[Hashable]) -> list[str]:
    """A file name of its own for the picture of each query, also where capitals do not count: its id if that can be."""
    ids = list(map(str, queries))
    times = Counter(name.lower() for name in ids)
    plain = [_PLAIN.fullmatch(name) is not None and times[name.lower()] == 1 for name in ids]
    return [f"query_{name}.png" if plain[row] else f"query-{row}.png" for row, name in enumerate(ids)]


def plot_queries(estimates: Estimates, observations: Observations, directory: Path) -> None:
    """One picture per usable query, and `INDEX`, a table of the queries and the names of their pictures.

    A query that cannot be drawn has no picture, and a warning says why.

    Raises:
        InputError: if the directory cannot be written.
    """
    groups = dict(list(observations.table.groupby("query", sort=False)))
    queries = list(estimates.table["query"])
    names, missing = picture_names(queries), {}
    for row, (query, name) in enumerate(zip(queries, names, strict=True)):
        if query in observations.unusable:
            missing[row] = observations.unusable[query]
            continue
        drawn = BytesIO()
        try:
            plot_query(estimates, groups[query], row).savefig(drawn, format="png", dpi=110)
        except Exception as error:  # whatever a drawing library makes of a fit that is no fit
            missing[row] = f"cannot be drawn: {error}"
            warnings.warn(f"query {query}: {missing[row]}", InputWarning, stacklevel=2)
            continue
        with replacing_file(directory / name) as temporary:
            temporary.write_bytes(drawn.getvalue())
    index = pd.DataFrame({"query": queries, "picture": names, "message": ""})
    index.loc[list(missing), "picture"], index.loc[list(missing), "message"] = "", list(missing.values())
    with replacing_file(directory / INDEX) as temporary:
        index.to_csv(temporary, index=False)
