"""How many queries reach the global optimum, without a guess and from bad ones."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from ipbasis.baselines.fit import Fit
from ipbasis.baselines.least_squares import LeastSquaresSettings, fit_least_squares, initial_guesses, well_within
from ipbasis.estimates.estimate import estimate
from ipbasis.estimates.resimulate import fitted_initial_values
from ipbasis.estimates.result import Estimates
from ipbasis.evaluation.study_figures import plot_convergence
from ipbasis.problem.declaration import Tasks
from ipbasis.reference.solutions import solutions
from ipbasis.tracking import Tracker
from pipelines.baselines import Question, fit_all, questions_of
from pipelines.cells import tasks_of
from pipelines.common import Settings
from pipelines.report.outputs import write_figure, write_table
from pipelines.studies.queries import best_basis, draw


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
        questions: one per query.
        own: the tasks that ipbasis estimates, by variant.
    """

    label: dict
    truth: Tasks
    noise_std: np.ndarray
    questions: list[Question]
    own: Mapping[str, Tasks]


def fit(start: Start, question: Question) -> Fit:
    """Fit one query from one start."""
    problem, query = question.problem, question.query
    if not start.held:
        return fit_least_squares(problem, query, start.settings, start.task)
    parameters = start.task.parameters[0]
    failed = Fit(parameters, np.empty((len(query.points), 0)), np.nan, 0.0, 0)
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
    low, high = np.array([*problem.free_initial.values()]).reshape(-1, 2).T
    initial = np.where((initial < low) | (initial > high), well_within(initial, low, high), initial)
    return Tasks(estimates.table[list(problem.parameters)].to_numpy(), initial)


def case(settings: Settings, name: str) -> Case:
    """Draw the queries of a problem and estimate them."""
    cell, count = settings["cells"][name], settings["sizes"][name]["queries"]
    queries = draw(settings, name, settings["drawn"][name], count, cell["number"])
    observed = queries.observed(cell["noise"])
    return Case(
        {"problem": name, "noise_percent": cell["noise"], "observations": cell["number"]},
        tasks_of(queries.problem, queries.truth),
        observed.truth["noise_std"].to_numpy(),
        list(questions_of(queries.settings, queries.cell(cell["noise"]), observed, range(count))),
        {
            variant: estimated_tasks(estimate(best_basis(name), observed.observations, polish=bool(variant)))
            for variant in ("", "polished")
        },
    )


def starts(settings: Settings, case: Case) -> Iterator[tuple[Start, Question]]:
    """What least squares is given.

    Each query from the truth, and with the parameters that ipbasis estimates, to which it finds the initial values:
    these are no part of an estimate. The first queries also from bad guesses of the parameters, and initial values
    as first observed.
    """
    chosen = LeastSquaresSettings(**settings["least_squares"])
    for number, question in enumerate(case.questions):
        yield Start(chosen, "truth", None, case.truth[number : number + 1]), question
        for variant, tasks in case.own.items():
            yield Start(chosen, "ipbasis", None, tasks[number : number + 1], True, variant), question
    first = case.questions[: settings["sizes"][case.label["problem"]]["least_squares"]]
    for factor in settings["times_off"]:
        parameters = disturbed(case.truth.parameters, factor, settings["seed"])
        for number, question in enumerate(first):
            guess = initial_guesses(question.problem, question.query)[None]
            yield Start(chosen, "least_squares", factor, Tasks(parameters[[number]], guess)), question


def excess(misfit: np.ndarray, best: np.ndarray, noise_std: np.ndarray) -> np.ndarray:
    """(queries,) how far chi-square is above its value at the global optimum; infinite where there is no estimate.

    Args:
        misfit: (queries,) squared misfit, NaN where there is no estimate.
        best: (queries,) squared misfit at the global optimum.
        noise_std: (queries,) of the observations.
    """
    return np.nan_to_num((misfit - best) / noise_std**2, nan=np.inf)


def rows(case: Case, fits: Sequence[tuple[Start, Fit]], most_excess: float) -> list[dict]:
    """Rows of the table: ours, then least squares from each start.

    Args:
        case: the queries.
        fits: of least squares, by start; queries in the order of the case.
        most_excess: of chi-square, for a query to count as at the optimum.
    """
    values = [question.query.values.size for question in case.questions]
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


def work(settings: Settings, tracker: Tracker) -> None:
    torch.set_num_threads(settings["threads"])
    cases = [case(settings, name) for name in settings["cells"]]
    jobs = [list(starts(settings, one)) for one in cases]
    every = [job for part in jobs for job in part]
    answers = iter(fit_all(fit, every, settings["workers"], "least_squares"))
    table = pd.DataFrame(
        [
            row
            for one, part in zip(cases, jobs, strict=True)
            for row in rows(one, [(start, next(answers)[1]) for start, _ in part], settings["most_excess"])
        ]
    )
    write_table(table, "convergence_basin", tracker)
    write_figure(plot_convergence(table, settings["bars"]["share"]), "convergence_basin", tracker)
    own = table[(table["source"] == "ipbasis") & (table["variant"] == "")].set_index("problem")["share"]
    tracker.metrics(own.add_suffix("_share_at_optimum").to_dict())
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3g}"))
