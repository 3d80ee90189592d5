"""Write the observations of three examples of README.md: ``python -m pipelines.report.examples``; they are in git."""

import sys

import numpy as np
import pandas as pd

from ipbasis.files import replacing_file
from ipbasis.observations.simulate import ObservationSettings, long_table
from ipbasis.problem.declaration import Problem, Tasks, problem_directory
from ipbasis.reference.solutions import solutions
from pipelines.paths import DATA

# per problem: names of the queries, how they are observed, and what is known of each
_EXAMPLES = {
    "lotka_volterra": (
        ["island", "north-lake", "mire"],
        {"number": 40, "noise": 3, "noise_kind": "gaussian"},
        [],
    ),
    "lotka_volterra_unknown_terms": (
        ["island", "north-lake"],
        {"number": 100, "noise": 0.5, "noise_kind": "gaussian"},
        ["alpha", "gamma"],
    ),
    "quantum_oscillator": (["trap-A", "trap-B", "trap-C"], {"number": 150, "noise": 20, "noise_kind": "uniform"}, []),
}
_SEED = 11


def example(name: str) -> pd.DataFrame:
    """Observations of a few queries of a problem, with noise."""
    queries, sampling, known = _EXAMPLES[name]
    problem = Problem.from_yaml(problem_directory() / f"{name}.yaml")
    settings = ObservationSettings(layout="own", noise_unit="percent", seed=_SEED, **sampling)
    drawn = problem.sample_tasks(len(queries), np.random.default_rng(_SEED))
    tasks = Tasks(drawn.parameters.round(3), drawn.initial)  # known values are told in three digits
    points = settings.points(problem, len(queries))
    values, _ = settings.disturb(solutions(problem, tasks, points))
    table = long_table(problem, points, values)
    for column in known:
        table[column] = tasks.parameters[table["query"], list(problem.parameters).index(column)]
    table["query"] = np.array(queries)[table["query"]]
    return table


def main() -> int:
    for name in _EXAMPLES:
        with replacing_file(DATA / "examples" / f"{name}.csv") as temporary:
            example(name).to_csv(temporary, index=False, float_format="%.5g")
    return 0


if __name__ == "__main__":
    sys.exit(main())
