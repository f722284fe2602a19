"""Reads files in order and cuts them into chunks of whole rows, without parsing them."""

import codecs
import contextlib
import csv
import dataclasses
import itertools
import json
import lzma
import zlib
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from tf_lift.config import AttributeTable, Source

from .files import open_file

_LINES_FOR_KEYS = 100  # JSON lines that are read for the columns' names: optional keys may be absent from the first
_SHOWN_LENGTH = 80  # characters of a line that an error quotes
_STAND_INS = "\x1f\x1e\x1d\x1c\x01\x02\x03\x04"  # may stand for a separator of several characters


@dataclasses.dataclass(frozen=True)
class RawChunk:
    """Consecutive rows of one file, not parsed yet.

    Attributes:
        file_index: place of the file in the list of files.
        path: the file.
        first_line: line number of the first row, from 1; a header line counts. Parquet: row number, from 1.
        data: whole lines as the file's bytes, decompressed; Parquet: a table.
        columns: column names of the file, in its order; () for JSON lines, whose rows name them.
    """

    file_index: int
    path: str
    first_line: int
    data: bytes | pa.Table
    columns: tuple[str, ...] = ()


def read_chunks(
    path: str,
    file_index: int,
    source: Source | AttributeTable,
    rows_per_batch: int,
    columns: Collection[str] | None = None,
) -> Iterator[RawChunk]:
    """Cuts a file into chunks of `rows_per_batch` rows; the last has fewer.

    Args:
        path: one file, as `expand_paths` gives it.
        file_index: place of the file in the list of files.
        source: says how the file is written.
        rows_per_batch: rows of a chunk.
        columns: Parquet alone: the columns to read; None: all.

    Raises:
        ValueError: the file is not what its format or its suffix says.
    """
    if source.format == "parquet":
        yield from _read_parquet(path, file_index, rows_per_batch, columns)
        return
    with _open_checked(path) as file:
        lines = _read_lines(file, source.encoding)
        names: tuple[str, ...] = ()
        line = 1
        if source.format == "delimited":
            names = source.columns
            if not names:
                names = _split_header(next(lines, b""), path, source)
                line = 2
        while data := b"".join(itertools.islice(lines, rows_per_batch)):
            yield RawChunk(file_index, path, line, data, names)
            line += rows_per_batch


def read_columns(path: str, source: Source | AttributeTable) -> tuple[str, ...]:
    """Column names of a file: `columns`, its header line, the keys of its first JSON objects, or its Parquet schema.

    Raises:
        ValueError: the file has no header line or no JSON object, repeats a name, or lacks the separator in its first
            line although `columns` lists several.
    """
    if source.format == "parquet":
        with _open_parquet(path) as parquet:
            return tuple(parquet.schema_arrow.names)
    with _open_checked(path) as file:
        lines = _read_lines(file, source.encoding)
        if source.format == "json_lines":
            return source.columns or _read_keys(lines, path, source.encoding)
        line = next(lines, b"")
        if not source.columns:
            return _split_header(line, path, source)
    if len(source.columns) > 1 and line.strip():
        check_separator(line.decode(source.encoding, "replace"), path, source)
    return _check_names(source.columns, path)


def check_separator(line: str, path: str, source: Source | AttributeTable) -> None:
    """Raises ValueError if a line that should have several columns has one."""
    if source.separator not in line:
        raise ValueError(
            f"The separator must occur in every line. Received: separator {source.separator!r} for {path}, whose first "
            f"line starts with {line.rstrip()[:_SHOWN_LENGTH]!r}. Set `separator` to what stands between the columns."
        )


def split_line(line: str, separator: str, quote: str) -> list[str]:
    """Splits one line of delimited text; between two quote characters the separator is an ordinary text.

    A quoted value ends on its own line, and two quote characters in it mean one.

    Raises:
        ValueError: the quotes do not match.
    """
    if not quote or quote not in line:
        return line.split(separator)
    stand_in = separator
    if len(separator) > 1:  # the csv module takes one character
        stand_in = next((character for character in _STAND_INS if character not in line), "")
        if not stand_in:
            raise ValueError(
                "a quoted line with control characters cannot be split at a separator of several characters"
            )
        line = line.replace(separator, stand_in)
    try:
        (values,) = csv.reader([line], delimiter=stand_in, quotechar=quote, strict=True)
    except (csv.Error, ValueError) as error:
        raise ValueError(f"the quotes do not match: {error}") from error
    return values if stand_in == separator else [value.replace(stand_in, separator) for value in values]


@contextlib.contextmanager
def _open_checked(path: str) -> Iterator[BinaryIO]:
    """The open file, whose errors of decompression are ValueErrors that name it."""
    try:
        with open_file(path) as file:
            yield file
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the file system's, not the decoder's
            raise
        raise ValueError(
            f"A compressed file must be whole and what its suffix says. Received: {path}: {error}. "
            "Fetch it again or rename it."
        ) from error


def _read_lines(file: BinaryIO, encoding: str) -> Iterator[bytes]:
    """The file's lines, without UTF-8's byte order mark, which belongs to no value."""
    first = file.readline()
    if codecs.lookup(encoding).name == "utf-8":
        first = first.removeprefix(codecs.BOM_UTF8)
    return itertools.chain([first] if first else [], file)


def _split_header(line: bytes, path: str, source: Source | AttributeTable) -> tuple[str, ...]:
    try:
        text = line.decode(source.encoding).rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"The header line must be {source.encoding}. Received: {path}: {line[:_SHOWN_LENGTH]!r}."
        ) from error
    if not text.strip():
        raise ValueError(
            f"A file without `columns` must begin with a header line. Received: {path}, which begins with an empty "
            "line. List the names of its columns in `columns`."
        )
    try:
        names = split_line(text, source.separator, source.quote)
    except ValueError as error:
        raise ValueError(
            f"The header line must be one row. Received: {path}: {text[:_SHOWN_LENGTH]!r}: {error}."
        ) from error
    return _check_names(tuple(names), path)


def _check_names(names: tuple[str, ...], path: str) -> tuple[str, ...]:
    repeated = sorted({name for name in names if name and names.count(name) > 1})
    if repeated:
        raise ValueError(
            f"Column names must differ. Received twice in {path}: {', '.join(repeated)}. Rename one of the two."
        )
    return names


def _read_keys(lines: Iterator[bytes], path: str, encoding: str) -> tuple[str, ...]:
    keys: dict[str, None] = {}
    for line in itertools.islice(lines, _LINES_FOR_KEYS):
        with contextlib.suppress(ValueError, RecursionError):  # parse_rows rejects such a line
            row = json.loads(line.decode(encoding))
            keys.update(dict.fromkeys(row) if isinstance(row, dict) else {})
    if not keys:
        raise ValueError(
            f"A file of JSON lines needs an object in its first {_LINES_FOR_KEYS} lines. Received: {path}, which has "
            "none."
        )
    return tuple(keys)


@contextlib.contextmanager
def _open_parquet(path: str) -> Iterator[Any]:
    with open_file(path) as file:
        try:
            parquet = pq.ParquetFile(file)
        except (pa.ArrowInvalid, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ValueError(f"The file must be Parquet. Received: {path}: {error}") from error
        with parquet:
            yield parquet


def _read_parquet(
    path: str, file_index: int, rows_per_batch: int, columns: Collection[str] | None
) -> Iterator[RawChunk]:
    with _open_parquet(path) as parquet:
        names = tuple(parquet.schema_arrow.names)
        if columns is not None:
            names = tuple(name for name in names if name in columns)
        row = 1
        for batch in parquet.iter_batches(batch_size=rows_per_batch, columns=list(names)):
            yield RawChunk(file_index, path, row, pa.Table.from_batches([batch]), names)
            row += batch.num_rows
