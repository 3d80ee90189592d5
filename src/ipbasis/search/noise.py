"""How observations scatter about the fields: the size of the noise, and its kind.

The size is one of three types: `Estimated`, `ByQuery` (one number for all observations of a query) and `ByObservation`
(one for each). Solvers are given the noise together with the error of the basis, see `with_basis_error`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

from ipbasis.errors import InputError
from ipbasis.observations.long_form import Batch, Observations
from ipbasis.offline.artefact import Basis
from ipbasis.search.assemble import amplitude

# Huber's bound on the influence of an observation, in standard deviations: 95 % efficient for normal errors
BOUND = 1.345
# mean of ψ² for standard normal errors
_MEAN_SQUARE = 2 * norm.cdf(BOUND) - 1 - 2 * BOUND * norm.pdf(BOUND) + 2 * BOUND**2 * norm.sf(BOUND)

# What users give: one standard deviation for all fields, one for each, or none
NoiseStd = float | Mapping[str, float] | None


@dataclass(frozen=True)
class Estimated:
    """Not known: one standard deviation for all observations of a query, as its misfit tells."""

    given = False
    by_observation = by_query = None

    def with_basis_error(self, error: Tensor) -> "Estimated":
        """The same: a misfit holds the error of the basis already."""
        return self

    def weights(self, observed: Tensor) -> Tensor:
        """(B, n, F) weights of the observations in the misfit, 1; zero where nothing was observed."""
        return observed.double()


@dataclass(frozen=True)
class ByQuery:
    """One standard deviation for all observations of a query.

    Args:
        by_query: (B,).
    """

    by_query: Tensor
    given = True
    by_observation = None

    def with_basis_error(self, error: Tensor) -> "ByQuery":
        """The standard deviation of the errors together, that of the basis being (B,)."""
        return ByQuery((self.by_query.square() + error.square()).sqrt())

    def weights(self, observed: Tensor) -> Tensor:
        """(B, n, F) weights of the observations in the misfit, 1; zero where nothing was observed."""
        return observed.double()

    def by_field(self, observed: Tensor) -> Tensor:
        """(B, F) the same for every field; NaN where nothing was observed."""
        return self.by_query[:, None].where(observed.any(1), torch.nan)


@dataclass(frozen=True)
class ByObservation:
    """One standard deviation for each observation, which is the unit of its misfit.

    Args:
        by_observation: (B, n, F), any number above zero where nothing was observed: it is not read.
    """

    by_observation: Tensor
    given = True

    @property
    def by_query(self) -> Tensor:
        """(B,) the noise in units of the standard deviations."""
        return torch.ones(len(self.by_observation), dtype=self.by_observation.dtype, device=self.by_observation.device)

    def with_basis_error(self, error: Tensor) -> "ByObservation":
        """The standard deviations of the errors together, that of the basis being (B,)."""
        return ByObservation((self.by_observation.square() + error[:, None, None].square()).sqrt())

    def weights(self, observed: Tensor) -> Tensor:
        """(B, n, F) weights of the observations in the misfit; zero where nothing was observed."""
        return torch.where(observed, 1 / self.by_observation, 0.0)

    def by_field(self, observed: Tensor) -> Tensor:
        """(B, F) root mean square; NaN where nothing was observed."""
        return self.by_observation.masked_fill(~observed, torch.nan).square().nanmean(1).sqrt()


Noise = Estimated | ByQuery | ByObservation


def noise_on(noise: Noise, device: torch.device) -> Noise:
    """The same on another device."""
    return type(noise)(**{field.name: getattr(noise, field.name).to(device) for field in fields(noise)})


def noise_of(batch: Batch, noise_std: NoiseStd, names: list[str], alike: bool) -> Noise:
    """The noise of a batch, from its own standard deviations or from what is given for all.

    Args:
        batch: the observations.
        noise_std: see `NoiseStd`; None where the batch has its own.
        names: of the fields.
        alike: whether one number is the standard deviation of every observation, not a share of the field.
    """
    if batch.std is not None:
        return ByObservation(torch.as_tensor(batch.std).where(torch.as_tensor(batch.observed), 1.0))
    if noise_std is None:
        return Estimated()
    if alike and not isinstance(noise_std, Mapping):
        return ByQuery(torch.full((len(batch.queries),), float(noise_std), dtype=torch.float64))
    by_field = noise_std if isinstance(noise_std, Mapping) else dict.fromkeys(names, noise_std)
    row = torch.tensor([by_field.get(field, torch.nan) for field in names], dtype=torch.float64)
    return ByObservation(row.expand(batch.values.shape).where(torch.as_tensor(batch.observed), 1.0))


def check_noise_std(noise_std: NoiseStd, observations: Observations) -> None:
    """Refuse given standard deviations that do not go with the observations.

    Raises:
        InputError: if one is not above zero, of no field, missing for a field with observations, or given twice.
    """
    if noise_std is None:
        return
    problem, table = observations.problem, observations.table
    deviations = [f"{field}_std" for field in problem.fields]
    if set(deviations) <= set(table):
        raise InputError(f"noise_std is given twice: as {noise_std} and by the column {deviations[0]!r}")
    if not isinstance(noise_std, Mapping):
        return
    if wrong := [name for name in noise_std if name not in problem.fields]:
        raise InputError(
            f"noise_std: {wrong[0]!r} is not a field of {problem.name}; it has {', '.join(problem.fields)}"
        )
    if missing := [f for f in problem.fields if f not in noise_std and table[f].notna().any()]:
        raise InputError(f"noise_std: the field {missing[0]!r} has observations, but no standard deviation")


def check_sizes(noise_std: NoiseStd) -> None:
    """Raise an `InputError` for a standard deviation that is not above zero."""
    given = noise_std if isinstance(noise_std, Mapping) else {} if noise_std is None else {"": noise_std}
    for name, std in given.items():
        if not (np.isfinite(std) and std > 0):
            where = f" of {name}" if name else ""
            raise InputError(f"noise_std{where} {std:g}: a standard deviation must be above zero")


def basis_error(basis: Basis, batch: Batch) -> Tensor:
    """(B,) standard deviation of the errors that the basis itself makes in fitting solutions."""
    return basis.record.accuracy.floor * amplitude(batch)


@dataclass(frozen=True)
class Errors:
    """How the observations scatter about the fields, and what of it is minimised.

    Args:
        noise: ``gaussian``, or ``lognormal``: proportional to the fields, which are positive.
        loss: ``squares``, or ``huber``, which bounds the influence of each observation.

    Raises:
        InputError: for any other word.
    """

    noise: str = "gaussian"
    loss: str = "squares"

    def __post_init__(self) -> None:
        for name, choices in (("noise", ("gaussian", "lognormal")), ("loss", ("squares", "huber"))):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} {getattr(self, name)!r} is not known; there are {', '.join(choices)}")

    @property
    def ordinary(self) -> bool:
        """Whether least squares on the observations themselves will do."""
        return self == Errors()

    @property
    def mean_square(self) -> float:
        """Mean of ψ² for standard normal errors."""
        return 1.0 if self.loss == "squares" else _MEAN_SQUARE

    def bounded(self, ratio: Tensor) -> Tensor:
        """ψ of standardised residuals."""
        return ratio if self.loss == "squares" else ratio.clamp(-BOUND, BOUND)

    def check(self, observations: Observations) -> None:
        """Raise an `InputError` where lognormal noise cannot have led to an observation."""
        if self.noise == "gaussian":
            return
        table = observations.table
        for field in observations.problem.fields:
            if (wrong := (table[field] <= 0).to_numpy()).any():
                row = int(np.argmax(wrong))
                query, value = table["query"].iloc[row], table[field].iloc[row]
                raise InputError(
                    f"query {query}: {field} = {value:g}, but lognormal noise leaves values above zero: leave the "
                    f"cell empty, or take gaussian noise"
                )
