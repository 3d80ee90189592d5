"""Tables in CSV or Parquet files, read a piece at a time or as a whole, and written."""

import lzma
import re
import tarfile
import zipfile
import zlib
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
_COMPRESSED = (".gz", ".bz2", ".zip", ".xz", ".zst", ".tar")  # what pandas takes for it
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}
# What readers raise for a file that is damaged, or none of theirs; most parse errors are ValueErrors.
_FAULTS = (
    *(OSError, ValueError, EOFError, RuntimeError, ImportError, OverflowError, MemoryError, pa.ArrowException),
    *(zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError),
)


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in (".parquet", ".pq")


@contextmanager
def _told_in_one_line(path: Path) -> Iterator[None]:
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise InputError(f"{path}: a pipe or a device, which can be read once only; a file is right")
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: cannot be read: not UTF-8 text; saved as 'CSV UTF-8' is right") from None
    except pd.errors.ParserError as error:
        if cells := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error)):
            raise _too_many(path, int(cells[2]), int(cells[3]), int(cells[1])) from None
        raise InputError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
    except _FAULTS as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: cannot be read: {reason}") from None


def _too_many(path: Path, row: int, cells: int, names: int) -> InputError:
    what = "a point in numbers is right, and quotes around text with commas"
    return InputError(f"{path}: row {row} has {cells} cells, the header {names}; {what}")


def column_names(path: Path) -> list[str]:
    """Names of the columns of a file, as they stand there.

    Raises:
        InputError: if it cannot be read, or columns are not separated by commas.
    """
    with _told_in_one_line(path):
        if _is_parquet(path):
            return pq.read_schema(path).names
        names = _csv_names(path)
        for separator, word in _SEPARATORS.items():
            if len(names) == 1 and separator in names[0].strip():
                what = f"columns are separated by {word}; commas are right, and points in numbers"
                raise InputError(f"{path}: row 1: {what}")
        return names


def _csv_names(path: Path) -> list[str]:
    """Names of the columns of a CSV file; those without one get one, as pandas calls them."""
    return [name or f"Unnamed: {number}" for number, name in enumerate(_row(path, 0))]


def _row(path: Path, number: int) -> list[str]:
    """Cells of a row of a CSV file; none where it has no such row."""
    settings = {**_CSV, "dtype": str, "na_values": [], "index_col": None}
    try:
        row = pd.read_csv(path, header=None, skiprows=number, nrows=1, **settings)
    except pd.errors.EmptyDataError:
        if number == 0:
            raise
        return []
    return [str(cell) for cell in row.iloc[0]]


def has_more_rows(path: Path, rows: int) -> bool:
    """Whether a file has more rows than that; a line of CSV counts as one, even if it is empty.

    Raises:
        InputError: if it cannot be read.
    """
    with _told_in_one_line(path):
        if _is_parquet(path):
            return pq.read_metadata(path).num_rows > rows
        if path.suffix.lower() in _COMPRESSED:
            counts = (len(piece) for piece in pd.read_csv(path, chunksize=_ROWS, usecols=[0], **_CSV))
            found = 0
            return any((found := found + count) > rows for count in counts)
        with path.open("rb") as file:
            return sum(1 for _ in islice(file, rows + 2)) > rows + 1


def read_pieces(path: Path, columns: Sequence[str], rows: int) -> Iterator[pd.DataFrame]:
    """Some columns of a file (Parquet by its suffix, else CSV), at most `rows` rows at a time.

    The index names the rows: from 0 in Parquet, by line in CSV (the header is line 1, empty lines are left out).

    Raises:
        InputError: if it cannot be read, a row of CSV has more cells than the header, or a column of Parquet holds
            lists and the like.
    """
    with _told_in_one_line(path):
        yield from (_parquet_pieces if _is_parquet(path) else _csv_pieces)(path, list(columns), rows)


def _csv_pieces(path: Path, columns: list[str], rows: int) -> Iterator[pd.DataFrame]:
    names, first = _csv_names(path), _row(path, 1)
    further = first[len(names) :]
    if any(further):
        raise _too_many(path, 2, len(first), len(names))
    # commas at the ends of the rows make columns, which must be empty
    ends = [f"\0{number}" for number in range(len(further))]
    for piece in pd.read_csv(path, chunksize=rows, header=0, names=[*names, *ends], **_CSV):
        piece.index += 2
        if ends and (filled := piece[ends].notna().any(axis=1)).any():
            raise _too_many(path, piece.index[filled.argmax()], len(first), len(names))
        yield piece.dropna(how="all")[columns]


def _parquet_pieces(path: Path, columns: list[str], rows: int) -> Iterator[pd.DataFrame]:
    first = 0
    with pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False, page_checksum_verification=True) as file:
        for name in columns:
            kind = file.schema_arrow.field(name).type
            if pa.types.is_nested(kind):
                raise InputError(f"{path}: column {name!r} holds {kind}; a text or a number in each row is right")
        for batch in file.iter_batches(rows, columns=columns):
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
