"""Cutting files into chunks of rows."""

import gzip
import json
import lzma
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from beam.read_source import RawChunk, read_chunks, read_columns, split_line
from tf_lift.config import AttributeTable, Source


def _write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def _source(**kwargs) -> Source:
    return Source(paths=("unused",), **kwargs)


def test_header_counts_as_a_line_and_chunks_hold_whole_lines(tmp_path: Path) -> None:
    path = _write(tmp_path / "log.csv", b"a,b\n1,2\n3,4\n5,6")
    assert list(read_chunks(path, 4, _source(), 2)) == [
        RawChunk(4, path, 2, b"1,2\n3,4\n", ("a", "b")),
        RawChunk(4, path, 4, b"5,6", ("a", "b")),
    ]


def test_columns_mean_that_there_is_no_header(tmp_path: Path) -> None:
    path = _write(tmp_path / "log.csv", b"1,2\n3,4\n")
    assert list(read_chunks(path, 0, _source(columns=("a", "b")), 10)) == [
        RawChunk(0, path, 1, b"1,2\n3,4\n", ("a", "b"))
    ]


@pytest.mark.parametrize("content", [b"", b"a,b\n"])
def test_file_without_rows(content: bytes, tmp_path: Path) -> None:
    path = _write(tmp_path / "log.csv", content)
    source = _source(columns=() if content else ("a", "b"))
    assert list(read_chunks(path, 0, source, 10)) == []
    assert read_columns(path, source) == ("a", "b")


def test_byte_order_mark_belongs_to_no_value(tmp_path: Path) -> None:
    path = _write(tmp_path / "log.csv", b"\xef\xbb\xbfa,b\n1,2\n")
    assert read_columns(path, _source()) == ("a", "b")
    assert [chunk.data for chunk in read_chunks(path, 0, _source(columns=("a", "b")), 9)] == [b"a,b\n1,2\n"]


@given(st.lists(st.binary(max_size=8).map(lambda line: line.replace(b"\n", b"")), max_size=30), st.integers(1, 7))
def test_chunks_hold_every_byte_in_order(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], size: int
) -> None:
    content = b"".join(line + b"\n" for line in lines)
    path = _write(tmp_path_factory.mktemp("chunks") / "log.csv.gz", gzip.compress(content))
    chunks = list(read_chunks(path, 0, _source(columns=("a",), encoding="latin-1"), size))
    assert b"".join(chunk.data for chunk in chunks) == content
    assert [chunk.first_line for chunk in chunks] == list(range(1, len(lines) + 1, size))
    assert all(chunk.data.count(b"\n") == size for chunk in chunks[:-1])


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [(".gz", gzip.compress), (".xz", lzma.compress), (".zst", zstandard.ZstdCompressor().compress)],
)
def test_damaged_file_is_named(suffix: str, compress, tmp_path: Path) -> None:
    content = compress(b"".join(b"%d,2\n" % number for number in range(9999)))
    truncated = _write(tmp_path / f"truncated.csv{suffix}", content[:-20])
    other = _write(tmp_path / f"other.csv{suffix}", b"this is a text, and it is long enough to be no header\n")
    for path in (truncated, other):
        with pytest.raises(ValueError, match=rf"whole and what its suffix says\. Received: .*{Path(path).name}"):
            list(read_chunks(path, 0, _source(columns=("a", "b")), 100))


def test_missing_file_stays_an_error_of_the_file_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(read_chunks(str(tmp_path / "no.csv"), 0, _source(), 10))


def test_json_keys_are_those_of_the_first_objects(tmp_path: Path) -> None:
    path = _write(tmp_path / "log.jsonl", b'oops\n{"user": 1, "item": 2}\n{"item": 3, "tags": []}\n')
    source = _source(format="json_lines")
    assert read_columns(path, source) == ("user", "item", "tags")
    assert [chunk.first_line for chunk in read_chunks(path, 0, source, 2)] == [1, 3]
    with pytest.raises(ValueError, match="needs an object in its first 100 lines.*none"):
        read_columns(_write(tmp_path / "bad.jsonl", b"1\n2\n"), source)


def test_parquet_rows_and_columns(tmp_path: Path) -> None:
    table = pa.table({"a": range(10), "b": [str(number) for number in range(10)], "c": [1.5] * 10})
    path = str(tmp_path / "log.parquet")
    pq.write_table(table, path, row_group_size=3)
    source = _source(format="parquet")
    assert read_columns(path, source) == ("a", "b", "c")
    chunks = list(read_chunks(path, 1, source, 4, columns=["c", "a"]))
    assert pa.concat_tables([chunk.data for chunk in chunks]).equals(table.select(["a", "c"]))
    assert {chunk.columns for chunk in chunks} == {("a", "c")}
    starts = [chunk.first_line for chunk in chunks]
    assert starts[0] == 1 and starts[1:] == [chunk.first_line + chunk.data.num_rows for chunk in chunks[:-1]]
    assert pickle.loads(pickle.dumps(chunks[1])).data.equals(chunks[1].data)


def test_text_is_no_parquet(tmp_path: Path) -> None:
    path = _write(tmp_path / "log.parquet", json.dumps({"a": 1}).encode() * 9)
    with pytest.raises(ValueError, match=r"must be Parquet\. Received: .*log\.parquet"):
        read_columns(path, _source(format="parquet"))


def test_attribute_tables_are_read_as_well(tmp_path: Path) -> None:
    path = _write(tmp_path / "users.tsv", b"#id\tage\n7\t30\n")
    table = AttributeTable(paths=(path,), entity="user", key="#id", separator="\t")
    assert read_columns(path, table) == ("#id", "age")
    assert [chunk.data for chunk in read_chunks(path, 0, table, 10)] == [b"7\t30\n"]


@pytest.mark.parametrize(
    ("content", "kwargs", "message"),
    [
        (
            b"1\t2\t3\n",
            {"columns": ("a", "b", "c")},
            r"separator ',' for .*, whose first line starts with '1\\t2\\t3'\. Set",
        ),
        (b"a,b,a\n", {}, r"must differ\. Received twice in .*: a\."),
        (b"\n1,2\n", {}, r"header line\. Received: .*, which begins with an empty line"),
        (b"a,\xff\n", {}, r"The header line must be utf-8\. Received: "),
        (b'a,"b\n', {"quote": '"'}, r"header line must be one row.*the quotes do not match"),
    ],
)
def test_bad_first_line(content: bytes, kwargs: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_columns(_write(tmp_path / "log.csv", content), _source(**kwargs))


@pytest.mark.parametrize(
    ("line", "separator", "expected"),
    [
        ('a,"b,c",d', ",", ["a", "b,c", "d"]),
        ('"say ""hello""",', ",", ['say "hello"', ""]),
        ('1::"a::b"::2', "::", ["1", "a::b", "2"]),
        ("a,b", ",", ["a", "b"]),
        ("", ",", [""]),
    ],
)
def test_split_line(line: str, separator: str, expected: list[str]) -> None:
    assert split_line(line, separator, '"') == expected


def test_quotes_are_ordinary_without_a_quote_character() -> None:
    assert split_line('"a,b"', ",", "") == ['"a', 'b"']


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=6), min_size=1, max_size=5))
def test_split_line_undoes_quoting(values: list[str]) -> None:
    for separator in (",", "::"):
        line = separator.join('"' + value.replace('"', '""') + '"' for value in values)
        if separator == "," or not any(ord(character) < 32 for character in line):
            assert split_line(line, separator, '"') == values
