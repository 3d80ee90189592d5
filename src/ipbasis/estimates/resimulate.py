"""Re-simulation: what the reference solver gives for the estimates, against the data."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from ipbasis.errors import InputError
from ipbasis.estimates.checks import excess_over_chance
from ipbasis.offline.artefact import Basis
from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.reference.solutions import has_reference, solutions_or_nan
from ipbasis.search.assemble import amplitude, initial_values
from ipbasis.search.reweighting import Fit

COLUMN = "resimulation_rms"


@dataclass(frozen=True)
class Resimulation:
    """Reference solutions of a batch at its estimates.

    Args:
        tasks: the estimates as tasks (B), see `tasks_of`.
        rms: (B,) root mean square of data minus re-simulation over the observed values, in units of the given
            standard deviations of the observations if there are any, else in that of the fields; NaN where the
            reference has no solution.
        excess: (B,) how much larger the misfit is than noise and basis explain, as a ratio of root mean squares; 1 or
            less is fine.
    """

    tasks: Tasks
    rms: np.ndarray
    excess: np.ndarray


def check_reference(problem: Problem, purpose: str) -> None:
    """Refuse a problem that cannot be re-simulated.

    Raises:
        InputError: if there is no reference solver for it.
    """
    if not has_reference(problem):
        raise InputError(
            f"{problem.name}: {purpose} needs a reference solver; there is one for ordinary differential equations "
            "with every term and initial value given, and for linear evolution equations zero at both walls"
        )


def fitted_initial_values(basis: Basis, readouts: torch.Tensor) -> np.ndarray:
    """(B, free initial values) of fitted solutions, at the low end of the first coordinate.

    Args:
        basis: the functions.
        readouts: (B, F K).
    """
    return initial_values(basis, readouts).numpy()


def tasks_of(basis: Basis, fit: Fit) -> Tasks:
    """The estimates of a fit as tasks, initial values from the fitted solutions."""
    fitted = fitted_initial_values(basis, fit.solution.readouts.double())
    initial = np.where(np.isnan(fit.batch.initial), fitted, fit.batch.initial)
    return Tasks(fit.solution.parameters.double().numpy(), initial)


def resimulate(basis: Basis, fit: Fit) -> Resimulation:
    """Solve the equations by the reference solver at the estimates, and compare with the data.

    The misfit is too large where a χ² test rejects it as noise (given or estimated) together with the errors that
    the basis makes in solving the equations from their initial values.

    Args:
        basis: of a problem with a reference solver.
        fit: the estimates, and the observations they were fitted to.
    """
    batch, solution, tasks = fit.batch, fit.solution, tasks_of(basis, fit)
    left = np.where(batch.observed, batch.values - solutions_or_nan(basis.problem, tasks, batch.points), 0.0)
    weights = fit.own.weights(torch.as_tensor(batch.observed)).numpy()
    rms = np.sqrt(np.square(left * weights).sum((1, 2)) / batch.observed.sum((1, 2)))
    noise = fit.own.by_query.numpy()[:, None, None] / np.where(batch.observed, weights, 1.0)
    own = basis.record.accuracy.tolerated(solved=True) * amplitude(batch).numpy()
    squares = np.where(batch.observed, np.square(left) / (np.square(noise) + np.square(own)[:, None, None]), 0.0)
    return Resimulation(tasks, rms, excess_over_chance(squares.sum((1, 2)), solution.freedom.numpy()))


def with_resimulation(table: pd.DataFrame, found: Resimulation) -> pd.DataFrame:
    """A table of estimates with the column `COLUMN`, and its verdict where the status was ``ok``."""
    status, message = table["status"].tolist(), table["message"].tolist()
    estimated = np.isfinite(found.tasks.parameters).all(axis=1)
    for i, (rms, excess) in enumerate(zip(found.rms, found.excess, strict=True)):
        if np.isnan(rms) and estimated[i]:
            note = "the equations cannot be integrated with these estimates"
            message[i] = f"{message[i]}; {note}" if message[i] else note
            status[i] = "poor_fit" if status[i] == "ok" else status[i]
        elif status[i] == "ok" and excess > 1:
            status[i] = "poor_fit"
            message[i] = f"the re-simulation contradicts the fit: its misfit is {excess:.2g} times more than chance"
    columns = table.assign(status=status, message=message)
    columns.insert(columns.columns.get_loc("status"), COLUMN, found.rms)
    return columns
