"""Stage compare: all sources in the tables of the paper, figures, report, and the basis for real queries."""

import os
import shutil
from pathlib import Path

import hydra
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from omegaconf import DictConfig

from ipbasis.basis.artefact import Basis
from ipbasis.evaluation.figures import plot_errors, plot_solutions, plot_times, plot_training
from ipbasis.evaluation.tables import combine
from ipbasis.files import replacing_file
from ipbasis.problem import Problem, Tasks
from ipbasis.tracking import Tracker
from pipelines.common import DATA, MODELS, REPORTS, Settings, recipe_directory, run_stage
from pipelines.steps import SHOWN_QUERIES, read_set, shown_points, solutions


def read_all(pattern: str) -> list[pd.DataFrame]:
    """The CSV files below the data directory that match."""
    return [pd.read_csv(path) for path in sorted(DATA.glob(pattern))]


def method_times(online: pd.DataFrame) -> pd.DataFrame:
    """Seconds per query of each source, and how many times faster it is than the baselines of the same run."""
    measured = online[online["source"] != "published"]
    seconds = measured.groupby("source", sort=False)["seconds_per_query"].mean()
    published = online.loc[online["source"] == "published"]
    seconds = pd.concat([pd.Series({"published": (published["seconds"] / published["queries"]).mean()}), seconds])
    table = seconds.rename("seconds_per_query").to_frame()
    for baseline in ("pinn", "least_squares"):
        table[f"times_faster_than_{baseline}"] = seconds[baseline] / seconds
        table.loc["published", f"times_faster_than_{baseline}"] = np.nan  # another machine
    return table.rename_axis("source").reset_index()


def choose_best(problem: str) -> int:
    """Copy the basis with the smallest residual on unseen tasks to ``best``; returns its readouts."""
    offline = pd.concat(read_all(f"training/{problem}/readouts-*/offline.csv"), ignore_index=True)
    own = offline[offline["source"] == "ipbasis"]
    readouts = int(own.loc[own["residual_accuracy"].idxmin(), "readouts"])
    best = MODELS / problem / "best"
    shutil.rmtree(best, ignore_errors=True)
    Basis.load(recipe_directory(problem, readouts, "ipbasis")).save(best)
    return readouts


def solution_figure(settings: Settings, readouts: int) -> Figure:
    """A few queries of the first set, fitted by both recipes."""
    problem = Problem(**settings["problem"])
    observations, truth = read_set(problem.name, settings["observations"]["sets"][0]["label"], SHOWN_QUERIES)
    points = shown_points(problem)
    initial = truth[[c for c in truth if c.startswith("initial_")]].to_numpy()
    exact = solutions(problem, Tasks(truth[list(problem.parameters)].to_numpy(), initial), points[None])
    fits = {}
    for source in reversed(settings["recipes"]):
        table = pd.read_parquet(DATA / "estimates" / problem.name / f"readouts-{readouts}" / f"{source}_fits.parquet")
        fits[source] = table[problem.fields[0]].to_numpy().reshape(-1, len(points))
    return plot_solutions(points[:, 0], observations, exact[..., 0], fits)


def _number(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    if np.isnan(value):
        return ""
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e6 else f"{value:.2g}"


def markdown(table: pd.DataFrame) -> str:
    """A table for reading, figures to two digits."""
    return table.map(_number).to_markdown(index=False, disable_numparse=True)


def crossed_table(problem: str, scored: list[str]) -> pd.DataFrame:
    """Each basis with each solver on the same queries: which part of the difference is the basis, which the solver."""
    table = pd.concat(read_all(f"estimates/{problem}/readouts-*/crossed.csv"), ignore_index=True)
    errors = [f"{p}_mae" for p in scored]
    return table[["basis", "solver", "readouts", "queries", *errors, "seconds_per_query"]].sort_values(
        ["basis", "solver", "readouts"], ignore_index=True
    )


def report(
    settings: Settings,
    offline: pd.DataFrame,
    online: pd.DataFrame,
    times: pd.DataFrame,
    crossed: pd.DataFrame,
    best: int,
) -> str:
    """The report in Markdown."""
    problem, profile = Problem(**settings["problem"]), settings["profile"]
    keys = list(settings["observations"]["sets"][0]["label"])
    errors = [f"{p}_mae" for p in settings["observations"]["scored"]]
    columns = ["source", "readouts", *keys, "queries", "epochs", *errors, "seconds", "seconds_per_query"]
    columns = [c for c in columns if c in online]
    published = online[online["source"] == "published"].set_index(["readouts", *keys])
    repeated = online[online["source"] == "paper_recipe"].set_index(["readouts", *keys])
    both = [c for c in errors if published[c].notna().any()]
    ratio = (repeated[both] / published[both]).dropna()
    paragraphs = [
        f"# {problem.name}",
        f"Written by `pipelines/compare.py`, profile `{profile['name']}`. Equation: "
        + "; ".join(f"${line}$" for line in problem.system.latex())
        + ".",
        f"## Online: parameters from observations\n\n{markdown(online[columns])}",
        "The first `queries` queries of the set are estimated. "
        "`epochs` counts Adam steps (published, paper_recipe), the most Gauss-Newton steps that any query took "
        "(ipbasis), Adam and L-BFGS steps (pinn), or integrations of the equation, three starts together "
        "(least_squares). The plain PINN weights the residual by 0.1, which is better for it than the published "
        "0.001; it is trained one query at a time on one core. `loss` in the "
        "CSV is the published loss for paper_recipe and the mean squared misfit to the data otherwise.",
        f"## Seconds per query\n\nMean over all cells, on a machine with {os.cpu_count()} cores (published: another "
        f"machine).\n\n{markdown(times)}",
        "## Basis and solver apart\n\nEach basis with each solver, on the first queries of the first set: "
        f"`gauss_newton` is the solver of ipbasis, `adam` the published one.\n\n{markdown(crossed)}",
        f"## Offline: training the basis\n\n{markdown(offline)}",
        "For ipbasis, `validation_loss` is the mean squared residual relative to the size of the solution on unseen "
        "tasks, for the others the published sum of residual, initial-value and data losses. The step with the "
        "smallest `validation_parameter_mse` is kept (`best_epoch`). The basis kept for real queries is the one "
        f"with {best} readouts.",
        "## The published recipe, here and in the paper\n\n"
        f"Errors of paper_recipe over the published ones: {ratio.min().min():.2g} to {ratio.max().max():.2g}, "
        f"median {np.nanmedian(ratio.to_numpy()):.2g}. What differs: our truth is integrated to 1e-10 (the "
        "published one at a relative tolerance of 1e-3, which puts a floor under its errors); tasks, queries "
        "and initial weights are other draws; the start of the parameters is not published (here: the middle "
        f"of the ranges); this profile trains for {profile['offline_steps']['paper_recipe']} steps (30 000 are "
        "published; profile `paper` runs them).",
    ]
    return "\n\n".join(paragraphs) + "\n"


def work(settings: Settings, tracker: Tracker) -> None:
    problem = settings["problem"]["name"]
    keys = list(settings["observations"]["sets"][0]["label"])
    tables, figures = REPORTS / "tables", REPORTS / "figures"
    offline = combine(
        pd.read_csv(DATA / "published" / f"{problem}_offline.csv"),
        read_all(f"training/{problem}/readouts-*/offline.csv"),
        ["readouts"],
    )
    online = combine(
        pd.read_csv(DATA / "published" / f"{problem}_online.csv"),
        read_all(f"estimates/{problem}/*/online.csv"),
        ["readouts", *keys],
    )
    times = method_times(online)
    crossed = crossed_table(problem, settings["observations"]["scored"])
    best = choose_best(problem)
    for name, table in (("offline", offline), ("online", online), ("times", times), ("solvers", crossed)):
        with replacing_file(tables / f"{problem}_{name}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
    with replacing_file(REPORTS / f"{problem}.md") as temporary:
        temporary.write_text(report(settings, offline, online, times, crossed, best))

    histories = {}
    for path in sorted((DATA / "training" / problem).glob("readouts-*/*_history.csv")):
        source, readouts = path.name.removesuffix("_history.csv"), int(path.parent.name.removeprefix("readouts-"))
        histories[source, readouts] = pd.read_csv(path)
    scored = [p for p in settings["observations"]["scored"] if online[f"{p}_mae"].notna().any()]
    drawn = {
        "training": plot_training(dict(sorted(histories.items()))),
        "errors": plot_errors(online, scored[:2], keys[0], settings["observations"]["label_text"]),
        "times": plot_times(times.set_index("source")["seconds_per_query"]),
        "solutions": solution_figure(settings, best),
    }
    for name, figure in drawn.items():
        path: Path = figures / f"{problem}_{name}.png"
        with replacing_file(path) as temporary:
            figure.savefig(temporary, dpi=120)
        tracker.artefact(path, "figures")
    for path in (*sorted(tables.glob(f"{problem}_*.csv")), REPORTS / f"{problem}.md"):
        tracker.artefact(path, "tables")
    tracker.artefact(MODELS / problem / "best", "basis/best")
    own = online[online["source"] == "ipbasis"].select_dtypes("number").mean().dropna()
    tracker.metrics({f"mean_{key}": value for key, value in own.items()})
    print(times.to_string(index=False, float_format=lambda v: f"{v:.3g}"))


@hydra.main(version_base=None, config_path="../conf", config_name="config")
def main(config: DictConfig) -> None:
    run_stage("compare", config, work)


if __name__ == "__main__":
    main()
