"""Initial value problems for SciPy's integrators, stiff or not, whatever the units of their components."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import sympy
from scipy.integrate import solve_ivp

from ipbasis.problem.functions import Where

_CRUDE = 1e-3  # relative tolerance of the run that finds how large components become
_SMALL = 1e-2  # what counts as small beside the size of a component: below it errors need not be relative any more
_ROUNDING = 1e-15
_STRICTEST = {"DOP853": 3e-14, "LSODA": 1e-12, "Radau": 1e-12}  # relative tolerances that rounding allows
_EXPLICIT_EVALUATIONS = 50_000  # of the right-hand side, after which the next method is tried
_FEW = 1000  # evaluations: some eighty steps of DOP853


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
        jumps: (jumps,) increasing times after `low` at which f jumps.
    """

    name: str
    right_side: Callable[[float, np.ndarray], np.ndarray]
    start: np.ndarray
    low: float
    groups: np.ndarray
    methods: tuple[str, ...]
    options: dict[str, Any]
    jumps: np.ndarray

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
        last = None
        for method in self.methods:
            limit = evaluations
            if method != self.methods[-1]:
                limit = min(evaluations or _EXPLICIT_EVALUATIONS, _EXPLICIT_EVALUATIONS)
            try:
                with np.errstate(all="ignore"):
                    return self._run(method, times, tolerance, limit)
            except _TooManyError as error:
                last = error
        raise ArithmeticError(f"{self.name}: {last}")

    def curve(self, last: float, tolerance: float, evaluations: int) -> Callable[[np.ndarray], np.ndarray]:
        """The solution (components, n) as a function of times (n,), by LSODA, whose formulas hold between its steps.

        Args:
            last: end of the times.
            tolerance: see `values`.
            evaluations: of the right-hand side, at most.

        Raises:
            ArithmeticError: if the solution ends before the last time, or takes more evaluations.
        """
        count = _Count(evaluations)
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # LSODA tells of its failures by its outcome, too
                tolerances = self._tolerances("LSODA", last, tolerance, count)
                pieces = [*self._pieces("LSODA", last, None, count, dense_output=True, **tolerances)]
        except _TooManyError as error:
            raise ArithmeticError(f"{self.name}: {error}") from None
        ends = [end for _, end, _ in pieces[:-1]]

        def of(times: np.ndarray) -> np.ndarray:
            number, out = np.searchsorted(ends, times, side="right"), np.empty((len(self.start), len(times)))
            for own, (_, _, solution) in enumerate(pieces):
                if (number == own).any():
                    out[:, number == own] = solution.sol(times[number == own])
            return out

        return of

    def _run(self, method: str, times: np.ndarray, tolerance: float, limit: int | None) -> np.ndarray:
        """The solution by one method, after a crude run that tells sizes, and the steps that stability alone takes."""
        explicit = method == "DOP853"
        # without stiffness the crude run takes a tenth of the steps, see `_held_by_stability`
        count, crude_count = _Count(limit), _Count(limit // 10 if explicit and limit else limit)
        tolerances = self._tolerances(method, times[-1], tolerance, crude_count)
        values = self._solved(method, times[-1], times, count, **tolerances)
        if explicit and _held_by_stability(crude_count.done, count.done, tolerances["rtol"]):
            raise _TooManyError("the equations are stiff")
        return values

    def _tolerances(self, method: str, last: float, tolerance: float, count: "_Count") -> dict[str, Any]:
        """Relative and absolute ones of the integrator, by a crude run that tells sizes."""
        first = self._first_sizes(last)
        floor = _ROUNDING * max(first.max(), np.finfo(float).tiny)
        absolute = np.where(first > 0, _CRUDE * first, 1e3 * floor)
        crude = self._solved(method, last, None, count, rtol=_CRUDE, atol=absolute)
        # LSODA controls the largest error of all components, the others a root mean square
        each = tolerance if method == "LSODA" else tolerance / np.sqrt(self.groups.max() + 1)
        strict = max(each, _STRICTEST[method])
        if not np.isfinite(crude).all():
            raise ArithmeticError(f"{self.name}: integration failed: the solution grows beyond all numbers")
        absolute = max(_SMALL * strict, _ROUNDING) * self._by_group(np.abs(crude).max(axis=1))
        return {"rtol": strict, "atol": np.maximum(absolute, floor)}

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

    def _solved(self, method: str, last: float, times: np.ndarray | None, count: "_Count", **tolerances) -> np.ndarray:
        """(components, n) values at the times, or at the steps of the method; piece by piece between jumps."""
        low = self.low if times is None else times[times == self.low]
        parts = [np.repeat(self.start[:, None], np.size(low), axis=1)]
        for begin, end, solution in self._pieces(method, last, times, count, **tolerances):
            inside = len(solution.t) if times is None else ((times > begin) & (times <= end)).sum()
            parts.append(solution.y[:, :inside])
        return np.concatenate(parts, axis=1)

    def _pieces(
        self, method: str, last: float, times: np.ndarray | None, count: "_Count", **options
    ) -> Iterator[tuple[float, float, Any]]:
        """Begin, end and outcome of the integration between each two jumps."""
        state = self.start
        for begin, end in pairwise([self.low, *(jump for jump in self.jumps if jump < last), last]):
            wanted = None if times is None else times[(times > begin) & (times <= end)]

            def right_side(time: float, state: np.ndarray, begin: float = begin, end: float = end) -> np.ndarray:
                count()
                # within the piece: at its very ends a condition such as t < 5 may already be that of the next
                return self.right_side(min(max(time, np.nextafter(begin, end)), np.nextafter(end, begin)), state)

            solution = solve_ivp(
                right_side,
                (begin, end),
                state,
                method=method,
                t_eval=wanted if wanted is None or wanted[-1:] == [end] else [*wanted, end],
                **options,
                **(self.options if method != "DOP853" else {}),
            )
            if not solution.success:
                raise ArithmeticError(f"{self.name}: integration failed: {solution.message}")
            state = solution.y[:, -1]
            yield begin, end, solution


def _held_by_stability(crude: int, strict: int, tolerance: float) -> bool:
    """Whether DOP853 takes steps as long as stability allows, so that values between them are poor.

    Accuracy of order 8 alone makes evaluations rise with the eighth root of the tolerance, stability not at all; the
    middle between the two tells them apart. A few dozen steps cost nothing, whatever holds them.
    """
    return strict > _FEW and strict / crude < (_CRUDE / tolerance) ** (1 / 16)


class _TooManyError(Exception):
    """More evaluations than are allowed, or worth their while."""


@dataclass
class _Count:
    """Evaluations, of which there may be so many."""

    limit: int | None
    done: int = 0

    def __call__(self) -> None:
        self.done += 1
        if self.limit is not None and self.done > self.limit:
            raise _TooManyError(f"integration needs more than {self.limit} evaluations")


def jumps(expressions: Sequence[sympy.Expr], time: sympy.Symbol, domain: np.ndarray) -> np.ndarray:
    """Times within the domain where a condition in time alone, such as ``t < 5``, changes over; in their order."""
    conditions = {part.args[0] for expression in expressions for part in expression.atoms(Where)}
    found = set()
    for condition in conditions:
        slope = sympy.diff(condition, time)
        if condition.free_symbols == {time} and slope.is_number and slope != 0:
            found.add(float(-condition.xreplace({time: sympy.S.Zero}) / slope))
    return np.array(sorted(at for at in found if domain[0] < at < domain[1]))
