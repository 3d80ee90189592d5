"""The figures of a problem, from what the stages left: which there are follows from the problem itself."""

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd
from matplotlib.figure import Figure

from ipbasis.evaluation.comparison_figures import plot_error_maps, plot_errors, plot_times
from ipbasis.evaluation.names import SEARCH_TEXTS, SEARCHES, SOURCES, method_text
from ipbasis.evaluation.solution_figures import Fitted, plot_moduli, plot_phase, plot_solutions, plot_terms
from ipbasis.problem.declaration import Problem
from ipbasis.reference.solutions import solutions
from ipbasis.reference.terms import term_values
from pipelines.benchmark import Benchmark
from pipelines.cells import Cell, cells, read_cell, tasks_of
from pipelines.paths import online_file
from pipelines.shown import shown_cells, shown_points, shown_queries


def pictures(benchmark: Benchmark, tables: Mapping[str, pd.DataFrame], readouts: int) -> dict[str, Figure]:
    """All figures of a problem by name.

    Args:
        benchmark: the benchmark.
        tables: ``online`` and ``times``.
        readouts: of the bases whose fits are shown.
    """
    problem = benchmark.problem
    draw_errors = _error_maps if crossed_axes(benchmark) else _error_lines
    drawn = {"errors": draw_errors(benchmark, tables["online"]), "times": _times(benchmark, tables["times"])}
    rows = {cell.text: fitted_queries(benchmark, cell, readouts) for cell in shown_cells(benchmark)}
    first = next(iter(rows.values()))
    if len(problem.coordinates) == 1:
        (coordinate,) = problem.coordinates
        drawn["solutions"] = plot_solutions(coordinate, problem.fields, shown_points(problem)[:, 0], first)
    if len(problem.coordinates) == 2:
        axes, modulus, sources = list(problem.coordinates), benchmark.report.modulus, _sources(benchmark)
        drawn["solutions"] = plot_moduli(axes, shown_points(problem), modulus, first, sources)
    if len(problem.coordinates) == 1 and len(problem.fields) == 2:
        drawn["phase"] = plot_phase(problem.fields, rows)
    if problem.unknown_terms:
        chosen = [replace(queries[0], title=f"{text}\n{queries[0].title}") for text, queries in rows.items()]
        drawn["terms"] = plot_terms(problem.fields, list(problem.unknown_terms), chosen, _recipe_texts(benchmark))
    return drawn


def _sources(benchmark: Benchmark) -> list[str]:
    """The recipes with bases of their own, in the order of the tables."""
    return [source for source in SOURCES if source in benchmark.trained_recipes]


def crossed_axes(benchmark: Benchmark) -> list[str]:
    """The two columns over which errors are mapped, where each noise meets each number of observations."""
    crossed = benchmark.observations.cells
    both = [f"noise_{benchmark.observations.noise_unit}", "observations"]
    return both if crossed and crossed.noise and crossed.number else []


def variant_text(benchmark: Benchmark, source: str, terms: object) -> str:
    """How the unknown terms were searched, or what else the report's configuration says of a source."""
    return SEARCH_TEXTS.get(terms) or benchmark.report.variants.get(source, "")


def _recipe_texts(benchmark: Benchmark) -> dict[str, str]:
    """What the recipes are called where they give unknown terms; the published one searches them in but one way."""
    return {
        name: method_text(recipe.source, SEARCHES[recipe.online["solver"]] if recipe.source == "ipbasis" else None)
        for name, recipe in benchmark.recipes.items()
    }


def fitted_queries(benchmark: Benchmark, cell: Cell, readouts: int) -> list[Fitted]:
    """The queries of a cell that the pictures show, as every recipe fitted them."""
    problem, shown = benchmark.problem, shown_queries(benchmark)
    observed = read_cell(benchmark, cell)
    truth = observed.truth.iloc[shown]
    exact = solutions(problem, tasks_of(problem, truth), shown_points(problem)[None])
    parts = ["fits", "terms"] if problem.unknown_terms else ["fits"]
    tables = {part: _by_recipe(benchmark, cell, readouts, part) for part in parts}
    queries = []
    for number, query in enumerate(shown):
        found = {part: {r: t[t["query"] == query] for r, t in by.items()} for part, by in tables.items()}
        fits = {recipe: found["fits"][recipe][problem.fields].to_numpy() for recipe in _sources(benchmark)}
        terms = _terms(problem, truth.iloc[[number]], found["terms"]) if problem.unknown_terms else {}
        rows = observed.observations[observed.observations["query"] == query]
        queries.append(Fitted(_query_text(problem, truth.iloc[number]), rows, exact[number], fits, **terms))
    return queries


def _by_recipe(benchmark: Benchmark, cell: Cell, readouts: int, part: str) -> dict[str, pd.DataFrame]:
    """``fits`` or ``terms`` of the shown queries of a cell."""
    files = {recipe: online_file(benchmark.name, readouts, recipe, cell.name, part) for recipe in benchmark.recipes}
    return {recipe: pd.read_parquet(path) for recipe, path in files.items()}


def _terms(problem: Problem, truth: pd.DataFrame, found: Mapping[str, pd.DataFrame]) -> dict:
    """The unknown terms of one query on the grid of its pictures, true and as every recipe found them."""
    grid = found["ipbasis"][problem.fields].to_numpy()
    return {
        "grid": grid,
        "true_terms": term_values(problem, truth[list(problem.parameters)].to_numpy(), grid[None])[0],
        "terms": {recipe: table[list(problem.unknown_terms)].to_numpy() for recipe, table in found.items()},
    }


def _query_text(problem: Problem, truth: pd.Series) -> str:
    """What a query is called in a picture: its parameter if there is but one."""
    if len(problem.parameters) > 1:
        return f"query {truth['query']:.0f}"
    (name,) = problem.parameters
    return f"{name} = {truth[name]:.3g}"


def _times(benchmark: Benchmark, times: pd.DataFrame) -> Figure:
    texts = [variant_text(benchmark, *pair) for pair in zip(times["source"], times["variant"], strict=True)]
    return plot_times(times.assign(variant=texts))


def _error_maps(benchmark: Benchmark, online: pd.DataFrame) -> Figure:
    index, columns = crossed_axes(benchmark)
    name = benchmark.observations.scored[0]

    def over_cells(source: str, column: str) -> pd.DataFrame:
        return online[online["source"] == source].pivot_table(column, index, columns, dropna=False)

    sources = [source for source in ("published", *_sources(benchmark)) if (online["source"] == source).any()]
    errors = {source: over_cells(source, f"{name}_mae") for source in sources}
    ratio = over_cells("ipbasis", f"{name}_mae_over_ideal").reindex(errors["ipbasis"].index)
    texts = {
        "index": benchmark.report.x_text,
        "columns": "observations per query",
        "error": f"mean absolute error of {name}",
    }
    return plot_error_maps(errors, ratio, texts, "ipbasis: error / Cramér-Rao value")


def _error_lines(benchmark: Benchmark, online: pd.DataFrame) -> Figure:
    """Errors against the column that the configuration of the report names; the other columns tell lines apart."""
    problem, x = benchmark.problem, benchmark.report.x
    scored = benchmark.observations.scored
    panels = {f"error of {name}": f"{name}_mae" for name in scored if online[f"{name}_mae"].notna().any()}
    panels = panels or {f"error of {', '.join(problem.unknown_terms)}": "unknown_term_mae"}
    texts = {tuple(cell.label.items()): cell.text for cell in cells(benchmark)}
    rows = []
    for _, row in online.iterrows():
        label = {key: row[key] for cell in cells(benchmark)[:1] for key in cell.label}
        text = "" if x in label else texts.get(tuple(label.items()), "")
        readouts = "" if x == "readouts" or pd.isna(row.get("readouts")) else f"{row['readouts']:.0f} readouts"
        for title, column in panels.items():
            here, besides = (title, text) if len(panels) > 1 or not text else (f"{title}\n{text}", "")
            terms = variant_text(benchmark, row["source"], row.get("terms"))
            variant = ", ".join(part for part in (terms, readouts, besides) if part)
            shown = {"panel": here, "source": row["source"], "variant": variant, "x": row.get(x), "error": row[column]}
            rows.append(shown)
    return plot_errors(pd.DataFrame(rows), benchmark.report.x_text)
