"""Stage pinn: a plain physics-informed network for each of a few queries, and its time to accuracy.

Where the configuration has ``as_published``, the same queries are also trained with the published optimiser;
those tables carry ``published_`` before their names.
"""

import hydra
import numpy as np
import pandas as pd
from omegaconf import DictConfig

from ipbasis.baselines.fit import Fit, Snapshot, best_so_far
from ipbasis.features.trunk import TrunkSettings
from ipbasis.published.pinn import PinnSettings, fit_pinn
from ipbasis.published.time_to_accuracy import time_to_accuracy
from ipbasis.tracking import Tracker
from pipelines.baselines import Answer, Question, asked, fit_all, query_row, write_tables
from pipelines.common import Settings, one_thread, run_stage

SOURCE = "pinn"


def fit(settings: Settings, question: Question) -> Fit:
    """Train one network on one query."""
    one_thread()
    baseline = settings["baselines"][SOURCE]
    chosen = PinnSettings(**baseline["settings"])
    return fit_pinn(question.problem, TrunkSettings(**baseline["trunk"]), question.query, chosen)


def as_published(settings: Settings) -> Settings:
    """The configuration with the published optimiser in place of ours."""
    baseline = settings["baselines"][SOURCE]
    chosen = {**baseline["settings"], **baseline["as_published"]}
    return {**settings, "baselines": {**settings["baselines"], SOURCE: {**baseline, "settings": chosen}}}


def error(settings: Settings, question: Question, snapshot: Snapshot) -> float:
    """Mean absolute error of the unknown terms, or else the largest error of the scored parameters."""
    if question.terms.size:
        return float(np.abs(snapshot.terms - question.terms).mean())
    names = list(question.problem.parameters)
    scored = [names.index(name) for name in settings["observations"]["scored"]]
    return float(np.abs(snapshot.parameters - question.parameters)[scored].max())


def history(settings: Settings, question: Question, done: Fit) -> pd.DataFrame:
    """The training of one query, the best state so far: ``step``, ``seconds``, ``loss``, ``error``."""
    rows = [(s.step, s.seconds, s.loss, error(settings, question, s)) for s in best_so_far(done.history)]
    return pd.DataFrame(rows, columns=["step", "seconds", "loss", "error"])


def training_tables(
    settings: Settings, answers: list[Answer], tracker: Tracker, prefix: str = ""
) -> dict[str, pd.DataFrame]:
    """How the trainings went, and seconds and steps until the error stays under each level.

    Args:
        settings: the configuration they were trained with.
        answers: the trained queries.
        tracker: receives the histories.
        prefix: before the names of tables and metrics.
    """
    levels, problem = settings["baselines"][SOURCE]["levels"], settings["problem"]["name"]
    histories, reached = [], []
    for question, done in answers:
        label = {"problem": problem, "query": question.id}
        trained = history(settings, question, done)
        histories.append(trained.assign(**label, **question.cell.label))
        times = time_to_accuracy(trained["step"], trained["seconds"], trained["error"], levels)
        reached.append(pd.DataFrame(label, index=times.index).join(times).assign(**question.cell.label))
        tracker.history(trained.to_dict("records"), prefix=f"{prefix}{question.cell.name}_query_{question.id}_")
    return {
        f"{prefix}history": pd.concat(histories, ignore_index=True),
        f"{prefix}time_to_accuracy": pd.concat(reached, ignore_index=True),
        f"{prefix}queries": pd.DataFrame([query_row(settings, SOURCE, *answer) for answer in answers]),
    }


def work(settings: Settings, tracker: Tracker) -> None:
    baseline, every = settings["baselines"][SOURCE], asked(settings, SOURCE)
    variants = {"": settings} | ({"published_": as_published(settings)} if "as_published" in baseline else {})
    jobs = [(variant, question) for variant in variants.values() for question in every]
    answers = fit_all(fit, jobs, min(baseline["workers"], len(jobs)), SOURCE)
    tables = {}
    for number, (prefix, variant) in enumerate(variants.items()):
        of_variant = answers[number * len(every) : (number + 1) * len(every)]
        tables |= training_tables(variant, of_variant, tracker, prefix)
    write_tables(settings, tracker, SOURCE, answers[: len(every)], tables)


@hydra.main(version_base=None, config_path="../../conf", config_name="config")
def main(config: DictConfig) -> None:
    run_stage("pinn", config, work)


if __name__ == "__main__":
    main()
