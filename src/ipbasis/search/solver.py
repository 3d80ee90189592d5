"""What a solver is: settings that refuse what does not fit a problem, made ready for a basis, then given batches."""

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ipbasis.observations.long_form import Batch
from ipbasis.offline.artefact import Basis
from ipbasis.problem.declaration import Problem
from ipbasis.reference.solutions import has_reference
from ipbasis.search.assemble import assemble, observed_functions
from ipbasis.search.gauss_newton import gauss_newton
from ipbasis.search.joint import joint_gauss_newton
from ipbasis.search.noise import Errors, Noise, noise_on
from ipbasis.search.physics import AffinePhysics
from ipbasis.search.pointwise import PointwisePhysics
from ipbasis.search.prepared import InRounds, Prepared
from ipbasis.search.reduce import reduce_physics
from ipbasis.search.reweighting import Fit
from ipbasis.search.settings import GaussNewtonSettings
from ipbasis.search.solution import Solution
from ipbasis.search.span import SpanSearch, span_search
from ipbasis.search.windows import Windows, windows_of

# entries of the normal matrices of equations taken at points, of all queries that are held at once
_BATCH_ENTRIES = 40_000_000

# Share of the domain without an observation of a field, from which on 7 of 400 estimates of Lotka-Volterra that were
# called ok were more than four error bars off, in the study of calibration.
_GAP = 0.3

Ability = Literal["noise_std", "errors", "device", "profile", "polish"]


class Solver:
    """A way to estimate: settings, what they can do, and how they are made ready.

    Args:
        solver: name.
        abilities: what may be asked for: a given ``noise_std``; ``errors`` that are lognormal or bounded in influence;
            another ``device``; ``profile`` intervals; ``polish`` through the reference solver.
    """

    solver: str
    abilities: ClassVar[frozenset[Ability]]

    def check(self, problem: Problem) -> None:
        """Refuse a problem that the solver is not made for.

        Raises:
            InputError: says which one it would be for.
        """

    def searched(self, problem: Problem) -> Problem:
        """The problem whose parameters the solver searches."""
        return problem

    def prepare(self, declared: Problem, basis: Basis, errors: Errors, device: torch.device) -> Prepared:
        """Make the solver ready.

        Args:
            declared: the problem as users wrote it.
            basis: for the problem that is searched, see `searched`.
            errors: what kind of errors the observations have.
            device: where to search.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class OnPhysics(Prepared):
    """Of a solver that has the equations of a basis at hand.

    Args:
        basis: for the problem that is searched.
        physics: its equations.
    """

    basis: Basis
    physics: AffinePhysics | PointwisePhysics

    @property
    def combinations(self) -> np.ndarray:
        """(K, r) takes the unknowns of a field to its readouts."""
        return self.physics.energy.cpu().numpy()

    def most_queries(self, longest: int) -> int:
        """Queries of a batch at most; normal matrices of equations at points are held for all of them."""
        most = super().most_queries(longest)
        if isinstance(self.physics, PointwisePhysics):
            most = min(most, max(1, _BATCH_ENTRIES // self.physics.combinations.shape[1] ** 2))
        return most


@dataclass(frozen=True)
class LeastSquares(OnPhysics, InRounds):
    """Gauss-Newton on a basis, in as many rounds as the errors of the observations ask for.

    Args:
        settings: of the search.
        errors: kind of the observations' errors.
        optional: (P,) parameters that are set to zero where the data do not ask for them; None if there are none.
    """

    settings: GaussNewtonSettings
    errors: Errors
    optional: Tensor | None = None

    @property
    def has_likelihood(self) -> bool:
        return isinstance(self.physics, AffinePhysics)

    def unsure(self, fit: Fit, rejected: np.ndarray) -> np.ndarray:
        """Where weak equations bend, by what the basis leaves of them or where nothing is observed."""
        problem = self.basis.problem
        constrained = problem.bounds or problem.priors  # which polish does not know
        if self.has_likelihood or problem.unknown_terms or constrained or not has_reference(problem):
            return super().unsure(fit, rejected)
        return rejected | (_widest_gap(fit.batch, *problem.domain[0]) > _GAP)

    def at(self, batch: Batch, noise: Noise, functions: Tensor | None = None, near: Solution | None = None) -> Solution:
        # found on the device that the equations are on
        device = self.physics.combinations.device
        basis = self.basis.on(device)
        # on the CPU tensors are made anyway, and the context would cost as much as small operations
        with nullcontext() if device.type == "cpu" else device:
            noise = noise_on(noise, device)
            functions = observed_functions(basis, batch) if functions is None else functions.to(device)
            assembled = partial(assemble, basis, batch=batch, std=noise.by_observation, functions=functions)
            if isinstance(self.physics, AffinePhysics):
                online, begin = assembled(self.physics), None if near is None else near.parameters.to(device)
                solution = gauss_newton(online, basis.record.accuracy, self.settings, noise.by_query, begin)
            else:
                optional = None if self.optional is None else self.optional.to(device)
                solution = joint_gauss_newton(assembled, self.physics, self.settings, noise.by_query, optional)
        return solution.to("cpu")


def _widest_gap(batch: Batch, low: float, high: float) -> np.ndarray:
    """(B,) longest stretch of the first coordinate without an observation of a field, as a share of its domain."""
    places = np.sort(np.where(batch.observed, batch.points[..., :1], high), axis=1)
    low, high = (np.full_like(places[:, :1], end) for end in (low, high))
    return (np.diff(np.concatenate([low, places, high], axis=1), axis=1).max(1) / (high - low)[:, 0]).max(1)


def physics_of(basis: Basis, device: torch.device) -> AffinePhysics | PointwisePhysics:
    """The equations of a basis on a device, their formulas compiled: SymPy is not made for threads."""
    with device:
        physics = reduce_physics(basis.on(device))
    if isinstance(physics, AffinePhysics):
        physics.thetas(torch.as_tensor(basis.problem.parameter_ranges.T, device=device))
    elif not basis.problem.unknown_terms:
        _ = physics.system.linearised
    return physics


class GaussNewton(GaussNewtonSettings, Solver):
    """Parameters in closed form, all queries of a batch at once."""

    abilities: ClassVar[frozenset[Ability]] = frozenset({"noise_std", "errors", "device", "profile", "polish"})

    def prepare(
        self, declared: Problem, basis: Basis, errors: Errors, device: torch.device
    ) -> "LeastSquares | Windows | SpanSearch":
        if basis.solved is not None:
            return (windows_of if basis.transform is None else span_search)(basis, self, errors)
        return LeastSquares(basis, physics_of(basis, device), self, errors)
