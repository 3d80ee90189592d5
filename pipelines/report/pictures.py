"""The figures of a problem, from what the stages left: which there are follows from the problem itself."""

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd
from matplotlib.figure import Figure

from ipbasis.evaluation.comparison_figures import plot_error_maps, plot_errors, plot_times
from ipbasis.evaluation.solution_figures import Fitted, plot_moduli, plot_phase, plot_solutions, plot_terms
from ipbasis.evaluation.tables import SOURCES
from ipbasis.problem.declaration import Problem
from ipbasis.reference.solutions import solutions
from ipbasis.reference.terms import term_values
from pipelines.cells import Cell, cells, read_cell, shown_cells, shown_queries, tasks_of
from pipelines.common import DATA, Settings, methods
from pipelines.querying import shown_points

_TERMS = {"free_form": "free form", "library": "library", "network": "network"}


def pictures(settings: Settings, tables: Mapping[str, pd.DataFrame], readouts: int) -> dict[str, Figure]:
    """All figures of a problem by name.

    Args:
        settings: the configuration.
        tables: ``online`` and ``times``.
        readouts: of the bases whose fits are shown.
    """
    problem = Problem(**settings["problem"])
    draw_errors = _error_maps if crossed_axes(settings) else _error_lines
    drawn = {"errors": draw_errors(settings, tables["online"]), "times": _times(settings, tables["times"])}
    rows = {cell.text: fitted_queries(settings, cell, readouts) for cell in shown_cells(settings)}
    first = next(iter(rows.values()))
    sources = settings["recipes"][::-1]
    if len(problem.coordinates) == 1:
        (coordinate,) = problem.coordinates
        drawn["solutions"] = plot_solutions(coordinate, problem.fields, shown_points(problem)[:, 0], first)
    if len(problem.coordinates) == 2:
        modulus = settings["report"]["modulus"]
        drawn["solutions"] = plot_moduli(list(problem.coordinates), shown_points(problem), modulus, first, sources)
    if len(problem.coordinates) == 1 and len(problem.fields) == 2:
        drawn["phase"] = plot_phase(problem.fields, rows)
    if problem.unknown_terms:
        chosen = [replace(queries[0], title=f"{text}\n{queries[0].title}") for text, queries in rows.items()]
        drawn["terms"] = plot_terms(problem.fields, list(problem.unknown_terms), chosen, _method_texts(settings))
    return drawn


def crossed_axes(settings: Settings) -> list[str]:
    """The two columns over which errors are mapped, where each noise meets each number of observations."""
    crossed = settings["observations"].get("cells", {})
    both = [f"noise_{settings['observations']['noise_unit']}", "observations"]
    return both if set(crossed) == {"noise", "number"} else []


def variant_text(settings: Settings, source: str, terms: object) -> str:
    """How the unknown terms were searched, or what else the report's configuration says of a source."""
    return _TERMS.get(terms) or settings["report"].get("variants", {}).get(source, "")


def _method_texts(settings: Settings) -> dict[str, str]:
    """What the methods that give unknown terms are called."""
    texts = {"ipbasis": "ipbasis, free form", "library": "ipbasis, library", "paper_recipe": SOURCES["paper_recipe"]}
    return {method: texts[method] for method in methods(settings)}


def fitted_queries(settings: Settings, cell: Cell, readouts: int) -> list[Fitted]:
    """The queries of a cell that the pictures show, as every method fitted them."""
    problem, shown = Problem(**settings["problem"]), shown_queries(settings)
    points = shown_points(problem)
    observed = read_cell(settings, cell)
    truth = observed.truth.iloc[shown]
    exact = solutions(problem, tasks_of(problem, truth), points[None])
    folder = DATA / "estimates" / problem.name / "online" / f"readouts-{readouts}"
    read = {
        part: {m: pd.read_parquet(folder / f"{m}_{cell.name}_{part}.parquet") for m in methods(settings)}
        for part in (["fits", "terms"] if problem.unknown_terms else ["fits"])
    }
    queries = []
    for number, query in enumerate(shown):
        parts: dict[str, dict] = {
            part: {method: table[table["query"] == query] for method, table in found.items()}
            for part, found in read.items()
        }
        fits = {recipe: parts["fits"][recipe][problem.fields].to_numpy() for recipe in settings["recipes"][::-1]}
        terms = {}
        if problem.unknown_terms:
            found = parts["terms"]
            grid = found["ipbasis"][problem.fields].to_numpy()
            terms = {
                "grid": grid,
                "true_terms": term_values(problem, truth[list(problem.parameters)].to_numpy()[[number]], grid[None])[0],
                "terms": {method: table[list(problem.unknown_terms)].to_numpy() for method, table in found.items()},
            }
        rows = observed.observations[observed.observations["query"] == query]
        queries.append(Fitted(_query_text(problem, truth.iloc[number]), rows, exact[number], fits, **terms))
    return queries


def _query_text(problem: Problem, truth: pd.Series) -> str:
    """What a query is called in a picture: its parameter if there is but one."""
    if len(problem.parameters) > 1:
        return f"query {truth['query']:.0f}"
    (name,) = problem.parameters
    return f"{name} = {truth[name]:.3g}"


def _times(settings: Settings, times: pd.DataFrame) -> Figure:
    texts = [variant_text(settings, *pair) for pair in zip(times["source"], times["variant"], strict=True)]
    return plot_times(times.assign(variant=texts))


def _error_maps(settings: Settings, online: pd.DataFrame) -> Figure:
    index, columns = crossed_axes(settings)
    name = settings["observations"]["scored"][0]

    def over_cells(source: str, column: str) -> pd.DataFrame:
        return online[online["source"] == source].pivot_table(column, index, columns, dropna=False)

    sources = [source for source in ("published", *settings["recipes"][::-1]) if (online["source"] == source).any()]
    errors = {source: over_cells(source, f"{name}_mae") for source in sources}
    ratio = over_cells("ipbasis", f"{name}_mae_over_ideal").reindex(errors["ipbasis"].index)
    texts = {
        "index": settings["report"]["x_text"],
        "columns": "observations per query",
        "error": f"mean absolute error of {name}",
    }
    return plot_error_maps(errors, ratio, texts, "ipbasis: error / Cramér-Rao value")


def _error_lines(settings: Settings, online: pd.DataFrame) -> Figure:
    """Errors against the column that the configuration of the report names; the other columns tell lines apart."""
    problem, x = Problem(**settings["problem"]), settings["report"]["x"]
    scored = settings["observations"]["scored"]
    panels = {f"error of {name}": f"{name}_mae" for name in scored if online[f"{name}_mae"].notna().any()}
    panels = panels or {f"error of {', '.join(problem.unknown_terms)}": "unknown_term_mae"}
    texts = {tuple(cell.label.items()): cell.text for cell in cells(settings)}
    rows = []
    for _, row in online.iterrows():
        label = {key: row[key] for cell in cells(settings)[:1] for key in cell.label}
        text = "" if x in label else texts.get(tuple(label.items()), "")
        readouts = "" if x == "readouts" or pd.isna(row.get("readouts")) else f"{row['readouts']:.0f} readouts"
        for title, column in panels.items():
            here, besides = (title, text) if len(panels) > 1 or not text else (f"{title}\n{text}", "")
            terms = variant_text(settings, row["source"], row.get("terms"))
            variant = ", ".join(part for part in (terms, readouts, besides) if part)
            shown = {"panel": here, "source": row["source"], "variant": variant, "x": row.get(x), "error": row[column]}
            rows.append(shown)
    return plot_errors(pd.DataFrame(rows), settings["report"]["x_text"])
