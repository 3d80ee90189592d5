"""Initial value problems for SciPy's integrators, stiff or not, whatever the units of their components."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

_CRUDE = 1e-3  # relative tolerance of the run that finds how large components become
_SMALL = 1e-2  # what counts as small beside the size of a component: below it errors need not be relative any more
_ROUNDING = 1e-15
_STRICTEST = {"DOP853": 3e-14, "LSODA": 1e-12, "Radau": 1e-12}  # relative tolerances that rounding allows
_EXPLICIT_EVALUATIONS = 50_000  # of the right-hand side, after which the next method is tried
_ROUNDS = 8  # of crude runs: each brings a tolerance down by three powers of ten or more
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
        cases: (components,) numbers; those of different cases have nothing to do with each other.
        methods: of `scipy.integrate.solve_ivp`, each tried when the one before takes too long.
        options: of the implicit methods, such as ``jac``.
        jumps: increasing times after `low` at which f jumps.
    """

    name: str
    right_side: Callable[[float, np.ndarray], np.ndarray]
    start: np.ndarray
    low: float
    groups: np.ndarray
    cases: np.ndarray
    methods: tuple[str, ...]
    options: dict[str, Any]
    jumps: tuple[float, ...]

    def values(self, times: np.ndarray, tolerance: float, evaluations: int | None = None) -> np.ndarray:
        """(components, n) the solution.

        Args:
            times: (n,) increasing, none below `low`.
            tolerance: of each step, relative to each component, or where that is small, to the size of its group (a
                hundredth of that where each component is a group).
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
                tolerances, _ = self._tolerances("LSODA", last, tolerance, evaluations // 10)
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
        """The solution by one method, after crude runs that tell sizes, and the steps that stability alone takes."""
        explicit = method == "DOP853"
        # a crude run takes a tenth of the steps, see `_held_by_stability`
        tolerances, crude = self._tolerances(method, times[-1], tolerance, limit // 10 if limit else None)
        count = _Count(limit)
        values = self._solved(method, times[-1], times, count, **tolerances)
        if explicit and _held_by_stability(crude, count.done, tolerances["rtol"]):
            raise _TooManyError("the equations are stiff")
        return values

    def _tolerances(self, method: str, last: float, tolerance: float, limit: int | None) -> tuple[dict[str, Any], int]:
        """Relative and absolute ones of the integrator, and the evaluations of the crude run that tells sizes."""
        size, crude = self._sizes(method, last, limit)
        # LSODA controls the largest error of all components, the others a root mean square
        each = tolerance if method == "LSODA" else tolerance / np.sqrt(self.groups.max() + 1)
        strict = max(each, _STRICTEST[method])
        alone = len(self.groups) == self.groups.max() + 1
        return {"rtol": strict, "atol": max(_SMALL * strict, _ROUNDING) * size if alone else strict * size}, crude

    def _sizes(self, method: str, last: float, limit: int | None) -> tuple[np.ndarray, int]:
        """(components,) the largest value of each group, by crude runs, and the evaluations that the last one took.

        Of a component that starts at zero beside others errors are relative, down to rounding of those. Where all start
        at zero, first sizes may be far too large: a run whose absolute tolerance was too large for what it found is
        done again with a smaller one.
        """
        allowed = self._first_tolerance(last)
        for attempt in range(_ROUNDS):
            count = _Count(limit)
            try:
                values = self._solved(method, last, None, count, rtol=_CRUDE, atol=allowed)
            except (ArithmeticError, _TooManyError):
                if self.start.any() or attempt == _ROUNDS - 1:
                    raise
                allowed = _CRUDE * allowed
                continue
            found = _largest(self.groups, np.abs(values).max(axis=1))
            size = np.maximum(found, _ROUNDING * _largest(self.cases, found) + np.finfo(float).tiny)
            if (allowed <= 10 * _CRUDE * size).all():
                break
            allowed = np.minimum(allowed, _CRUDE * size)
        return size, count.done

    def _first_tolerance(self, last: float) -> np.ndarray:
        """(components,) by what can be told before there is a solution: start values, or where all are zero, rates."""
        start = _largest(self.groups, np.abs(self.start))
        rates = [self.right_side(time, self.start) for time in (self.low, (self.low + last) / 2)]
        grown = (last - self.low) * np.nan_to_num(np.abs(rates)).max(axis=0)
        of_case = 1e3 * _ROUNDING * _largest(self.cases, start)
        of_case = np.where(of_case > 0, of_case, _CRUDE * _largest(self.cases, grown) + np.finfo(float).tiny)
        return np.where(start > 0, _CRUDE * start, of_case)

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
                if not np.isfinite(state).all():
                    raise ArithmeticError(f"{self.name}: integration failed: the solution grows beyond all numbers")
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


def _largest(numbers: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(components,) the largest of the values with the same number."""
    largest = np.zeros(numbers.max() + 1)
    np.maximum.at(largest, numbers, values)
    return largest[numbers]


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
