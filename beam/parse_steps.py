"""Steps from files to batches of interactions with all their fields."""

import collections
import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics

from .interaction_batch import InteractionBatch, encode_column, join_attributes
from .parse_interactions import ParsedInteractions, parse_attributes, parse_interactions
from .parse_rows import Rejected
from .pipeline_inputs import PipelineInputs
from .read_source import RawChunk, read_chunks
from .storage import DatasetFolder

AttributeValues = dict[str, tuple[str, ...]]


def read_log_chunks(file: tuple[int, str], inputs: PipelineInputs) -> Iterator[RawChunk]:
    """Cuts a file of the log into chunks of lines."""
    index, path = file
    config = inputs.config
    columns = {*inputs.columns.log.values(), config.source.time, config.behaviour.column} - {""}
    return read_chunks(path, index, config.source, config.pipeline.rows_per_batch, columns)


def read_attribute_chunks(file: tuple[int, str], inputs: PipelineInputs, table: int) -> Iterator[RawChunk]:
    """Cuts a file of an attribute table into chunks of lines."""
    index, path = file
    return read_chunks(path, index, inputs.config.source.attributes[table], inputs.config.pipeline.rows_per_batch)


@dataclasses.dataclass(frozen=True)
class AttributeChunk:
    """The parsed rows of a chunk of an attribute table.

    Attributes:
        place: file's place in the table's list, and the chunk's first line: chunks in their order.
        path: the file.
        keys: n identifiers.
        lines: n line numbers.
        rows: n tuples of the values of the table's fields.
        rejected: the other rows.
    """

    place: tuple[int, int]
    path: str
    keys: list[str]
    lines: list[int]
    rows: list[tuple[str, ...]]
    rejected: list[Rejected]


def parse_attribute_chunk(chunk: RawChunk, inputs: PipelineInputs, table: int) -> AttributeChunk:
    """Parses a chunk of an attribute table."""
    columns = inputs.columns.attributes[table]
    parsed = parse_attributes(chunk, inputs.config.source.attributes[table], columns, inputs.config.schema)
    values = [parsed.fields[name].to_pylist() for name in columns]
    rows: list[tuple[str, ...]] = list(zip(*values, strict=True)) if columns else [()] * len(parsed.keys)
    place = (chunk.file_index, chunk.first_line)
    return AttributeChunk(place, chunk.path, parsed.keys.to_pylist(), parsed.lines.tolist(), rows, parsed.rejected)


@dataclasses.dataclass(frozen=True)
class JoinedTable:
    """An attribute table: the values of each key, the rows that could not be used, and how many rows there were."""

    values: AttributeValues
    rejected: list[Rejected]
    num_read: int


class JoinAttributeTables(beam.CombineFn):
    """Joins the chunks of a table; of rows with one key the first counts, and a later one that differs is rejected."""

    def create_accumulator(self) -> list[AttributeChunk]:
        return []

    def add_input(self, accumulator: list[AttributeChunk], element: AttributeChunk) -> list[AttributeChunk]:
        return [*accumulator, element]

    def merge_accumulators(self, accumulators: Iterable[list[AttributeChunk]]) -> list[AttributeChunk]:
        return [element for accumulator in accumulators for element in accumulator]

    def extract_output(self, accumulator: list[AttributeChunk]) -> JoinedTable:
        values: AttributeValues = {}
        rejected: list[Rejected] = []
        num_read = 0
        for chunk in sorted(accumulator, key=lambda chunk: chunk.place):
            num_read += len(chunk.keys) + len(chunk.rejected)
            rejected += chunk.rejected
            for key, line, row in zip(chunk.keys, chunk.lines, chunk.rows, strict=True):
                if values.setdefault(key, row) != row:
                    reason = "its key stands earlier in the table with other values"
                    rejected.append(Rejected(chunk.path, line, reason, key))
        return JoinedTable(values, rejected, num_read)


def count_table(table: JoinedTable, inputs: PipelineInputs, index: int) -> dict[str, int]:
    """Counts of an attribute table's rows.

    Raises:
        ValueError: no row of the table could be used.
    """
    if not table.values:
        first = next(iter(table.rejected), None)
        reason = f"line {first.line}: {first.reason}" if first else "it is empty"
        raise ValueError(
            f"An attribute table must have usable rows. Received: {', '.join(inputs.attribute_paths[index])}, whose "
            f"{table.num_read:,} rows were rejected ({reason}). Mend the file or its [[source.attributes]] section."
        )
    return {"attribute_rows_read": table.num_read, "attribute_rows_rejected": len(table.rejected)}


def list_rejected(table: JoinedTable) -> Iterator[tuple[str, list[Rejected]]]:
    """The rejected rows of an attribute table, by file."""
    for row in table.rejected:
        yield row.path, [row]


class ParseChunk(beam.DoFn):
    """Parses a chunk of the log and joins the attribute tables, which come as side inputs."""

    def __init__(self, inputs: PipelineInputs) -> None:
        self._inputs = inputs
        self._counters = {
            name: Metrics.counter("preprocess", name) for name in ("read", "kept", "rejected", "left_out")
        }

    def process(
        self, chunk: RawChunk, *tables: Any
    ) -> Iterator[Any]:  # JoinedTables; Beam takes no type for none of them
        parsed = parse_interactions(chunk, self._inputs.config, self._inputs.columns.log)
        batch, lacking = join_batch(parsed, self._inputs, [table.values for table in tables])
        left_out = {**parsed.left_out, **lacking}
        counts = {"read": parsed.num_read, "kept": len(batch.time), "rejected": len(parsed.rejected)}
        for name, count in {**counts, "left_out": sum(left_out.values())}.items():
            self._counters[name].inc(count)
        yield beam.pvalue.TaggedOutput(
            "counts", counts | {f"left_out: {reason}": count for reason, count in left_out.items()}
        )
        if parsed.rejected:
            yield beam.pvalue.TaggedOutput("rejected", (chunk.path, parsed.rejected))
        if len(batch.time):
            yield batch


def join_batch(
    parsed: ParsedInteractions, inputs: PipelineInputs, tables: list[AttributeValues]
) -> tuple[InteractionBatch, dict[str, int]]:
    """Joins attributes to parsed interactions.

    Returns:
        The batch, and for each required table the number of rows left out because it lacks their entity.
    """
    schema = inputs.config.schema
    encoded = {name: encode_column(values) for name, values in parsed.fields.items()}
    kept = np.ones(len(parsed.time), bool)
    left_out: dict[str, int] = collections.Counter()
    for spec, columns, table in zip(inputs.config.source.attributes, inputs.columns.attributes, tables, strict=True):
        key = schema.names[schema.user_index if spec.entity == "user" else schema.item_index]
        keys, codes = encoded[key]
        values, found = join_attributes(keys, table, len(columns))
        for place, name in enumerate(columns):
            encoded[name] = (tuple(row[place] for row in values), codes)
        if spec.required:
            missing = kept & ~found[codes] if len(keys) else np.zeros(len(kept), bool)
            left_out[f"{key} not in {os.path.basename(spec.paths[0])}"] += int(missing.sum())
            kept &= ~missing
    used = [_keep_used(*encoded[name], kept) for name in schema.names]
    batch = InteractionBatch(
        tuple(values for values, _ in used),
        np.stack([codes for _, codes in used], axis=1),
        parsed.time[kept],
        parsed.behaviour[kept],
        np.full(int(kept.sum()), parsed.file_index, np.int32),
        parsed.line[kept],
    )
    return batch, {reason: count for reason, count in left_out.items() if count}


def _keep_used(values: tuple[str, ...], codes: np.ndarray, kept: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """The values that some kept row has, and those rows' indices into them."""
    used, renumbered = np.unique(codes[kept], return_inverse=True)
    return tuple(values[index] for index in used), renumbered.reshape(-1).astype(np.int32)


def write_rejected(file_and_rows: tuple[str, Iterable[list[Rejected]]], inputs: PipelineInputs) -> None:
    """Writes the rejected rows of a file, by line: line, reason and the row itself, separated by tabs."""
    path, parts = file_and_rows
    rows = sorted((row for part in parts for row in part), key=lambda row: row.line)
    place = [*inputs.log_paths, *itertools.chain(*inputs.attribute_paths)].index(path)
    name = f"rejected/{place:05d}-{os.path.basename(path)}.tsv"
    lines = [f"{row.line}\t{_one_line(row.reason)}\t{_one_line(row.text)}\n" for row in rows]
    with inputs.folder.writing(name) as target:
        target.write_text("".join(lines), encoding="utf-8")


def check_rejected(counts: Mapping[str, int], inputs: PipelineInputs, written: Iterable[None]) -> Mapping[str, int]:
    """Stops a run whose input is mostly unreadable, once rejected/ stands (`written`, which is only waited for).

    Raises:
        ValueError: more rows than `source.max_rejected_share` were rejected.
    """
    del written
    rejected, read = counts.get("rejected", 0), counts.get("read", 0)
    if rejected > inputs.config.source.max_rejected_share * read:
        raise ValueError(
            f"At most {inputs.config.source.max_rejected_share:.1%} of the rows may be rejected "
            f"(source.max_rejected_share). Received: {rejected:,} of {read:,}, the first for this reason: "
            f"{_first_reason(inputs.folder)}. All are in {inputs.fetched_dir}/rejected; mend the file or "
            "the [source] section."
        )
    return counts


def _first_reason(folder: DatasetFolder) -> str:
    """Line and reason of the first rejected row."""
    paths = (folder.fetch(name) for name in folder.list("rejected/*"))
    with next(path for path in paths if path.stat().st_size).open(encoding="utf-8") as file:
        line, reason, _ = file.readline().split("\t", 2)
    return f"line {line}: {reason}"


def _one_line(text: str) -> str:
    return text.replace("\t", " ").replace("\r", " ").replace("\n", " ")
