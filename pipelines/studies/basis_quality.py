"""What the trained functions are worth beside bases that need no training.

Rank, condition and correlation of the features before and after compression; error by the number of functions, beside
the proper orthogonal decomposition (POD) of exact solutions, Chebyshev polynomials and an untrained trunk; and the
estimates that the same solver gets with as many functions of each.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ipbasis.baselines.bases import lowest_degrees, proper_orthogonal
from ipbasis.estimates.estimate import estimate
from ipbasis.evaluation.metrics import approximation_errors, dependence, identifiable
from ipbasis.evaluation.study_figures import plot_basis_quality
from ipbasis.features.chebyshev import ChebyshevFeatures
from ipbasis.features.quadrature import Quadrature, gauss_legendre
from ipbasis.features.trunk import Trunk
from ipbasis.offline.accuracy import TaskErrors, task_errors
from ipbasis.offline.artefact import Basis
from ipbasis.offline.compression import compress
from ipbasis.offline.forward import ForwardProblem, JetValues
from ipbasis.problem.declaration import Tasks
from ipbasis.reference.solutions import solutions
from ipbasis.tracking import Tracker
from pipelines.cells import Observed
from pipelines.common import Settings, recipe_directory
from pipelines.report.outputs import write_figure, write_table
from pipelines.studies.queries import best_basis, draw, unit_bounds


@dataclass(frozen=True)
class Measure:
    """Where and on what the bases of a problem are measured.

    Args:
        solver: the forward problem.
        quadrature: where errors are taken.
        tasks: unseen tasks.
        truth: (tasks, n, F) their exact solutions at the points of `quadrature`.
        reference: what the solver needs of them; None if nothing.
    """

    solver: ForwardProblem
    quadrature: Quadrature
    tasks: Tasks
    truth: np.ndarray
    reference: JetValues | None

    def values(self, basis: Basis) -> np.ndarray:
        """(n, K) functions of a basis at the points of `quadrature`."""
        return basis.function_map(self.quadrature.points)[()].numpy()

    def curve(self, basis: Basis) -> np.ndarray:
        """(K,) relative error of the best approximation by the first functions, for each number of them."""
        return approximation_errors(self.values(basis), self.quadrature.weights.numpy(), self.truth)

    def errors(self, basis: Basis, sizes: Sequence[int]) -> dict[int, TaskErrors]:
        """Errors with the first functions of a basis alone, by their number."""
        evaluated = self.solver.evaluate(basis.function_map, self.quadrature.points)
        return {
            size: task_errors(
                self.solver, evaluated.first(size), self.quadrature, self.tasks, self.truth, self.reference
            )
            for size in sizes
        }


def measure_of(settings: Settings, best: Basis) -> Measure:
    """Draw the unseen tasks of a problem and solve them exactly."""
    problem, forward = best.problem, best.record.settings.forward
    quadrature = gauss_legendre(problem.domain, settings["sizes"][problem.name]["points"])
    count, rng = settings["sizes"][problem.name]["tasks"], np.random.default_rng([settings["seed"], 1])
    tasks = problem.sample_tasks(count, rng)
    solver = ForwardProblem(problem, forward.without_training_terms(), quadrature.points.dtype)
    truth = solutions(problem, tasks, quadrature.points.numpy()[None])
    return Measure(solver, quadrature, tasks, truth, solver.reference(tasks, quadrature.points))


@dataclass(frozen=True)
class Candidate:
    """A basis to compare.

    Args:
        name: in the column ``basis``.
        basis: its functions, best first.
        seconds: that it took to make; those of a trained one are of its training.
    """

    name: str
    basis: Basis
    seconds: float


def with_functions(best: Basis, features: nn.Module, transform: Tensor, **record: object) -> Basis:
    """Other functions in the place of those of a basis, to be measured and not to be saved: the trunk of the record
    stays."""
    described = best.record.model_copy(update={"functions": transform.shape[1], **record})
    return replace(best, trunk=features, transform=transform, record=described)


def candidates(settings: Settings, best: Basis) -> Iterator[Candidate]:
    """The trained basis, the features of the published recipe, and the bases that need no training.

    All trunks are compressed alike and in float64, that of the published recipe too: its functions are what they were.
    """
    problem, made, most = best.problem, best.record.settings, max(settings["functions"])
    yield Candidate("ipbasis", best, best.record.figures["seconds"])

    def compressed(trunk: Trunk) -> Basis:
        return with_functions(best, trunk, compress(problem, trunk, best.quadrature, made.forward, made.compression))

    paper = Basis.load(recipe_directory(problem.name, int(best.record.provenance["readouts"]), "paper_recipe"))
    yield Candidate("paper_recipe", compressed(paper.trunk.double()), paper.record.figures["seconds"])

    started = time.perf_counter()
    features = ChebyshevFeatures(problem.domain, settings["sizes"][problem.name]["points"])
    count, rng = settings["sizes"][problem.name]["solutions"], np.random.default_rng([settings["seed"], 2])
    exact = solutions(problem, problem.sample_tasks(count, rng), features.quadrature().points.numpy()[None])
    modes = proper_orthogonal(features, exact, most)
    yield Candidate("pod", with_functions(best, features, modes), time.perf_counter() - started)
    polynomials = lowest_degrees(features, min(most, features.feature_count))
    yield Candidate("chebyshev", with_functions(best, features, polynomials), 0.0)

    started = time.perf_counter()
    # another draw than that from which a training begins
    generator = torch.Generator().manual_seed(settings["seed"] + 1)
    untrained = compressed(Trunk(problem.domain, best.record.trunk, generator).requires_grad_(False))
    yield Candidate("random_features", untrained, time.perf_counter() - started)


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
    if not isinstance(basis.trunk, Trunk):
        return
    raw = torch.eye(basis.trunk.feature_count, dtype=torch.float64)
    for stage, transform in (("raw", raw), ("compressed", basis.transform)):
        shown = with_functions(basis, basis.trunk, transform)
        weights = measure.quadrature.weights.numpy()
        yield {
            "problem": basis.problem.name,
            "basis": candidate.name,
            "stage": stage,
            "functions": transform.shape[1],
            **dependence(measure.values(shown), weights, rank_tolerance),
            "relative_l2": measure.curve(shown)[-1],
        }


def size_rows(curves: Mapping[str, np.ndarray], levels: Sequence[float]) -> Iterator[dict]:
    """How many functions each basis needs for an error, and how many times those of the POD; NaN where it never does.

    Args:
        curves: by name of the basis, the error for each number of functions.
        levels: of the error.
    """
    for level in levels:
        needed = {
            name: np.argmax(curve <= level) + 1 if (curve <= level).any() else np.nan for name, curve in curves.items()
        }
        for name, count in needed.items():
            yield {"basis": name, "relative_l2": level, "functions": count, "times_pod": count / needed["pod"]}


@dataclass(frozen=True)
class Asked:
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


def asked(settings: Settings, name: str) -> Asked:
    """Draw the queries of a problem in its trained range."""
    cell, count = settings["cells"][name], settings["sizes"][name]["queries"]
    queries = draw(settings, name, settings["drawn"][name], count, cell["number"])
    noisy = queries.observed(cell["noise"])
    return Asked(
        queries.observed(0),
        noisy,
        unit_bounds(queries) * noisy.truth[["noise_std"]].to_numpy(),
        {"observations": cell["number"], "noise_percent": cell["noise"], "queries": count},
    )


def online_row(candidate: Candidate, size: int, found: TaskErrors, asked: Asked) -> dict:
    """Errors of the estimates with the first functions of a basis: medians over identifiable queries and parameters.

    In units of the bound for the noise both with and without noise: errors without it that are far below one do not
    count beside it.

    Args:
        candidate: the basis.
        size: number of its functions that are used.
        found: its errors with that many.
        asked: the queries.
    """
    basis = candidate.basis
    first = with_functions(basis, basis.trunk, basis.transform[:, :size], accuracy=found.accuracy())
    names = list(basis.problem.parameters)
    scored = identifiable(asked.bound, basis.problem.parameter_ranges)

    def errors(observed: Observed) -> np.ndarray:
        found = estimate(first, observed.observations).table[names].to_numpy()
        return np.abs(found - observed.truth[names].to_numpy())[scored]

    clean, noisy = errors(asked.clean), errors(asked.noisy)
    return {
        "problem": basis.problem.name,
        "basis": candidate.name,
        "functions": size,
        **asked.label,
        "identifiable_share": scored.mean(),
        "clean_abs_error": np.nanmedian(clean),
        "clean_error_over_cramer_rao": np.nanmedian(clean / asked.bound[scored]),
        "error_over_cramer_rao": np.nanmedian(noisy / asked.bound[scored]),
        "failed": int(np.isnan(noisy).any(axis=1).sum()),
    }


def work(settings: Settings, tracker: Tracker) -> None:
    torch.set_num_threads(settings["threads"])
    tables: dict[str, list[dict]] = {"quality": [], "features": [], "size": [], "online": []}
    for name in settings["cells"]:
        best, curves = best_basis(name), {}
        measure, queries = measure_of(settings, best), asked(settings, name)
        for candidate in candidates(settings, best):
            most = candidate.basis.record.functions
            common = min(most, best.record.functions)
            sizes = sorted({common, most, *(size for size in settings["functions"] if size < most)})
            errors = measure.errors(candidate.basis, sizes)
            curves[candidate.name] = measure.curve(candidate.basis)
            tables["quality"] += quality_rows(candidate, errors)
            tables["features"] += feature_rows(candidate, measure, settings["rank_tolerance"])
            tables["online"].append(online_row(candidate, common, errors[common], queries))
        tables["size"] += [{"problem": name, **row} for row in size_rows(curves, settings["levels"])]
    written = {kind: pd.DataFrame(rows) for kind, rows in tables.items()}
    for kind, table in written.items():
        write_table(table, f"basis_{kind}", tracker)
    figure = plot_basis_quality(written["quality"], written["online"], settings["bars"])
    write_figure(figure, "basis_quality", tracker)
    own = written["online"].merge(written["quality"], on=["problem", "basis", "functions"])
    own = own[own["basis"] == "ipbasis"].set_index("problem")["relative_l2"]
    tracker.metrics(own.add_suffix("_relative_l2").to_dict())
    for kind in ("features", "size", "online"):
        print(written[kind].to_string(index=False, float_format=lambda value: f"{value:.3g}"))
