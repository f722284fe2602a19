"""A batch of parsed interactions, and what is computed from one batch alone."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from tf_lift.schema import FIRST_VALUE_ID, PADDING_ID


@dataclasses.dataclass(frozen=True)
class InteractionBatch:
    """n interactions with the values of all M fields.

    Attributes:
        values: M tuples of the distinct values.
        codes: int32 [n, M] index of each row's value.
        time: int64 [n] epoch seconds.
        behaviour: int8 [n] class.
        file_index: int32 [n] which file, in sorted order.
        line: int64 [n] line in it.
    """

    values: tuple[tuple[str, ...], ...]
    codes: np.ndarray
    time: np.ndarray
    behaviour: np.ndarray
    file_index: np.ndarray
    line: np.ndarray


@dataclasses.dataclass(frozen=True)
class FirstSeen:
    """Distinct values of a field and when each first appeared: values [n], times int64 [n]."""

    values: tuple[str, ...]
    times: np.ndarray


@dataclasses.dataclass(frozen=True)
class EncodedBatch:
    """n interactions as ids: `fields` int32 [n, M]; the others as in `InteractionBatch`."""

    fields: np.ndarray
    time: np.ndarray
    behaviour: np.ndarray
    file_index: np.ndarray
    line: np.ndarray


def encode_column(values: pa.Array) -> tuple[tuple[str, ...], np.ndarray]:
    """Distinct values of a string array, and the int32 index of each row's."""
    encoded = values.dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return tuple(encoded.dictionary.to_pylist()), encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32)


def join_attributes(
    keys: Sequence[str], attributes: Mapping[str, Sequence[str]], num_attributes: int
) -> tuple[list[Sequence[str]], np.ndarray]:
    """Attribute values of distinct keys.

    Args:
        keys: n keys.
        attributes: the table: key to its values.
        num_attributes: number of the values.

    Returns:
        n sequences of values, empty strings where the table lacks the key; and bool [n], True where it has it.
    """
    empty = ("",) * num_attributes
    return [attributes.get(key, empty) for key in keys], np.array([key in attributes for key in keys], bool)


def find_first_seen(batch: InteractionBatch, field: int) -> FirstSeen:
    """The earliest time of each distinct value of a field in a batch; the empty value is left out."""
    values, codes = batch.values[field], batch.codes[:, field]
    times = np.full(len(values), np.iinfo(np.int64).max)
    np.minimum.at(times, codes, batch.time)
    kept = [index for index in np.flatnonzero(np.bincount(codes, minlength=len(values))) if values[index] != ""]
    return FirstSeen(tuple(values[index] for index in kept), times[kept])


def encode_batch(batch: InteractionBatch, value_ids: Sequence[Mapping[str, int]]) -> EncodedBatch:
    """Replaces values by ids.

    Args:
        batch: the batch.
        value_ids: M mappings from value to id.
    """
    fields = np.empty(batch.codes.shape, np.int32)
    for index, values in enumerate(batch.values):
        ids = np.array([value_ids[index][value] if value != "" else PADDING_ID for value in values], np.int32)
        fields[:, index] = ids[batch.codes[:, index]]
    return EncodedBatch(fields, batch.time, batch.behaviour, batch.file_index, batch.line)


def distinct_tuples(fields: np.ndarray, times: np.ndarray, columns: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows of some columns with the first time of each.

    Args:
        fields: int32 [n, M].
        times: int64 [n].
        columns: indices of the columns.

    Returns:
        int32 [m, len(columns)] and int64 [m].
    """
    if not len(fields):
        return np.zeros((0, len(columns)), np.int32), np.zeros(0, np.int64)
    rows, inverse = np.unique(fields[:, list(columns)], axis=0, return_inverse=True)
    first = np.full(len(rows), np.iinfo(np.int64).max)
    np.minimum.at(first, inverse.reshape(-1), times)
    return rows, first


def build_entity_table(
    tuples: np.ndarray, first_times: np.ndarray, columns: Sequence[int], num_entities: int, num_fields: int
) -> tuple[np.ndarray, np.ndarray]:
    """One row an entity: the fields that its identifier determines, by declaration.

    Args:
        tuples: int32 [m, len(columns)] distinct rows; the first column is the identifier.
        first_times: int64 [m]; where an entity has several rows, the earliest stands in the table.
        columns: the fields of the entity, its key first.
        num_entities: entities in the vocabulary.
        num_fields: M.

    Returns:
        int32 [num_entities, M], padding in other entities' columns; and int32 ids of the entities that had several rows.
    """
    order = np.lexsort((*tuples.T[::-1], first_times))[::-1]  # the earliest is written last
    table = np.zeros((num_entities, num_fields), np.int32)
    for place, column in enumerate(columns):
        table[tuples[order, 0] - FIRST_VALUE_ID, column] = tuples[order, place]
    return table, np.flatnonzero(np.bincount(tuples[:, 0], minlength=1) > 1).astype(np.int32)
