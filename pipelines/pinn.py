"""The plain PINN on the queries of a benchmark: its trainings, and when they reach which accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ipbasis.baselines.fit import BaselineFit, Snapshot, best_so_far
from ipbasis.features.trunk import TrunkSettings
from ipbasis.published.pinn import PinnSettings, fit_pinn
from ipbasis.published.time_to_accuracy import time_to_accuracy
from ipbasis.tracking import Tracker
from pipelines.baselines import FittedQuery, KnownQuery, query_row
from pipelines.benchmark import Benchmark, PinnBaseline
from pipelines.common import one_thread

SOURCE = "pinn"


@dataclass(frozen=True)
class Pinn:
    """A network and how it is trained.

    Args:
        trunk: the network.
        settings: of the training.
    """

    trunk: TrunkSettings
    settings: PinnSettings


def optimisers(baseline: PinnBaseline) -> dict[str, Pinn]:
    """Ours, and the published one where the configuration has it, by what stands before the names of its tables."""
    trunk, ours = TrunkSettings(**baseline.trunk), baseline.settings
    found = {"": Pinn(trunk, PinnSettings(**ours))}
    if baseline.as_published is not None:
        found["published_"] = Pinn(trunk, PinnSettings(**{**ours, **baseline.as_published}))
    return found


def fit(chosen: Pinn, known: KnownQuery) -> BaselineFit:
    """Train one network on one query."""
    one_thread()
    return fit_pinn(known.problem, chosen.trunk, known.query, chosen.settings)


def error(scored: Sequence[str], known: KnownQuery, snapshot: Snapshot) -> float:
    """Mean absolute error of the unknown terms, or else the largest error of the scored parameters."""
    if known.terms.size:
        return float(np.abs(snapshot.terms - known.terms).mean())
    names = list(known.problem.parameters)
    columns = [names.index(name) for name in scored]
    return float(np.abs(snapshot.parameters - known.parameters)[columns].max())


def history(scored: Sequence[str], known: KnownQuery, done: BaselineFit) -> pd.DataFrame:
    """The training of one query, the best state so far: ``step``, ``seconds``, ``loss``, ``error``."""
    rows = [(s.step, s.seconds, s.loss, error(scored, known, s)) for s in best_so_far(done.history)]
    return pd.DataFrame(rows, columns=["step", "seconds", "loss", "error"])


def training_tables(
    benchmark: Benchmark, fitted: list[FittedQuery], tracker: Tracker, prefix: str = ""
) -> dict[str, pd.DataFrame]:
    """How the trainings went, and seconds and steps until the error stays under each target.

    Args:
        benchmark: the benchmark.
        fitted: the trained queries.
        tracker: receives the histories.
        prefix: before the names of tables and metrics.
    """
    targets, scored = benchmark.baselines.pinn.targets, benchmark.observations.scored
    histories, reached = [], []
    for known, done in fitted:
        label = {"problem": benchmark.name, "query": known.id}
        trained = history(scored, known, done)
        histories.append(trained.assign(**label, **known.cell.label))
        times = time_to_accuracy(trained["step"], trained["seconds"], trained["error"], targets)
        reached.append(pd.DataFrame(label, index=times.index).join(times).assign(**known.cell.label))
        tracker.history(trained.to_dict("records"), prefix=f"{prefix}{known.cell.name}_query_{known.id}_")
    return {
        f"{prefix}history": pd.concat(histories, ignore_index=True),
        f"{prefix}time_to_accuracy": pd.concat(reached, ignore_index=True),
        f"{prefix}queries": pd.DataFrame([query_row(benchmark, SOURCE, *one) for one in fitted]),
    }
