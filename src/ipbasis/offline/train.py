"""From a problem to its basis, with nothing to set but the accuracy and the time."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from ipbasis.errors import InputError
from ipbasis.offline.artefact import Basis
from ipbasis.problem.declaration import Problem

Kind = Literal["windows", "chebyshev", "random", "trained"]


def train(
    problem: Problem,
    accuracy: float = 1e-3,
    minutes: float = 5,
    features: Kind | None = None,
    told: Callable[[str], None] = lambda text: None,
    unfinished: str | Path | None = None,
) -> Basis:
    """A basis whose functions span the solutions of a problem over the ranges of its parameters.

    A problem of one coordinate is solved in windows, which are chosen in seconds; one of two or three coordinates by
    least squares in polynomials for tasks that are chosen one by one. Random features, which are those of an untrained
    network, and those of a trained one serve problems of any number of coordinates.

    Args:
        problem: a problem without unknown terms.
        accuracy: relative error of unseen solutions that is asked for.
        minutes: that it may take.
        features: kind of features; None for the one that suits the problem.
        told: receives what is being done and how accurate the basis is by now, in words.
        unfinished: directory in which solved tasks of a partial equation are kept until the accuracy is met: the same
            training goes on from them.

    Raises:
        InputError: if the problem cannot be trained, or an argument makes no sense; says why.
    """
    if not (math.isfinite(accuracy) and 0 < accuracy < 1):
        raise InputError(f"accuracy {accuracy:g}: a relative error between 0 and 1 is right, such as 1e-3")
    if not (math.isfinite(minutes) and minutes > 0):
        raise InputError(f"minutes {minutes:g}: a time above zero is right, such as 5")
    if problem.unknown_terms:
        raise InputError(f"{problem.name}: unknown_terms: a basis is trained on equations with every term known")
    single = len(problem.coordinates) == 1
    if single and problem.periodic:
        raise InputError(f"{problem.name}: boundary: the only coordinate, {problem.periodic[0]!r}, cannot be periodic")
    kind = features or ("windows" if single else "chebyshev")
    if kind not in get_args(Kind):
        raise InputError(f"features {kind!r}: {', '.join(get_args(Kind))} are the kinds there are")
    if kind == "windows":
        from ipbasis.offline.windows.train import train_windows

        if not single:
            raise InputError(f"features 'windows': {problem.name} has more than one coordinate; chebyshev is right")
        return train_windows(problem, accuracy, told)
    from ipbasis.offline.automatic import train_automatically
    from ipbasis.offline.kept import Kept

    kept = None if unfinished is None else Kept(Path(unfinished))
    return train_automatically(problem, accuracy, minutes, told, kept, kind)
