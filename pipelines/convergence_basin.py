"""Stage convergence_basin: how many queries reach the global optimum, without a guess and from bad ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import hydra
import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig

from ipbasis.baselines.fit import Fit
from ipbasis.baselines.least_squares import LeastSquaresSettings, fit_least_squares, initial_guesses
from ipbasis.evaluation.study_figures import plot_convergence
from ipbasis.inverse.estimate import Estimates, estimate
from ipbasis.problem import Problem, Tasks
from ipbasis.reference.solutions import solutions
from ipbasis.tracking import Tracker
from pipelines.baselines import Question, fit_all, questions_of
from pipelines.cells import Observed, tasks_of
from pipelines.common import Settings, run_stage
from pipelines.outputs import write_figure, write_table
from pipelines.studies import best_basis, draw


@dataclass(frozen=True)
class Start:
    """Where least squares starts on a query.

    Args:
        settings: of the solver.
        times_off: factor between the start and the truth; 1 for the truth itself.
        task: parameters and initial values of one task.
    """

    settings: LeastSquaresSettings
    times_off: float
    task: Tasks


@dataclass(frozen=True)
class Case:
    """The queries of one problem and what ipbasis makes of them.

    Args:
        label: what the table notes of them.
        truth: the tasks behind them.
        noise_std: (queries,) of the observations.
        questions: one per query.
        own: (queries,) squared misfit of our estimates, re-simulated; infinite where there is none.
    """

    label: dict
    truth: Tasks
    noise_std: np.ndarray
    questions: list[Question]
    own: np.ndarray


def fit(start: Start, question: Question) -> Fit:
    """Fit one query from one start."""
    return fit_least_squares(question.problem, question.query, start.settings, start.task)


def disturbed(parameters: np.ndarray, factor: float, seed: int) -> np.ndarray:
    """Parameters, each multiplied or divided by a factor, at random; alike for every factor."""
    sign = np.random.default_rng(seed).choice([-1.0, 1.0], parameters.shape)
    return parameters * factor**sign


def estimated_tasks(estimates: Estimates) -> Tasks:
    """The tasks that estimates stand for: their parameters, and the initial values of the fitted solutions."""
    problem = estimates.basis.problem
    coordinates, initial = list(problem.coordinates), []
    for jet in problem.free_initial:
        features = estimates.basis.features(problem.domain[:1, 0], "".join(coordinates[c] for c in jet.index))
        initial.append(estimates.readouts[:, jet.field] @ features[0])
    values = np.stack(initial, axis=1) if initial else np.zeros((len(estimates.table), 0))
    return Tasks(estimates.table[list(problem.parameters)].to_numpy(), values)


def misfits(problem: Problem, tasks: Tasks, observed: Observed) -> np.ndarray:
    """(tasks,) squared misfit of re-simulated tasks to the observations; infinite where there is no solution."""
    values = observed.observations[problem.fields].to_numpy().reshape(len(tasks), -1, len(problem.fields))
    found = np.full(len(tasks), np.inf)
    for row in range(len(tasks)):  # one by one: a task without a solution would take the others with it
        task, points = tasks[row : row + 1], observed.points[[row % len(observed.points)]]
        if np.isfinite(task.parameters).all() and np.isfinite(task.initial).all():
            try:
                found[row] = ((solutions(problem, task, points)[0] - values[row]) ** 2).sum()
            except ArithmeticError:
                continue
    return found


def case(settings: Settings, name: str) -> Case:
    """Draw the queries of a problem and estimate them."""
    cell, count = settings["cells"][name], settings["sizes"][name]["queries"]
    queries = draw(settings, name, settings["drawn"][name], count, cell["number"])
    observed = queries.observed(cell["noise"])
    tasks = estimated_tasks(estimate(best_basis(name), observed.observations))
    return Case(
        {"problem": name, "noise_percent": cell["noise"], "observations": cell["number"]},
        tasks_of(queries.problem, queries.truth),
        observed.truth["noise_std"].to_numpy(),
        list(questions_of(queries.settings, queries.cell(cell["noise"]), observed, range(count))),
        misfits(queries.problem, tasks, observed),
    )


def starts(settings: Settings, case: Case) -> Iterator[tuple[Start, Question]]:
    """What least squares is given: each query from the truth, the first ones from bad guesses too.

    A bad guess is that of the parameters; initial values start from the first observations.
    """
    chosen = LeastSquaresSettings(**settings["least_squares"])
    for number, question in enumerate(case.questions):
        yield Start(chosen, 1.0, case.truth[number : number + 1]), question
    first = case.questions[: settings["sizes"][case.label["problem"]]["least_squares"]]
    for factor in settings["times_off"]:
        parameters = disturbed(case.truth.parameters, factor, settings["seed"])
        for number, question in enumerate(first):
            guess = initial_guesses(question.problem, question.query)[None]
            yield Start(chosen, factor, Tasks(parameters[[number]], guess)), question


def share(misfit: np.ndarray, best: np.ndarray, noise_std: np.ndarray, most_excess: float) -> float:
    """Share of queries whose chi-square is above the best one by no more than `most_excess`.

    Args:
        misfit: (queries,) squared misfit, infinite where there is no estimate.
        best: (queries,) squared misfit at the global optimum.
        noise_std: (queries,) of the observations.
        most_excess: of chi-square, the squared misfit in units of the noise variance.
    """
    return float((np.isfinite(misfit) & (misfit <= best + most_excess * noise_std**2)).mean())


def rows(case: Case, fits: Sequence[tuple[Start, Fit]], most_excess: float) -> list[dict]:
    """Rows of the table: ours, then least squares from each start.

    Args:
        case: the queries.
        fits: of least squares, by start.
        most_excess: see `share`.
    """
    values = [question.query.values.size for question in case.questions]
    losses: dict[float, list[float]] = {}
    for start, one in fits:
        losses.setdefault(start.times_off, []).append(one.loss)
    # a fit that failed has no misfit
    misfit = {off: np.nan_to_num(loss, nan=np.inf) * values[: len(loss)] for off, loss in losses.items()}
    best = misfit.pop(1.0)
    every = {("ipbasis", np.nan): case.own} | {("least_squares", off): found for off, found in misfit.items()}
    return [
        {
            **case.label,
            "source": source,
            "times_off": off,
            "queries": len(found),
            "share": share(found, best[: len(found)], case.noise_std[: len(found)], most_excess),
        }
        for (source, off), found in every.items()
    ]


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
    own = table[table["source"] == "ipbasis"].set_index("problem")["share"]
    tracker.metrics(own.add_suffix("_share_at_optimum").to_dict())
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3g}"))


@hydra.main(version_base=None, config_path="../conf", config_name="convergence_basin")
def main(config: DictConfig) -> None:
    run_stage("convergence_basin", config, work)


if __name__ == "__main__":
    main()
