"""Parts of a declared problem: conditions on the boundary, unknown terms, priors."""

import numpy as np
from pydantic import Field, model_validator

from ipbasis.problem.declared import Declared
from ipbasis.problem.ranges import LARGEST, within_reach


class Boundary(Declared):
    """Conditions on part of the boundary: ``equations`` hold where the coordinates in ``at`` have these values.

    Or ``periodic``: a coordinate, at whose ends the fields and their derivatives agree.
    """

    at: dict[str, float] = Field({}, examples=["{x: 0}"])
    equations: list[str] = Field([], examples=['["u_x - 1"]'])
    periodic: str | None = Field(None, examples=["x"])

    @model_validator(mode="after")
    def _check(self) -> "Boundary":
        if bool(self.at) != bool(self.equations) or bool(self.at) == (self.periodic is not None):
            raise ValueError("either {at: {x: 0}, equations: [u]} or {periodic: x} is right")
        return self


class UnknownTerm(Declared):
    """A term whose form is not known: a function of the fields ``of``; ``truth`` is used to simulate only."""

    of: list[str] = Field(examples=["[u]"])
    truth: str | None = None


class Prior(Declared):
    """Distribution of a parameter before any data: ``normal`` by mean and standard deviation, or ``lognormal`` by
    median and standard deviation of the logarithm."""

    normal: tuple[float, float] | None = None
    lognormal: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _check(self) -> "Prior":
        if (self.normal is None) == (self.lognormal is None):
            raise ValueError("a prior is either normal: [mean, std] or lognormal: [median, std of the logarithm]")
        first, std = self.normal or self.lognormal
        if not (np.isfinite(first) and np.isfinite(std) and std > 0):
            raise ValueError(f"[{first:g}, {std:g}]: both finite and the standard deviation above zero")
        if not (abs(first) <= LARGEST and within_reach(std)):
            raise ValueError(f"[{first:g}, {std:g}]: sizes of {1 / LARGEST:g} to {LARGEST:g} are right")
        if self.lognormal and first <= 0:
            raise ValueError(f"lognormal [{first:g}, {std:g}]: the median must be above zero")
        return self
