"""The offline phase of problems with two or three coordinates, with nothing to set but the accuracy and the time."""

from ipbasis.offline.artefact import Basis
from ipbasis.offline.covering import Clock, Told, Training
from ipbasis.offline.finish import finished
from ipbasis.offline.kept import Kept
from ipbasis.offline.pilot import pilot
from ipbasis.problem.declaration import Problem

_ROUNDS, _MARGIN = 3, 0.5  # of adding and measuring tasks; share of the accuracy to reach before it is measured


def train_automatically(
    problem: Problem,
    accuracy: float = 1e-3,
    minutes: float = 5.0,
    told: Told = lambda text: None,
    kept: Kept | None = None,
) -> Basis:
    """A basis whose functions span the solutions of a problem over the ranges of its parameters.

    Args:
        problem: with two or three coordinates and no unknown terms.
        accuracy: relative error of unseen solutions that is asked for.
        minutes: that it may take.
        told: receives what is being done and how accurate the basis is by now, in words.
        kept: where solved tasks are kept until the accuracy is met, to go on from.

    Raises:
        InputError: if no task has a solution, or none is found in the time.
    """
    clock = Clock(60 * minutes)
    found = pilot(problem, accuracy, clock.seconds, told, kept)
    training = Training(accuracy, clock, told, found, found.tried, found.failed)
    try:
        for seed in range(_ROUNDS):
            training.cover(_MARGIN / 2**seed)
            if training.measure(seed):
                break
    except KeyboardInterrupt:
        told("interrupted: the best basis so far is made")
        training.interrupted = True
    basis = finished(problem, training)
    if kept is not None and basis.record.accuracy.floor <= accuracy:
        kept.clear()
    return basis
