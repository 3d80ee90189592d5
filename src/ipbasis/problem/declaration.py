"""A parametric differential equation, declared as data."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import takewhile
from pathlib import Path

import numpy as np
import sympy
from pydantic import Field, model_validator

from ipbasis.errors import InputError
from ipbasis.problem.checks import check_problem
from ipbasis.problem.declared import Declared, read_yaml
from ipbasis.problem.equations import Equations, Jet, Notation
from ipbasis.problem.parsing import exact_number
from ipbasis.problem.parts import Boundary, Prior, UnknownTerm
from ipbasis.problem.ranges import Interval, Range, RangeOrFormula, Ranges, Tasks

__all__ = ["Boundary", "Declared", "Interval", "Prior", "Problem", "Range", "Tasks", "UnknownTerm", "problem_directory"]


class Problem(Declared):
    """One parametric differential equation with its domain, parameter ranges and conditions.

    Args:
        name: name of the problem.
        coordinates: range of each coordinate. Initial conditions hold at the low end of the first one.
        fields: names of the unknown functions.
        parameters: range of each parameter, from which training tasks are drawn; ``{range: [low, high], scale: log}``
            for one that is sampled and searched on its logarithm.
        equations: formulas that equal zero. Derivatives are written ``u_t``, ``u_tx``.
        constants: numbers that formulas hold by name.
        initial: for a field or a derivative of it along the first coordinate, either a range (differs from
            task to task) or a formula in the other coordinates and the parameters.
        boundary: further conditions, linear in the fields, which may hold parameters; ``{periodic: x}`` for a
            coordinate at whose ends the solutions agree.
        unknown_terms: names in the equations that stand for functions of the fields yet to be found.
        bounds: low and high end that estimates of a parameter keep to; None for an open end.
        priors: distributions of parameters.
        fixed: given values of parameters, and of initial values under the names ``initial_<name>``.

    Raises:
        InputError: if the declaration contradicts itself; says where and how.
    """

    name: str = Field(examples=["my_problem"])
    coordinates: dict[str, Range] = Field(examples=["{t: [0, 10]}"])
    fields: list[str] = Field(examples=["[u]"])
    parameters: dict[str, Range] = Field(examples=["{k: [0.1, 2]}"])
    equations: list[str] = Field(examples=['["u_t + k*u"]'])
    constants: dict[str, float] = Field({}, examples=["{g: 9.81}"])
    initial: dict[str, RangeOrFormula] = Field({}, examples=['{u: [0, 1]} or {u: "sin(x)"}'])
    boundary: list[Boundary] = Field([], examples=["[{at: {x: 0}, equations: [u]}]"])
    unknown_terms: dict[str, UnknownTerm] = Field({}, examples=["{f: {of: [u]}}"])
    bounds: dict[str, tuple[float | None, float | None]] = Field({}, examples=["{k: [0, null]}"])
    priors: dict[str, Prior] = Field({}, examples=["{k: {normal: [1, 0.2]}}"])
    fixed: dict[str, float] = Field({}, examples=["{k: 1.5}"])

    @classmethod
    def from_yaml(cls, path: str | Path) -> "Problem":
        """Read a problem from a YAML file with the keys of the class."""
        values = read_yaml(path, list(cls.model_fields))
        try:
            return cls(**values)
        except InputError as error:
            raise InputError(f"{path}: {str(error).removeprefix('Problem: ')}") from None

    @model_validator(mode="after")
    def _check(self) -> "Problem":
        try:
            check_problem(self)
        except InputError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def known_names(self) -> list[str]:
        """Names under which values can be given: the parameters, and ``initial_<name>`` of free initial values."""
        return [*self.parameters, *(f"initial_{self.notation.jet_name(jet)}" for jet in self.free_initial)]

    @cached_property
    def notation(self) -> Notation:
        return Notation(self.coordinates, self.fields, [*self.parameters, *self.unknown_terms], self.constants)

    def _system(self, equations: Iterable[str], substitute: Mapping | None = None) -> Equations:
        notation = self.notation
        residuals = tuple(notation.parse(text).xreplace(substitute or {}) for text in equations)
        return Equations(notation, residuals, tuple(notation.others[name] for name in self.parameters))

    @cached_property
    def system(self) -> Equations:
        """The equations as they are solved, unknown terms as symbols."""
        return self._system(self.equations)

    @cached_property
    def truth(self) -> Equations | None:
        """The equations as they are simulated, or None if an unknown term has no ``truth``."""
        if any(term.truth is None for term in self.unknown_terms.values()):
            return None
        notation = self.notation
        terms = {notation.others[name]: notation.parse(term.truth) for name, term in self.unknown_terms.items()}
        return self._system(self.equations, terms)

    @cached_property
    def boundary_systems(self) -> list[tuple[dict[int, float], Equations]]:
        """For each boundary part: the fixed coordinates (by number) and the conditions, which may hold parameters."""
        order = list(self.coordinates)
        parts = [b for b in self.boundary if b.periodic is None]
        return [({order.index(c): v for c, v in b.at.items()}, self._system(b.equations)) for b in parts]

    @cached_property
    def periodic(self) -> tuple[str, ...]:
        """Coordinates at whose ends the solutions agree."""
        return tuple(b.periodic for b in self.boundary if b.periodic is not None)

    @cached_property
    def free_initial(self) -> dict[Jet, Interval]:
        """Initial values that differ from task to task, with their ranges."""
        return {self.notation.jet(k): v for k, v in self.initial.items() if not isinstance(v, str)}

    @cached_property
    def fixed_initial(self) -> dict[Jet, sympy.Expr]:
        """Initial values given by formulas, as expressions in the other coordinates and the parameters."""
        start = {next(iter(self.notation.coordinates.values())): exact_number(self.domain[0, 0])}
        given = {k: v for k, v in self.initial.items() if isinstance(v, str)}
        return {self.notation.jet(k): self.notation.parse(v).xreplace(start) for k, v in given.items()}

    @property
    def has_time(self) -> bool:
        """Whether there are initial conditions, so that the first coordinate is time."""
        return bool(self.initial)

    @cached_property
    def orders(self) -> tuple[int, ...]:
        """Per field, the order of the highest derivative along the first coordinate."""
        counts = [(jet.field, jet.index.count(0)) for jet in self.system.jets]
        return tuple(max((n for f, n in counts if f == field), default=0) for field in range(len(self.fields)))

    @cached_property
    def used_parameters(self) -> list[str]:
        """The parameters that occur in the equations as they are solved, or in the conditions."""
        conditions = [residual for _, system in self.boundary_systems for residual in system.residuals]
        held = [*self.system.residuals, *conditions, *self.fixed_initial.values()]
        used = {symbol for expression in held for symbol in expression.free_symbols}
        return [name for name in self.parameters if self.notation.others[name] in used]

    @property
    def domain(self) -> np.ndarray:
        """(coordinates, 2) lower and upper end of each coordinate."""
        return Ranges([*self.coordinates.values()]).ends

    @property
    def parameter_ranges(self) -> np.ndarray:
        """(parameters, 2) lower and upper end of each parameter."""
        return Ranges([*self.parameters.values()]).ends

    @cached_property
    def ranges(self) -> Ranges:
        """Of everything that differs from task to task: the parameters, then the free initial values."""
        return Ranges([*self.parameters.values(), *self.free_initial.values()])

    @property
    def unknown_ranges(self) -> np.ndarray:
        """(parameters + free initial values, 2) lower and upper end of everything that differs from task to task."""
        return self.ranges.ends

    def with_ranges(self, parameters: Mapping | None = None, initial: Mapping | None = None) -> "Problem":
        """The same problem with other ranges for some parameters or initial values; scales stay if none is given."""
        values = self.model_dump()
        for kind, ranges in (("parameters", parameters or {}), ("initial", initial or {})):
            for name, interval in ranges.items():
                if name not in values[kind]:
                    raise InputError(f"{self.name} has no {kind} {name!r}; it has {', '.join(values[kind])}")
                declared = getattr(self, kind)[name]
                if isinstance(declared, Interval) and not isinstance(interval, Interval | Mapping):
                    interval = declared._replace(low=interval[0], high=interval[1])
                values[kind][name] = interval
        return Problem(**values)

    def with_knowledge(
        self, bounds: Mapping | None = None, priors: Mapping | None = None, fixed: Mapping | None = None
    ) -> "Problem":
        """The same problem with bounds, priors or fixed values added to those that are declared."""
        values = self.model_dump()
        for kind, given in (("bounds", bounds), ("priors", priors), ("fixed", fixed)):
            values[kind] |= given or {}
        return Problem(**values)

    def tasks(self, unknowns: np.ndarray) -> Tasks:
        """Tasks of unknowns (tasks, U): the parameters, then the free initial values."""
        count = len(self.parameters)
        return Tasks(unknowns[:, :count], unknowns[:, count:])

    def sample_tasks(self, count: int, rng: np.random.Generator) -> Tasks:
        """Draw tasks uniformly from the ranges of parameters and free initial values, each on its scale."""
        return self.tasks(self.ranges.drawn(count, rng))

    def sobol_tasks(self, count: int, seed: int) -> Tasks:
        """Tasks that cover the ranges evenly: a scrambled Sobol sequence on the scale of each."""
        return self.tasks(self.ranges.sobol(count, seed))

    def corner_tasks(self) -> Tasks:
        """Tasks at the ends of the ranges, some tens at most, see `Ranges.corners`."""
        return self.tasks(self.ranges.corners())


def problem_directory() -> Path:
    """Where the problems that come with ipbasis are declared."""
    installed = Path(__file__).parents[1] / "problems"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "conf" / "problem"


def about(path: Path) -> str:
    """What the comment at the head of a problem's file says, in one line."""
    head = takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
    return " ".join(line.lstrip("# ").rstrip() for line in head)
