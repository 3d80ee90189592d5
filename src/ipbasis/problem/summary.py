"""What was understood of a problem, in lines."""

from collections.abc import Iterator

from ipbasis.problem.conditions import orders_along
from ipbasis.problem.declaration import Problem
from ipbasis.problem.linearity import affine_form


def summary(problem: Problem) -> Iterator[tuple[str, str]]:
    """Pairs of a word and what is to be said under it."""
    yield "problem", problem.name
    for name, interval in problem.coordinates.items():
        time = ", the time" if problem.has_time and name == next(iter(problem.coordinates)) else ""
        yield "coordinate", f"{name} in {interval}{time}{', periodic' * (name in problem.periodic)}"
    for number, name in enumerate(problem.fields):
        orders = [(orders_along(problem, c)[number], along) for c, along in enumerate(problem.coordinates)]
        yield "field", f"{name}, of order {' and '.join(f'{order} along {along}' for order, along in orders)}"
    for text, latex in zip(problem.equations, problem.system.latex(), strict=True):
        yield "equation", f"{_one_line(text)} = 0"
        yield "", f"LaTeX: {latex}"
    yield "linear", _linearity(problem)
    for name, given in problem.initial.items():
        if isinstance(given, str):
            yield "initial", f"{name} = {_one_line(given)}"
    for part in problem.boundary:
        at = ", ".join(f"{name} = {value:g}" for name, value in part.at.items())
        for text in part.equations:
            yield f"at {at}", f"{_one_line(text)} = 0"
    for name, interval in zip(problem.known_names, problem.ranges.intervals, strict=True):
        given = f", given: {problem.fixed[name]:g}" if name in problem.fixed else ""
        yield "unknown", f"{name} in {interval}{given}{_knowledge(problem, name)}"
    for name, value in problem.constants.items():
        yield "constant", f"{name} = {value:g}"
    for name, term in problem.unknown_terms.items():
        yield "unknown term", f"{name}, a function of {', '.join(term.of)}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _linearity(problem: Problem) -> str:
    conditions = [residual for _, system in problem.boundary_systems for residual in system.residuals]
    held, parameters = (
        [*problem.system.residuals, *conditions, *problem.fixed_initial.values()],
        problem.system.parameters,
    )
    in_parameters = all(affine_form(expression, parameters) is not None for expression in held)
    words = {True: "yes", False: "no"}
    apart = ", but for the unknown terms" if problem.unknown_terms else ""
    return f"in the fields: {words[problem.system.is_linear]}; in the parameters: {words[in_parameters]}{apart}"


def _knowledge(problem: Problem, name: str) -> str:
    """Bounds and prior of a parameter."""
    words = ""
    if name in problem.bounds:
        low, high = ("open" if end is None else f"{end:g}" for end in problem.bounds[name])
        words += f", bounds [{low}, {high}]"
    if name in problem.priors:
        prior = problem.priors[name]
        kind, (first, std) = ("normal", prior.normal) if prior.normal else ("lognormal", prior.lognormal)
        words += f", prior {kind} [{first:g}, {std:g}]"
    return words
