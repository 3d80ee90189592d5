"""Tables in CSV or Parquet files, read a piece at a time or as a whole, and written."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ipbasis.errors import InputError

# An empty cell is missing, everything else is what it says; a column with any text in it stays text as a whole.
_CSV = {
    "dtype": {"query": str},
    "keep_default_na": False,
    "na_values": [""],
    "index_col": False,
    "skip_blank_lines": False,  # rows are named by their line in the file
    "low_memory": False,
}
_ROWS = 250_000  # of a table that is read as a whole, at once
_BUFFER = 1 << 20  # bytes of a column held at once: a row group of Parquet may be as large as the file


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in (".parquet", ".pq")


@contextmanager
def _told_in_one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError, pa.ArrowException) as error:  # most parse errors are ValueErrors
        raise InputError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None


def column_names(path: Path) -> list[str]:
    """Names of the columns of a file.

    Raises:
        InputError: if it cannot be read.
    """
    with _told_in_one_line(path):
        if _is_parquet(path):
            return pq.read_schema(path).names
        return list(pd.read_csv(path, nrows=0, **_CSV).columns)


def has_more_rows(path: Path, rows: int) -> bool:
    """Whether a file has more rows than that; a line of CSV counts as one, even if it is empty.

    Raises:
        InputError: if it cannot be read.
    """
    with _told_in_one_line(path):
        if _is_parquet(path):
            return pq.read_metadata(path).num_rows > rows
        with path.open("rb") as file:
            return sum(1 for _ in islice(file, rows + 2)) > rows + 1


def read_pieces(path: Path, columns: Sequence[str], rows: int) -> Iterator[pd.DataFrame]:
    """Some columns of a file (Parquet by its suffix, else CSV), at most `rows` rows at a time.

    The index names the rows: from 0 in Parquet, by line in CSV (the header is line 1, empty lines are left out).

    Raises:
        InputError: if it cannot be read.
    """
    with _told_in_one_line(path):
        if not _is_parquet(path):
            for piece in pd.read_csv(path, chunksize=rows, **_CSV):
                piece.index += 2
                yield piece.dropna(how="all")[list(columns)]
            return
        first = 0
        with pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False) as file:
            for batch in file.iter_batches(rows, columns=list(columns)):
                piece = batch.to_pandas(ignore_metadata=True)
                piece.index = pd.RangeIndex(first, first + len(piece))
                first += len(piece)
                yield piece


def read_table(path: Path) -> pd.DataFrame:
    """All of a CSV or Parquet file.

    Raises:
        InputError: if it cannot be read, or has no rows.
    """
    columns = column_names(path)
    pieces = list(read_pieces(path, columns, _ROWS))
    if not pieces:
        raise InputError(f"{path}: no rows")
    return pd.concat(pieces)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet or CSV, by the suffix."""
    if _is_parquet(path):
        table.to_parquet(path, index=False)
    else:
        table.to_csv(path, index=False)


def run_starts(ids: pd.Series) -> np.ndarray:
    """Positions of the rows whose id is another than that of the row before."""
    values = ids.array
    return np.flatnonzero(np.concatenate([[True] * bool(len(ids)), np.asarray(values[1:] != values[:-1], dtype=bool)]))


def whole_queries(pieces: Iterable[pd.DataFrame], rows: int) -> Iterator[pd.DataFrame]:
    """The rows of some pieces in chunks that end where a query ends.

    All in one chunk if there are at most `rows` rows; else each chunk has more than that only as far as the
    size of a piece, or the length of a query, asks for it.

    Args:
        pieces: with a column ``query``.
        rows: from which on a chunk is cut off.
    """
    held: list[pd.DataFrame] = []
    for piece in pieces:
        held.append(piece)
        if sum(map(len, held)) <= rows:
            continue
        table = pd.concat(held)
        last = run_starts(table["query"])[-1]
        held = [table.iloc[last:]]
        if last > 0:
            yield table.iloc[:last]
    if held:
        yield pd.concat(held)
