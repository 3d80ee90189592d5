"""Stage compare: all sources in the tables of the paper, figures, report, and the basis for real queries."""

import shutil

import hydra
import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig

from ipbasis.evaluation.tables import combine
from ipbasis.features.quadrature import equispaced
from ipbasis.offline.artefact import Basis
from ipbasis.problem.declaration import Problem
from ipbasis.reference.solutions import has_reference, solutions
from ipbasis.tracking import Tracker
from pipelines.cells import Cell, cells, label_keys
from pipelines.common import DATA, MODELS, REPORTS, Settings, recipe_directory, run_stage
from pipelines.report.outputs import published, read_all, write_figure, write_table, write_text
from pipelines.report.pictures import pictures
from pipelines.report.text import report

BASELINES = ("pinn", "least_squares")
_TASKS_BETWEEN, _POINTS_BETWEEN = 100, 2000  # unseen tasks, and points between those of the residual


def error_columns(settings: Settings) -> list[str]:
    """Columns of the online table that hold the mean absolute errors."""
    return [f"{name}_mae" for name in settings["observations"]["scored"]] or ["unknown_term_mae"]


def online_table(settings: Settings) -> pd.DataFrame:
    """Published and own rows of every cell."""
    paper = published(f"{settings['report']['table']}_online")
    table = combine(
        paper,
        read_all(f"estimates/{settings['problem']['name']}/*/online.csv"),
        ["terms", "readouts", *label_keys(settings)],
    )
    if "terms" in table:
        table.loc[table["source"] == "published", "terms"] = "network"
    published_rows = table["source"] == "published"
    per_query = table["seconds"] / table["queries"]
    table.loc[published_rows, "seconds_per_query"] = per_query[published_rows]
    return table


def method_times(online: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Seconds per query of each method, and how many times faster it is than the baselines of the same run.

    Args:
        online: the online table.
        keys: columns that say which cell a row is of; methods are compared on the cells that both answered.
    """
    variant = online["terms"].fillna("") if "terms" in online else pd.Series("", online.index)
    rows = []
    for (source, terms), own in online.groupby(["source", variant], sort=False):
        row = {"source": source, "variant": terms, "seconds_per_query": own["seconds_per_query"].mean()}
        for baseline in BASELINES:
            if source != "published":  # another machine
                theirs = online[online["source"] == baseline]
                row[f"times_faster_than_{baseline}"] = _ratio(theirs, own, keys)
        rows.append(row)
    return pd.DataFrame(rows)


def _ratio(slow: pd.DataFrame, fast: pd.DataFrame, keys: list[str]) -> float:
    """Mean seconds per query of one method over those of another, on the cells that both answered."""
    if not keys:
        return slow["seconds_per_query"].mean() / fast["seconds_per_query"].mean()
    means = [table.groupby(keys)["seconds_per_query"].mean() for table in (slow, fast)]
    shared = means[0].index.intersection(means[1].index)
    return float(means[0][shared].mean() / means[1][shared].mean())


def crossed_table(settings: Settings) -> pd.DataFrame:
    """Each basis with each solver on the same queries: which part of the difference is the basis, which the solver."""
    table = pd.concat(read_all(f"estimates/{settings['problem']['name']}/online/crossed.csv"), ignore_index=True)
    columns = ["basis", "solver", "readouts", "queries", *error_columns(settings), "seconds_per_query"]
    return table[columns].sort_values(["basis", "solver", "readouts"], ignore_index=True)


def error_between(basis: Basis) -> float:
    """Error of exact solutions fitted at the points where residuals are taken, as far as it shows between them.

    A trunk may have learnt features so steep that its residual is small at those points only.

    Returns:
        root mean square over unseen tasks of the largest error, relative to the size of the solution.
    """
    problem = basis.problem
    tasks = problem.sample_tasks(_TASKS_BETWEEN, np.random.default_rng(_TASKS_BETWEEN))
    seen = basis.quadrature.points.double().numpy()
    between = equispaced(problem.domain, _POINTS_BETWEEN, torch.float64).numpy()
    there, elsewhere = (solutions(problem, tasks, points[None]) for points in (seen, between))
    at_points = np.concatenate([*there.transpose(0, 2, 1)]).T
    readouts = np.linalg.lstsq(basis.functions(seen), at_points, rcond=1e-12)[0]
    fitted = (basis.functions(between) @ readouts).reshape(len(between), len(tasks), -1).transpose(1, 0, 2)
    size = np.sqrt((elsewhere**2).sum(2).mean(1))
    return float(np.sqrt(((np.abs(fitted - elsewhere).max((1, 2)) / size) ** 2).mean()))


def choose_best(settings: Settings) -> int:
    """Copy the best basis on unseen tasks to ``best``; returns its readouts.

    That with the smallest error between points where there is a reference, else with the smallest residual.
    """
    problem, trained = Problem(**settings["problem"]), settings["basis"]["problem"]
    offline = pd.concat(read_all(f"training/{trained}/readouts-*/offline.csv"), ignore_index=True)
    own = offline[offline["source"] == "ipbasis"]
    errors = own.set_index("readouts")["residual_accuracy"]
    if len(errors) > 1 and has_reference(problem):
        candidates = {count: Basis.load(recipe_directory(trained, count, "ipbasis")) for count in errors.index}
        errors = pd.Series({count: error_between(basis) for count, basis in candidates.items()})
    readouts = int(errors.idxmin())
    best = MODELS / problem.name / "best"
    shutil.rmtree(best, ignore_errors=True)
    Basis.load(recipe_directory(trained, readouts, "ipbasis")).for_problem(problem).save(best)
    return readouts


def _cell_of(settings: Settings, row: pd.Series) -> Cell:
    """The cell that a row with its labels is of."""
    return next(cell for cell in cells(settings) if all(row[key] == value for key, value in cell.label.items()))


def same_queries(settings: Settings, baseline: pd.DataFrame, online: pd.DataFrame, readouts: int) -> pd.DataFrame:
    """What ipbasis gives for the queries of a baseline, in the same columns.

    Args:
        settings: the configuration.
        baseline: one row per query.
        online: the online table, for the seconds.
        readouts: of the basis to take.
    """
    folder = DATA / "estimates" / settings["problem"]["name"] / "online" / f"readouts-{readouts}"
    own = online[(online["source"] == "ipbasis") & (online["readouts"] == readouts)]
    rows = []
    for _, row in baseline.iterrows():
        cell = _cell_of(settings, row)
        table = pd.read_parquet(folder / f"ipbasis_{cell.name}_estimates.parquet").set_index("query")
        found = table.loc[row["query"]]
        timed = own[np.logical_and.reduce([own[key] == value for key, value in cell.label.items()], axis=0)]
        errors = {f"{p}_abs_error": abs(found[p] - row[p]) for p in settings["observations"]["scored"]}
        errors |= {column: found[column] for column in row.index if column.startswith("unknown_term_")}
        rows.append(
            {
                **row,
                "source": "ipbasis",
                "epochs": found["iterations"],
                "loss": np.nan,
                **errors,
                "seconds": timed["seconds_per_query"].iloc[0],
            }
        )
    return pd.DataFrame(rows, columns=baseline.columns)


def pinn_tables(settings: Settings, online: pd.DataFrame, readouts: int) -> dict[str, pd.DataFrame]:
    """The PINN beside ipbasis query by query, and its seconds to each accuracy over those of ipbasis.

    The column ``optimiser`` tells trainings with the published optimiser from those with a better one, where
    there are both. Where a training never reached an accuracy that ipbasis has, ``times_faster_at_least``
    compares with all the time that it took.
    """
    trained, reached = (_by_optimiser(settings, name) for name in ("queries", "time_to_accuracy"))
    once = trained.drop_duplicates([*label_keys(settings), "query"]).drop(columns="optimiser")
    own = same_queries(settings, once, online, readouts)
    errors = [c for c in own if c.endswith("_abs_error")] or ["unknown_term_mae"]
    keys = [*label_keys(settings), "query"]
    compared = own[keys].assign(ipbasis_error=own[errors].max(axis=1), ipbasis_seconds=own["seconds"])
    reached = reached.rename(columns={"seconds": "pinn_seconds", "steps": "pinn_steps"}).merge(compared, on=keys)
    budget = trained[[*keys, "optimiser", "seconds"]].rename(columns={"seconds": "pinn_seconds_in_all"})
    reached = reached.merge(budget, on=[*keys, "optimiser"])
    accurate = reached["ipbasis_error"] <= reached["level"]
    reached["times_faster"] = (reached["pinn_seconds"] / reached["ipbasis_seconds"]).where(accurate)
    in_all = reached["pinn_seconds_in_all"] / reached["ipbasis_seconds"]
    reached["times_faster_at_least"] = in_all.where(accurate & reached["pinn_seconds"].isna())
    paper = published(f"{settings['report']['table']}_pinn")
    return {"pinn": combine(paper, [own, trained], keys), "time_to_accuracy": reached}


def _by_optimiser(settings: Settings, name: str) -> pd.DataFrame:
    """A table of the PINN, with the rows of the published optimiser where it ran beside another one."""
    folder = DATA / "estimates" / settings["problem"]["name"] / "pinn"
    optimisers = {f"published_{name}.csv": "published", f"{name}.csv": "adam_lbfgs"}
    tables = [pd.read_csv(folder / f).assign(optimiser=o) for f, o in optimisers.items() if (folder / f).exists()]
    return pd.concat(tables, ignore_index=True)


def work(settings: Settings, tracker: Tracker) -> None:
    name, table = settings["problem"]["name"], settings["report"]["table"]
    best = choose_best(settings)
    online = online_table(settings)
    tables = {
        "online": online,
        "times": method_times(online, label_keys(settings)),
        "solvers": crossed_table(settings),
        **pinn_tables(settings, online, best),
    }
    for kind, content in tables.items():
        write_table(content, f"{table}_{kind}", tracker)
    drawn = pictures(settings, tables, best)
    folder = REPORTS / "figures" / name
    shutil.rmtree(folder, ignore_errors=True)
    for kind, figure in drawn.items():
        write_figure(figure, f"{name}/{kind}", tracker)
    write_text(report(settings, tables, list(drawn), best), name, tracker)
    tracker.artefact(MODELS / name / "best", "basis/best")
    own = online[online["source"] == "ipbasis"].select_dtypes("number").mean().dropna()
    tracker.metrics({f"mean_{key}": value for key, value in own.items()})
    print(tables["times"].to_string(index=False, float_format=lambda v: f"{v:.3g}"))


@hydra.main(version_base=None, config_path="../../conf", config_name="config")
def main(config: DictConfig) -> None:
    run_stage("compare", config, work)


if __name__ == "__main__":
    main()
