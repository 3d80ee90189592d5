"""What the trained functions are worth beside bases that need no training.

Rank, condition and correlation of the features before and after compression; error by the number of functions, beside
the proper orthogonal decomposition (POD) of exact solutions, Chebyshev polynomials and an untrained trunk; and the
estimates that the same solver gets with as many functions of each.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from pydantic import PositiveInt

from ipbasis.estimates.estimate import estimate
from ipbasis.evaluation.metrics import dependence, identifiable
from ipbasis.evaluation.study_figures import plot_basis_quality
from ipbasis.features.trunk import Trunk
from ipbasis.offline.accuracy import TaskErrors
from ipbasis.tracking import Tracker
from pipelines.cells import Observed
from pipelines.report.outputs import write_figure, write_table
from pipelines.studies.bases import Candidate, Measure, Size, candidates, measure_of, trained_basis, with_functions
from pipelines.studies.queries import best_basis, draw, unit_bounds
from pipelines.studies.study import QueryStudy, StudyCell


class BasisQuality(QueryStudy):
    """Settings of the study, see ``conf/basis_quality.yaml``.

    Args:
        sizes: by problem.
        functions: numbers of them that are measured, beside all that a basis has.
        targets: of the error, for which the functions are counted.
        rank_tolerance: directions below this share of the largest do not count in the rank of features.
        cells: of the queries, by problem.
        bars: by problem, the error that is aimed at, and the functions at most.
    """

    sizes: dict[str, Size]
    functions: list[PositiveInt]
    targets: list[float]
    rank_tolerance: float
    cells: dict[str, StudyCell]
    bars: dict[str, dict[str, int | float]]


def quality_rows(candidate: Candidate, errors: Mapping[int, TaskErrors]) -> Iterator[dict]:
    """One row for each number of functions."""
    for size, found in errors.items():
        relative = (found.approximation / found.size).sqrt()
        accuracy = found.accuracy()
        yield {
            "problem": candidate.basis.problem.name,
            "basis": candidate.name,
            "functions": size,
            "relative_l2": accuracy.approximation,
            "residual_mse": found.residual.mean().item(),
            "train_seconds": candidate.seconds,
            "median_relative_l2": relative.median().item(),
            "worst_relative_l2": relative.max().item(),
            "relative_residual": accuracy.residual,
            "tasks": len(relative),
        }


def feature_rows(candidate: Candidate, measure: Measure, rank_tolerance: float) -> Iterator[dict]:
    """Features of a trunk as they are, and the functions that compression makes of them."""
    basis = candidate.basis
    if not isinstance(basis.features, Trunk):
        return
    raw = torch.eye(basis.features.feature_count, dtype=torch.float64)
    for stage, transform in (("raw", raw), ("compressed", basis.transform)):
        shown = with_functions(basis, basis.features, transform)
        weights = measure.quadrature.weights.numpy()
        yield {
            "problem": basis.problem.name,
            "basis": candidate.name,
            "stage": stage,
            "functions": transform.shape[1],
            **dependence(measure.values(shown), weights, rank_tolerance),
            "relative_l2": measure.curve(shown)[-1],
        }


def size_rows(curves: Mapping[str, np.ndarray], targets: Sequence[float]) -> Iterator[dict]:
    """How many functions each basis needs for an error, and how many times those of the POD; NaN where it never does.

    Args:
        curves: by name of the basis, the error for each number of functions.
        targets: of the error.
    """
    for target in targets:
        needed = {
            name: np.argmax(curve <= target) + 1 if (curve <= target).any() else np.nan
            for name, curve in curves.items()
        }
        for name, count in needed.items():
            yield {"basis": name, "relative_l2": target, "functions": count, "times_pod": count / needed["pod"]}


@dataclass(frozen=True)
class CleanAndNoisy:
    """The queries of a problem, without noise and with it.

    Args:
        clean: without noise.
        noisy: the same with noise.
        bound: (queries, P) Cramér-Rao bounds of the parameters for that noise, initial values unknown too.
        label: what the table notes of them.
    """

    clean: Observed
    noisy: Observed
    bound: np.ndarray
    label: dict


def clean_and_noisy(study: BasisQuality, name: str) -> CleanAndNoisy:
    """Draw the queries of a problem in its trained range."""
    cell, count = study.cells[name], study.sizes[name].queries
    queries = draw(study.benchmarks[name], study.drawn[name], count, cell.number)
    noisy = queries.observed(cell.noise)
    return CleanAndNoisy(
        queries.observed(0),
        noisy,
        unit_bounds(queries) * noisy.truth[["noise_std"]].to_numpy(),
        {"observations": cell.number, "noise_percent": cell.noise, "queries": count},
    )


def online_row(candidate: Candidate, size: int, found: TaskErrors, queries: CleanAndNoisy) -> dict:
    """Errors of the estimates with the first functions of a basis: medians over identifiable queries and parameters.

    In units of the bound for the noise both with and without noise: errors without it that are far below one do not
    count beside it.

    Args:
        candidate: the basis.
        size: number of its functions that are used.
        found: its errors with that many.
        queries: what is estimated.
    """
    basis = candidate.basis
    first = basis
    if size < basis.record.functions:
        first = with_functions(basis, basis.features, basis.transform[:, :size], accuracy=found.accuracy(), local=None)
    names = list(basis.problem.parameters)
    scored = identifiable(queries.bound, basis.problem.parameter_ranges)

    def errors(observed: Observed) -> np.ndarray:
        found = estimate(first, observed.observations).table[names].to_numpy()
        return np.abs(found - observed.truth[names].to_numpy())[scored]

    clean, noisy = errors(queries.clean), errors(queries.noisy)
    return {
        "problem": basis.problem.name,
        "basis": candidate.name,
        "functions": size,
        **queries.label,
        "identifiable_share": scored.mean(),
        "clean_abs_error": np.nanmedian(clean),
        "clean_error_over_cramer_rao": np.nanmedian(clean / queries.bound[scored]),
        "error_over_cramer_rao": np.nanmedian(noisy / queries.bound[scored]),
        "failed": int(np.isnan(noisy).any(axis=1).sum()),
    }


def work(study: BasisQuality, tracker: Tracker) -> None:
    torch.set_num_threads(study.threads)
    tables: dict[str, list[dict]] = {"quality": [], "features": [], "size": [], "online": []}
    for name in study.cells:
        for kind, rows in rows_of(study, name).items():
            tables[kind] += rows
    written = {kind: pd.DataFrame(rows) for kind, rows in tables.items()}
    for kind, table in written.items():
        write_table(table, f"basis_{kind}", tracker)
    figure = plot_basis_quality(written["quality"], written["online"], study.bars)
    write_figure(figure, "basis_quality", tracker)
    own = written["online"].merge(written["quality"], on=["problem", "basis", "functions"])
    own = own[own["basis"] == "ipbasis"].set_index("problem")["relative_l2"]
    tracker.metrics(own.add_suffix("_relative_l2").to_dict())
    for kind in ("features", "size", "online"):
        print(written[kind].to_string(index=False, float_format=lambda value: f"{value:.3g}"))


def rows_of(study: BasisQuality, name: str) -> dict[str, list[dict]]:
    """Rows of each table for one problem."""
    best, size, most = best_basis(name), study.sizes[name], max(study.functions)
    trained = trained_basis(best)
    measure, queries = measure_of(trained, size, study.seed), clean_and_noisy(study, name)
    found: dict[str, list[dict]] = {"quality": [], "features": [], "online": []}
    curves = {}
    for candidate in candidates(best, trained, size, most, study.seed):
        available = candidate.basis.record.functions
        common = min(available, best.record.functions)
        counts = sorted({common, available, *(count for count in study.functions if count < available)})
        errors = measure.errors(candidate.basis, counts)
        curves[candidate.name] = measure.curve(candidate.basis)
        found["quality"] += quality_rows(candidate, errors)
        found["features"] += feature_rows(candidate, measure, study.rank_tolerance)
        found["online"].append(online_row(candidate, common, errors[common], queries))
    return {**found, "size": [{"problem": name, **row} for row in size_rows(curves, study.targets)]}
