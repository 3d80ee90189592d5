"""What the stages that write reports share: reading what other stages left, writing tables and figures."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ipbasis.files import replacing_file
from ipbasis.tracking import Tracker
from pipelines.paths import DATA, REPORTS


def published(name: str) -> pd.DataFrame:
    """A table of the paper; empty where it has none."""
    path = DATA / "published" / f"{name}.csv"
    return pd.read_csv(path) if path.exists() else pd.DataFrame()


def read_all(pattern: str) -> list[pd.DataFrame]:
    """The CSV files below the data directory that match."""
    return [pd.read_csv(path) for path in sorted(DATA.glob(pattern))]


def write_table(table: pd.DataFrame, name: str, tracker: Tracker) -> None:
    """Put a table among the reports and into MLflow."""
    path = REPORTS / "tables" / f"{name}.csv"
    with replacing_file(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
    tracker.artefact(path, "tables")


def write_figure(figure: Figure, name: str, tracker: Tracker) -> None:
    """Put a figure among the reports and into MLflow."""
    path = REPORTS / "figures" / f"{name}.png"
    with replacing_file(path) as temporary:
        figure.savefig(temporary, dpi=120)
    tracker.artefact(path, "figures")


def _number(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    if np.isnan(value):
        return ""
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e6 else f"{value:.2g}"


def markdown(table: pd.DataFrame) -> str:
    """A table for reading, figures to two digits."""
    return table.map(_number).to_markdown(index=False, disable_numparse=True)


def write_text(text: str, name: str, tracker: Tracker) -> None:
    """Put a report among the reports and into MLflow."""
    path = REPORTS / f"{name}.md"
    with replacing_file(path) as temporary:
        temporary.write_text(text)
    tracker.artefact(path, "reports")
