"""Parameters that no observation can tell apart, found in the equations and conditions themselves.

A change of the parameters, relative to each by δ, leaves every solution as it is if it leaves the initial values as
they are and multiplies each equation and condition by a factor of its own, to first order

    Σ_i δ_i p_i ∂r_e/∂p_i = λ_e r_e    at all points, for all jets.

These are linear equations in (δ, λ); at random points and jets their null space is that of all points and jets. Jets
of many sizes are drawn, so that in some samples every term is the largest, whatever the units. There may be further
changes, such as one of a parameter and the scale of a field that is not observed: those are not found.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from ipbasis.problem.declaration import Problem
from ipbasis.problem.equations import Equations
from ipbasis.problem.functions import compile_numpy

_SAMPLES = 60  # for each equation and parameter
_DECADES = 15  # up and down, of the sizes of jets
_RANK = np.sqrt(np.finfo(float).eps)  # half of the digits: far above rounding, far below what an experiment shows


def open_changes(problem: Problem, parameters: np.ndarray) -> np.ndarray:
    """(D, P) basis of the relative changes of parameters that leave every solution as it is.

    Args:
        problem: without unknown terms.
        parameters: (P,) values about which it is told, none of them zero.
    """
    rng = np.random.default_rng(0)
    blocks = [
        block
        for known, system in [({}, problem.system), *problem.boundary_systems]
        for block in _residual_rows(problem, system, known, parameters, rng)
    ]
    factors = len(blocks)
    rows = [np.hstack([slopes, -np.eye(factors)[n] * residual]) for n, (slopes, residual) in enumerate(blocks)]
    rows += [np.hstack([s, np.zeros((len(s), factors))]) for s in _initial_rows(problem, parameters, rng)]
    matrix = np.concatenate(rows)
    matrix = matrix[np.isfinite(matrix).all(axis=1) & matrix.any(axis=1)]
    if not len(matrix):  # no finite value to tell anything by
        return np.zeros((0, len(parameters)))
    matrix /= np.abs(matrix).max(axis=1, keepdims=True)
    size = np.maximum(np.linalg.norm(matrix, axis=0), np.finfo(float).tiny)
    _, sizes, directions = np.linalg.svd(matrix / size)
    null = directions[(sizes > _RANK * sizes[0]).sum() :] / size
    return null[:, : len(parameters)]


def _residual_rows(
    problem: Problem, system: Equations, known: Mapping[int, float], parameters: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each equation of a system: slopes (n, P) by the logarithms of the parameters, and residuals (n, 1)."""
    count = _SAMPLES * len(parameters)
    points = rng.uniform(*problem.domain.T, size=(count, len(problem.coordinates))).T
    for coordinate, value in known.items():
        points[coordinate] = value
    decades = rng.uniform(-_DECADES, _DECADES, count) + rng.uniform(-_DECADES, _DECADES, (len(system.jets), count))
    jets = rng.choice([-1.0, 1.0], decades.shape) * 10**decades
    _, by_parameter = system.partials()
    for residual, partials in zip(system.residuals, by_parameter, strict=True):
        relative = [partial * p for partial, p in zip(partials, system.parameters, strict=True)]
        with np.errstate(all="ignore"):
            values = _columns(system.evaluated([*relative, residual])(points, jets, parameters), count)
        yield values[:, :-1], values[:, -1:]


def _initial_rows(problem: Problem, parameters: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """For each initial formula its slopes (n, P) by the logarithms of the parameters."""
    coordinates, symbols = tuple(problem.notation.coordinates.values()), problem.system.parameters
    points = rng.uniform(*problem.domain.T, size=(_SAMPLES * len(symbols), len(coordinates)))
    for formula in problem.fixed_initial.values():
        slopes = compile_numpy((coordinates, symbols), tuple(formula.diff(p) * p for p in symbols))
        with np.errstate(all="ignore"):
            yield _columns(slopes(points.T, parameters), len(points))


def _columns(values: list, count: int) -> np.ndarray:
    """(count, len(values)) values of a compiled function."""
    return np.stack([np.broadcast_to(np.asarray(value, dtype=float), count) for value in values], axis=1)


def unidentified(problem: Problem) -> str | None:
    """What the equations and conditions leave open of the parameters, in words; None if nothing.

    Told about two random tasks: what is open at both.
    """
    if problem.unknown_terms:
        return None
    tasks = problem.sample_tasks(2, np.random.default_rng(0)).parameters
    first, second = sorted((open_changes(problem, parameters) for parameters in tasks), key=len)
    if not len(first):
        return None
    held = [name for name, changes in zip(problem.parameters, first.T, strict=True) if np.abs(changes).max() > _RANK]
    listed = ", ".join(held)
    if len(held) == 1:
        return f"{listed} changes no solution: it cannot be found"
    give = "give the others as fixed values or columns"
    if len(first) > 1:
        return f"of {listed} only {len(held) - len(first)} can be found: {give}"
    powers = _powers(first[0]), _powers(second[0])
    if len(second) > 1 or not np.allclose(*powers, atol=1e-6):  # roots of the rounding of the null space
        return f"{listed} can be changed together without a change of the solutions: {give}"
    factors = " and ".join(
        _factor(name, p) for name, p in zip(problem.parameters, powers[0], strict=True) if name in held
    )
    return f"{factors}, whatever s, have the same solutions: of {listed} only {_kept(powers[0])} can be found: {give}"


def _powers(change: np.ndarray) -> np.ndarray:
    """A relative change as powers of a common factor, the largest of them one."""
    return change / change[np.argmax(np.abs(change) > (1 - _RANK) * np.abs(change).max())]


def _factor(name: str, power: float) -> str:
    if abs(power - 1) < _RANK:
        return f"{name}*s"
    return f"{name}/s" if abs(power + 1) < _RANK else f"{name}*s**{power:.4g}"


def _kept(powers: np.ndarray) -> str:
    """What stays under powers of a common factor."""
    changed = powers[np.abs(powers) > _RANK]
    if np.allclose(changed, 1, atol=1e-6):
        return "the ratio" if len(changed) == 2 else "ratios"
    return "the product" if np.allclose(changed, [1, -1], atol=1e-6) else "combinations"
