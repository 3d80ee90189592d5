"""Estimates of files larger than memory: chunk by chunk, and restartable.

Every finished chunk is a part file in a directory beside the output. A run that was killed is finished by
typing its command again: parts that are there are not estimated anew. At the end they are joined, and the directory
is removed, but for files in it that are not of the run.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from ipbasis.errors import InputError
from ipbasis.estimates.estimator import Estimator, prepare
from ipbasis.files import claimed, refuse_inputs, replacing_file
from ipbasis.observations.long_form import check_rows, used_columns, warn_of_spoiled
from ipbasis.observations.readers import column_names, read_pieces, run_starts, whole_queries
from ipbasis.offline.artefact import Basis, versions

_PIECES = 4  # in which a chunk is read
_PARTS, _RUN = "part-*.parquet", "run.json"
_OWN = (_PARTS, _RUN, ".part-*.parquet", ".run-*.json")  # in the directory of parts; hidden ones of a run killed there
_CSV = {"index": False, "float_format": "%.8g"}
_SHOWN = 10


@dataclass(frozen=True)
class Summary:
    """What a table of estimates holds.

    Args:
        counts: queries of each status, most frequent first.
        head: the first rows.
    """

    counts: Mapping[str, int]
    head: pd.DataFrame

    @classmethod
    def of(cls, tables: Iterable[pd.DataFrame]) -> "Summary":
        """Of tables that follow one another."""
        counts: Counter[str] = Counter()
        head = pd.DataFrame()
        for table in tables:
            counts.update(table["status"].value_counts().to_dict())
            if len(head) < _SHOWN:
                head = pd.concat([head, table.head(_SHOWN - len(head))])
        return cls(dict(counts.most_common()), head)


def write_estimates(table: pd.DataFrame, path: Path) -> None:
    """Write a table of estimates as CSV or Parquet, by the suffix."""
    if path.suffix.lower() == ".csv":
        table.to_csv(path, **_CSV)
    else:
        table.to_parquet(path, index=False)


def estimate_file(
    basis: Basis,
    path: str | Path,
    output: str | Path,
    rows: int = 1_000_000,
    **options: Any,
) -> Summary:
    """Estimate the queries of a file chunk by chunk and write the table, see `estimate`.

    Args:
        basis: a trained basis of the problem.
        path: CSV or Parquet, the rows of a query one after the other.
        output: a .csv or .parquet file. ``<output>.parts`` holds the finished chunks until all are done.
        rows: held in memory at once, roughly; a query is never divided.
        options: of `prepare`.

    Raises:
        InputError: if the observations or the options are faulty, told before anything is written; if the parts
            there are were made otherwise.
    """
    path, output = Path(path), Path(output)
    parts = output.with_name(f"{output.name}.parts")
    estimator = prepare(basis, **options)
    refuse_inputs([output], [path])
    if parts.resolve() in path.resolve().parents:
        raise InputError(f"{path}: lies in {parts}, which is for the finished chunks; another place is right")
    columns = used_columns(column_names(path), basis.problem, str(path))

    def chunks() -> Iterator[pd.DataFrame]:
        return whole_queries(read_pieces(path, columns, max(1, rows // _PIECES)), rows)

    with claimed(output), tqdm(desc="checking", unit=" queries") as progress, _kept_if_worth_it(parts):
        made_with = _made_with(basis, path, f"{options}, chunks of {rows} rows")
        queries = _begun(parts, made_with)
        if queries is None:
            queries = _survey(estimator, chunks(), str(path), progress.update)
            with replacing_file(parts / _RUN) as temporary:
                temporary.write_text(json.dumps({"queries": queries, "made_with": made_with}, indent=2))
        progress.reset(queries)
        progress.set_description("queries")
        done = []
        for number, table in enumerate(chunks()):
            done.append(part := parts / f"part-{number:06}.parquet")
            if part.exists():
                progress.update(_finished(part, table["query"]))
                continue
            estimates = _estimated(estimator, table, str(path), progress.update)
            with replacing_file(part) as temporary:
                estimates.to_parquet(temporary, index=False, write_page_checksum=True)
        summary = _join(done, output)
        _removed(parts)
    return summary


def _made_with(basis: Basis, path: Path, options: str) -> dict[str, str]:
    """Everything that the estimates depend on, in words or as a checksum."""
    digest = hashlib.sha256(basis.record.model_dump_json().encode())
    transform = [] if basis.transform is None else [basis.transform]
    for tensor in (*transform, *basis.features.state_dict().values()):
        digest.update(tensor.contiguous().numpy().tobytes())
    stat = path.stat()
    return {
        "basis": digest.hexdigest(),
        "observations": f"{path.resolve()}, {stat.st_size} bytes, changed at {stat.st_mtime_ns} ns",
        "options": options,
        "versions": json.dumps(versions()),
    }


def _begun(parts: Path, made_with: dict[str, str]) -> int | None:
    """Number of queries of the run that made the parts there are; None if none has been finished.

    Raises:
        InputError: if it was another run.
    """
    if not any(parts.glob(_PARTS)):
        return None
    try:
        run = json.loads((parts / _RUN).read_text())
        differing = [what for what, value in made_with.items() if run["made_with"].get(what) != value]
        queries = int(run["queries"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):  # damaged, or another's
        differing, queries = [_RUN], 0
    if differing:
        raise InputError(
            f"{parts}: holds finished chunks of a run with other {', '.join(differing)}; type its command again to "
            "finish it, or remove the directory to start anew"
        )
    return queries


def _survey(estimator: Estimator, chunks: Iterator[pd.DataFrame], source: str, advance: Callable[[int], object]) -> int:
    """Number of queries of a file, after a check of all of it: faults are told before hours are spent."""
    seen: set = set()
    spoiled = 0
    for table in chunks:
        observations = estimator.accept(check_rows(table, estimator.declared, source))
        starts = run_starts(table["query"])
        for start, query in zip(starts, table["query"].iloc[starts], strict=True):
            if query in seen:
                raise InputError(
                    f"{source}: row {table.index[start]}, column 'query': {query} comes again after other queries; "
                    "in a file of more than one chunk the rows of a query must stand together (sort by query)"
                )
            seen.add(query)
        spoiled += observations.spoiled
        advance(len(starts))
    warn_of_spoiled(spoiled, source)
    return len(seen)


def _estimated(
    estimator: Estimator, table: pd.DataFrame, source: str, advance: Callable[[int], object]
) -> pd.DataFrame:
    """Estimates of a chunk; readouts and covariances are let go with each batch."""
    observations = estimator.accept(check_rows(table, estimator.declared, source))
    tables = []
    for estimates, *_ in estimator.batches(observations):
        tables.append(estimates)
        advance(len(estimates))
    advance(len(observations.unusable))
    return estimator.whole(tables, observations)


def _finished(part: Path, ids: pd.Series) -> int:
    """Number of queries of a part that is there.

    Args:
        part: its file.
        ids: of the rows of its chunk.

    Raises:
        InputError: if it is damaged, or the queries are others.
    """
    wanted = ids.iloc[run_starts(ids)].drop_duplicates()
    try:
        found = _read_part(part)["query"].to_pandas()
    except (OSError, ValueError, LookupError, pa.ArrowException):
        found = pd.Series(dtype=object)
    if list(found) != list(wanted):
        raise InputError(
            f"{part}: damaged, or not of this run; remove it and type the command again, which estimates its queries "
            "anew"
        )
    return len(found)


def _read_part(part: Path) -> pa.Table:
    return pq.read_table(part, page_checksum_verification=True)


@contextmanager
def _kept_if_worth_it(parts: Path) -> Iterator[None]:
    """After whatever ends the block early: tell that finished chunks are kept; without any, remove the directory."""
    try:
        yield
    except BaseException as error:
        if any(parts.glob(_PARTS)):
            error.add_note(f"finished chunks are kept in {parts}: typing the command again goes on from there")
        else:
            _removed(parts)
        raise


def _removed(parts: Path) -> None:
    """Remove the directory of parts, but for files that are not of the run."""
    for pattern in _OWN:
        for file in parts.glob(pattern):
            file.unlink()
    with suppress(OSError):  # not there, or not empty
        parts.rmdir()


def _join(parts: Sequence[Path], whole: Path) -> Summary:
    """Write the parts one after the other into one file."""
    # a chunk in which no query could be estimated has fewer columns
    schema = max((pq.read_schema(part) for part in parts), key=len)
    with replacing_file(whole) as temporary, _appending(temporary, schema) as append:

        def appended() -> Iterator[pd.DataFrame]:
            for part in parts:
                table = _read_part(part)
                for name in set(schema.names) - set(table.column_names):
                    table = table.append_column(name, pa.nulls(len(table), schema.field(name).type))
                table = table.select(schema.names).cast(schema)
                append(table)
                yield table.to_pandas()

        return Summary.of(appended())


@contextmanager
def _appending(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], object]]:
    """Append tables of estimates to a new file, CSV or Parquet by the suffix."""
    if path.suffix.lower() != ".csv":
        with pq.ParquetWriter(path, schema) as writer:
            yield writer.write_table
        return
    with path.open("w", newline="") as file:
        yield lambda table: table.to_pandas().to_csv(file, header=file.tell() == 0, **_CSV)
