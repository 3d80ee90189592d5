"""The step that makes a basis, for stages and studies."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import PositiveFloat

from ipbasis.estimates.validation import GaussNewtonValidator
from ipbasis.offline.artefact import Basis
from ipbasis.offline.settings import BasisSettings
from ipbasis.offline.train import train
from ipbasis.offline.trained import train_trunk_basis
from ipbasis.problem.declaration import Declared
from ipbasis.published.train import PublishedSettings, train_published
from ipbasis.tracking import Tracker
from pipelines.benchmark import Benchmark
from pipelines.common import one_thread


class AutomaticSettings(Declared):
    """Of a training that needs no others, see `ipbasis.train`.

    Args:
        recipe: name of the recipe.
        accuracy: relative error of unseen solutions that is asked for.
        minutes: that it may take.
    """

    recipe: Literal["automatic"]
    accuracy: PositiveFloat
    minutes: PositiveFloat


_SETTINGS = {"variable_projection": BasisSettings, "trained_heads": PublishedSettings}
# figures of the best validation that the tables note, where a training has them
_BEST = ("ode_loss", "data_loss", "ic_loss", "validation_loss", "validation_parameter_mse")


class History:
    """The metrics of a training by step, sent on together every few seconds: one by one they would cost more than it.

    Args:
        tracker: receives them.
        prefix: before their names.
        seconds: between two times of sending.
    """

    def __init__(self, tracker: Tracker, prefix: str, seconds: float = 5):
        self.rows: list[dict[str, float]] = []
        self._tracker, self._prefix, self._seconds = tracker, prefix, seconds
        self._sent, self._sent_at = 0, time.perf_counter()

    def __call__(self, row: dict[str, float]) -> None:
        self.rows.append(row)
        if time.perf_counter() - self._sent_at > self._seconds:
            self.send()

    def send(self) -> None:
        """Send what has not been sent yet."""
        self._tracker.history(self.rows[self._sent :], prefix=self._prefix)
        self._sent, self._sent_at = len(self.rows), time.perf_counter()


def basis_settings(benchmark: Benchmark) -> BasisSettings | PublishedSettings | AutomaticSettings:
    """What a benchmark says of the training of a basis by the recipe that is meant."""
    size, offline = benchmark.basis, benchmark.chosen.offline
    if offline["training"]["recipe"] == "automatic":  # what others need may be inherited
        return AutomaticSettings(**{name: offline["training"][name] for name in AutomaticSettings.model_fields})
    return _SETTINGS[offline["training"]["recipe"]](
        trunk={
            "width": size.width,
            "depth": size.depth,
            "dtype": offline["dtype"],
            "first_layer_scale": offline["first_layer_scale"],
        },
        quadrature_points=size.quadrature_points,
        **{name: offline[name] for name in ("training", "forward", "compression", "validation")},
    )


def train_basis(
    benchmark: Benchmark, checkpoint: Path | None, tracker: Tracker, position: int = 0
) -> tuple[Basis, list[dict[str, float]]]:
    """Train the basis that the recipe of a benchmark describes.

    Args:
        benchmark: the benchmark.
        checkpoint: file to resume from, or None.
        tracker: receives the metrics.
        position: line of the progress bar.

    Returns:
        the basis, and the metrics of its training by step.
    """
    one_thread()
    problem, chosen = benchmark.problem, basis_settings(benchmark)
    history = History(tracker, f"{benchmark.recipe}_")
    if isinstance(chosen, AutomaticSettings):
        basis = train(problem, chosen.accuracy, chosen.minutes)
    elif isinstance(chosen, PublishedSettings):
        basis = train_published(problem, chosen, checkpoint=checkpoint, log=history, position=position)
    else:
        validator = GaussNewtonValidator(problem, chosen) if chosen.validation.observations else None
        basis = train_trunk_basis(
            problem, chosen, validator=validator, checkpoint=checkpoint, log=history, position=position
        )
    history.send()
    provenance = {
        "source": benchmark.recipe,
        "profile": benchmark.profile,
        "readouts": str(benchmark.basis.readouts),
    }
    return replace(basis, record=basis.record.model_copy(update={"provenance": provenance})), history.rows


def offline_row(benchmark: Benchmark, basis: Basis, history: list[dict[str, float]]) -> dict:
    """Row of the offline table."""
    chosen, best = basis_settings(benchmark), basis.record.figures
    row = {"source": benchmark.recipe, "readouts": benchmark.basis.readouts, **benchmark.observations.training_label}
    if isinstance(chosen, AutomaticSettings):
        row |= {"validation_queries": int(best["unseen_tasks"])}
    else:
        row |= {
            "width": chosen.trunk.width,
            "epochs": history[-1]["step"],
            "learning_rate": chosen.training.learning_rate,
            "derivative_mode": "forward",
            "validation_queries": chosen.validation.queries,
            "train_loss": best["loss"],
            **{name: best[name] for name in _BEST if name in best},
            "best_epoch": int(best["step"]),
        }
    return {
        **row,
        "seconds": best["seconds"],
        "functions": basis.record.functions,
        "residual_accuracy": basis.record.accuracy.residual,
        "solution_accuracy": basis.record.accuracy.solution,
    }
