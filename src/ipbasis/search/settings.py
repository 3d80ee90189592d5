"""Settings of the search."""

from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from ipbasis.problem.declaration import Declared


class GaussNewtonSettings(Declared):
    """Settings of the Gauss-Newton solver.

    Args:
        solver: names it.
        iterations: Levenberg-Marquardt steps at most, per round of the noise estimate.
        tolerance: decrease of the objective below which a step is not worth it and a query has converged, in units of
            χ² by the noise, or by the misfit where that is larger: a small part of the 1 that an error bar is worth,
            the search ends within about its root in error bars of the optimum. None stands for 1e-4 where the readouts
            are eliminated, and for 1e-2 where the equations are not affine: their rounds for noise and level, which
            it does not set, leave as much open.
        physics_weight: weight of the mean squared residual; None lets it follow from the accuracy that the
            basis reached in validation.
    """

    solver: Literal["gauss_newton"] = "gauss_newton"
    iterations: PositiveInt = 40
    tolerance: PositiveFloat | None = None
    physics_weight: PositiveFloat | None = None
