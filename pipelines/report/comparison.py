"""The tables of a problem, from what the stages left: every source beside the paper."""

import numpy as np
import pandas as pd

from ipbasis.evaluation.tables import combine
from pipelines.benchmark import Benchmark
from pipelines.cells import cell_with, label_keys
from pipelines.paths import estimates_directory, online_file
from pipelines.report.outputs import published, read_all

BASELINES = ("pinn", "least_squares")


def comparison(benchmark: Benchmark, readouts: int) -> dict[str, pd.DataFrame]:
    """All tables by kind.

    Args:
        benchmark: the benchmark.
        readouts: of the basis that is set beside the PINN.
    """
    online = online_table(benchmark)
    return {
        "online": online,
        "times": method_times(online, label_keys(benchmark)),
        "solvers": crossed_table(benchmark),
        **pinn_tables(benchmark, online, readouts),
    }


def error_columns(benchmark: Benchmark) -> list[str]:
    """Columns of the online table that hold the mean absolute errors."""
    return [f"{name}_mae" for name in benchmark.observations.scored] or ["unknown_term_mae"]


def online_table(benchmark: Benchmark) -> pd.DataFrame:
    """Published and own rows of every cell."""
    paper = published(f"{benchmark.report.table}_online")
    table = combine(
        paper,
        read_all(f"estimates/{benchmark.name}/*/online.csv"),
        ["terms", "readouts", *label_keys(benchmark)],
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


def crossed_table(benchmark: Benchmark) -> pd.DataFrame:
    """Each basis with each solver on the same queries: which part of the difference is the basis, which the solver."""
    table = pd.concat(read_all(f"estimates/{benchmark.name}/online/crossed.csv"), ignore_index=True)
    columns = ["basis", "solver", "readouts", "queries", *error_columns(benchmark), "seconds_per_query"]
    return table[columns].sort_values(["basis", "solver", "readouts"], ignore_index=True)


def same_queries(benchmark: Benchmark, baseline: pd.DataFrame, online: pd.DataFrame, readouts: int) -> pd.DataFrame:
    """What ipbasis gives for the queries of a baseline, in the same columns.

    Args:
        benchmark: the benchmark.
        baseline: one row per query.
        online: the online table, for the seconds.
        readouts: of the basis to take.
    """
    own = online[(online["source"] == "ipbasis") & (online["readouts"] == readouts)]
    rows = []
    for _, row in baseline.iterrows():
        cell = cell_with(benchmark, row)
        path = online_file(benchmark.name, readouts, "ipbasis", cell.name, "estimates")
        table = pd.read_parquet(path).set_index("query")
        found = table.loc[row["query"]]
        timed = own[np.logical_and.reduce([own[key] == value for key, value in cell.label.items()], axis=0)]
        errors = {f"{p}_abs_error": abs(found[p] - row[p]) for p in benchmark.observations.scored}
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


def pinn_tables(benchmark: Benchmark, online: pd.DataFrame, readouts: int) -> dict[str, pd.DataFrame]:
    """The PINN beside ipbasis query by query, and its seconds to each accuracy over those of ipbasis.

    The column ``optimiser`` tells trainings with the published optimiser from those with a better one, where
    there are both. Where a training never reached an accuracy that ipbasis has, ``times_faster_at_least``
    compares with all the time that it took.
    """
    trained, reached = (_by_optimiser(benchmark, name) for name in ("queries", "time_to_accuracy"))
    once = trained.drop_duplicates([*label_keys(benchmark), "query"]).drop(columns="optimiser")
    own = same_queries(benchmark, once, online, readouts)
    errors = [c for c in own if c.endswith("_abs_error")] or ["unknown_term_mae"]
    keys = [*label_keys(benchmark), "query"]
    compared = own[keys].assign(ipbasis_error=own[errors].max(axis=1), ipbasis_seconds=own["seconds"])
    reached = reached.rename(columns={"seconds": "pinn_seconds", "steps": "pinn_steps"}).merge(compared, on=keys)
    budget = trained[[*keys, "optimiser", "seconds"]].rename(columns={"seconds": "pinn_seconds_in_all"})
    reached = reached.merge(budget, on=[*keys, "optimiser"])
    accurate = reached["ipbasis_error"] <= reached["target"]
    reached["times_faster"] = (reached["pinn_seconds"] / reached["ipbasis_seconds"]).where(accurate)
    in_all = reached["pinn_seconds_in_all"] / reached["ipbasis_seconds"]
    reached["times_faster_at_least"] = in_all.where(accurate & reached["pinn_seconds"].isna())
    paper = published(f"{benchmark.report.table}_pinn")
    return {"pinn": combine(paper, [own, trained], keys), "time_to_accuracy": reached}


def _by_optimiser(benchmark: Benchmark, name: str) -> pd.DataFrame:
    """A table of the PINN, with the rows of the published optimiser where it ran beside another one."""
    folder = estimates_directory(benchmark.name, "pinn")
    optimisers = {f"published_{name}.csv": "published", f"{name}.csv": "adam_lbfgs"}
    tables = [pd.read_csv(folder / f).assign(optimiser=o) for f, o in optimisers.items() if (folder / f).exists()]
    return pd.concat(tables, ignore_index=True)
