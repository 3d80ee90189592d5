"""How many queries reach the global optimum, without a guess and from bad ones."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from pydantic import PositiveInt

from ipbasis.baselines.fit import BaselineFit
from ipbasis.baselines.least_squares import LeastSquaresSettings, fit_least_squares, initial_guesses, well_within
from ipbasis.estimates.estimate import estimate
from ipbasis.estimates.resimulate import fitted_initial_values
from ipbasis.estimates.result import Estimates
from ipbasis.evaluation.study_figures import plot_convergence
from ipbasis.problem.declaration import Declared, Tasks
from ipbasis.reference.solutions import solutions
from ipbasis.tracking import Tracker
from pipelines.baselines import KnownQuery, fit_all, known_queries
from pipelines.cells import tasks_of
from pipelines.report.outputs import write_figure, write_table
from pipelines.studies.queries import best_basis, draw
from pipelines.studies.study import QueryStudy, StudyCell


class Size(Declared):
    """How many queries, of which least squares is given the first few."""

    queries: PositiveInt
    least_squares: PositiveInt


class Bars(Declared):
    """What is aimed at, drawn as a line."""

    share: float


class ConvergenceBasin(QueryStudy):
    """Settings of the study, see ``conf/convergence_basin.yaml``.

    Args:
        sizes: by problem.
        cells: by problem.
        times_off: factors between the start and the truth.
        most_excess: of chi-square, for a query to count as at the optimum.
        workers: fits of least squares side by side.
        least_squares: its settings.
        bars: what is aimed at.
    """

    sizes: dict[str, Size]
    cells: dict[str, StudyCell]
    times_off: list[float]
    most_excess: float
    workers: PositiveInt
    least_squares: LeastSquaresSettings
    bars: Bars


@dataclass(frozen=True)
class Start:
    """Where least squares starts on a query.

    Args:
        settings: of the solver.
        source: whose row of the table its outcome belongs to; ``truth`` for what all are compared with.
        times_off: factor between the start and the truth; None where that is not what the start is.
        variant: ``polished`` for estimates that went on through the reference solver.
        task: parameters and initial values of one task.
        held: whether these parameters are held, and initial values alone are searched.
    """

    settings: LeastSquaresSettings
    source: str
    times_off: float | None
    task: Tasks
    held: bool = False
    variant: str = ""


@dataclass(frozen=True)
class Case:
    """The queries of one problem, and what ipbasis makes of them.

    Args:
        label: what the table notes of them.
        truth: the tasks behind them.
        noise_std: (queries,) of the observations.
        queries: one by one.
        own: the tasks that ipbasis estimates, by variant.
    """

    label: dict
    truth: Tasks
    noise_std: np.ndarray
    queries: list[KnownQuery]
    own: Mapping[str, Tasks]


def fit(start: Start, known: KnownQuery) -> BaselineFit:
    """Fit one query from one start."""
    problem, query = known.problem, known.query
    if not start.held:
        return fit_least_squares(problem, query, start.settings, start.task)
    parameters = start.task.parameters[0]
    failed = BaselineFit(parameters, np.empty((len(query.points), 0)), np.nan, 0.0, 0)
    if not np.isfinite(parameters).all():
        return failed
    if problem.free_initial:
        return fit_least_squares(problem, replace(query, known=parameters), start.settings, start.task)
    try:
        values = solutions(problem, start.task, query.points[None], start.settings.tolerance)[0]
    except ArithmeticError:
        return failed
    return replace(failed, loss=float(np.mean((values - query.values) ** 2)), effort=1)


def disturbed(parameters: np.ndarray, factor: float, seed: int) -> np.ndarray:
    """Parameters, each multiplied or divided by a factor, at random; alike for every factor."""
    sign = np.random.default_rng(seed).choice([-1.0, 1.0], parameters.shape)
    return parameters * factor**sign


def estimated_tasks(estimates: Estimates) -> Tasks:
    """The tasks that estimates stand for: their parameters, and the initial values of the fitted solutions.

    Values that noise has led out of their range, where there may be no solution to start from, are taken within it.
    """
    problem = estimates.basis.problem
    initial = fitted_initial_values(estimates.basis, torch.tensor(estimates.readouts).flatten(1))
    low, high = problem.unknown_ranges[len(problem.parameters) :].T
    initial = np.where((initial < low) | (initial > high), well_within(initial, low, high), initial)
    return Tasks(estimates.table[list(problem.parameters)].to_numpy(), initial)


def case(study: ConvergenceBasin, name: str) -> Case:
    """Draw the queries of a problem and estimate them."""
    cell, count = study.cells[name], study.sizes[name].queries
    queries = draw(study.benchmarks[name], study.drawn[name], count, cell.number)
    observed = queries.observed(cell.noise)
    return Case(
        {"problem": name, "noise_percent": cell.noise, "observations": cell.number},
        tasks_of(queries.problem, queries.truth),
        observed.truth["noise_std"].to_numpy(),
        list(known_queries(queries.benchmark, queries.cell(cell.noise), observed, range(count))),
        {
            variant: estimated_tasks(estimate(best_basis(name), observed.observations, polish=bool(variant)))
            for variant in ("", "polished")
        },
    )


def starts(study: ConvergenceBasin, case: Case) -> Iterator[tuple[Start, KnownQuery]]:
    """What least squares is given.

    Each query from the truth, and with the parameters that ipbasis estimates, to which it finds the initial values:
    these are no part of an estimate. The first queries also from bad guesses of the parameters, and initial values
    as first observed.
    """
    chosen = study.least_squares
    for number, known in enumerate(case.queries):
        yield Start(chosen, "truth", None, case.truth[number : number + 1]), known
        for variant, tasks in case.own.items():
            yield Start(chosen, "ipbasis", None, tasks[number : number + 1], True, variant), known
    first = case.queries[: study.sizes[case.label["problem"]].least_squares]
    for factor in study.times_off:
        parameters = disturbed(case.truth.parameters, factor, study.seed)
        for number, known in enumerate(first):
            guess = initial_guesses(known.problem, known.query)[None]
            yield Start(chosen, "least_squares", factor, Tasks(parameters[[number]], guess)), known


def excess(misfit: np.ndarray, best: np.ndarray, noise_std: np.ndarray) -> np.ndarray:
    """(queries,) how far chi-square is above its value at the global optimum; infinite where there is no estimate.

    Args:
        misfit: (queries,) squared misfit, NaN where there is no estimate.
        best: (queries,) squared misfit at the global optimum.
        noise_std: (queries,) of the observations.
    """
    return np.nan_to_num((misfit - best) / noise_std**2, nan=np.inf)


def rows(case: Case, fits: Sequence[tuple[Start, BaselineFit]], most_excess: float) -> list[dict]:
    """Rows of the table: ours, then least squares from each start.

    Args:
        case: the queries.
        fits: of least squares, by start; queries in the order of the case.
        most_excess: of chi-square, for a query to count as at the optimum.
    """
    values = [known.query.values.size for known in case.queries]
    losses: dict[tuple, list[float]] = {}
    for start, one in fits:
        losses.setdefault((start.source, start.variant, start.times_off), []).append(one.loss)
    misfit = {key: np.array(found) * values[: len(found)] for key, found in losses.items()}
    best = misfit.pop(("truth", "", None))
    table = []
    for (source, variant, off), found in misfit.items():
        above = excess(found, best[: len(found)], case.noise_std[: len(found)])
        row = {**case.label, "source": source, "variant": variant, "times_off": off, "queries": len(found)}
        table.append({**row, "share": float((above <= most_excess).mean()), "largest_excess": above.max()})
    return table


def work(study: ConvergenceBasin, tracker: Tracker) -> None:
    torch.set_num_threads(study.threads)
    cases = [case(study, name) for name in study.cells]
    jobs = [list(starts(study, one)) for one in cases]
    every = [job for part in jobs for job in part]
    fitted = iter(fit_all(fit, every, study.workers, "least_squares"))
    table = pd.DataFrame(
        [
            row
            for one, part in zip(cases, jobs, strict=True)
            for row in rows(one, [(start, next(fitted)[1]) for start, _ in part], study.most_excess)
        ]
    )
    write_table(table, "convergence_basin", tracker)
    write_figure(plot_convergence(table, study.bars.share), "convergence_basin", tracker)
    own = table[(table["source"] == "ipbasis") & (table["variant"] == "")].set_index("problem")["share"]
    tracker.metrics(own.add_suffix("_share_at_optimum").to_dict())
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3g}"))
