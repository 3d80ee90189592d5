"""The bases that are compared: the trained one, that of the published recipe, and those that need no training."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from ipbasis.baselines.bases import lowest_degrees, proper_orthogonal
from ipbasis.evaluation.metrics import approximation_errors
from ipbasis.features.chebyshev import ChebyshevFeatures
from ipbasis.features.quadrature import Quadrature, gauss_legendre
from ipbasis.features.trunk import Trunk
from ipbasis.offline.accuracy import TaskErrors, task_errors
from ipbasis.offline.artefact import Basis
from ipbasis.offline.automatic import train_automatically
from ipbasis.offline.compression import compress
from ipbasis.offline.forward import ForwardProblem, JetValues
from ipbasis.offline.settings import BasisSettings
from ipbasis.problem.declaration import Declared, Tasks
from ipbasis.reference.solutions import solutions
from pipelines.paths import basis_directory


class Size(Declared):
    """How much bases are measured on.

    Args:
        tasks: unseen ones.
        solutions: exact, for the POD.
        queries: that are estimated.
        points: of each coordinate at which errors are taken; as many Chebyshev polynomials carry the exact solutions.
        accuracy: relative error that is asked of untrained features whose scales and number are chosen.
        minutes: that such may take.
    """

    tasks: PositiveInt
    solutions: PositiveInt
    queries: PositiveInt
    points: PositiveInt
    accuracy: PositiveFloat
    minutes: PositiveFloat


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
        return basis.derivatives(self.quadrature.points)[()].numpy()

    def curve(self, basis: Basis) -> np.ndarray:
        """(K,) relative error of the best approximation by the first functions, for each number of them."""
        return approximation_errors(self.values(basis), self.quadrature.weights.numpy(), self.truth)

    def errors(self, basis: Basis, sizes: Sequence[int]) -> dict[int, TaskErrors]:
        """Errors with the first functions of a basis alone, by their number."""
        evaluated = self.solver.evaluate(basis.derivatives, self.quadrature.points)
        return {
            size: task_errors(
                self.solver, evaluated.first(size), self.quadrature, self.tasks, self.truth, self.reference
            )
            for size in sizes
        }


def measure_of(trained: Basis, size: Size, seed: int) -> Measure:
    """Draw the unseen tasks of a problem and solve them exactly; the forward problem is that of a training."""
    problem, forward = trained.problem, trained.record.settings.forward
    quadrature = gauss_legendre(problem.domain, size.points)
    tasks = problem.sample_tasks(size.tasks, np.random.default_rng([seed, 1]))
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


def trained_basis(best: Basis) -> Basis:
    """The basis of a problem that was trained by gradients: the best one, or one beside it."""
    if isinstance(best.record.settings, BasisSettings):
        return best
    return Basis.load(basis_directory(best.problem.name, int(best.record.provenance["readouts"]), "trained"))


def with_functions(best: Basis, features: nn.Module, transform: Tensor, **record: object) -> Basis:
    """Other functions in the place of those of a basis, to be measured and not to be saved: the features of
    the record stay."""
    described = best.record.model_copy(update={"functions": transform.shape[1], **record})
    return replace(best, features=features, transform=transform, record=described)


def candidates(best: Basis, trained: Basis, size: Size, most: int, seed: int) -> Iterator[Candidate]:
    """The best basis, those trained by gradients, and the bases that need no training.

    All trunks are compressed alike and in float64, that of the published recipe too: its functions are what they were.

    Args:
        best: the basis for real queries.
        trained: see `trained_basis`; its settings are those of the trunks.
        size: of what is measured.
        most: functions at which an error is taken.
        seed: of what is drawn.
    """
    problem, made = trained.problem, trained.record.settings
    yield Candidate("ipbasis", best, best.record.figures["seconds"])
    if trained is not best:
        yield Candidate("trained", trained, trained.record.figures["seconds"])

    def compressed(trunk: Trunk) -> Basis:
        transform = compress(problem, trunk, trained.quadrature, made.forward, made.compression)
        return with_functions(trained, trunk, transform)

    paper = Basis.load(basis_directory(problem.name, int(trained.record.provenance["readouts"]), "paper_recipe"))
    yield Candidate("paper_recipe", compressed(paper.features.double()), paper.record.figures["seconds"])

    started = time.perf_counter()
    features = ChebyshevFeatures(problem.domain, size.points)
    tasks = problem.sample_tasks(size.solutions, np.random.default_rng([seed, 2]))
    exact = solutions(problem, tasks, features.quadrature().points.numpy()[None])
    modes = proper_orthogonal(features, exact, most)
    yield Candidate("pod", with_functions(trained, features, modes), time.perf_counter() - started)
    polynomials = lowest_degrees(features, min(most, features.feature_count))
    yield Candidate("chebyshev", with_functions(trained, features, polynomials), 0.0)

    started = time.perf_counter()
    # another draw than that from which a training begins
    generator = torch.Generator().manual_seed(seed + 1)
    untrained = compressed(Trunk(problem.domain, trained.record.features, generator).requires_grad_(False))
    yield Candidate("untrained", untrained, time.perf_counter() - started)
    for name, kind in (("random_features", "random"), ("sinusoidal", "sinusoidal")):
        started = time.perf_counter()
        tuned = train_automatically(problem, size.accuracy, size.minutes, features=kind)
        yield Candidate(name, tuned, time.perf_counter() - started)
