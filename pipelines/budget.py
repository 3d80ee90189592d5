"""What a profile grants a benchmark."""

from pydantic import PositiveFloat, PositiveInt

from ipbasis.problem.declaration import Declared

# what the tables note of a cell, by column
Label = dict[str, int | float]


class TrainingBudget(Declared):
    """Steps and collocation points, or the accuracy that is asked for, by recipe."""

    steps: dict[str, PositiveInt]
    accuracy: dict[str, PositiveFloat] = {}
    points: dict[str, PositiveInt] = {}


class PinnBudget(Declared):
    """Of the plain PINN: the queries, and how long it is trained on each."""

    cells: list[Label]
    queries: PositiveInt | list[int]
    steps: PositiveInt
    published_steps: PositiveInt | None = None
    lbfgs_steps: int
    points: PositiveInt


class LeastSquaresBudget(Declared):
    """Queries of each cell."""

    queries: PositiveInt


class Budget(Declared):
    """What a profile grants a benchmark; recipes and baselines refer to it.

    Args:
        queries: of each set.
        paper_queries: the same for the published recipe.
        crossed_queries: of the first cell, for each basis with each solver.
        noise_seeds: draws of the noise.
        offline: of the trainings.
        online: of the published solver.
        pinn: of the PINN.
        least_squares: of least squares.
    """

    queries: PositiveInt
    paper_queries: PositiveInt
    crossed_queries: PositiveInt
    noise_seeds: PositiveInt
    offline: TrainingBudget
    online: TrainingBudget
    pinn: PinnBudget
    least_squares: LeastSquaresBudget
