"""Whether intervals and statuses hold what they promise: simulated queries of many problems in many designs.

A query has its parameters, a part of the domain in which it is observed, a number of observations, a noise, and what
is observed and told besides (`Variant`). Every problem stands in units drawn at random.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from scipy.stats import norm, t

from ipbasis.estimates.estimate import estimate
from ipbasis.estimates.units import observations_to
from ipbasis.evaluation.calibration_figure import plot_calibration
from ipbasis.observations.long_form import check_observations
from ipbasis.observations.simulate import long_table
from ipbasis.offline.artefact import Basis
from ipbasis.offline.train import train
from ipbasis.problem.declaration import Declared, Problem, Tasks
from ipbasis.problem.units import CoordinateUnit, ParameterUnit, Units, rescaled
from ipbasis.reference.solutions import solutions_or_nan
from ipbasis.simulation.simulate import TOLERANCE
from ipbasis.tracking import Tracker
from pipelines.common import side_by_side
from pipelines.report.outputs import write_figure, write_table
from pipelines.studies.problems import STATUSES, ProblemsStudy
from pipelines.studies.queries import best_basis

_HALF_WIDTH = norm.isf(0.025)  # of a 95 % interval, in error bars
# Noise at least, in units of what a field is anywhere: what has fallen further is no longer told from zero, nor is its
# simulated solution exact beside itself.
_LEAST_NOISE = 100 * TOLERANCE
# columns by which cells are formed: of each problem, and of all problems together
CELLS = (
    *((name,) for name in ("problem", "part", "noise", "points", "variant")),
    *(("problem", name) for name in ("part", "noise", "points", "variant")),
    *(("part", name) for name in ("noise", "points", "variant")),
    *(("noise", name) for name in ("points", "variant")),
    ("points", "variant"),
    ("part", "noise", "points"),
)


class Variant(Declared):
    """What is observed and told.

    Args:
        observed: ``all`` fields or the ``first`` alone.
        initial: whether free initial values are given.
        noise_std: whether the standard deviation of the noise is given.
        outliers: share of the observations that are off by twenty times the noise.
        coordinates: most of a problem that is observed so.
        options: of `estimate`.
    """

    observed: Literal["all", "first"] = "all"
    initial: bool = False
    noise_std: bool = False
    outliers: NonNegativeFloat = 0.0
    coordinates: PositiveInt = 3
    options: dict[str, Any] = {}


class Calibration(ProblemsStudy):
    """Settings of the study, see ``conf/calibration.yaml``.

    Args:
        best: those of which the published bases are taken, in their own units, where they are trained apart.
        tasks: different ones of each problem, by number of coordinates.
        parts: of the first coordinate that are observed, as shares of it.
        noises: standard deviations, relative to the root mean square of the observed values of each field of a query,
            but see `_LEAST_NOISE`.
        points: numbers of observations.
        variants: what is observed and told; each task takes one, in turn.
        decades: units are drawn from so many powers of ten in either direction.
        wrong: error bars that an estimate must be off to count as wrong.
        bars: what is aimed at.
    """

    best: list[str]
    tasks: dict[int, PositiveInt]
    parts: dict[str, tuple[float, float]]
    noises: list[PositiveFloat]
    points: list[PositiveInt]
    variants: dict[str, Variant]
    decades: NonNegativeFloat
    wrong: PositiveFloat
    bars: dict[str, float]

    @property
    def named(self) -> Mapping[str, Iterable[str]]:
        return {**super().named, "best": self.best}

    def variants_of(self, problem: Problem) -> list[str]:
        """Names of those that a problem is observed by."""
        return [name for name, own in self.variants.items() if len(problem.coordinates) <= own.coordinates]

    @property
    def name(self) -> str:
        """In the place of a problem's."""
        return "calibration"


def drawn_units(problem: Problem, decades: float, rng: np.random.Generator) -> Units:
    """Units of any size for coordinates, fields and parameters; what is dimensionless in the formulas stays itself."""

    def size() -> float:
        return float(10 ** rng.uniform(-decades, decades))

    return Units.identity(problem).with_parts(
        coordinates={name: CoordinateUnit(0.0, size()) for name in problem.coordinates},
        fields={name: size() for name in problem.fields},
        parameters={name: ParameterUnit(size()) for name in problem.parameters},
    )


@dataclass(frozen=True)
class Queries:
    """The queries of a problem that are observed and told alike.

    Args:
        variant: of them.
        about: one row per query: ``query``, ``task``, ``part``, ``noise``, ``points``.
        observations: in long form.
        tasks: behind the queries.
    """

    variant: str
    about: pd.DataFrame
    observations: pd.DataFrame
    tasks: Tasks


def queries_of(study: Calibration, problem: Problem) -> Iterator[Queries]:
    """Simulate the queries of a problem, in its own units."""
    rng = np.random.default_rng([study.seed, 0])
    tasks = problem.sample_tasks(study.tasks[len(problem.coordinates)], rng)
    designs = [*product(study.parts, study.noises, study.points)]
    place, low, span = [], problem.domain[:, 0], np.diff(problem.domain).ravel()
    for part, _, number in designs:
        unit = rng.random((len(tasks.parameters), number, len(low)))
        begin, end = study.parts[part]
        unit[..., 0] = begin + (end - begin) * unit[..., 0]
        place.append(low + span * unit)
    values = solutions_or_nan(problem, tasks, np.concatenate(place, axis=1), TOLERANCE)
    solved = np.isfinite(values).all(axis=(1, 2))
    ends = np.cumsum([0, *(number for *_, number in designs)])
    variants = study.variants_of(problem)
    for number, name in enumerate(variants):
        rows = np.flatnonzero(solved)[number :: len(variants)]
        if not len(rows):
            continue
        own = Tasks(tasks.parameters[rows], tasks.initial[rows])
        about, tables = [], []
        for d, (part, noise, points) in enumerate(designs):
            clean = values[rows, ends[d] : ends[d + 1]]
            least = _LEAST_NOISE * _rms(values[rows])
            std = np.maximum(noise * _rms(clean), least)
            table = observed(problem, study.variants[name], place[d][rows], clean, std, own, rng)
            tables.append(table.assign(query=table["query"] + d * len(rows)))
            about.append(
                pd.DataFrame({"task": rows, "part": part, "noise": noise, "points": points}).assign(
                    query=d * len(rows) + np.arange(len(rows))
                )
            )
        whole = Tasks(np.tile(own.parameters, (len(designs), 1)), np.tile(own.initial, (len(designs), 1)))
        yield Queries(name, pd.concat(about, ignore_index=True), pd.concat(tables, ignore_index=True), whole)


def _rms(values: np.ndarray) -> np.ndarray:
    """(queries, 1, F) root mean square of values (queries, n, F)."""
    return np.sqrt(np.square(values).mean(axis=1, keepdims=True))


def observed(
    problem: Problem,
    variant: Variant,
    points: np.ndarray,
    clean: np.ndarray,
    std: np.ndarray,
    tasks: Tasks,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Observations in long form.

    Args:
        problem: the problem.
        variant: what is observed and told.
        points: (queries, n, d).
        clean: (queries, n, F) solutions there.
        std: (queries, 1, F) standard deviation of the noise.
        tasks: behind the queries; their initial values are told where the variant says so.
        rng: for the noise.
    """
    errors = rng.standard_normal(clean.shape)
    errors[rng.random(clean.shape) < variant.outliers] *= 20
    table, count = long_table(problem, points, clean + std * errors), clean.shape[1]
    if variant.noise_std:
        for number, field in enumerate(problem.fields):
            table[f"{field}_std"] = np.repeat(std[:, 0, number], count)
    if variant.initial:
        free = problem.known_names[len(problem.parameters) :]
        table = table.assign(**{name: np.repeat(tasks.initial[:, n], count) for n, name in enumerate(free)})
    if variant.observed == "first":
        hidden = [name for field in problem.fields[1:] for name in (field, f"{field}_std")]
        table = table.drop(columns=[name for name in hidden if name in table])
    return table


def answers(study: Calibration, name: str) -> pd.DataFrame:
    """One row per query of a problem: how it was observed, its status, and whether the truth lies in the intervals."""
    torch.set_num_threads(1)
    problem = study.problems[name]
    units = Units.identity(problem)
    if name in study.best:
        basis = best_basis(name)
    else:
        units = drawn_units(problem, study.decades, np.random.default_rng([study.seed, 1]))
        basis = train(rescaled(problem, units), study.accuracy, study.minutes)
    found = [_judged(study, basis, units, queries) for queries in queries_of(study, problem)]
    return pd.concat(found, ignore_index=True).assign(problem=name)


def _judged(study: Calibration, basis: Basis, units: Units, queries: Queries) -> pd.DataFrame:
    """The estimates of some queries beside the truth, both in the units of the basis."""
    declared, own = study.problems[basis.problem.name], basis.problem
    given = check_observations(queries.observations, declared)
    table, tasks = observations_to(units, declared, given, relative=False), units.tasks_to(declared, queries.tasks)
    estimates = estimate(basis, table, **study.variants[queries.variant].options)
    names = list(own.parameters)
    found, low, high = (estimates.table[[f"{name}{end}" for name in names]].to_numpy() for end in ("", "_low", "_high"))
    off = tasks.parameters - found
    share = np.abs(off) / np.where(off > 0, high - found, found - low)  # of the interval to that side
    share[off == 0] = 0.0
    farther = study.wrong / _HALF_WIDTH
    by_chance = 2 * t.sf(farther * t.isf(0.025, estimates.freedom), estimates.freedom)  # the noise is estimated, too
    return queries.about.assign(
        variant=queries.variant,
        status=estimates.table["status"].to_numpy(),
        covered=(share <= 1).mean(axis=1),
        wrong=~(share <= farther).all(axis=1),
        by_chance=1 - (1 - by_chance) ** len(names),
    )


def cells(table: pd.DataFrame, least: int) -> pd.DataFrame:
    """Scores by cell, see `CELLS`.

    ``coverage``: of the queries that are ok, the share of the 95 % intervals that hold the truth, mean over the
    parameters. ``wrong_ok``: share of them of which an interval longer by so much that it would be of four error bars
    misses it; ``by_chance``: what it would be of errors as the intervals have them, each parameter on its own. Then the
    share of each status.

    Args:
        table: one row per query.
        least: queries of a cell that are ok, from which on its scores are told.
    """
    rows = []
    for names in CELLS:
        for values, own in table.groupby(list(names), sort=False):
            ok = own[own["status"] == "ok"]
            told = len(ok) >= least
            rows.append(
                {
                    "by": ", ".join(names),
                    **dict(zip(names, values, strict=True)),
                    "queries": len(own),
                    "queries_ok": len(ok),
                    "coverage": ok["covered"].mean() if told else np.nan,
                    "wrong_ok": ok["wrong"].mean() if told else np.nan,
                    "by_chance": ok["by_chance"].mean() if told else np.nan,
                    **{status: (own["status"] == status).mean() for status in STATUSES},
                }
            )
    columns = ["by", "problem", "part", "noise", "points", "variant"]
    found = pd.DataFrame(rows)
    return found[[*columns, *(name for name in found if name not in columns)]]


def work(study: Calibration, tracker: Tracker) -> None:
    found = side_by_side(answers, [(study, name) for name in study.ordered], study.threads, "calibration")
    queries = pd.concat(found, ignore_index=True)
    table = cells(queries, int(study.bars["least"]))
    write_table(table, "calibration", tracker)
    write_table(worst(queries), "calibration_wrong", tracker)
    write_figure(plot_calibration(table, study.bars), "calibration", tracker)
    tracker.metrics(_metrics(queries, table))
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3g}"))


def worst(queries: pd.DataFrame) -> pd.DataFrame:
    """The queries that are ok and wrong, so that each can be looked at."""
    kept = ["problem", "part", "noise", "points", "variant", "task", "status"]
    return queries.loc[(queries["status"] == "ok") & queries["wrong"], kept].sort_values(kept, ignore_index=True)


def _metrics(queries: pd.DataFrame, table: pd.DataFrame) -> Mapping[str, float]:
    """The figures that are aimed at."""
    ok = queries[queries["status"] == "ok"]
    return {
        "queries": len(queries),
        "coverage": ok["covered"].mean(),
        "least_coverage": table["coverage"].min(),
        "wrong_ok": ok["wrong"].mean(),
        "by_chance": ok["by_chance"].mean(),
        "most_wrong_ok": table["wrong_ok"].max(),
        "poor_fit": (queries["status"] == "poor_fit").mean(),
        "most_poor_fit": table["poor_fit"].max(),
    }
