"""Which basis of a problem is kept for real queries."""

import shutil

import numpy as np
import pandas as pd
import torch

from ipbasis.features.quadrature import equispaced
from ipbasis.offline.artefact import Basis
from ipbasis.reference.solutions import has_reference, solutions
from pipelines.benchmark import Benchmark
from pipelines.paths import basis_directory, best_directory
from pipelines.report.outputs import read_all

_TASKS_BETWEEN, _POINTS_BETWEEN = 100, 2000  # unseen tasks, and points between those of the residual


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


def choose_best(benchmark: Benchmark) -> int:
    """Copy the best basis on unseen tasks to ``best``; returns its readouts.

    That with the smallest error between points where there is a reference, else with the smallest residual.
    """
    problem, trained = benchmark.problem, benchmark.basis.problem
    offline = pd.concat(read_all(f"training/{trained}/readouts-*/offline.csv"), ignore_index=True)
    own = offline[offline["source"] == "ipbasis"]
    errors = own.set_index("readouts")["residual_accuracy"]
    if len(errors) > 1 and has_reference(problem):
        candidates = {count: Basis.load(basis_directory(trained, count, "ipbasis")) for count in errors.index}
        errors = pd.Series({count: error_between(basis) for count, basis in candidates.items()})
    readouts = int(errors.idxmin())
    best = best_directory(problem.name)
    shutil.rmtree(best, ignore_errors=True)
    Basis.load(basis_directory(trained, readouts, "ipbasis")).for_problem(problem).save(best)
    return readouts
