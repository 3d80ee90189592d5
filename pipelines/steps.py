"""The steps that stages and studies are made of: simulate, train, query."""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ipbasis.basis.artefact import Basis
from ipbasis.basis.compression import CompressionSettings
from ipbasis.basis.forward import ForwardSettings
from ipbasis.basis.network import Trunk, TrunkSettings
from ipbasis.basis.quadrature import equispaced, gauss_legendre
from ipbasis.basis.training import Training, TrainingSettings, train
from ipbasis.evaluation.metrics import coverage, parameter_errors
from ipbasis.inverse.estimate import SOLVERS, Estimates, estimate
from ipbasis.inverse.validation import AdamValidator, GaussNewtonValidator, ValidationSettings, build_basis
from ipbasis.observations import ObservationSettings, check_observations, long_table
from ipbasis.problem import Problem, Tasks
from ipbasis.reference.ode import integrate
from ipbasis.tracking import Tracker
from pipelines.common import DATA, Settings

_SECONDS_BETWEEN_LOGS = 5
SHOWN_QUERIES = 3


def set_name(label: Settings) -> str:
    """File name of a set of queries, from what the tables note of it."""
    return "_".join(f"{key}-{value:g}" for key, value in label.items())


def read_set(problem: str, label: Settings, queries: int | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Observations and truth of a set of queries, or of its first queries."""
    observations, truth = (
        pd.read_parquet(DATA / "observations" / problem / f"{set_name(label)}_{part}.parquet")
        for part in ("observations", "truth")
    )
    if queries is not None:
        truth = truth.head(queries)
        observations = observations[observations["query"].isin(truth["query"])]
    return observations, truth


def observation_settings(settings: Settings) -> ObservationSettings:
    """The part of the observations' configuration that says how to sample."""
    return ObservationSettings(**{k: settings["observations"][k] for k in ObservationSettings.model_fields})


def solutions(problem: Problem, tasks: Tasks, points: np.ndarray) -> np.ndarray:
    """(tasks, n, F) exact solutions at points (1 or tasks, n, d)."""
    if len(points) == 1:
        return integrate(problem, tasks, points[0, :, 0])
    return np.concatenate([integrate(problem, tasks[i : i + 1], points[i, :, 0]) for i in range(len(tasks))])


def shown_points(problem: Problem) -> np.ndarray:
    """(n, d) grid on which the pictures show solutions."""
    per_axis = 200 if len(problem.coordinates) == 1 else 60
    return equispaced(problem.domain, per_axis ** len(problem.coordinates), torch.float64).numpy()


def fits(estimates: Estimates) -> pd.DataFrame:
    """The fitted solutions of the first queries, for pictures."""
    problem = estimates.basis.problem
    shown = estimates.readouts[:SHOWN_QUERIES]
    few = replace(estimates, readouts=shown, readout_covariance=None)
    return long_table(problem, shown_points(problem)[None], few.solution(shown_points(problem)))


def simulate(settings: Settings, number: int, queries: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Observations of one set of queries, and the true parameters and initial values behind them.

    Returns:
        observations in long form, and one row per query.
    """
    chosen = settings["observations"]["sets"][number]
    problem = Problem(**settings["problem"])
    drawn = problem.with_ranges(chosen.get("parameters"), chosen.get("initial"))
    tasks = drawn.sample_tasks(queries, np.random.default_rng([settings["seed"], 1000 + number]))
    sampling = observation_settings(settings)
    points = sampling.points(problem, queries)
    values, noise_std = sampling.disturb(solutions(problem, tasks, points))
    truth = pd.DataFrame(tasks.parameters, columns=list(problem.parameters))
    initial = [f"initial_{problem.notation.jet_name(jet)}" for jet in problem.free_initial]
    truth = truth.join(pd.DataFrame(tasks.initial, columns=initial)).assign(noise_std=noise_std)
    truth.insert(0, "query", np.arange(queries))
    return long_table(problem, points, values), truth


def train_basis(
    settings: Settings, checkpoint: Path | None, tracker: Tracker, position: int = 0
) -> tuple[Basis, Training]:
    """Train the basis that the configuration describes; its progress bar stands in the line `position`."""
    torch.set_num_threads(1)  # the products are too small to share
    problem, offline = Problem(**settings["problem"]), settings["offline"]
    size = settings["basis"]
    trunk_settings = TrunkSettings(width=size["width"], depth=size["depth"], dtype=offline["dtype"])
    training = TrainingSettings(**offline["training"])
    forward = ForwardSettings(**offline["forward"])
    compression = CompressionSettings(**offline["compression"]) if offline["compression"] else None
    validation = ValidationSettings(**offline["validation"])

    tasks = problem.sample_tasks(validation.queries, np.random.default_rng(validation.seed))
    seen = equispaced(problem.domain, validation.observations, torch.float64).numpy()[None]
    values = solutions(problem, tasks, seen)
    quadrature = gauss_legendre(problem.domain, size["quadrature_points"])
    truth = solutions(problem, tasks, quadrature.points.numpy()[None])
    build = partial(
        build_basis,
        problem,
        trunk_settings=trunk_settings,
        forward=forward,
        compression=compression,
        quadrature_points=size["quadrature_points"],
        tasks=tasks,
        truth=truth,
    )
    if training.recipe == "trained_heads":
        dtype = getattr(torch, offline["dtype"])
        features = Trunk(problem.domain, trunk_settings, torch.Generator()).features
        validator = AdamValidator(
            problem, features, validation, forward, training.collocation_points, tasks, seen[0], values, dtype
        )
    else:
        validator = GaussNewtonValidator(problem, build, tasks, seen[0], values)
    waiting: list[dict[str, float]] = []
    sent = time.perf_counter()

    def send() -> None:
        nonlocal sent
        tracker.history(waiting, prefix=f"{settings['recipe']['source']}_")
        waiting.clear()
        sent = time.perf_counter()

    def log(row: dict[str, float]) -> None:
        """Send metrics every few seconds: one by one they would cost more than the training."""
        waiting.append(row)
        if time.perf_counter() - sent > _SECONDS_BETWEEN_LOGS:
            send()

    trained = train(problem, trunk_settings, training, forward, validator, checkpoint, log=log, position=position)
    send()
    basis = build(
        trained.trunk,
        settings={"basis": size, "offline": offline, "recipe": settings["recipe"], "profile": settings["profile"]},
        figures={
            "step": trained.best["step"],
            "loss": trained.best["loss"],
            "validation_parameter_mse": trained.best["validation_parameter_mse"],
            "seconds": trained.seconds,
        },
    )
    return basis, trained


def offline_row(settings: Settings, basis: Basis, trained: Training) -> dict:
    """Row of the offline table."""
    training = settings["offline"]["training"]
    return {
        "source": settings["recipe"]["source"],
        "readouts": training["readouts"],
        "width": settings["basis"]["width"],
        "epochs": trained.history[-1]["step"],
        "learning_rate": training["learning_rate"],
        **settings["observations"]["training_label"],
        "validation_queries": settings["offline"]["validation"]["queries"],
        "train_loss": trained.best["loss"],
        "validation_loss": trained.best["validation_loss"],
        "validation_parameter_mse": trained.best["validation_parameter_mse"],
        "seconds": trained.seconds,
        "best_epoch": trained.best["step"],
        "functions": basis.record.functions,
        "residual_accuracy": basis.record.accuracy.residual,
        "solution_accuracy": basis.record.accuracy.solution,
    }


def query(
    settings: Settings, basis: Basis, observations: pd.DataFrame, truth: pd.DataFrame, label: Settings
) -> tuple[dict, Estimates]:
    """Estimate one set of queries; the row of the online table and the estimates."""
    torch.set_num_threads(settings["threads"])
    online = settings["online"]
    solver = SOLVERS[online["solver"]](**online)
    checked = check_observations(observations, basis.problem)
    started = time.perf_counter()
    estimates = estimate(basis, checked, solver)
    seconds = time.perf_counter() - started
    table = estimates.table
    published = online["solver"] == "adam"
    values = checked.table[basis.problem.fields].to_numpy().reshape(len(table), -1, len(basis.problem.fields))
    first = checked.table.groupby("query", sort=False).size().iloc[0]
    points = checked.table[list(basis.problem.coordinates)].to_numpy()[:first]
    misfit = (
        float(((estimates.solution(points) - values) ** 2).mean())
        if len(table) * first == len(checked.table)
        else np.nan
    )
    scored = settings["observations"]["scored"]
    row = {
        "source": settings["recipe"]["source"],
        "readouts": settings["basis"]["readouts"],
        **label,
        "queries": len(table),
        "epochs": int(table["iterations"].max()),
        "loss": float(table["objective"].mean()) if published else misfit,
        **parameter_errors(table, truth, scored),
        "seconds": seconds,
        "seconds_per_query": seconds / len(table),
        "noise": settings["observations"]["noise"],
        "noise_unit": settings["observations"]["noise_unit"],
        "data_mse": misfit,
    }
    if not published:  # the published recipe gives no error bars
        row |= {"ok_share": float((table["status"] == "ok").mean()), **coverage(table, truth, scored)}
    return row, estimates
