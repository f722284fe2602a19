"""Parses raw chunks of the log into interactions, and of the attribute tables into attributes."""

import dataclasses
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tf_lift.config import AttributeTable, Config, Source
from tf_lift.schema import Field, Schema

from .parse_rows import ParsedRows, Rejected, parse_rows, reject_rows
from .parse_values import convert_times, is_time_type, parse_behaviours, parse_iso_time, parse_times
from .read_source import RawChunk

TOO_EARLY = "before source.time_from"
TOO_LATE = "at or after source.time_until"


@dataclasses.dataclass(frozen=True)
class ParsedInteractions:
    """The n usable interactions of a chunk, and an account of the rest.

    `num_read == len(time) + len(rejected) + sum(left_out.values())`.

    Attributes:
        fields: field name -> [n] string values, without nulls; "" where there is none.
        time: [n] int64 epoch seconds.
        behaviour: [n] int8 class.
        line: [n] int64 line number in the file, ascending.
        file_index: place of the file in the list of files.
        num_read: rows of the chunk.
        rejected: rows that could not be used, by line.
        left_out: reason -> number of rows that the configuration leaves out.
    """

    fields: dict[str, pa.Array]
    time: np.ndarray
    behaviour: np.ndarray
    line: np.ndarray
    file_index: int
    num_read: int
    rejected: list[Rejected]
    left_out: dict[str, int]


class ParsedAttributes(NamedTuple):
    """The n usable rows of a chunk of an attribute table.

    Attributes:
        keys: [n] string identifiers of the entity, never "".
        fields: field name -> [n] string values.
        lines: [n] int64 line number in the file, ascending.
        rejected: the other rows, by line.
    """

    keys: pa.Array
    fields: dict[str, pa.Array]
    lines: np.ndarray
    rejected: list[Rejected]


def parse_interactions(chunk: RawChunk, config: Config, field_columns: Mapping[str, str]) -> ParsedInteractions:
    """Parses rows of the log: their times, behaviours and the values of the log's own fields.

    A row is rejected if it cannot be split, its time or behaviour cannot be read, or a key field is empty; otherwise it
    is left out if its time is outside `source.time_from` and `source.time_until`.

    Args:
        chunk: rows of one file.
        config: the configuration.
        field_columns: field name -> column of the log, as `find_field_columns(config).log`.
    """
    source, behaviour = config.source, config.behaviour
    has_labels = behaviour.kind != "positive_only"
    typed_times = _find_typed_times(chunk, source.time)
    columns = [*field_columns.values()]
    if has_labels:
        columns.append(behaviour.column)
    if typed_times is None:
        columns.append(source.time)
    rows = parse_rows(chunk, source, columns)
    if typed_times is not None:
        times, time_reasons = convert_times(typed_times.take(pa.array(rows.lines - chunk.first_line)))
    else:
        times, time_reasons = parse_times(_column(rows, source.time), source.time_format)
    labels = np.ones(len(times), np.int8)
    label_reasons: dict[int, str] = {}
    if has_labels:
        labels, label_reasons = parse_behaviours(_column(rows, behaviour.column), behaviour)
    fields = _extract_fields(rows, field_columns, config.schema)
    reasons = {**_find_empty_keys(fields, config.schema), **label_reasons, **time_reasons}  # the time's goes first
    is_kept = np.ones(len(times), bool)
    is_kept[list(reasons)] = False
    left_out = _leave_out(times, is_kept, source)
    rejected = reject_rows(chunk, {int(rows.lines[index]): reason for index, reason in reasons.items()}, source)
    return ParsedInteractions(
        fields={name: values.filter(pa.array(is_kept)) for name, values in fields.items()},
        time=times[is_kept],
        behaviour=labels[is_kept],
        line=rows.lines[is_kept],
        file_index=chunk.file_index,
        num_read=len(rows.lines) + len(rows.rejected),
        rejected=sorted([*rows.rejected, *rejected], key=lambda row: row.line),
        left_out=left_out,
    )


def parse_attributes(
    chunk: RawChunk, attribute_table: AttributeTable, field_columns: Mapping[str, str], schema: Schema
) -> ParsedAttributes:
    """Parses rows of an attribute table; a row without an identifier is rejected.

    Args:
        chunk: rows of one file.
        attribute_table: says how the file is written.
        field_columns: field name -> column of the table, as one of `find_field_columns(config).attributes`.
        schema: the fields; the pattern of the entity's key field also applies to the table's key, as both must match.
    """
    rows = parse_rows(chunk, attribute_table, [attribute_table.key, *field_columns.values()])
    key_index = schema.user_index if attribute_table.entity == "user" else schema.item_index
    keys = _extract(_column(rows, attribute_table.key), schema.fields[key_index].pattern)
    fields = _extract_fields(rows, field_columns, schema)
    is_kept = _is_filled(keys)
    reasons = {int(line): f"{attribute_table.key} is empty" for line in rows.lines[~is_kept]}
    rejected = [*rows.rejected, *reject_rows(chunk, reasons, attribute_table)]
    mask = pa.array(is_kept)
    return ParsedAttributes(
        keys.filter(mask),
        {name: values.filter(mask) for name, values in fields.items()},
        rows.lines[is_kept],
        sorted(rejected, key=lambda row: row.line),
    )


def _find_typed_times(chunk: RawChunk, column: str) -> pa.Array | None:
    """The times of a chunk of Parquet whose time column holds timestamps or dates; None for any other chunk."""
    if not isinstance(chunk.data, pa.Table) or column not in chunk.columns:
        return None
    times = chunk.data.column(column).combine_chunks()
    return times if is_time_type(times.type) else None


def _column(rows: ParsedRows, name: str) -> pa.Array:
    return pa.concat_arrays(rows.table.column(name).chunks) if rows.table.num_rows else pa.array([], pa.string())


def _extract_fields(rows: ParsedRows, field_columns: Mapping[str, str], schema: Schema) -> dict[str, pa.Array]:
    patterns = {field.name: field.pattern for field in schema.fields}
    return {name: _extract(_column(rows, column), patterns[name]) for name, column in field_columns.items()}


def _extract(values: pa.Array, pattern: str) -> pa.Array:
    """The first group of the pattern's first match in each value, "" where there is none; no pattern: the values."""
    if not pattern:
        return values
    compiled = re.compile(pattern)
    encoded = values.dictionary_encode()
    matches = [compiled.search(value) for value in encoded.dictionary.to_pylist()]
    groups = [(match[1] or "") if match else "" for match in matches]
    return pa.array(groups, pa.string()).take(encoded.indices)


def _is_filled(values: pa.Array) -> np.ndarray:
    return np.asarray(pc.greater(pc.binary_length(values), 0).to_numpy(zero_copy_only=False), bool)


def _find_empty_keys(fields: Mapping[str, pa.Array], schema: Schema) -> dict[int, str]:
    keys: list[Field] = [field for field in schema.fields if field.key]
    reasons: dict[int, str] = {}
    for field in reversed(keys):  # the first key's reason goes first
        empty = np.flatnonzero(~_is_filled(fields[field.name]))
        reasons.update(dict.fromkeys(empty.tolist(), f"{field.name} is empty"))
    return reasons


def _leave_out(times: np.ndarray, is_kept: np.ndarray, source: Source) -> dict[str, int]:
    """Clears the mask where a time is outside the configured ones; returns reason -> number of rows, none of them 0."""
    left_out: dict[str, int] = {}
    if source.time_from:
        is_early = is_kept & (times < parse_iso_time(source.time_from))
        left_out[TOO_EARLY] = int(is_early.sum())
        is_kept &= ~is_early
    if source.time_until:
        is_late = is_kept & (times >= parse_iso_time(source.time_until))
        left_out[TOO_LATE] = int(is_late.sum())
        is_kept &= ~is_late
    return {reason: count for reason, count in left_out.items() if count}
