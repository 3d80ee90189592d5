"""Stage query: every cell of a problem on the bases of all numbers of readouts."""

import hydra
import numpy as np
import pandas as pd
from omegaconf import DictConfig

from ipbasis.files import replacing_file
from ipbasis.offline.artefact import Basis
from ipbasis.problem.declaration import Problem
from ipbasis.reference.sensitivities import sensitivities
from ipbasis.tracking import Tracker
from pipelines.cells import cells, points_of, read_set, shown_cells, shown_queries, tasks_of
from pipelines.common import (
    DATA,
    Settings,
    composed,
    methods,
    recipe_directory,
    run_stage,
    side_by_side,
    trained_readouts,
)
from pipelines.querying import Answer, Question, fits, query, term_surfaces


def _ideal(settings: Settings, number: int) -> np.ndarray | None:
    """Sensitivities of a set, if there is noise to compare with."""
    if not any(cell.noise for cell in cells(settings) if cell.set == number):
        return None
    problem = Problem(**settings["problem"])
    simulated, truth = read_set(settings, number)
    return sensitivities(problem, tasks_of(problem, truth), points_of(settings, simulated, len(truth)))


def _write(settings: Settings, name: str, answer: Answer, simulated: pd.DataFrame | None) -> None:
    """Estimates of a cell and, with its noise-free observations, what the pictures show of it."""
    folder = DATA / "estimates" / settings["problem"]["name"] / "online" / f"readouts-{settings['basis']['readouts']}"
    tables = {"estimates": answer.table}
    if simulated is not None:
        problem, shown = Problem(**settings["problem"]), shown_queries(settings)
        tables["fits"] = fits(problem, answer, shown)
        if problem.unknown_terms:
            tables["terms"] = term_surfaces(problem, answer, shown, simulated)
    for suffix, table in tables.items():
        with replacing_file(folder / f"{name}_{suffix}.parquet") as temporary:
            table.to_parquet(temporary, index=False)


def _crossed(settings: Settings, bases: dict[str, Basis]) -> list[dict]:
    """One solver on the bases of the other recipes: which part of a difference is the basis, which the solver."""
    cell = cells(settings)[0]
    question = Question(cell, *read_set(settings, cell.set, settings["budget"]["crossed_queries"]))
    return [
        {"basis": name, "solver": settings["online"]["solver"], **query(settings, basis, [question])[0].row}
        for name, basis in bases.items()
        if name != settings["recipe"]["source"]
    ]


def answered(
    settings: Settings, method: str, sensitivity: dict[int, np.ndarray | None], shown: list[str]
) -> tuple[list[dict], list[dict]]:
    """Answer every cell by one recipe on the bases of one number of readouts; the estimates are written.

    Args:
        settings: configuration of the recipe.
        method: name of the recipe.
        sensitivity: see `Question`, of each set.
        shown: names of the cells that the pictures show.

    Returns:
        rows of the online table, and of that of each solver on each basis.
    """
    readouts = settings["basis"]["readouts"]
    bases = {
        recipe: Basis.load(recipe_directory(settings["basis"]["problem"], readouts, recipe))
        for recipe in settings["recipes"]
    }
    source, count = settings["recipe"]["source"], settings["recipe"]["queries"]
    sets = {number: read_set(settings, number, count) for number in sensitivity}
    questions = [Question(cell, *sets[cell.set], sensitivity[cell.set]) for cell in cells(settings)]
    answers = query(settings, bases[source], questions)
    for question, answer in zip(questions, answers, strict=True):
        name = question.cell.name
        _write(settings, f"{method}_{name}", answer, question.simulated if name in shown else None)
    own = {"basis": source, "solver": settings["online"]["solver"], **answers[0].row}
    return [answer.row for answer in answers], [own, *_crossed(settings, bases)]


def work(settings: Settings, tracker: Tracker) -> None:
    sensitivity = {number: _ideal(settings, number) for number in range(len(settings["observations"]["sets"]))}
    shown = [cell.name for cell in shown_cells(settings)]
    jobs = [
        ({**composed(recipe=method, basis__readouts=readouts), "threads": 1}, method, sensitivity, shown)
        for readouts in trained_readouts(settings["basis"]["problem"])
        for method in methods(settings)
    ]
    done = side_by_side(answered, jobs, settings["threads"], "query")
    for (chosen, method, *_), (rows, _) in zip(jobs, done, strict=True):
        history = [{**row, "step": step} for step, row in enumerate(rows)]
        tracker.history(history, prefix=f"{method}_readouts_{chosen['basis']['readouts']}_")
    folder = DATA / "estimates" / settings["problem"]["name"] / "online"
    for number, name in enumerate(("online", "crossed")):
        with replacing_file(folder / f"{name}.csv") as temporary:
            pd.DataFrame([row for tables in done for row in tables[number]]).to_csv(temporary, index=False)
    tracker.artefact(folder, "estimates")


@hydra.main(version_base=None, config_path="../../conf", config_name="config")
def main(config: DictConfig) -> None:
    run_stage("query", config, work)


if __name__ == "__main__":
    main()
