"""How far the paper's own data is from exact solutions."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from pydantic import PositiveInt

from ipbasis.problem.declaration import Declared
from ipbasis.reference.solutions import published_solutions, solutions
from ipbasis.reference.terms import term_values
from ipbasis.tracking import Tracker
from pipelines.benchmark import QuerySet
from pipelines.cells import points_of, simulate, tasks_of
from pipelines.report.outputs import write_table
from pipelines.studies.study import Study


class Case(Declared):
    """A set of queries of a problem.

    Args:
        problem: its name.
        range: what the table says of the set.
        set: the number of the set in the problem's benchmark, or one of its own.
    """

    problem: str
    range: str
    set: int | QuerySet


class PublishedData(Study):
    """Settings of the table, see ``conf/published_data.yaml``.

    Args:
        cases: the sets.
        queries: of each, or as many as it lists.
    """

    cases: list[Case]
    queries: PositiveInt

    @classmethod
    def problems_in(cls, values: Mapping[str, Any]) -> Iterable[str]:
        return dict.fromkeys(case["problem"] for case in values["cases"])


def errors_of_case(study: PublishedData, case: Case) -> pd.DataFrame:
    """One row for each field and each unknown term of a problem, over all queries and points of a set."""
    benchmark = study.benchmarks[case.problem]
    entry = benchmark.observations.sets[case.set] if isinstance(case.set, int) else case.set
    chosen, problem = benchmark.with_observations(sets=[entry]), benchmark.problem
    simulated, truth = simulate(chosen, 0, study.queries)
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
            "range": case.range,
            "queries": len(tasks),
            "observations": points.shape[1],
            "quantity": [*problem.fields, *problem.unknown_terms],
            "mean_abs_value": np.abs(exact).mean(axis=(0, 1)),
            "mean_abs_error": error.mean(axis=(0, 1)),
            "max_abs_error": error.max(axis=(0, 1)),
        }
    )


def work(study: PublishedData, tracker: Tracker) -> None:
    parts = [errors_of_case(study, case) for case in study.cases]
    for number, part in enumerate(parts):
        errors = part.set_index("quantity")["mean_abs_error"]
        tracker.metrics(errors.add_prefix(f"{part['problem'].iloc[0]}_").to_dict(), step=number)
    table = pd.concat(parts, ignore_index=True)
    write_table(table, "published_data", tracker)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.2g}"))
