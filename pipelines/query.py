"""Stage query: every set of queries on the bases of one number of readouts."""

import hydra
import pandas as pd
from omegaconf import DictConfig

from ipbasis.basis.artefact import Basis
from ipbasis.files import replacing_file
from ipbasis.tracking import Tracker
from pipelines.common import DATA, Settings, recipe_directory, recipe_settings, run_stage
from pipelines.steps import fits, query, read_set, set_name


def work(settings: Settings, tracker: Tracker) -> None:
    problem = settings["problem"]["name"]
    place = f"readouts-{settings['basis']['readouts']}"
    folder = DATA / "estimates" / problem / place
    sets = settings["observations"]["sets"]
    composed = {recipe: recipe_settings(recipe) for recipe in settings["recipes"]}
    bases = {
        recipe: Basis.load(recipe_directory(problem, settings["basis"]["readouts"], recipe)) for recipe in composed
    }
    rows, crossed = [], []
    for source, chosen in composed.items():
        for number, label in enumerate(entry["label"] for entry in sets):
            row, estimates = query(chosen, bases[source], *read_set(problem, label, chosen["recipe"]["queries"]), label)
            rows.append(row)
            with replacing_file(folder / f"{source}_{set_name(label)}.parquet") as temporary:
                estimates.table.to_parquet(temporary, index=False)
            if number == 0:
                with replacing_file(folder / f"{source}_fits.parquet") as temporary:
                    fits(estimates).to_parquet(temporary, index=False)
            tracker.metrics({f"{source}_{key}": value for key, value in row.items()}, step=number)
        # which part of the difference is the basis, and which the solver: each basis with each solver
        label, solver = sets[0]["label"], chosen["online"]["solver"]
        crossed.append({"basis": source, "solver": solver, **rows[-len(sets)]})
        for other in set(bases) - {source}:
            few = read_set(problem, label, settings["profile"]["crossed_queries"])
            row, _ = query(chosen, bases[other], *few, label)
            crossed.append({"basis": other, "solver": solver, **row})
    for name, table in (("online", rows), ("crossed", crossed)):
        with replacing_file(folder / f"{name}.csv") as temporary:
            pd.DataFrame(table).to_csv(temporary, index=False)
    tracker.artefact(folder, "estimates")


@hydra.main(version_base=None, config_path="../conf", config_name="config")
def main(config: DictConfig) -> None:
    run_stage("query", config, work)


if __name__ == "__main__":
    main()
