"""Parses raw chunks into columns of text; a row that cannot be parsed is rejected with its line and the reason."""

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tf_lift.config import AttributeTable, Source

from .read_source import RawChunk, split_line

_KEPT_TEXT = 1000  # characters of a rejected row that are kept
_JSON_WORDS = {None: "", True: "true", False: "false"}


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A row of the input that could not be used.

    Attributes:
        path: the file.
        line: line number in it, from 1.
        reason: what is wrong with the row.
        text: the row as it was, at most 1,000 characters of it.
    """

    path: str
    line: int
    reason: str
    text: str


@dataclasses.dataclass(frozen=True)
class ParsedRows:
    """The n rows of a chunk that could be split into columns, and the rest.

    Attributes:
        table: n rows of string columns, no nulls.
        lines: [n] int64 line number of each row, ascending.
        rejected: the other rows, by line.
    """

    table: pa.Table
    lines: np.ndarray
    rejected: list[Rejected]


def parse_rows(chunk: RawChunk, source: Source | AttributeTable, columns: Collection[str] | None = None) -> ParsedRows:
    """Splits the rows of a chunk into columns of text.

    Delimited text: cells stay as they are, also "NA" and "". JSON lines: numbers, true and false, lists and objects
    become their JSON text, null and an absent key become "". Parquet: every type is cast to text by Arrow, null and NaN
    become ""; a float without decimals reads as an integer does (3.0 is "3"), so that identifiers that a data frame
    turned into floats still match.

    Args:
        chunk: rows of one file.
        source: says how the file is written.
        columns: the columns to keep; None: all.

    Returns:
        The rows. Every row of the chunk is in `lines` or in `rejected`; an empty line is rejected too.

    Raises:
        ValueError: the file lacks one of `columns`, or a Parquet column has a type that no text stands for.
    """
    if source.format == "json_lines":
        return _parse_json(chunk, source, columns)
    kept = chunk.columns if columns is None else tuple(dict.fromkeys(columns))
    _check_present(kept, chunk)
    return _parse_parquet(chunk, source, kept) if source.format == "parquet" else _parse_delimited(chunk, source, kept)


def reject_rows(chunk: RawChunk, reasons: Mapping[int, str], source: Source | AttributeTable) -> list[Rejected]:
    """Rejected rows with their texts, by line.

    Args:
        chunk: the chunk.
        reasons: the reason for each rejected line number.
        source: says how the file is written.
    """
    if not reasons:
        return []
    texts = _split_bytes(chunk.data) if isinstance(chunk.data, bytes) else None
    rejected = []
    for line, reason in sorted(reasons.items()):
        index = line - chunk.first_line
        if texts is None:
            text = json.dumps(_table(chunk).slice(index, 1).to_pylist()[0], default=str, ensure_ascii=False)
        else:
            text = texts[index].decode(source.encoding, "backslashreplace")
        rejected.append(Rejected(chunk.path, line, reason, text[:_KEPT_TEXT]))
    return rejected


def _check_present(columns: Sequence[str], chunk: RawChunk) -> None:
    for column in columns:
        if column not in chunk.columns:
            raise ValueError(
                f"Every file of a table must have the same columns. Received: {chunk.path} without {column!r}; it has "
                f"{', '.join(chunk.columns)}."
            )


def _table(chunk: RawChunk) -> pa.Table:
    if not isinstance(chunk.data, pa.Table):
        raise ValueError(
            f"A chunk of Parquet must hold a table. Received: {type(chunk.data).__name__} of {chunk.path}."
        )
    return chunk.data


def _split_bytes(data: bytes) -> list[bytes]:
    return _normalise(data).split(b"\n")


def _normalise(data: bytes) -> bytes:
    """Whole lines that end in a line feed alone, the last in nothing."""
    return data.replace(b"\r\n", b"\n").removesuffix(b"\n")


def _collect(
    chunk: RawChunk,
    source: Source | AttributeTable,
    columns: Mapping[str, pa.Array],
    rows: np.ndarray,
    reasons: Mapping[int, str],
) -> ParsedRows:
    """The parsed rows.

    Args:
        chunk: the chunk.
        source: says how the file is written.
        columns: the string columns.
        rows: [n] index within the chunk of each of their rows.
        reasons: the reason for every other index.
    """
    rejected = reject_rows(chunk, {index + chunk.first_line: reason for index, reason in reasons.items()}, source)
    return ParsedRows(pa.table(dict(columns)), np.asarray(rows, np.int64) + chunk.first_line, rejected)


def _decode_lines(data: bytes, encoding: str) -> tuple[pa.Array, np.ndarray, dict[int, str]]:
    """The lines of a chunk as text, the index of each, and a reason for every index whose line is no text."""
    try:
        text = _normalise(data).decode(encoding)
    except UnicodeDecodeError:
        return _decode_each_line(data, encoding)
    lines = pc.split_pattern(pa.array([text], pa.large_string()), "\n").flatten()
    return lines, np.arange(len(lines)), {}


def _decode_each_line(data: bytes, encoding: str) -> tuple[pa.Array, np.ndarray, dict[int, str]]:
    texts: list[str] = []
    rows: list[int] = []
    reasons: dict[int, str] = {}
    for index, line in enumerate(_split_bytes(data)):
        try:
            texts.append(line.decode(encoding))
            rows.append(index)
        except UnicodeDecodeError as error:
            reasons[index] = f"not {encoding}: byte 0x{line[error.start]:02x} at place {error.start + 1}"
    return pa.array(texts, pa.large_string()), np.array(rows, np.int64), reasons


def _parse_delimited(chunk: RawChunk, source: Source | AttributeTable, kept: Sequence[str]) -> ParsedRows:
    lines, rows, reasons = _decode_lines(chunk.data, source.encoding)
    num_columns = len(chunk.columns)
    is_empty = _to_mask(pc.equal(pc.binary_length(lines), 0))
    is_quoted = _to_mask(pc.match_substring(lines, source.quote)) if source.quote else np.zeros(len(lines), bool)
    values = pc.split_pattern(lines, source.separator)
    counts = pc.list_value_length(values).to_numpy(zero_copy_only=False)
    is_plain = ~is_empty & ~is_quoted & (counts == num_columns)
    reasons.update(dict.fromkeys(rows[is_empty].tolist(), "empty line"))
    for place in np.flatnonzero(~is_empty & ~is_quoted & ~is_plain):
        reasons[int(rows[place])] = _describe_count(num_columns, counts[place])
    flat = values.filter(pa.array(is_plain)).flatten()
    columns = {name: flat[chunk.columns.index(name) :: num_columns].cast(pa.string()) for name in kept}
    rows_kept = rows[is_plain]
    if is_quoted.any():
        quoted_lines = lines.filter(pa.array(is_quoted))
        quoted_columns, quoted_rows, quoted_reasons = _split_quoted(quoted_lines, rows[is_quoted], chunk, source)
        reasons.update(quoted_reasons)
        rows_kept = np.concatenate([rows_kept, quoted_rows])
        order = np.argsort(rows_kept)
        rows_kept = rows_kept[order]
        columns = {name: pa.concat_arrays([columns[name], quoted_columns[name]]).take(pa.array(order)) for name in kept}
    return _collect(chunk, source, columns, rows_kept, reasons)


def _split_quoted(
    lines: pa.Array, rows: np.ndarray, chunk: RawChunk, source: Source | AttributeTable
) -> tuple[dict[str, pa.Array], np.ndarray, dict[int, str]]:
    """Lines that hold a quote character, one by one, so that a missing quote spoils its own line alone."""
    values: list[list[str]] = []
    rows_kept: list[int] = []
    reasons: dict[int, str] = {}
    for row, line in zip(rows.tolist(), lines.to_pylist(), strict=True):
        try:
            cells = split_line(line, source.separator, source.quote)
        except ValueError as error:
            reasons[row] = str(error)
            continue
        if len(cells) == len(chunk.columns):
            values.append(cells)
            rows_kept.append(row)
        else:
            reasons[row] = _describe_count(len(chunk.columns), len(cells))
    columns = {
        name: pa.array([cells[index] for cells in values], pa.string()) for index, name in enumerate(chunk.columns)
    }
    return columns, np.array(rows_kept, np.int64), reasons


def _describe_count(expected: int, received: int) -> str:
    return f"expected {expected} column{'s' if expected != 1 else ''}, received {received}"


def _to_mask(values: pa.Array) -> np.ndarray:
    return np.asarray(values.to_numpy(zero_copy_only=False), bool)


def _parse_json(chunk: RawChunk, source: Source | AttributeTable, columns: Collection[str] | None) -> ParsedRows:
    lines, rows, reasons = _decode_lines(chunk.data, source.encoding)
    objects: list[dict[str, str]] = []
    rows_kept: list[int] = []
    for row, line in zip(rows.tolist(), lines.to_pylist(), strict=True):
        try:
            objects.append(_read_object(line))
            rows_kept.append(row)
        except ValueError as error:
            reasons[row] = str(error)
    if columns is None:
        columns = source.columns or tuple(dict.fromkeys(key for cells in objects for key in cells))
    texts = {name: pa.array([cells.get(name, "") for cells in objects], pa.string()) for name in columns}
    return _collect(chunk, source, texts, np.array(rows_kept, np.int64), reasons)


def _read_object(line: str) -> dict[str, str]:
    """The values of a JSON object as texts."""
    if not line.strip():
        raise ValueError("empty line")
    try:
        cells = json.loads(line, parse_int=str, parse_float=str, parse_constant=str)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at place {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("not JSON: too many levels") from None
    if not isinstance(cells, dict):
        raise ValueError("not a JSON object")
    nested = [key for key, value in cells.items() if isinstance(value, dict | list)]
    if nested:  # read once more, as the numbers within became strings above
        again = json.loads(line)
        cells.update({key: json.dumps(again[key], ensure_ascii=False) for key in nested})
    texts = {key: value if isinstance(value, str) else _JSON_WORDS[value] for key, value in cells.items()}
    if "\\u" in line and not all(_is_unicode(text) for text in texts.values()):
        raise ValueError("half of a surrogate pair, which is no text")
    return texts


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _parse_parquet(chunk: RawChunk, source: Source | AttributeTable, kept: Sequence[str]) -> ParsedRows:
    reasons: dict[int, str] = {}
    table = _table(chunk)
    columns = {name: _cast_to_text(table.column(name).combine_chunks(), name, chunk.path, reasons) for name in kept}
    is_kept = np.ones(table.num_rows, np.bool_)
    is_kept[list(reasons)] = False
    if reasons:
        columns = {name: column.filter(pa.array(is_kept)) for name, column in columns.items()}
    return _collect(chunk, source, columns, np.flatnonzero(is_kept), reasons)


def _cast_to_text(column: pa.Array, name: str, path: str, reasons: dict[int, str]) -> pa.Array:
    """A column as strings; adds a reason for every index whose bytes are no text."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    try:
        texts = column.cast(pa.string())
    except pa.ArrowNotImplementedError as error:
        raise ValueError(
            f"A Parquet column must have a type that a text stands for. Received: column {name!r} of {path}, "
            f"{column.type}. Write it as a number or a text."
        ) from error
    except pa.ArrowInvalid:
        values = [value if value is None or _is_text(value) else None for value in column.to_pylist()]
        for index, (value, old) in enumerate(zip(values, column.is_valid().to_pylist(), strict=True)):
            if value is None and old:
                reasons[index] = f"{name} is not utf-8"
        texts = pa.array(values, column.type).cast(pa.string())
    return texts.fill_null("")


def _is_text(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
