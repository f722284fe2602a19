"""Decides which column of the log or of an attribute table holds each field."""

import dataclasses
import difflib
import os
from collections.abc import Collection

from tf_lift.config import AttributeTable, Config
from tf_lift.schema import Field

from .files import expand_paths
from .read_source import read_columns


@dataclasses.dataclass(frozen=True)
class FieldColumns:
    """Where each field comes from.

    Attributes:
        log: field name -> column of the log.
        attributes: for each attribute table, in order: field name -> column of the table.
    """

    log: dict[str, str]
    attributes: tuple[dict[str, str], ...]


def find_field_columns(config: Config) -> FieldColumns:
    """Looks for each field's column in the log, then in the attribute tables of its entity, each by its first file.

    Key fields and context fields are columns of the log. `parse_rows` checks that the other files have the columns too.

    Raises:
        ValueError: a column is nowhere, or a file's separator does not fit.
    """
    source = config.source
    log_path = expand_paths(source.paths)[0]
    log_columns = read_columns(log_path, source)
    table_paths = [expand_paths(table.paths)[0] for table in source.attributes]
    table_columns = [read_columns(path, table) for path, table in zip(table_paths, source.attributes, strict=True)]
    received = _describe_columns(log_columns, table_paths, table_columns)

    _check_column("source.time", source.time, log_columns, received)
    if config.behaviour.kind != "positive_only":
        _check_column("behaviour.column", config.behaviour.column, log_columns, received)
    for table, columns in zip(source.attributes, table_columns, strict=True):
        _check_column("source.attributes.key", table.key, columns, received)

    log: dict[str, str] = {}
    attributes: tuple[dict[str, str], ...] = tuple({} for _ in source.attributes)
    for field in config.fields:
        if field.source_column in log_columns:
            log[field.name] = field.source_column
            continue
        tables = [index for index, table in enumerate(source.attributes) if _may_hold(table, field)]
        index = next((index for index in tables if field.source_column in table_columns[index]), None)
        if index is None:
            known = {*log_columns}.union(*(table_columns[index] for index in tables))
            _check_column(f"field {field.name!r} of entity {field.entity!r}", field.source_column, known, received)
        else:
            attributes[index][field.name] = field.source_column
    return FieldColumns(log, attributes)


def _may_hold(table: AttributeTable, field: Field) -> bool:
    return not field.key and table.entity == field.entity


def _check_column(role: str, column: str, columns: Collection[str], received: str) -> None:
    if column in columns:
        return
    near = difflib.get_close_matches(column, sorted(columns), n=1)
    advice = f" Did you mean {near[0]!r}?" if near else ""
    if len(columns) == 1 and not near:
        advice = " There is a single column: does the separator fit?"
    raise ValueError(f"missing column {column!r}, {role}.{advice} {received}")


def _describe_columns(log_columns: Collection[str], paths: list[str], table_columns: list[tuple[str, ...]]) -> str:
    described = [f"Received columns of the log: {', '.join(log_columns)}"]
    described += [
        f"of {os.path.basename(path)}: {', '.join(names)}" for path, names in zip(paths, table_columns, strict=True)
    ]
    return "; ".join(described) + "."
