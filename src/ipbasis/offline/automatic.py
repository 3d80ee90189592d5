"""The offline phase in polynomials or other features, with nothing to set but the accuracy and the time."""

import time
from dataclasses import replace
from typing import Literal

from ipbasis.errors import InputError
from ipbasis.features.untrained import Spread, sinusoidal
from ipbasis.offline.adapted import trained_trunk, untrained, width_of
from ipbasis.offline.artefact import Basis
from ipbasis.offline.covering import Clock, Told, Training
from ipbasis.offline.finish import finished
from ipbasis.offline.kept import Kept
from ipbasis.offline.pilot import pilot
from ipbasis.offline.tuned import Tuning
from ipbasis.problem.declaration import Problem

_ROUNDS, _MARGIN = 3, 0.5  # of adding and measuring tasks; share of the accuracy to reach before it is measured
_FURTHER = 16  # tasks that a trunk is trained on, beside the corners of the ranges
_AIM = 0.1  # share of the accuracy that solutions in the features are to have
_TUNED, _TRAINED, _AGAIN = 0.35, 0.55, 0.1  # shares of the time: until features are chosen, trained, and to use them

# sinusoidal ones are there to compare with
FeatureKind = Literal["chebyshev", "random", "sinusoidal", "trained"]
_FAMILIES = {"random": Spread.untrained, "sinusoidal": sinusoidal, "trained": untrained}


def train_automatically(
    problem: Problem,
    accuracy: float = 1e-3,
    minutes: float = 5.0,
    told: Told = lambda text: None,
    kept: Kept | None = None,
    features: FeatureKind = "chebyshev",
) -> Basis:
    """A basis whose functions span the solutions of a problem over the ranges of its parameters.

    Args:
        problem: with one, two or three coordinates and no unknown terms.
        accuracy: relative error of unseen solutions that is asked for.
        minutes: that it may take.
        told: receives what is being done and how accurate the basis is by now, in words.
        kept: where solved tasks are kept until the accuracy is met, to go on from.
        features: in whose span tasks are solved.

    Raises:
        InputError: if no task has a solution, or none is found in the time.
    """
    clock = Clock(60 * minutes)
    found = pilot(problem, accuracy, clock.seconds, told, kept)
    training = Training(accuracy, clock, told, found, found.tried, found.failed)
    try:
        if features != "chebyshev":
            _solve_in_features(training, features)
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


def _solve_in_features(training: Training, kind: FeatureKind) -> None:
    """Choose features, and solve the first tasks again in their span."""
    found, clock, told = training.pilot, training.clock, training.told

    def until(share: float) -> float:
        return time.monotonic() + clock.left(share)

    known = found.tried
    if kind == "trained":
        # features that are trained on few tasks serve those alone
        known = known.and_(training.solve(training.problem.ranges.sobol(_FURTHER, 2), _TUNED, exact=True))
    tuning = Tuning(training.problem, known, _FAMILIES[kind], found.marcher.in_time, until(_TUNED))
    first = tuning.first()
    if kind == "trained":
        first = replace(first, width=width_of(tuning, training.accuracy))
    tuning = tuning.focused(first)
    chosen = tuning.searched(first)
    if kind != "trained":
        chosen = tuning.grown(chosen, _AIM * training.accuracy, told)
    elif chosen.error > _AIM * training.accuracy:
        trunk = trained_trunk(tuning, chosen, until(_TRAINED), told)
        tuning = replace(tuning, family=lambda spread, width: trunk)
    scales = ", ".join(f"{scale:.2g}" for scale in chosen.spread.scales)
    told(f"{chosen.width} {kind} features, scales {scales}, grading {chosen.spread.grading:g}")
    training.whole = tuning.whole(chosen)
    training.described = {
        "features": kind,
        "width": chosen.width,
        "scales": list(chosen.spread.scales),
        "grading": chosen.spread.grading,
    }
    training.tried = training.solve(found.tried.unknowns, clock.spent / clock.seconds + _AGAIN)
    if not len(training.tried):
        raise InputError(
            f"{training.problem.name}: no task is solved in {kind} features, or none in the time; chebyshev is right, "
            "or more minutes"
        )
