"""What the baseline stages share: queries one by one, scored like ours."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from tqdm import tqdm

from ipbasis.evaluation.metrics import parameter_errors
from ipbasis.files import replacing_file
from ipbasis.problem import Problem
from ipbasis.tracking import Tracker
from pipelines.common import DATA, Settings
from pipelines.steps import set_name

# what a baseline gives for one query: parameters, loss, seconds and effort (steps or evaluations)
Fit = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, float, float, int]]


def fit_one_by_one(source: str, settings: Settings, tracker: Tracker, sets: list[int], fit: Fit) -> None:
    """Fit the first queries of some sets and write estimates and table."""
    problem = Problem(**settings["problem"])
    folder = DATA / "estimates" / problem.name / source
    count = settings["baselines"][source]["queries"]
    rows = []
    for number in sets:
        label = settings["observations"]["sets"][number]["label"]
        name = set_name(label)
        observations, truth = (
            pd.read_parquet(DATA / "observations" / problem.name / f"{name}_{part}.parquet")
            for part in ("observations", "truth")
        )
        fits = []
        chosen = list(observations.groupby("query", sort=False))[:count]
        for query, rows_of_query in tqdm(chosen, desc=f"{source} {name}", mininterval=1):
            points = rows_of_query[list(problem.coordinates)].to_numpy()
            values = rows_of_query[problem.fields].to_numpy()
            parameters, loss, seconds, effort = fit(points, values)
            found = dict(zip(problem.parameters, parameters, strict=True))
            fits.append({"query": query, **found, "loss": loss, "seconds": seconds, "effort": effort})
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
            "noise_percent": settings["observations"]["noise"],
            "ok_share": len(solved) / len(table),
        }
        tracker.metrics({key: value for key, value in row.items() if key != "source"}, step=number)
        rows.append(row)
    with replacing_file(folder / "online.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    tracker.artefact(folder, "estimates")
