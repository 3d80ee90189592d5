"""Whether a problem has as many conditions as its equations need; only what is surely wrong is refused."""

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import sympy

from ipbasis.errors import InputError
from ipbasis.problem.equations import Jet
from ipbasis.problem.functions import compile_numpy

if TYPE_CHECKING:
    from ipbasis.problem.declaration import Problem


def check_conditions(problem: "Problem") -> None:
    """Refuse too few or too many conditions.

    Raises:
        InputError: says how many there are, and how many are right.
    """
    if len(problem.coordinates) == 1:
        _check_ordinary(problem)
        return
    _check_initial(problem)
    for number in range(len(problem.coordinates)):
        _check_along(problem, number)


def orders_along(problem: "Problem", coordinate: int) -> list[int]:
    """Per field, the order of the highest derivative along a coordinate."""
    found = [0] * len(problem.fields)
    for jet in problem.system.jets:
        found[jet.field] = max(found[jet.field], jet.index.count(coordinate))
    return found


def _missing(problem: "Problem") -> list[str]:
    """Names of the initial values that the equations want and that are not given."""
    wanted = [Jet(field, (0,) * n) for field, order in enumerate(problem.orders) for n in range(order)]
    given = {*problem.free_initial, *problem.fixed_initial}
    return [problem.notation.jet_name(jet) for jet in wanted if jet not in given]


def _check_ordinary(problem: "Problem") -> None:
    """Initial and boundary conditions together are as many as the orders of the fields, algebraic equations apart."""
    total = sum(problem.orders)
    count = len(problem.initial) + sum(len(part.equations) for part in problem.boundary)
    count += total * len(problem.periodic)
    if count == total or (count < total and not _regular(problem)):
        return
    orders = ", ".join(f"{name}: {order}" for name, order in zip(problem.fields, problem.orders, strict=True))
    what = f"{count} condition{'s' * (count != 1)} for equations of order {total} ({orders}); {total} are right"
    if count > total:
        raise InputError(f"initial, boundary: too many: {what}")
    lacking = f", such as an initial value of {_missing(problem)[0]}" if problem.has_time else ""
    raise InputError(f"initial, boundary: too few: {what}{lacking}")


def _regular(problem: "Problem") -> bool:
    """Whether the equations determine the highest derivatives: then their orders count the conditions."""
    highest = [problem.notation.symbol(Jet(f, (0,) * order)) for f, order in enumerate(problem.orders)]
    slopes = [sympy.diff(residual, symbol) for residual in problem.system.residuals for symbol in highest]
    symbols = tuple(sorted({s for slope in slopes for s in slope.free_symbols}, key=str))
    values = np.random.default_rng(0).uniform(0.5, 1.5, len(symbols))
    with np.errstate(all="ignore"):
        matrix = np.array(compile_numpy(symbols, tuple(slopes))(*values), dtype=float).reshape(len(highest), -1)
    return bool(np.isfinite(matrix).all()) and np.linalg.matrix_rank(matrix) == len(highest)


def _check_initial(problem: "Problem") -> None:
    """With initial conditions, every field has those below its order, unless conditions at times stand for them."""
    first = next(iter(problem.coordinates))
    if not problem.has_time or any(first in part.at for part in problem.boundary):
        return
    if missing := _missing(problem):
        field = problem.fields[problem.notation.jet(missing[0]).field]
        order = problem.orders[problem.notation.jet(missing[0]).field]
        what = f"the equations are of order {order} in {field!r} along {first!r}"
        raise InputError(f"initial: too few: {what}; a condition for {missing[0]} is right as well")


def _check_along(problem: "Problem", number: int) -> None:
    """Conditions at values of one coordinate are not none, and for a single field at most as many as its order.

    Of several fields more can be right: ``u_t - v, v_t - u_xx`` with both zero at the walls is a string.
    """
    name, orders = list(problem.coordinates)[number], orders_along(problem, number)
    walls = Counter()
    for part in problem.boundary:
        if list(part.at) == [name]:
            walls[part.at[name]] += len(part.equations)
    initial = len(problem.initial) if number == 0 else 0
    count, total = sum(walls.values()) + initial, sum(orders)
    if count > total and len(orders) == 1:
        at = "initial, boundary" if initial else "boundary"
        what = f"{count} conditions at values of {name}, where the equations are of order {total} along it"
        raise InputError(f"{at}: too many: {what}; {total} at most are right")
    said = count or name in problem.periodic or any(name in part.at for part in problem.boundary)
    if not said and has_constant_slope(problem, number):
        right = f"{{at: {{{name}: {problem.coordinates[name].low:g}}}, equations: [...]}} or {{periodic: {name}}}"
        raise InputError(f"boundary: too few: nothing is said at the ends of {name}; such as {right} is right")


def has_constant_slope(problem: "Problem", number: int) -> bool:
    """Whether a highest derivative along a coordinate has a coefficient that vanishes nowhere on its ends.

    Where it vanishes there, as in ``x*(1 - x)*u_xx``, no condition may be right.
    """
    system, orders = problem.system, orders_along(problem, number)
    parameters = set(system.parameters)
    for field, order in enumerate(orders):
        symbol = problem.notation.symbol(Jet(field, (number,) * order))
        slopes = [slope for residual in system.residuals if (slope := sympy.diff(residual, symbol)) != 0]
        if order and slopes and all(slope.free_symbols <= parameters for slope in slopes):
            return True
    return False
