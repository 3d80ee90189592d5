"""What is linear in an expression, and what separates, told from its structure: nothing large is expanded."""

from collections.abc import Collection
from math import comb

import sympy

from ipbasis.problem.functions import Where

_FEW_TERMS = 200  # an expression that expands to so many at most may be expanded: SymPy takes some 10 ms for them
_MANY_TERMS = 1_000_000
_MOST_PARTS = 200  # in which parameters and coordinates are separated; each costs an operator


def degree(expression: sympy.Expr, symbols: Collection[sympy.Symbol]) -> int:
    """0 if none of the symbols occurs, 1 if the expression is affine in them as it stands, else 2."""
    if not expression.free_symbols & set(symbols):
        return 0
    if expression.is_Symbol:
        return 1
    if expression.is_Add:
        return max(degree(part, symbols) for part in expression.args)
    if expression.is_Mul:
        return min(sum(degree(part, symbols) for part in expression.args), 2)
    if isinstance(expression, Where):
        condition, *pieces = expression.args
        return 2 if degree(condition, symbols) else max(degree(piece, symbols) for piece in pieces)
    return 2


def expanded_terms(expression: sympy.Expr) -> int:
    """How many terms the expanded expression has at most; more than a million are a million."""
    if expression.is_Add:
        count = sum(map(expanded_terms, expression.args))
    elif expression.is_Mul:
        count = 1
        for part in expression.args:
            count = min(count * expanded_terms(part), _MANY_TERMS)
    elif expression.is_Pow and expression.exp.is_Integer:
        terms, power = expanded_terms(expression.base), abs(int(expression.exp))
        count = comb(terms + power - 1, power) if terms < 1000 else terms**power
    else:
        count = max(map(expanded_terms, expression.args), default=1)
    return min(count, _MANY_TERMS)


def expanded(expression: sympy.Expr) -> sympy.Expr:
    """The expression, expanded if that gives few terms."""
    return sympy.expand(expression) if expanded_terms(expression) <= _FEW_TERMS else expression


def affine_form(expression: sympy.Expr, symbols: Collection[sympy.Symbol]) -> sympy.Expr | None:
    """The expression in a form that is affine in the symbols as it stands, or None if none is found.

    Squares that cancel, as in ``(u + 1)**2 - u**2``, are found where few terms result.
    """
    for form in (expression, expanded(expression)):
        if degree(form, symbols) < 2:
            return form
    return None


def separated(
    expression: sympy.Expr, parameters: Collection[sympy.Symbol], coordinates: Collection[sympy.Symbol]
) -> list[tuple[sympy.Expr, sympy.Expr]] | None:
    """The expression as ``Σ θ(parameters) g(coordinates)``: the pairs (θ, g), or None if no short sum is found."""
    parts: dict[sympy.Expr, list[sympy.Expr]] = {}
    for summand in sympy.Add.make_args(expression):
        products = [(sympy.S.One, sympy.S.One)]
        for factor in sympy.Mul.make_args(summand):
            pieces = _pieces(factor, set(parameters), set(coordinates))
            if pieces is None or len(pieces) * len(products) > _MOST_PARTS:
                return None
            products = [(theta * t, spatial * g) for theta, spatial in products for t, g in pieces]
        for theta, spatial in products:
            parts.setdefault(theta, []).append(spatial)
        if len(parts) > _MOST_PARTS:
            return None
    pairs = [(theta, sympy.Add(*spatial)) for theta, spatial in parts.items()]
    return [(theta, spatial) for theta, spatial in pairs if theta != 0 and spatial != 0]


def _pieces(factor: sympy.Expr, parameters: set, coordinates: set) -> list[tuple[sympy.Expr, sympy.Expr]] | None:
    if factor.free_symbols <= coordinates:
        return [(sympy.S.One, factor)]
    if factor.free_symbols <= parameters:
        return [(factor, sympy.S.One)]
    if not factor.free_symbols <= parameters | coordinates:
        return None
    if factor.is_Add:
        return separated(factor, parameters, coordinates)
    if isinstance(factor, Where):
        return _piecewise(factor, parameters, coordinates)
    form = expanded(factor)
    return None if form == factor else separated(form, parameters, coordinates)


def _piecewise(where: Where, parameters: set, coordinates: set) -> list[tuple[sympy.Expr, sympy.Expr]] | None:
    """The pieces apart, where the condition is one of coordinates or of parameters alone."""
    condition, one, other = where.args
    first, second = (separated(piece, parameters, coordinates) for piece in (one, other))
    if (
        first is None
        or second is None
        or not (condition.free_symbols <= coordinates or condition.free_symbols <= parameters)
    ):
        return None
    chosen = [(Where(condition, 1, 0), first), (Where(condition, 0, 1), second)]
    if condition.free_symbols <= coordinates:
        return [(theta, spatial * mask) for mask, pairs in chosen for theta, spatial in pairs]
    return [(theta * mask, spatial) for mask, pairs in chosen for theta, spatial in pairs]
