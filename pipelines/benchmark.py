"""A benchmark as the stages take it: parsed once (`pipelines.configuration`), typed from there on.

Settings of recipes and baselines stay plain mappings, until the module that knows their type reads them
(`pipelines.training`, `querying`, `pinn`, `stages.least_squares`): so a stage imports only what it runs.
"""

from typing import Any

from pydantic import PositiveInt, model_validator

from ipbasis.observations.simulate import ObservationSettings
from ipbasis.problem.declaration import Declared, Problem, Range
from pipelines.budget import Budget, Label


class QuerySet(Declared):
    """A set of queries.

    Args:
        label: what the tables note of it.
        text: the same in words, for pictures.
        parameters: ranges to draw from, in the place of the trained ones.
        initial: likewise for initial values.
        tasks: values of each parameter, one per query, instead of ranges.
    """

    label: Label
    text: str | None = None
    parameters: dict[str, Range] = {}
    initial: dict[str, Range] = {}
    tasks: dict[str, list[float]] = {}


class CrossedCells(Declared):
    """What varies from cell to cell of a set, each with each: sizes of the noise, and numbers of observations."""

    noise: list[int | float] | None = None
    number: list[PositiveInt] | None = None


class Observations(ObservationSettings):
    """Sets of queries, and the cells in which they are observed.

    Args:
        sets: the sets.
        cells: what varies within each set; None for one cell each.
        known: parameters that are given with the observations of each query.
        training_label: of the set that the bases are trained for.
        scored: parameters whose errors count; none where unknown terms are scored.
        shown: labels of the cells in the pictures; None for the first.
    """

    sets: list[QuerySet]
    cells: CrossedCells | None = None
    known: list[str] = []
    training_label: Label = {}
    scored: list[str]
    shown: list[Label] | None = None


class BasisSize(Declared):
    """The bases of a benchmark.

    Args:
        problem: whose they are.
        readouts: tasks per training step.
        width: of the trunk.
        depth: of the trunk.
        quadrature_points: along each coordinate.
    """

    problem: str
    readouts: PositiveInt
    width: PositiveInt
    depth: PositiveInt
    quadrature_points: PositiveInt


class Recipe(Declared):
    """How bases are trained and queried.

    Args:
        source: in the tables, and the recipe whose basis is queried.
        queries: of each set.
        noise_seeds: draws of the noise over which errors are averaged.
        together: whether all cells of a table are one batch.
        online: the solver and its settings, see `pipelines.querying.solver_of`.
        offline: how the basis is trained, see `pipelines.training.train_basis`; None if it is that of `source`.
    """

    source: str
    queries: PositiveInt
    noise_seeds: PositiveInt
    together: bool
    online: dict[str, Any]
    offline: dict[str, Any] | None = None


class Baseline(Declared):
    """Which queries a baseline answers.

    Args:
        cells: labels of its cells; None for all.
        queries: of each cell, the first so many or those of these numbers.
        workers: queries answered side by side, on a core each.
        settings: of the baseline.
    """

    cells: list[Label] | None = None
    queries: PositiveInt | list[int]
    workers: PositiveInt
    settings: dict[str, Any]


class PinnBaseline(Baseline):
    """The plain PINN.

    Args:
        targets: of the error, for the time to accuracy.
        trunk: the network.
        as_published: settings of the published optimiser in the place of ours, to train with both; None for ours alone.
    """

    targets: list[float]
    trunk: dict[str, Any]
    as_published: dict[str, Any] | None = None


class Baselines(Declared):
    """What is compared with."""

    pinn: PinnBaseline
    least_squares: Baseline


class ReportTexts(Declared):
    """What the tables are called and the report says.

    Args:
        table: tables have this name and ``_online``, ``_times``, ...
        x: column against which errors are drawn.
        x_text: the same in words.
        modulus: what the squared modulus of the fields is called, where there is one.
        intro: paragraphs at the beginning.
        notes: paragraphs on what differs from the paper.
        variants: what else is said of a source.
    """

    table: str
    x: str
    x_text: str
    modulus: str = ""
    intro: list[str] = []
    notes: list[str] = []
    variants: dict[str, str] = {}


class Benchmark(Declared):
    """One problem with all that the stages do with it.

    Args:
        problem: the problem.
        basis: size of its bases, or of those that it takes from another problem.
        observations: sets of queries and their cells.
        recipes: by name, in the order in which they are trained and queried.
        recipe: the one that is meant.
        online: the recipe whose solver is meant: the same, but for studies that cross the two.
        baselines: what is compared with.
        report: names and texts.
        budget: what the profile grants.
        profile: its name.
        seed: of trainings and queries.
        threads: of PyTorch in queries.
    """

    problem: Problem
    basis: BasisSize
    observations: Observations
    recipes: dict[str, Recipe]
    recipe: str
    online: str
    baselines: Baselines
    report: ReportTexts
    budget: Budget
    profile: str
    seed: int
    threads: PositiveInt

    @model_validator(mode="after")
    def _check(self) -> "Benchmark":
        for key in ("recipe", "online"):
            if (name := getattr(self, key)) not in self.recipes:
                raise ValueError(f"{key}: {self.name} has no recipe {name!r}; it has {', '.join(self.recipes)}")
        for key in ("known", "scored"):
            for name in getattr(self.observations, key):
                if name not in self.problem.parameters:
                    there = ", ".join(self.problem.parameters)
                    raise ValueError(f"observations.{key}: there is no parameter {name!r}; there are {there}")
        for entry in self.observations.sets:
            self.drawn_problem(entry)
        return self

    @property
    def name(self) -> str:
        return self.problem.name

    @property
    def trained_recipes(self) -> list[str]:
        """The recipes that train bases of their own."""
        return [name for name, recipe in self.recipes.items() if recipe.offline is not None]

    @property
    def chosen(self) -> Recipe:
        """The recipe that is meant, with the solver that is meant."""
        return self.recipes[self.recipe].model_copy(update={"online": self.recipes[self.online].online})

    def with_recipe(self, name: str) -> "Benchmark":
        """The same with another recipe."""
        return self.model_copy(update={"recipe": name, "online": name})

    def with_readouts(self, readouts: int) -> "Benchmark":
        """The same on bases of another number of readouts, to be queried; settings of trainings stay."""
        return self.model_copy(update={"basis": self.basis.model_copy(update={"readouts": readouts})})

    def with_observations(self, **changes: object) -> "Benchmark":
        """The same with other observations, by field of `Observations`."""
        return self.model_copy(update={"observations": self.observations.model_copy(update=changes)})

    def drawn_problem(self, entry: QuerySet) -> Problem:
        """The problem with the ranges that a set is drawn from."""
        return self.problem.with_ranges(entry.parameters, entry.initial)
