"""The solvers by name."""

from collections.abc import Mapping

from ipbasis.errors import InputError
from ipbasis.problem.declaration import Problem
from ipbasis.search.free_form import FreeForm
from ipbasis.search.library import Library
from ipbasis.search.solver import GaussNewton, Solver

SOLVERS: Mapping[str, type[Solver]] = {"gauss_newton": GaussNewton, "free_form": FreeForm, "library": Library}


def solver_of(solver: str | Solver, problem: Problem) -> Solver:
    """The solver that is meant for a problem; Gauss-Newton takes unknown terms as polynomials of degree 2.

    Raises:
        InputError: if the name is not known, or the solver not made for the problem.
    """
    if isinstance(solver, str):
        if solver not in SOLVERS:
            raise InputError(f"solver {solver!r} is not known; there are {', '.join(SOLVERS)}")
        solver = SOLVERS[solver]()
    if not isinstance(solver, Solver):
        raise InputError(f"solver {solver!r}: a name is right, or a solver such as GaussNewton(iterations=20)")
    if isinstance(solver, GaussNewton) and problem.unknown_terms:
        solver = Library(search=solver)
    solver.check(problem)
    return solver
