"""Stage least_squares: the classical baseline on a few queries of each cell."""

import hydra
import pandas as pd
from omegaconf import DictConfig

from ipbasis.baselines.fit import Fit
from ipbasis.baselines.least_squares import LeastSquaresSettings, fit_least_squares
from ipbasis.tracking import Tracker
from pipelines.baselines import Question, asked, fit_all, query_row, write_tables
from pipelines.common import Settings, run_stage

SOURCE = "least_squares"


def fit(settings: Settings, question: Question) -> Fit:
    """Fit one query."""
    chosen = LeastSquaresSettings(**settings["baselines"][SOURCE]["settings"])
    return fit_least_squares(question.problem, question.query, chosen)


def work(settings: Settings, tracker: Tracker) -> None:
    jobs = [(settings, question) for question in asked(settings, SOURCE)]
    answers = fit_all(fit, jobs, settings["baselines"][SOURCE]["workers"], SOURCE)
    by_query = pd.DataFrame([query_row(settings, SOURCE, *answer) for answer in answers])
    write_tables(settings, tracker, SOURCE, answers, {"queries": by_query})


@hydra.main(version_base=None, config_path="../../conf", config_name="config")
def main(config: DictConfig) -> None:
    run_stage("least_squares", config, work)


if __name__ == "__main__":
    main()
