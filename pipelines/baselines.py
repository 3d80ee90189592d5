"""What the baseline stages share: queries one by one, scored like ours."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from tqdm import tqdm

from ipbasis.baselines.fit import Fit
from ipbasis.evaluation.metrics import parameter_errors
from ipbasis.files import replacing_file
from ipbasis.problem import Problem
from ipbasis.tracking import Tracker
from pipelines.common import DATA, Settings
from pipelines.steps import read_set, set_name


def fit_one_by_one(
    source: str,
    settings: Settings,
    tracker: Tracker,
    sets: list[int],
    fit: Callable[[np.ndarray, np.ndarray], Fit],
) -> None:
    """Fit the first queries of some sets and write estimates and table.

    Args:
        source: name of the baseline.
        settings: the configuration.
        tracker: receives metrics and files.
        sets: numbers of the sets.
        fit: takes points (n, d) and values (n, F) of one query.
    """
    problem = Problem(**settings["problem"])
    folder = DATA / "estimates" / problem.name / source
    count = settings["baselines"][source]["queries"]
    rows = []
    for number in sets:
        label = settings["observations"]["sets"][number]["label"]
        name = set_name(label)
        observations, truth = read_set(problem.name, label, count)
        fits = []
        for query, rows_of_query in tqdm(list(observations.groupby("query", sort=False)), desc=f"{source} {name}"):
            points = rows_of_query[list(problem.coordinates)].to_numpy()
            values = rows_of_query[problem.fields].to_numpy()
            done = fit(points, values)
            tracker.history(done.history, prefix=f"query_{query}_")
            found = dict(zip(problem.parameters, done.parameters, strict=True))
            fits.append({"query": query, **found, "loss": done.loss, "seconds": done.seconds, "effort": done.effort})
        table = pd.DataFrame(fits)
        with replacing_file(folder / f"{source}_{name}.parquet") as temporary:
            table.to_parquet(temporary, index=False)
        solved = table.dropna()
        row = {
            "source": source,
            **label,
            "queries": len(table),
            "epochs": int(table["effort"].mean()),
            "loss": solved["loss"].mean(),
            **parameter_errors(solved, truth, settings["observations"]["scored"]),
            "seconds": table["seconds"].sum(),
            "seconds_per_query": table["seconds"].mean(),
            "noise": settings["observations"]["noise"],
            "noise_unit": settings["observations"]["noise_unit"],
        }
        tracker.metrics(row, step=number)
        rows.append(row)
    with replacing_file(folder / "online.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    tracker.artefact(folder, "estimates")
