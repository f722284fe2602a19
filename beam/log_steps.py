"""Steps from batches to vocabularies, the split, entity tables and the interaction log."""

import dataclasses
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
import numpy as np

from tf_lift.data.dataset_info import Boundaries
from tf_lift.schema import FIRST_VALUE_ID, Entity
from tf_lift.vocabulary import Vocabulary

from . import build_log
from .interaction_batch import (
    EncodedBatch,
    FirstSeen,
    InteractionBatch,
    build_entity_table,
    distinct_tuples,
    encode_batch,
    find_first_seen,
)
from .pipeline_inputs import PipelineInputs, write_fact_file
from .time_split import add_counts, count_times, find_boundaries

# A worker turns the vocabularies into mappings once a run; threads of one process share them.
_value_ids: dict[str, list[dict[str, int]]] = {}
_lock = threading.Lock()


def forget_run(run_token: str) -> None:
    """Frees what a run in this process has read."""
    with _lock:
        _value_ids.pop(run_token, None)


def find_all_first_seen(batch: InteractionBatch) -> Iterator[tuple[int, FirstSeen]]:
    """The earliest time of every value of every field in a batch."""
    for field in range(len(batch.values)):
        yield field, find_first_seen(batch, field)


class JoinFirstSeen(beam.CombineFn):
    """Keeps the earliest time of each value."""

    def create_accumulator(self) -> dict[str, int]:
        return {}

    def add_input(self, accumulator: dict[str, int], element: FirstSeen) -> dict[str, int]:
        for value, time in zip(element.values, element.times.tolist(), strict=True):
            if time < accumulator.get(value, time + 1):
                accumulator[value] = time
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[dict[str, int]]) -> dict[str, int]:
        total: dict[str, int] = {}
        for accumulator in accumulators:
            for value, time in accumulator.items():
                if time < total.get(value, time + 1):
                    total[value] = time
        return total

    def extract_output(self, accumulator: dict[str, int]) -> FirstSeen:
        order = sorted(accumulator.items(), key=lambda entry: (entry[1], entry[0]))
        return FirstSeen(tuple(value for value, _ in order), np.array([time for _, time in order], np.int64))


def write_vocabulary(field_and_values: tuple[int, FirstSeen], inputs: PipelineInputs) -> tuple[int, FirstSeen]:
    """Writes a field's vocabulary and passes it on."""
    field, seen = field_and_values
    name = inputs.config.schema.names[field]
    with inputs.folder.writing(f"vocabulary/{name}.tsv") as path:
        Vocabulary(name, seen.values, seen.times).write(path)
    return field, seen


def encode_with(
    batch: InteractionBatch, inputs: PipelineInputs, vocabularies: Iterable[tuple[int, FirstSeen]]
) -> EncodedBatch:
    """Replaces a batch's values by ids."""
    with _lock:
        if inputs.run_token not in _value_ids:
            _value_ids.clear()
            tables: list[dict[str, int]] = [{} for _ in inputs.config.schema.names]
            for field, seen in vocabularies:
                tables[field] = {value: index for index, value in enumerate(seen.values, FIRST_VALUE_ID)}
            _value_ids[inputs.run_token] = tables
    return encode_batch(batch, _value_ids[inputs.run_token])


def count_batch_times(batch: InteractionBatch | EncodedBatch) -> tuple[np.ndarray, np.ndarray]:
    """Distinct times of a batch and their counts."""
    return count_times(batch.time)


class JoinTimes(beam.CombineFn):
    """Adds up counts of times."""

    def create_accumulator(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return []

    def add_input(self, accumulator: list[Any], element: tuple[np.ndarray, np.ndarray]) -> list[Any]:
        return [add_counts([*accumulator, element])]

    def merge_accumulators(self, accumulators: Iterable[list[Any]]) -> list[Any]:
        return [add_counts([part for accumulator in accumulators for part in accumulator])]

    def extract_output(self, accumulator: list[Any]) -> tuple[np.ndarray, np.ndarray]:
        return add_counts(accumulator)


def write_boundaries(
    times: tuple[np.ndarray, np.ndarray], inputs: PipelineInputs, read: Mapping[str, int]
) -> Boundaries:
    """Places the split's boundaries, once the input has been found readable (`read`, which is only waited for)."""
    del read
    boundaries = find_boundaries(*times, inputs.config.split)
    write_fact_file(inputs, "boundaries", dataclasses.asdict(boundaries))
    return boundaries


def find_entities(
    batch: EncodedBatch, inputs: PipelineInputs
) -> Iterator[tuple[Entity, tuple[np.ndarray, np.ndarray]]]:
    """The distinct users and items of a batch with their attributes and first times."""
    for entity in ("user", "item"):
        yield entity, distinct_tuples(batch.fields, batch.time, entity_columns(inputs, entity))


def entity_columns(inputs: PipelineInputs, entity: Entity) -> tuple[int, ...]:
    """The fields of an entity, its key first."""
    schema = inputs.config.schema
    key = schema.user_index if entity == "user" else schema.item_index
    return (key, *(index for index in schema.indices(entity) if index != key))


def write_entities(
    entity_and_parts: tuple[Entity, Iterable[tuple[np.ndarray, np.ndarray]]],
    inputs: PipelineInputs,
    previous_conflicts: Mapping[Entity, np.ndarray],
) -> tuple[Entity, np.ndarray]:
    """Writes the table of users or of items and the ids of those with several values of an attribute, and passes the table on.

    Args:
        entity_and_parts: distinct rows and first times.
        inputs: the pipeline's.
        previous_conflicts: such ids of the data set that is appended to; settled rows do not tell any more.
    """
    entity, parts = entity_and_parts
    tuples, times = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    columns = entity_columns(inputs, entity)
    merged, first = distinct_tuples(tuples, times, range(len(columns)))
    num_entities = int(merged[:, 0].max()) - FIRST_VALUE_ID + 1
    table, conflicting = build_entity_table(merged, first, columns, num_entities, len(inputs.config.schema))
    conflicting = np.union1d(conflicting, previous_conflicts.get(entity, np.zeros(0, np.int32))).astype(np.int32)
    for name, array in ((f"{entity}s.npy", table), (f"{entity}s_conflicting.npy", conflicting)):
        with inputs.folder.writing(name) as path:
            np.save(path, array)
    counts = {f"{entity}s": num_entities, f"{entity}s_with_conflicting_attributes": len(conflicting)}
    write_fact_file(inputs, f"{entity}s", counts)
    return entity, table


def split_encoded(
    batch: EncodedBatch, inputs: PipelineInputs, entities: Mapping[Entity, np.ndarray]
) -> Iterable[tuple[int, EncodedBatch]]:
    """The part of a batch that belongs to each shard of the log."""
    config = inputs.config
    return build_log.split_by_shard(batch, config.schema.user_index, len(entities["user"]), config.pipeline.num_shards)


def write_log_shard(
    shard_and_batches: tuple[int, Iterable[EncodedBatch]],
    inputs: PipelineInputs,
    boundaries: Boundaries,
    entities: Mapping[Entity, np.ndarray],
) -> dict[str, int]:
    """Writes one shard of the log."""
    shard, batches = shard_and_batches
    name = f"interactions-{shard:05d}-of-{inputs.config.pipeline.num_shards:05d}.tfrecord"
    with inputs.folder.writing(name) as path:
        return build_log.write_shard(shard, batches, inputs.config, boundaries, entities, path)
