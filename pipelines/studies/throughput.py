"""Queries per second by batch size and number of observations, against a loop of least squares."""

import time
from collections.abc import Callable, Iterator
from statistics import median

import numpy as np
import pandas as pd
import torch
from pydantic import NonNegativeFloat, PositiveInt

from ipbasis.baselines.fit import BaselineFit
from ipbasis.baselines.least_squares import LeastSquaresSettings, fit_least_squares
from ipbasis.estimates.estimate import estimate
from ipbasis.evaluation.study_figures import plot_throughput
from ipbasis.observations.long_form import Observations, check_observations
from ipbasis.problem.declaration import Declared
from ipbasis.tracking import Tracker
from pipelines.baselines import known_queries
from pipelines.report.outputs import write_figure, write_table
from pipelines.studies.queries import Queries, best_basis, draw, unit_bounds
from pipelines.studies.study import QueryStudy


class Size(Declared):
    """Queries in a batch, and those given to least squares."""

    batches: list[PositiveInt]
    least_squares: PositiveInt


class Throughput(QueryStudy):
    """Settings of the study, see ``conf/throughput.yaml``.

    Args:
        sizes: by problem.
        tasks: that are different.
        layouts: of the points of observation.
        numbers: of observations.
        noise: by problem, in % of the largest value of the query.
        seconds: that the runs of a batch take together at least.
        longest: seconds; a batch that would take longer is left out.
        least_squares: its settings.
        bars: by problem and layout, the queries per second that are aimed at.
    """

    sizes: dict[str, Size]
    tasks: PositiveInt
    layouts: list[str]
    numbers: list[PositiveInt]
    noise: dict[str, int | float]
    seconds: NonNegativeFloat
    longest: NonNegativeFloat
    least_squares: LeastSquaresSettings
    bars: dict[str, dict[str, int | float]]


def seconds_of(call: Callable[[], object], at_least: float) -> float:
    """Median seconds of a call, repeated until the calls took `at_least` seconds together."""
    taken: list[float] = []
    while sum(taken) < at_least or not taken:
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return median(taken)


def rows(study: Throughput, name: str, layout: str, number: int) -> Iterator[dict]:
    """Rows of one problem, layout and number of observations: one for each batch size, as far as time allows.

    Ours is timed from the checked table in memory to the table of estimates; least squares, query by query, from
    the arrays of each. Both errors are of the same few queries: the median over these and their parameters of the
    absolute error in units of the Cramér-Rao bound (0.67 for normal errors at the bound).
    """
    size, noise = study.sizes[name], study.noise[name]
    count = min(study.tasks, max(size.batches))
    queries = draw(study.benchmarks[name], study.drawn[name], count, number, layout)
    repeated = queries.observed(noise, draws=-(-max(size.batches) // count))
    checked = check_observations(repeated.observations, queries.problem)

    def first(count: int) -> Observations:
        return Observations(queries.problem, checked.table.iloc[: count * number])

    basis, few, names = best_basis(name), min(size.least_squares, count), list(queries.problem.parameters)
    fits, bound = _fits(study, queries, noise, few), unit_bounds(queries)[:few]
    # the first call of a process prepares the basis
    own = _error(queries, noise, bound, estimate(basis, first(few)).table[names].to_numpy())
    theirs = _error(queries, noise, bound, np.array([fit.parameters for fit in fits]))
    slow, per_query = float(np.mean([fit.seconds for fit in fits])), 0.0
    for batch in size.batches:
        if batch * per_query > study.longest:
            break
        observations = first(batch)
        seconds = seconds_of(lambda observations=observations: estimate(basis, observations), study.seconds)
        per_query = seconds / batch
        yield {
            "problem": name,
            "layout": layout,
            "observations": number,
            "noise_percent": noise,
            "batch": batch,
            "threads": study.threads,
            "queries_per_second": batch / seconds,
            "seconds_per_query": per_query,
            "least_squares_seconds": slow,
            "times_faster": slow * batch / seconds,
            "error_over_cramer_rao": own,
            "least_squares_error_over_cramer_rao": theirs,
            "least_squares_queries": len(fits),
        }


def _fits(study: Throughput, queries: Queries, noise: float, few: int) -> list[BaselineFit]:
    """Least squares on the first queries, one after the other."""
    known = known_queries(queries.benchmark, queries.cell(noise), queries.observed(noise), range(few))
    return [fit_least_squares(one.problem, one.query, study.least_squares) for one in known]


def _error(queries: Queries, noise: float, bound: np.ndarray, parameters: np.ndarray) -> float:
    """Median error of (few, P) estimates of the first queries, over their bounds for unit noise times the noise."""
    truth = queries.observed(noise).truth.iloc[: len(parameters)]
    errors = np.abs(parameters - truth[list(queries.problem.parameters)].to_numpy())
    return float(np.nanmedian(errors / (bound * truth[["noise_std"]].to_numpy())))


def work(study: Throughput, tracker: Tracker) -> None:
    torch.set_num_threads(study.threads)
    table = pd.DataFrame(
        [
            row
            for name in study.sizes
            for layout in study.layouts
            for number in study.numbers
            for row in rows(study, name, layout, number)
        ]
    )
    write_table(table, "throughput", tracker)
    write_figure(plot_throughput(table, study.bars), "throughput", tracker)
    tracker.metrics(table.groupby("problem")["queries_per_second"].max().add_suffix("_queries_per_second").to_dict())
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3g}"))
