"""Initial value problems for SciPy's integrators, stiff or not, whatever the units of their components."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

_CRUDE = 1e-3  # relative tolerance of the run that finds how large components become
_SMALL = 1e-2  # what counts as small beside the size of a component: below it errors need not be relative any more
_ROUNDING = 1e-15
_STRICTEST = {"DOP853": 3e-14, "LSODA": 1e-12, "Radau": 1e-12}  # relative tolerances that rounding allows
# of the right-hand side, after which the next method is tried; equations that are not stiff take a tenth of it
_EXPLICIT_EVALUATIONS = 20_000


@dataclass(frozen=True)
class InitialValueProblem:
    """``y' = f(t, y)`` from a start.

    Args:
        name: of the problem, for messages.
        right_side: f.
        start: (components,) at `low`.
        low: the initial time.
        groups: (components,) numbers; components of one group have one size.
        methods: of `scipy.integrate.solve_ivp`, each tried when the one before takes too long.
        options: of the implicit methods, such as ``jac``.
    """

    name: str
    right_side: Callable[[float, np.ndarray], np.ndarray]
    start: np.ndarray
    low: float
    groups: np.ndarray
    methods: tuple[str, ...]
    options: dict[str, Any]

    def values(self, times: np.ndarray, tolerance: float, evaluations: int | None = None) -> np.ndarray:
        """(components, n) the solution.

        Args:
            times: (n,) increasing, none below `low`.
            tolerance: of each step, relative to each component, or where that is small, to a hundredth of its size.
            evaluations: of the right-hand side, at most, by the last method.

        Raises:
            ArithmeticError: if the solution ends before the last time, or takes more evaluations.
        """
        if times[-1] == self.low:
            return np.repeat(self.start[:, None], len(times), axis=1)
        for method in self.methods:
            limit = evaluations
            if method != self.methods[-1]:
                limit = min(evaluations or _EXPLICIT_EVALUATIONS, _EXPLICIT_EVALUATIONS)
            try:
                return self._run(method, times, tolerance, limit)
            except _TooManyError as error:
                last = error
        raise ArithmeticError(f"{self.name}: {last}")

    def _run(self, method: str, times: np.ndarray, tolerance: float, limit: int | None) -> np.ndarray:
        first = self._first_sizes(times[-1])
        floor = _ROUNDING * max(first.max(), np.finfo(float).tiny)
        crude = self._solved(method, times[-1], None, _CRUDE, np.where(first > 0, _CRUDE * first, 1e3 * floor), limit)
        size = self._by_group(np.abs(crude).max(axis=1))
        # LSODA controls the largest error of all components, the others a root mean square
        each = tolerance if method == "LSODA" else tolerance / np.sqrt(self.groups.max() + 1)
        strict = max(each, _STRICTEST[method])
        absolute = np.maximum(max(_SMALL * strict, _ROUNDING) * size, floor)
        return self._solved(method, times[-1], times, strict, absolute, limit)

    def _by_group(self, values: np.ndarray) -> np.ndarray:
        """(components,) the largest value of each group."""
        largest = np.zeros(self.groups.max() + 1)
        np.maximum.at(largest, self.groups, values)
        return largest[self.groups]

    def _first_sizes(self, end: float) -> np.ndarray:
        """What can be told before there is a solution: of components that start at zero, by their rates."""
        start = self._by_group(np.abs(self.start))
        middle = (self.low + end) / 2
        rates = [np.abs(self.right_side(time, self.start)) for time in (self.low, middle)]
        grown = (end - self.low) * self._by_group(np.nan_to_num(np.maximum(*rates)))
        return start if start.any() else grown

    def _solved(
        self,
        method: str,
        end: float,
        times: np.ndarray | None,
        relative: float,
        absolute: np.ndarray,
        limit: int | None,
    ) -> np.ndarray:
        """(components, n) values at the times, or at the steps of the method."""
        count = 0

        def right_side(time: float, state: np.ndarray) -> np.ndarray:
            nonlocal count
            count += 1
            if limit is not None and count > limit:
                raise _TooManyError(f"integration needs more than {limit} evaluations")
            return self.right_side(time, state)

        solution = solve_ivp(
            right_side,
            (self.low, end),
            self.start,
            method=method,
            t_eval=times,
            rtol=relative,
            atol=absolute,
            **(self.options if method != "DOP853" else {}),
        )
        if not solution.success:
            raise ArithmeticError(f"{self.name}: integration failed: {solution.message}")
        return solution.y


class _TooManyError(Exception):
    """More evaluations than are allowed."""
