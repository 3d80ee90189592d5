"""Files are read in pieces, and pieces put together to chunks that divide no query."""

import bz2
import gzip
import io
import lzma
import os
import zipfile

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ipbasis.errors import InputError
from ipbasis.observations.readers import column_names, has_more_rows, read_pieces, run_starts, whole_queries

TABLE = pd.DataFrame({"query": ["007", "007", "b", "b", "b", "c"], "t": range(6), "u": [0.1, None, 1, 2, 3, 1e-300]})


@pytest.fixture(params=["csv", "parquet", "one row group", "indexed"])
def path(request, tmp_path):
    name = tmp_path / ("o.csv" if request.param == "csv" else "o.parquet")
    match request.param:
        case "csv":
            TABLE.to_csv(name, index=False)
        case "parquet":
            pq.write_table(pa.Table.from_pandas(TABLE), name, row_group_size=2)
        case "one row group":
            TABLE.to_parquet(name, index=False)
        case "indexed":
            TABLE.set_index("query").to_parquet(name)
    return name


@pytest.mark.parametrize("rows", [1, 4, 100])
def test_pieces_are_the_table(path, rows):
    assert set(column_names(path)) == {"query", "t", "u"}
    pieces = list(read_pieces(path, ["query", "t", "u"], rows))
    assert max(map(len, pieces)) == min(rows, 6)
    found = pd.concat(pieces)
    assert list(found.index) == list(range(2, 8) if path.suffix == ".csv" else range(6))
    pd.testing.assert_frame_equal(
        found.reset_index(drop=True)[["query", "t", "u"]], TABLE, check_dtype=False, check_column_type=False
    )


def test_columns_that_are_not_asked_for_are_not_read(path):
    assert [set(piece) for piece in read_pieces(path, ["query", "u"], 100)] == [{"query", "u"}]


@pytest.mark.parametrize(("rows", "more"), [(5, True), (6, False), (7, False)])
def test_the_number_of_rows_decides(path, rows, more):
    assert has_more_rows(path, rows) is more


def test_lines_name_the_rows(tmp_path):
    path = tmp_path / "o.csv"
    path.write_text("query,t,u\na,0,1\n\n\na,1,2\n,,\nb,2,\n")
    assert [list(piece.index) for piece in read_pieces(path, ["query", "t", "u"], 3)] == [[2], [5, 7]]


def test_a_column_with_text_keeps_its_words(tmp_path):
    path = tmp_path / "o.csv"
    path.write_text("query,u\na,0.5\na,nan\na,high\na,\n")
    (piece,) = read_pieces(path, ["query", "u"], 100)
    assert piece["u"].tolist()[:3] == ["0.5", "nan", "high"]
    assert piece["u"].isna().tolist() == [False, False, False, True]


@pytest.mark.parametrize("read", [column_names, lambda p: has_more_rows(p, 1), lambda p: list(read_pieces(p, [], 1))])
def test_what_cannot_be_read_is_one_line(tmp_path, read):
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "none.parquet")
    (tmp_path / "o.parquet").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"cannot be read: .*[^\n]$"):
        read(tmp_path / "o.parquet")


def pieces(ids, size):
    table = pd.DataFrame({"query": list(ids)})
    return [table.iloc[i : i + size] for i in range(0, len(table), size)]


@pytest.mark.parametrize(
    ("ids", "rows", "expected"),
    [
        ("aabbbc", 6, ["aabbbc"]),
        ("abab", 4, ["abab"]),  # one chunk: in any order
        ("aabbbc", 3, ["aa", "bbb", "c"]),
        ("aabbbc", 1, ["aa", "bbb", "c"]),
        ("aaaaaab", 2, ["aaaaaa", "b"]),  # a query is longer than a chunk
        ("aaaa", 2, ["aaaa"]),
    ],
)
def test_chunks_end_where_a_query_ends(ids, rows, expected):
    found = list(whole_queries(pieces(ids, 1), rows))
    assert ["".join(chunk["query"]) for chunk in found] == expected
    assert [i for chunk in found for i in chunk.index] == list(range(len(ids)))


def test_a_chunk_exceeds_its_rows_by_no_more_than_a_piece():
    found = [len(chunk) for chunk in whole_queries(pieces(sorted("abcdefghij" * 4), 2), 8)]
    assert sum(found) == 40
    assert max(found) <= 10


@pytest.mark.parametrize("ids", [[], ["a"], ["a", "a", "b", "a"], [1, 1, 2], [1.5, 2.5, 2.5]])
@pytest.mark.parametrize("kind", [None, object, "category"])
def test_runs(ids, kind):
    expected = [i for i, query in enumerate(ids) if i == 0 or query != ids[i - 1]]
    assert run_starts(pd.Series(ids, dtype=kind)).tolist() == expected


RAW = ("query,t,u\n" + "".join(f"a,{i},{1.37 * i}\n" for i in range(300))).encode()


def zipped(raw):
    with io.BytesIO() as held:
        with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("o.csv", raw)
        return held.getvalue()


ARCHIVES = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zip": zipped}


@pytest.mark.parametrize("suffix", ARCHIVES)
def test_archives_are_read_or_refused_in_one_line(tmp_path, suffix):
    path, whole = tmp_path / f"o.csv{suffix}", ARCHIVES[suffix](RAW)
    path.write_bytes(whole)
    assert sum(map(len, read_pieces(path, column_names(path), 50))) == 300
    assert has_more_rows(path, 299)
    assert not has_more_rows(path, 300)
    middle = len(whole) // 2
    damaged = [whole[:middle], whole[:3], b"none of that", whole[:middle] + bytes([whole[middle] ^ 255] * 9)]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"cannot be read: .*[^\n]$"):
            list(read_pieces(path, ["query", "t", "u"], 50))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("query,t,u\na,0,2,5\n", "row 2 has 4 cells, the header 3; a point in numbers is right"),
        ("query,t,u\na,0,0,2,5\n", "row 2 has 5 cells, the header 3"),
        ("query,t,u\na,0,2\na,1,2,5\n", "row 3 has 4 cells, the header 3"),
        ("query,t,u\na,0,2,\na,1,2,5\n", "row 3 has 4 cells, the header 3"),
        (
            "query;t;u\na;0,5;2,5\n",
            "row 1: columns are separated by semicolons; commas are right, and points in numbers",
        ),
        ("sep=;\nquery;t;u\n", "row 1: columns are separated by semicolons"),
        ("query\tt\tu\na\t0\t2\n", "row 1: columns are separated by tabs"),
        ("query t u\na 0 2\n", "row 1: columns are separated by blanks"),
    ],
)
def test_no_decimal_is_dropped(tmp_path, text, reason):
    path = tmp_path / "o.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"o\.csv: {reason}"):
        list(read_pieces(path, column_names(path), 1))


def test_empty_cells_beyond_the_header_do_not_matter(tmp_path):
    path = tmp_path / "o.csv"
    path.write_text("query,t,u\na,0,2,,\na,1,3,,\n")
    (piece,) = read_pieces(path, column_names(path), 9)
    assert piece.to_numpy().tolist() == [["a", 0, 2], ["a", 1, 3]]


@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        (pa.array([[1], [2]]), "list"),
        (pa.array([{"a": 1}, {"a": 2}]), "struct"),
        (pa.array([[(1, 2)], [(3, 4)]], type=pa.map_(pa.int64(), pa.int64())), "map"),
    ],
)
def test_nested_columns_are_refused(tmp_path, ids, kind):
    path = tmp_path / "o.parquet"
    pq.write_table(pa.table({"query": ids, "t": [0.0, 1.0]}), path)
    with pytest.raises(
        InputError, match=rf"o\.parquet: column 'query' holds {kind}<.*; a text or a number .* is right"
    ):
        list(read_pieces(path, ["query", "t"], 5))


def test_what_can_be_read_once_only_is_refused(tmp_path):
    os.mkfifo(tmp_path / "o.csv")
    for read in (column_names, lambda path: has_more_rows(path, 1)):
        with pytest.raises(InputError, match="a pipe or a device, which can be read once only"):
            read(tmp_path / "o.csv")
    with pytest.raises(InputError, match="cannot be read"):
        column_names(tmp_path)
    with pytest.raises(InputError, match="cannot be read: embedded null byte"):
        column_names(tmp_path / "a\0.csv")
