"""Stage published_data: how far the paper's own data is from exact solutions."""

import hydra
import numpy as np
import pandas as pd
from omegaconf import DictConfig

from ipbasis.problem.declaration import Problem
from ipbasis.reference.solutions import published_solutions, solutions
from ipbasis.reference.terms import term_values
from ipbasis.tracking import Tracker
from pipelines.cells import points_of, simulate, tasks_of
from pipelines.common import Settings, run_stage
from pipelines.report.outputs import write_table


def errors_of_case(settings: Settings, case: Settings) -> pd.DataFrame:
    """One row for each field and each unknown term of a problem, over all queries and points of a set.

    Args:
        settings: the configuration.
        case: ``problem``, its name; ``range``, what the table says of the set; ``set``, one of the observations'.
    """
    problem = Problem(**settings["problems"][case["problem"]])
    sampling = {**settings["observations"][case["problem"]], "sets": [case["set"]], "noise": 0}
    chosen = {**settings, "problem": settings["problems"][case["problem"]], "observations": sampling}
    simulated, truth = simulate(chosen, 0, settings["queries"])
    tasks, points = tasks_of(problem, truth), points_of(chosen, simulated, len(truth))
    exact, published = (
        np.concatenate([values, term_values(problem, tasks.parameters, values)], axis=-1)
        for values in (solve(problem, tasks, points) for solve in (solutions, published_solutions))
    )
    error = np.abs(published - exact)
    return pd.DataFrame(
        {
            "problem": problem.name,
            "fault": "relative tolerance 1e-3" if points.shape[-1] == 1 else "coordinates misplaced",
            "range": case["range"],
            "queries": len(tasks),
            "observations": points.shape[1],
            "quantity": [*problem.fields, *problem.unknown_terms],
            "mean_abs_value": np.abs(exact).mean(axis=(0, 1)),
            "mean_abs_error": error.mean(axis=(0, 1)),
            "max_abs_error": error.max(axis=(0, 1)),
        }
    )


def work(settings: Settings, tracker: Tracker) -> None:
    parts = [errors_of_case(settings, case) for case in settings["cases"]]
    for number, part in enumerate(parts):
        errors = part.set_index("quantity")["mean_abs_error"]
        tracker.metrics(errors.add_prefix(f"{part['problem'].iloc[0]}_").to_dict(), step=number)
    table = pd.concat(parts, ignore_index=True)
    write_table(table, "published_data", tracker)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.2g}"))


@hydra.main(version_base=None, config_path="../../conf", config_name="published_data")
def main(config: DictConfig) -> None:
    run_stage("published_data", config, work)


if __name__ == "__main__":
    main()
