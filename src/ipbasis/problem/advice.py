"""What is not wrong in a problem, but likely not meant: warnings of `ipbasis check`."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import sympy

from ipbasis.problem.conditions import has_constant_slope, orders_along
from ipbasis.problem.declaration import Problem
from ipbasis.problem.functions import compile_numpy
from ipbasis.problem.identifiability import unidentified
from ipbasis.problem.parsing import names_in

_WIDE = 100.0  # ratio of the ends of a range: on a linear scale a tenth of all tasks lies below a tenth of the high end
_TASKS = 256  # at which divisors are taken, beside the corners


def advice(problem: Problem) -> list[str]:
    """Warnings, each in one line."""
    found = [*_wide_ranges(problem), *_divisors(problem), *_few_walls(problem), *_unused_constants(problem)]
    open_parameters = unidentified(problem)
    return found + ([open_parameters] if open_parameters else [])


def _wide_ranges(problem: Problem) -> Iterator[str]:
    for name, interval in zip(problem.known_names, problem.ranges.intervals, strict=True):
        if not interval.logarithmic and interval.low > 0 and interval.high / interval.low > _WIDE:
            right = f"{{range: [{interval.low:g}, {interval.high:g}], scale: log}}"
            times = f"{interval.high / interval.low:.3g}"
            what = f"the range spans a factor of {times} on a linear scale"
            yield f"{name}: {what}; {right} covers every power of ten alike"


def _expressions(problem: Problem) -> list[sympy.Expr]:
    """Equations, conditions and initial formulas."""
    conditions = [residual for _, system in problem.boundary_systems for residual in system.residuals]
    return [*(problem.truth or problem.system).residuals, *conditions, *problem.fixed_initial.values()]


def _divisors(problem: Problem) -> Iterator[str]:
    """Divisors made of parameters that reach zero within their ranges."""
    symbols = problem.system.parameters
    powers = {power for expression in _expressions(problem) for power in expression.atoms(sympy.Pow)}
    divisors = {p.base for p in powers if p.exp.could_extract_minus_sign() and p.base.free_symbols <= set(symbols)}
    inside = problem.sample_tasks(_TASKS, np.random.default_rng(0)).parameters
    parameters = np.concatenate([problem.corner_tasks().parameters, inside]).T
    for divisor in sorted(divisors, key=str):
        with np.errstate(all="ignore"):
            (values,) = compile_numpy((symbols,), (divisor,))(parameters)
        if np.min(values) <= 0 <= np.max(values):
            yield f"division by {divisor}, which reaches zero within the ranges: no solution may exist there"


def _few_walls(problem: Problem) -> Iterator[str]:
    """Coordinates with fewer conditions than the order of the equation of a single field along them."""
    if len(problem.fields) > 1 or len(problem.coordinates) == 1:
        return
    for number, name in enumerate(problem.coordinates):
        (order,) = orders_along(problem, number)
        counts = Counter()
        for part in problem.boundary:
            for coordinate in part.at:
                counts[coordinate] += len(part.equations)
        given = counts[name] + (len(problem.initial) if number == 0 else 0)
        if given < order and name not in problem.periodic and has_constant_slope(problem, number):
            there = f"{given} condition{'s' * (given != 1)} at values of {name}"
            yield f"{there}, where the equation is of order {order} along it: the solution may not be determined"


def _unused_constants(problem: Problem) -> Iterator[str]:
    truths = [term.truth for term in problem.unknown_terms.values() if term.truth]
    conditions = [text for part in problem.boundary for text in part.equations]
    formulas = [given for given in problem.initial.values() if isinstance(given, str)]
    used = {name for text in [*problem.equations, *conditions, *formulas, *truths] for name in names_in(text)}
    for name in problem.constants:
        if name not in used:
            yield f"constant {name!r} occurs in no formula"
