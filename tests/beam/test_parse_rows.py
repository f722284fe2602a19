"""Parsing chunks into columns of text, interactions and attributes."""

import datetime
import decimal
import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam.parse_interactions import parse_attributes, parse_interactions
from beam.parse_rows import ParsedRows, parse_rows
from beam.read_source import RawChunk
from tf_lift.config import AttributeTable, Behaviour, Config, Negatives, Source
from tf_lift.schema import Field

FIELDS = (Field("user", "user", key=True), Field("item", "item", key=True))
LOG_COLUMNS = {"user": "user", "item": "item"}


def _source(**kwargs) -> Source:
    return Source(paths=("unused",), **kwargs)


def _chunk(data: bytes | pa.Table, columns: tuple[str, ...] = (), first_line: int = 1) -> RawChunk:
    return RawChunk(0, "log", first_line, data, columns)


def _reasons(parsed) -> dict[int, str]:
    return {row.line: row.reason for row in parsed.rejected}


def _parse_text(text: bytes, columns: tuple[str, ...], first_line: int = 1, keep=None, **kwargs) -> ParsedRows:
    return parse_rows(_chunk(text, columns, first_line), _source(columns=columns, **kwargs), keep)


def _config(behaviour: Behaviour | None = None, fields: tuple[Field, ...] = FIELDS, **source) -> Config:
    source.setdefault("columns", ("user", "item", "label", "time"))
    behaviour = behaviour or Behaviour()
    protocol = "honest" if behaviour.kind == "positive_only" else "none"
    return Config("test", _source(**source), fields, behaviour=behaviour, negatives=Negatives(protocol=protocol))


def _parse_log(text: bytes, config: Config):
    return parse_interactions(_chunk(text, config.source.columns), config, LOG_COLUMNS)


class TestDelimited:
    def test_separator_of_several_characters(self) -> None:
        rows = _parse_text(b"1::a b::x:y\n2:::c::\n", ("a", "b", "c"), separator="::")
        assert rows.table.to_pylist() == [{"a": "1", "b": "a b", "c": "x:y"}, {"a": "2", "b": ":c", "c": ""}]
        assert rows.rejected == []

    def test_nothing_is_taken_for_null_or_number(self) -> None:
        rows = _parse_text(b"NA,\nnull,007\n#N/A,1e3\n", ("a", "b"))
        assert rows.table.to_pydict() == {"a": ["NA", "null", "#N/A"], "b": ["", "007", "1e3"]}
        assert set(rows.table.schema.types) == {pa.string()}

    def test_rejected_rows_have_line_reason_and_text(self) -> None:
        rows = _parse_text(b"1,2\n\n3\n4,5,6\n7,8\n\n", ("a", "b"), first_line=101)
        assert rows.lines.tolist() == [101, 105]
        assert [(row.path, row.line, row.reason, row.text) for row in rows.rejected] == [
            ("log", 102, "empty line", ""),
            ("log", 103, "expected 2 columns, received 1", "3"),
            ("log", 104, "expected 2 columns, received 3", "4,5,6"),
            ("log", 106, "empty line", ""),
        ]

    def test_windows_line_ends_and_a_last_line_without_one(self) -> None:
        assert _parse_text(b"1,2\r\n3,4", ("a", "b")).table.to_pydict() == {"a": ["1", "3"], "b": ["2", "4"]}

    def test_kept_columns(self) -> None:
        rows = _parse_text(b"1,2,3\n", ("a", "b", "c"), keep=["c", "a", "c"])
        assert rows.table.to_pydict() == {"c": ["3"], "a": ["1"]}
        with pytest.raises(ValueError, match=r"the same columns\. Received: log without 'd'; it has a, b, c\."):
            _parse_text(b"1,2,3\n", ("a", "b", "c"), keep=["d"])

    def test_line_that_is_not_utf8_is_rejected_alone(self) -> None:
        rows = _parse_text(b"1,caf\xc3\xa9\n2,caf\xe9\n3,d\n4\n", ("a", "b"))
        assert rows.table.to_pydict() == {"a": ["1", "3"], "b": ["café", "d"]}
        assert _reasons(rows) == {2: "not utf-8: byte 0xe9 at place 6", 4: "expected 2 columns, received 1"}
        assert rows.rejected[0].text == r"2,caf\xe9"

    def test_latin_1(self) -> None:
        rows = _parse_text(b"1,caf\xe9\x85\n", ("a", "b"), encoding="latin-1")
        assert rows.table.to_pydict() == {"a": ["1"], "b": ["café\x85"]}

    def test_quotes(self) -> None:
        text = b'1,"a,b"\n2,c\n"3","say ""x"""\n4,"open\n5,"a"b\n6,"a",b\n7,d\n'
        rows = _parse_text(text, ("a", "b"), quote='"')
        assert rows.table.to_pydict() == {"a": ["1", "2", "3", "7"], "b": ["a,b", "c", 'say "x"', "d"]}
        assert rows.lines.tolist() == [1, 2, 3, 7]
        assert _reasons(rows)[4].startswith("the quotes do not match")
        assert _reasons(rows)[5].startswith("the quotes do not match")
        assert _reasons(rows)[6] == "expected 2 columns, received 3"

    def test_chunk_without_a_usable_row(self) -> None:
        rows = _parse_text(b"x\ny\n", ("a", "b"))
        assert rows.table.num_rows == 0 and rows.table.column_names == ["a", "b"]
        assert list(_reasons(rows)) == [1, 2]

    @given(
        st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=9), min_size=1, max_size=12),
        st.sampled_from([",", "::", "\t", "ab"]),
    )
    def test_like_str_split_on_every_line(self, lines: list[str], separator: str) -> None:
        rows = _parse_text("".join(line + "\n" for line in lines).encode(), ("a", "b"), separator=separator)
        expected = [(line, *text.split(separator)) for line, text in enumerate(lines, 1)]
        kept = [row for row in expected if len(row) == 3]
        assert list(zip(rows.lines.tolist(), *rows.table.to_pydict().values(), strict=True)) == kept
        assert sorted(_reasons(rows)) == [row[0] for row in expected if len(row) != 3]


class TestJsonLines:
    def _parse(self, lines: list[bytes], columns=("a", "b")) -> ParsedRows:
        return parse_rows(_chunk(b"".join(line + b"\n" for line in lines)), _source(format="json_lines"), columns)

    def test_values_become_their_json_text(self) -> None:
        lines = [
            b'{"a": 12345678901234567890, "b": 1.50}',
            b'{"a": true, "b": null}',
            b'{"b": [1, {"c": 2.5}]}',
            rb'{"a": "\u00e9\n", "b": "1", "c": 3}',
        ]
        assert self._parse(lines).table.to_pydict() == {
            "a": ["12345678901234567890", "true", "", "é\n"],
            "b": ["1.50", "", '[1, {"c": 2.5}]', "1"],
        }

    def test_bad_line_rejects_only_itself(self) -> None:
        lines = [
            b'{"a": "1"}',
            b"{oops",
            b"[1]",
            b"",
            b'{"a": "\xff"}',
            rb'{"a": "\ud800"}',
            b"[" * 100_000,
            b'{"a": "2"}',
        ]
        rows = self._parse(lines)
        assert rows.table.column("a").to_pylist() == ["1", "2"]
        reasons = _reasons(rows)
        assert reasons.pop(2).startswith("not JSON: Expecting property name")
        assert reasons == {
            3: "not a JSON object",
            4: "empty line",
            5: "not utf-8: byte 0xff at place 8",
            6: "half of a surrogate pair, which is no text",
            7: "not JSON: too many levels",
        }
        assert max(len(row.text) for row in rows.rejected) == 1000

    def test_all_columns(self) -> None:
        assert self._parse([b'{"x": 1}', b'{"y": 2}'], None).table.to_pydict() == {"x": ["1", ""], "y": ["", "2"]}

    @given(
        st.lists(st.dictionaries(st.sampled_from("ab"), st.text(st.characters(codec="utf-8"))), min_size=1, max_size=5)
    )
    def test_texts_survive(self, objects: list[dict[str, str]]) -> None:
        rows = self._parse([json.dumps(row).encode() for row in objects])
        assert rows.table.to_pylist() == [{key: row.get(key, "") for key in "ab"} for row in objects]


class TestParquet:
    def _parse(self, table: pa.Table, columns=None) -> ParsedRows:
        return parse_rows(_chunk(table, tuple(table.column_names)), _source(format="parquet"), columns)

    def test_types_become_text(self) -> None:
        table = pa.table(
            {
                "integer": pa.array([10_000_000_000, None], pa.int64()),
                "float": pa.array([3.0, math.nan]),
                "fraction": pa.array([2.5, None]),
                "bool": [True, False],
                "dictionary": pa.array(["x", None]).dictionary_encode(),
                "decimal": [decimal.Decimal("1.20"), None],
                "large": pa.array(["y", ""], pa.large_string()),
                "nothing": pa.nulls(2),
            }
        )
        assert self._parse(table).table.to_pylist() == [
            {
                "integer": "10000000000",
                "float": "3",
                "fraction": "2.5",
                "bool": "true",
                "dictionary": "x",
                "decimal": "1.20",
                "large": "y",
                "nothing": "",
            },
            dict.fromkeys(table.column_names, "") | {"bool": "false"},
        ]

    def test_bytes_that_are_no_text_reject_their_row(self) -> None:
        rows = self._parse(pa.table({"a": pa.array([b"x", b"\xff", None], pa.binary()), "b": [1, 2, 3]}))
        assert rows.table.to_pydict() == {"a": ["x", ""], "b": ["1", "3"]}
        assert _reasons(rows) == {2: "a is not utf-8"}

    def test_lists_are_refused(self) -> None:
        table = pa.table({"a": [1], "tags": [["x"]]})
        assert self._parse(table, ["a"]).table.to_pydict() == {"a": ["1"]}
        with pytest.raises(ValueError, match=r"a text stands for\. Received: column 'tags' of log, list<"):
            self._parse(table)


class TestInteractions:
    @pytest.mark.parametrize(
        ("behaviour", "texts", "expected", "reason"),
        [
            (Behaviour(), ["", "x"], [1, 1], None),
            (
                Behaviour("column", "label"),
                ["0", "1", "1.0", "true", "2"],
                [0, 1, 1, 1],
                "behaviour is not 0 or 1: '2'",
            ),
            (Behaviour("column", "label"), ["0", ""], [0], "behaviour is empty"),
            (
                Behaviour("threshold", "label", 4),
                ["4", "3.99", "5e0", "x"],
                [1, 0, 1],
                "behaviour is not a number: 'x'",
            ),
            (Behaviour("threshold", "label", 4), ["-1", "nan"], [0], "behaviour is not a number: 'nan'"),
            (
                Behaviour("classes", "label", classes={"pv": 0, "buy": 1, "cart": 2}),
                ["cart", "pv", "buy", "foo"],
                [2, 0, 1],
                "behaviour 'foo' is not in behaviour.classes",
            ),
        ],
    )
    def test_behaviours(self, behaviour: Behaviour, texts: list[str], expected: list[int], reason: str | None) -> None:
        parsed = _parse_log("".join(f"u,i,{text},5\n" for text in texts).encode(), _config(behaviour))
        assert (parsed.behaviour.tolist(), parsed.behaviour.dtype) == (expected, np.int8)
        assert _reasons(parsed) == ({len(texts): reason} if reason else {})

    def test_the_rest_of_a_row(self) -> None:
        text = b"u1,i1,1,5.9\n,i1,1,6\nu1,,1,7\nu2,i2,1\nu2,i2,1,soon\nu2,i2,9,8\n,,7,now\nu2,i2,0,9\n"
        parsed = _parse_log(text, _config(Behaviour("column", "label")))
        assert {name: values.to_pylist() for name, values in parsed.fields.items()} == {
            "user": ["u1", "u2"],
            "item": ["i1", "i2"],
        }
        assert {values.type for values in parsed.fields.values()} == {pa.string()}
        assert (parsed.time.tolist(), parsed.behaviour.tolist(), parsed.line.tolist()) == ([5, 9], [1, 0], [1, 8])
        assert (parsed.time.dtype, parsed.line.dtype) == (np.int64, np.int64)
        assert [(row.line, row.reason, row.text) for row in parsed.rejected] == [
            (2, "user is empty", ",i1,1,6"),
            (3, "item is empty", "u1,,1,7"),
            (4, "expected 4 columns, received 3", "u2,i2,1"),
            (5, "time is not a number: 'soon'", "u2,i2,1,soon"),
            (6, "behaviour is not 0 or 1: '9'", "u2,i2,9,8"),
            (7, "time is not a number: 'now'", ",,7,now"),
        ]

    def test_rows_outside_the_times_are_left_out_and_counted(self) -> None:
        config = _config(time_from="1970-01-01T00:01:00Z", time_until="1970-01-01T02:00:00+01:00")
        parsed = _parse_log(b"u,i,,59\nu,i,,60\nu,i,,3599\nu,i,,3600\nu,i,,3601\nu,,,0\n", config)
        assert parsed.time.tolist() == [60, 3599]
        assert parsed.left_out == {"before source.time_from": 1, "at or after source.time_until": 2}
        assert _reasons(parsed) == {6: "item is empty"}
        assert _parse_log(b"u,i,,60\n", config).left_out == {}

    def test_pattern_takes_the_first_group(self) -> None:
        fields = (*FIELDS, Field("genre", "item", pattern=r"^([^|]*)"), Field("year", "item", pattern=r"\((\d{4})\)|x"))
        config = _config(fields=fields, columns=("user", "item", "genre", "year", "time"))
        chunk = _chunk("u,i,A|B,T (1995)\u00e9,1\nu,i,,none,2\nu,i,C,x,3\n".encode(), config.source.columns)
        parsed = parse_interactions(chunk, config, {field.name: field.name for field in fields})
        assert parsed.fields["genre"].to_pylist() == ["A", "", "C"]
        assert parsed.fields["year"].to_pylist() == ["1995", "", ""]

    def test_key_that_its_pattern_does_not_match_is_empty(self) -> None:
        fields = (Field("user", "user", key=True, pattern=r"user_(\d+)"), FIELDS[1])
        parsed = _parse_log(b"user_7,i,,1\nbot,i,,2\n", _config(fields=fields))
        assert parsed.fields["user"].to_pylist() == ["7"]
        assert _reasons(parsed) == {2: "user is empty"}

    @pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
    def test_parquet_timestamps_are_exact_whatever_the_format_says(self, unit: str) -> None:
        per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
        ticks = [1483271606 * per_second + (per_second > 1), -1, None]
        table = pa.table(
            {"user": [1, 2, 3], "item": [7, 8, 9], "time": pa.array(ticks, pa.timestamp(unit, tz="Asia/Tokyo"))}
        )
        config = _config(format="parquet", columns=(), time_format="%Y")
        parsed = parse_interactions(_chunk(table, tuple(table.column_names)), config, LOG_COLUMNS)
        assert parsed.time.tolist() == [1483271606, -1]
        assert parsed.fields["item"].to_pylist() == ["7", "8"]
        assert _reasons(parsed) == {3: "time is empty"}
        assert json.loads(parsed.rejected[0].text)["user"] == 3

    def test_parquet_dates_and_numbers(self) -> None:
        config = _config(format="parquet", columns=())
        for times in (pa.array([datetime.date(1970, 1, 2)]), pa.array([86_400]), pa.array([86_400.7])):
            table = pa.table({"user": ["a"], "item": ["b"], "time": times})
            parsed = parse_interactions(_chunk(table, tuple(table.column_names)), config, LOG_COLUMNS)
            assert parsed.time.tolist() == [86_400]

    def test_parquet_row_without_text_does_not_shift_the_times(self) -> None:
        users = pa.array([b"a", b"\xff", b"c"], pa.binary())
        table = pa.table({"user": users, "item": [1, 2, 3], "time": pa.array([10, 20, 30], pa.timestamp("s"))})
        parsed = parse_interactions(_chunk(table, tuple(table.column_names)), _config(format="parquet"), LOG_COLUMNS)
        assert (parsed.time.tolist(), parsed.line.tolist()) == ([10, 30], [1, 3])

    @given(
        st.lists(
            st.one_of(
                st.tuples(
                    st.sampled_from(["u", "v", ""]),
                    st.sampled_from(["i", ""]),
                    st.sampled_from(["0", "1", "2"]),
                    st.sampled_from(["10", "55", "99", "x", ""]),
                ).map(lambda cells: ",".join(cells).encode()),
                st.binary(max_size=6).map(lambda line: line.replace(b"\n", b"").replace(b"\r", b"")),
            ),
            min_size=1,
            max_size=40,
        )
    )
    def test_every_row_is_kept_rejected_or_left_out(self, lines: list[bytes]) -> None:
        config = _config(
            Behaviour("column", "label"), time_from="1970-01-01T00:00:50", time_until="1970-01-01T00:01:00"
        )
        parsed = _parse_log(b"".join(line + b"\n" for line in lines), config)
        assert parsed.num_read == len(lines)
        assert len(parsed.time) + len(parsed.rejected) + sum(parsed.left_out.values()) == len(lines)
        assert not set(parsed.line.tolist()) & set(_reasons(parsed))
        assert set(parsed.time.tolist()) <= {55}


def test_attributes() -> None:
    schema = _config(
        fields=(Field("user", "user", key=True, pattern=r"u(\d+)"), FIELDS[1], Field("age", "user"))
    ).schema
    table = AttributeTable(paths=("unused",), entity="user", key="#id", columns=("#id", "name", "age"))
    chunk = _chunk(b"u1,x,30\n,y,31\nu2,z\nu3,w,\n", table.columns, first_line=10)
    keys, fields, lines, rejected = parse_attributes(chunk, table, {"age": "age"}, schema)
    assert keys.to_pylist() == ["1", "3"]
    assert {name: values.to_pylist() for name, values in fields.items()} == {"age": ["30", ""]}
    assert lines.tolist() == [10, 13]
    assert [(row.line, row.reason) for row in rejected] == [
        (11, "#id is empty"),
        (12, "expected 3 columns, received 2"),
    ]
