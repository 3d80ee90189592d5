"""A problem in time and space, solved for its highest derivatives along time."""

from functools import cached_property

import numpy as np

from ipbasis.problem.declaration import Problem, Tasks
from ipbasis.problem.equations import Equations, Jet
from ipbasis.reference.collocation import stacked
from ipbasis.reference.form import Form


class Evolution:
    """A problem in time and space, solved for the highest derivatives along time.

    Raises:
        InputError: if the problem has another form; says what is in the way.
    """

    def __init__(self, problem: Problem):
        notation, truth, self.orders = problem.notation, problem.truth, problem.orders
        fields = range(len(problem.fields))
        self.problem = problem
        highest = [Jet(field, (0,) * order) for field, order in zip(fields, self.orders, strict=True)]
        rates = truth.solved_for(highest) if 0 not in self.orders else None
        equations = [Equations(notation, (rate,), truth.parameters) for rate in rates or ()]
        self.form = Form(problem, equations, range(1, len(problem.coordinates)))
        if rates is None:
            raise self.form.refuse("the equations do not determine the highest derivatives along time")
        if any(jet.index.count(0) >= self.orders[jet.field] for one in equations for jet in one.jets):
            raise self.form.refuse("a highest derivative along time is differentiated along space too")
        self._check_conditions()
        self.levels = [
            Jet(f, (0,) * level) for level in range(max(self.orders)) for f in fields if level < self.orders[f]
        ]
        given = {**problem.free_initial, **problem.fixed_initial}
        if missing := [notation.jet_name(jet) for jet in self.levels if jet not in given]:
            raise self.form.refuse(f"no initial value for {missing[0]}")
        self.right = [one.evaluated(one.residuals) for one in equations]
        self.partials = [one.evaluated(one.partials()[0][0]) for one in equations]
        self._everything = [*equations, *(condition.equations for condition in self.form.conditions)]
        low, high = problem.domain[0]
        found = {at for one in self._everything for at in one.jumps(0)}
        self.jumps = tuple(sorted(at for at in found if low < at < high))
        self._starts = {
            jet: Equations(notation, (formula,), truth.parameters).evaluated([formula])
            for jet, formula in problem.fixed_initial.items()
        }

    def _check_conditions(self) -> None:
        for condition in self.form.conditions:
            held = condition.equations.jets
            if any(0 in jet.index for jet in held):
                raise self.form.refuse("a condition holds a derivative along time")
            if len({self.orders[jet.field] for jet in held}) > 1:
                raise self.form.refuse("a condition ties fields of different order in time")
            if self._moves(condition.equations) and max(self.orders) > 1:
                raise self.form.refuse("a condition has coefficients that depend on time")

    def _moves(self, equations: Equations) -> bool:
        """Whether coefficients of a condition depend on time."""
        return any(self.form.time in partial.free_symbols for partial in equations.partials()[0][0])

    @cached_property
    def moving(self) -> bool:
        """Whether coefficients of any condition depend on time."""
        return any(self._moves(condition.equations) for condition in self.form.conditions)

    @cached_property
    def autonomous(self) -> bool:
        """Whether the equations are linear, and nothing in them or the conditions depends on time."""
        return all(
            one.is_linear and not any(self.form.time in residual.free_symbols for residual in one.residuals)
            for one in self._everything
        )

    def start(self, jet: Jet, points: np.ndarray, task: Tasks) -> np.ndarray:
        """(n,) initial values of a field or its derivative along time at points (n, space)."""
        if jet in self._starts:
            coordinates = self.form.coordinates(points, self.problem.domain[0, 0])
            return stacked(self._starts[jet](coordinates, (), task.parameters[0]), points.shape[:1])[0]
        return np.full(len(points), task.initial[0, list(self.problem.free_initial).index(jet)])
