"""Queries per second by batch size and number of observations, against a loop of least squares."""

import time
from collections.abc import Callable, Iterator
from statistics import median

import numpy as np
import pandas as pd
import torch

from ipbasis.baselines.least_squares import LeastSquaresSettings, fit_least_squares
from ipbasis.estimates.estimate import estimate
from ipbasis.evaluation.study_figures import plot_throughput
from ipbasis.observations.long_form import Observations, check_observations
from ipbasis.tracking import Tracker
from pipelines.baselines import questions_of
from pipelines.common import Settings
from pipelines.report.outputs import write_figure, write_table
from pipelines.studies.queries import best_basis, draw, unit_bounds


def seconds_of(call: Callable[[], object], at_least: float) -> float:
    """Median seconds of a call, repeated until the calls took `at_least` seconds together."""
    taken: list[float] = []
    while sum(taken) < at_least or not taken:
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return median(taken)


def rows(settings: Settings, name: str, layout: str, number: int) -> Iterator[dict]:
    """Rows of one problem, layout and number of observations: one for each batch size, as far as time allows.

    Ours is timed from the checked table in memory to the table of estimates; least squares, query by query, from
    the arrays of each. Both errors are of the same few queries: the median over these and their parameters of the
    absolute error in units of the Cramér-Rao bound (0.67 for normal errors at the bound).
    """
    size, noise = settings["sizes"][name], settings["noise"][name]
    count = min(settings["tasks"], max(size["batches"]))
    queries = draw(settings, name, settings["drawn"][name], count, number, layout)
    observed = queries.observed(noise)
    repeated = queries.observed(noise, draws=-(-max(size["batches"]) // count))
    checked = check_observations(repeated.observations, queries.problem)

    def first(count: int) -> Observations:
        return Observations(queries.problem, checked.table.iloc[: count * number])

    basis, few = best_basis(name), list(range(min(size["least_squares"], count)))
    fits = [
        fit_least_squares(question.problem, question.query, LeastSquaresSettings(**settings["least_squares"]))
        for question in questions_of(queries.settings, queries.cell(noise), observed, few)
    ]
    truth = observed.truth.iloc[few]
    names, bound = list(queries.problem.parameters), unit_bounds(queries)[few] * truth[["noise_std"]].to_numpy()

    def error(parameters: np.ndarray) -> float:
        return float(np.nanmedian(np.abs(parameters - truth[names].to_numpy()) / bound))

    # the first call of a process prepares the basis
    own = error(estimate(basis, first(len(few))).table[names].to_numpy())
    slow = float(np.mean([fit.seconds for fit in fits]))
    per_query = 0.0
    for batch in size["batches"]:
        if batch * per_query > settings["longest"]:
            break
        observations = first(batch)
        seconds = seconds_of(lambda observations=observations: estimate(basis, observations), settings["seconds"])
        per_query = seconds / batch
        yield {
            "problem": name,
            "layout": layout,
            "observations": number,
            "noise_percent": noise,
            "batch": batch,
            "threads": settings["threads"],
            "queries_per_second": batch / seconds,
            "seconds_per_query": per_query,
            "least_squares_seconds": slow,
            "times_faster": slow * batch / seconds,
            "error_over_cramer_rao": own,
            "least_squares_error_over_cramer_rao": error(np.array([fit.parameters for fit in fits])),
            "least_squares_queries": len(fits),
        }


def work(settings: Settings, tracker: Tracker) -> None:
    torch.set_num_threads(settings["threads"])
    table = pd.DataFrame(
        [
            row
            for name in settings["sizes"]
            for layout in settings["layouts"]
            for number in settings["numbers"]
            for row in rows(settings, name, layout, number)
        ]
    )
    write_table(table, "throughput", tracker)
    write_figure(plot_throughput(table, settings["bars"]), "throughput", tracker)
    tracker.metrics(table.groupby("problem")["queries_per_second"].max().add_suffix("_queries_per_second").to_dict())
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3g}"))
