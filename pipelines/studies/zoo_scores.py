"""What a basis and its estimates are worth, for any problem that a reference solves."""

import time
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ipbasis.estimates.estimate import estimate
from ipbasis.evaluation.metrics import cramer_rao, identifiable
from ipbasis.features.piecewise import PiecewiseSettings
from ipbasis.features.quadrature import gauss
from ipbasis.offline.artefact import Basis
from ipbasis.problem.declaration import Problem
from ipbasis.reference.sensitivities import linearised_solutions
from ipbasis.reference.solutions import solutions_or_nan
from ipbasis.simulation.simulate import TOLERANCE, Simulation
from pipelines.studies.problems import STATUSES

_CONFIDENCE = 0.95
_NORMAL_MEDIAN = 0.6745  # of the absolute value of a standard normal error


def basis_error(basis: Basis, tasks: int, seed: int) -> float:
    """Root mean square, over unseen tasks and fields, of the smallest relative error that any readouts leave.

    Each error is relative to the size of the field in the task, both in the mean over the domain.
    """
    problem = basis.problem
    points, weights = quadrature(basis)
    drawn = problem.sample_tasks(tasks, np.random.default_rng([seed, 3]))
    exact = solutions_or_nan(problem, drawn, points[None], TOLERANCE)
    exact = exact[np.isfinite(exact).all(axis=(1, 2))].transpose(1, 0, 2).reshape(len(points), -1)
    root = np.sqrt(weights)[:, None]
    functions = root * basis.functions(points)
    left = root * exact - functions @ np.linalg.lstsq(functions, root * exact, rcond=None)[0]
    sizes = np.linalg.norm(root * exact, axis=0)
    return float(np.sqrt(np.mean((np.linalg.norm(left, axis=0) / sizes)[sizes > 0] ** 2)))


def quadrature(basis: Basis) -> tuple[np.ndarray, np.ndarray]:
    """(n, d) points and (n,) weights of a Gauss rule on every cell, twice as fine as the polynomials there."""
    features = basis.record.features
    if not isinstance(features, PiecewiseSettings):
        rule = basis.quadrature
        return rule.points.double().numpy(), rule.weights.double().numpy()
    axes = []
    for ends, degree in zip(features.breakpoints, features.degrees, strict=True):
        nodes, weights = gauss(2 * (degree + 1))
        low, width = np.array(ends[:-1])[:, None], np.diff(ends)[:, None]
        axes.append(((low + width * (nodes + 1) / 2).ravel(), (width * weights).ravel()))
    places, shares = zip(*axes, strict=True)
    points = np.stack(np.meshgrid(*places, indexing="ij"), axis=-1).reshape(-1, len(axes))
    weights = np.stack(np.meshgrid(*shares, indexing="ij"), axis=-1).reshape(-1, len(axes)).prod(axis=1)
    units = basis.record.units
    return (points if units is None else units.points_from(points)), weights / weights.sum()


@dataclass(frozen=True)
class Answered:
    """Estimates beside the truth.

    Args:
        problem: the problem.
        table: of the estimates.
        low, high: (queries, P) ends of the 95 % intervals.
        true: (queries, P) parameters.
        bound: (queries, P) Cramér-Rao bounds, free initial values unknown too.
        seconds: that the estimates took.
    """

    problem: Problem
    table: pd.DataFrame
    low: np.ndarray
    high: np.ndarray
    true: np.ndarray
    bound: np.ndarray
    seconds: float


def answered(basis: Basis, data: Simulation, draws: int, seed: int) -> Answered:
    """Estimates of simulated queries with several draws of the noise each.

    The first call prepares the basis and is not timed.
    """
    problem, count = data.problem, len(data.truth)
    tables = [data.observations] + [redrawn(data, number, seed) for number in range(1, draws)]
    observations = pd.concat(
        [table.assign(query=table["query"] + number * count) for number, table in enumerate(tables)], ignore_index=True
    )
    estimate(basis, observations[observations["query"] == 0])
    started = time.perf_counter()
    estimates = estimate(basis, observations)
    seconds = time.perf_counter() - started
    slopes = linearised_solutions(problem, data.tasks, data.points, tolerance=TOLERANCE)[1]
    bound = cramer_rao(slopes, data.noise_std)[:, : len(problem.parameters)]
    low, high = estimates.intervals(_CONFIDENCE)
    true = data.tasks.parameters
    return Answered(problem, estimates.table, low, high, np.tile(true, (draws, 1)), np.tile(bound, (draws, 1)), seconds)


def redrawn(data: Simulation, number: int, seed: int) -> pd.DataFrame:
    """The observations with another draw of the noise."""
    rng, table = np.random.default_rng([seed, 4, number]), data.observations.copy()
    for field in data.problem.fields:
        if field in table:
            clean = data.values[..., data.problem.fields.index(field)]
            std = data.truth[f"{field}_noise_std"].to_numpy()[:, None]
            table[field] = (clean + std * rng.standard_normal(clean.shape)).ravel()
    return table


def scores(judged: Answered, wrong: float) -> dict[str, float]:
    """What the estimates are worth.

    ``error_over_cramer_rao``: root mean square of each error over the bound of its own query, over the queries that are
    ok and identifiable; median over the parameters, and ``worst_...`` the largest. ``typical_...``: the same from the
    median of the absolute values, which a few wild estimates do not move. Errors and bounds of parameters on a
    logarithmic scale are those of the logarithm. ``coverage``: over the same queries, share of the 95 % intervals that
    hold the truth, mean over the parameters, and ``worst_coverage`` the smallest. ``wrong_ok``: share of all queries
    that are ok while a parameter is off by more than so many of its error bars.

    Args:
        judged: the estimates.
        wrong: error bars.
    """
    names = list(judged.problem.parameters)
    found, std = (judged.table[[f"{name}{end}" for name in names]].to_numpy() for end in ("", "_std"))
    intervals = list(judged.problem.parameters.values())
    ratios = np.stack([ratio(found[:, p], judged, p, interval.logarithmic) for p, interval in enumerate(intervals)], 1)
    statuses = judged.table["status"].to_numpy()
    ok, scored = statuses == "ok", identifiable(judged.bound, judged.problem.parameter_ranges)
    counted, inside = ratios[ok & scored], ((judged.low <= judged.true) & (judged.true <= judged.high))[ok & scored]
    off = ~(np.abs(found - judged.true) <= wrong * std).all(axis=1)
    rms = np.sqrt(np.mean(counted**2, axis=0)) if len(counted) else np.full(len(names), np.nan)
    typical = np.median(np.abs(counted), axis=0) / _NORMAL_MEDIAN if len(counted) else np.full(len(names), np.nan)
    covered = inside.mean(axis=0) if len(inside) else np.full(len(names), np.nan)
    return {
        "queries": len(statuses),
        "queries_per_second": len(statuses) / judged.seconds,
        "identifiable": scored.mean(),
        **{status: float((statuses == status).mean()) for status in STATUSES},
        "error_over_cramer_rao": float(np.median(rms)),
        "worst_error_over_cramer_rao": float(rms.max()),
        "typical_error_over_cramer_rao": float(np.median(typical)),
        "coverage": float(covered.mean()),
        "worst_coverage": float(covered.min()),
        "wrong_ok": float((ok & off).mean()),
    }


def ratio(found: np.ndarray, judged: Answered, parameter: int, logarithmic: bool) -> np.ndarray:
    """(queries,) errors of a parameter over their bounds, on its scale."""
    true, bound = judged.true[:, parameter], judged.bound[:, parameter]
    if not logarithmic:
        return (found - true) / bound
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log(found / true) / (bound / true)
