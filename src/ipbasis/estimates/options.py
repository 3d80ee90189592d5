"""What may be asked of an estimate besides itself, and which solver can do it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from ipbasis.errors import InputError
from ipbasis.estimates.resimulate import check_reference
from ipbasis.problem.declaration import Problem
from ipbasis.problem.ranges import LARGEST, within_reach
from ipbasis.search.noise import Errors, NoiseStd
from ipbasis.search.solver import Ability, Solver


@dataclass(frozen=True)
class Options:
    """What may be asked for besides the estimates.

    Args:
        resimulate: integrate the equations with the estimates by the reference solver and compare with the data: a
            column ``resimulation_rms``, and the status ``poor_fit`` where data and re-simulation contradict each other.
        polish: go on from the estimates by least squares through the reference solver, within the trained range and
            outside it; holds the re-simulation. The fitted solutions remain those of the basis.
        profile: intervals from the profile likelihood instead of the covariance.
        correlations: columns ``corr_<p>_<q>`` of the correlations of the parameters' errors.
    """

    resimulate: bool = False
    polish: bool = False
    profile: bool = False
    correlations: bool = False


def _asked(
    name: str, noise_std: NoiseStd, errors: Errors, device: str, options: Options
) -> Iterator[tuple[Ability, bool, str]]:
    """Abilities, whether they are asked for, and what to say where a solver of this name has them not."""
    yield (
        "noise_std",
        noise_std is not None,
        f"the solver {name!r} takes no noise_std: the published recipe has no error bars",
    )
    kind = "lognormal noise" if errors.noise == "lognormal" else "the loss 'huber'"
    yield (
        "errors",
        not errors.ordinary,
        f"the solver {name!r} does not know {kind}; 'gauss_newton' and 'library' do",
    )
    yield (
        "device",
        device != "cpu",
        f"device {device!r} is for the solvers 'gauss_newton' and 'library', not {name!r}",
    )
    yield (
        "polish",
        options.polish,
        f"polish is for problems without unknown terms, not for the solver {name!r}",
    )
    yield (
        "profile",
        options.profile,
        f"profile is for the solver 'gauss_newton' without unknown terms, not {name!r}",
    )


def check_options(
    problem: Problem, solver: Solver, noise_std: NoiseStd, errors: Errors, device: str, options: Options
) -> None:
    """Refuse what does not fit the problem as it is searched, or the solver.

    Raises:
        InputError: the first that does not.
    """
    for ability, asked, message in _asked(solver.solver, noise_std, errors, device, options):
        if asked and ability not in solver.abilities:
            raise InputError(message)
    for std in noise_std.values() if isinstance(noise_std, Mapping) else [] if noise_std is None else [noise_std]:
        if not within_reach(std):
            raise InputError(f"noise_std {std:g}: sizes of {1 / LARGEST:g} to {LARGEST:g} are right")
    if options.resimulate or options.polish:
        check_reference(problem, "polish" if options.polish else "resimulate")
    if options.profile and options.polish:
        raise InputError("profile and polish exclude each other: the profile is that of the basis's objective")
    if (options.profile or options.polish) and not errors.ordinary:
        raise InputError("profile and polish are for gaussian noise and the loss 'squares'")
    if options.polish and (problem.bounds or problem.priors):
        raise InputError("polish knows no bounds and no priors: leave out one or the other")
    if options.profile and problem.priors:
        raise InputError("profile knows no priors: it is that of the likelihood")


def device_of(name: str) -> torch.device:
    """The device of that name.

    Raises:
        InputError: if there is none, or it does not compute in double precision.
    """
    try:
        one = torch.ones(1, dtype=torch.float64, device=name)
        if one.add(1).item() == 2:
            return one.device
    except Exception as error:  # of the many kinds that the devices have, each its own
        reason = (str(error) or type(error).__name__).splitlines()[0]
    else:
        reason = "it does not compute"
    raise InputError(f"device {name!r} is not to be had here ({reason}); 'cpu' always is")
