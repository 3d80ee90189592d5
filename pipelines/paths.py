"""Where the stages leave what they make, and find what others made."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA, MODELS, REPORTS = ROOT / "data", ROOT / "models", ROOT / "reports"


def basis_directory(problem: str, readouts: int, recipe: str) -> Path:
    """The basis of a recipe; the published one's lies below ours."""
    directory = MODELS / problem / f"readouts-{readouts}"
    return directory if recipe == "ipbasis" else directory / recipe


def best_directory(problem: str) -> Path:
    """The basis for real queries."""
    return MODELS / problem / "best"


def training_directory(problem: str, readouts: int) -> Path:
    """What the trainings at one number of readouts left: a table and the history of each recipe."""
    return DATA / "training" / problem / f"readouts-{readouts}"


def trained_readouts(problem: str) -> list[int]:
    """Numbers of readouts for which there are bases of a problem."""
    found = (DATA / "training" / problem).glob("readouts-*")
    return sorted(int(path.name.removeprefix("readouts-")) for path in found)


def checkpoint(problem: str, readouts: int, recipe: str) -> Path:
    """Where an unfinished training is kept."""
    return ROOT / "checkpoints" / f"{problem}_readouts-{readouts}_{recipe}.pt"


def observations_file(problem: str, queries: str, part: str) -> Path:
    """``observations`` or ``truth`` of a simulated set of queries."""
    return DATA / "observations" / problem / "sets" / f"{queries}_{part}.parquet"


def estimates_directory(problem: str, kind: str) -> Path:
    """What the stages `query` (``online``), `pinn` or `least_squares` answered."""
    return DATA / "estimates" / problem / kind


def online_file(problem: str, readouts: int, recipe: str, cell: str, part: str) -> Path:
    """``estimates``, ``fits`` or ``terms`` of a cell, by one recipe on the basis of one number of readouts."""
    return estimates_directory(problem, "online") / f"readouts-{readouts}" / f"{recipe}_{cell}_{part}.parquet"
