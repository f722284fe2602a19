"""Steps from the finished log to posting lists, grouped by key: rows are cut into slices of the pool's order, and keys into parts."""

import collections
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from apache_beam.metrics import Metrics

from tf_lift.data.dataset_files import Dataset
from tf_lift.data.dataset_info import Boundaries, build_match_sets
from tf_lift.retrieval.match_sets import hash_values
from tf_lift.retrieval.posting_files import RANK_TO_ROW, PartKey
from tf_lift.retrieval.posting_lists import pool_order
from tf_lift.retrieval.set_postings import (
    NewestRule,
    SetPostings,
    build_set_postings,
    merge_set_postings,
    newest_rule,
    write_set_postings,
)

from .opened_dataset import open_log
from .pipeline_inputs import PipelineInputs

HotKeys = Mapping[int, np.ndarray]  # match set to int32 [H, G], the values of its hot keys
Keyed = tuple[tuple[int, int, int, int], Any]  # the fields of a PartKey, and an element

_shuffled_bytes = Metrics.counter("retrieval", "posting_bytes_shuffled")
_num_keys = Metrics.counter("retrieval", "keys")
_num_hot_keys = Metrics.counter("retrieval", "hot_keys")


SliceOfSet = tuple[int, int]  # a slice of the pool's order and a match set


def list_slices(
    _: None, inputs: PipelineInputs, boundaries: Boundaries, log: Mapping[str, int]
) -> Iterator[SliceOfSet]:
    """Writes the pool's order and numbers its slices for every set, once the log stands (`log`, which is only waited for)."""
    del log
    dataset = open_log(inputs, boundaries)
    rows = _pool_rows(dataset)
    if not len(rows):
        raise ValueError("The retrieval pool must hold interactions. Received: none before split.train_from.")
    with inputs.folder.writing(RANK_TO_ROW) as path:
        np.save(path, rows.astype(np.int32))
    slices = range(inputs.first_new_slice, -(-len(rows) // inputs.config.pipeline.pool_slice_rows))
    yield from itertools.product(slices, range(len(dataset.info.match_sets)))


def hot_threshold(inputs: PipelineInputs, num_rows: int) -> int:
    """How many rows of a slice make a key a candidate for hot keys.

    A key with twice `hot_key_rows` rows has at least `hot_key_rows` of them in slices where it is a candidate.
    """
    return max(1, inputs.config.pipeline.hot_key_rows * inputs.config.pipeline.pool_slice_rows // num_rows)


def find_hot_keys(
    slice_of_set: SliceOfSet, inputs: PipelineInputs, boundaries: Boundaries, log: Mapping[str, int]
) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray]]]:
    """The keys of a set that may be hot by their rows in one slice: values int32 [n, G] and counts int32 [n]."""
    config = inputs.config
    if config.split.mode != "rolling" or log["rows"] < config.pipeline.hot_key_rows:
        return
    postings = _build_slice(slice_of_set, inputs, boundaries, NewestRule(1, False))
    many = postings.counts >= hot_threshold(inputs, log["rows"])
    if many.any():
        yield slice_of_set[1], (postings.values[many], postings.counts[many])


def join_hot_keys(
    set_and_parts: tuple[int, Iterable[tuple[np.ndarray, np.ndarray]]], inputs: PipelineInputs
) -> tuple[int, np.ndarray]:
    """The hot keys of a set, int32 [H, G] in the order of their values."""
    set_index, parts = set_and_parts
    totals: dict[tuple[int, ...], int] = collections.Counter()
    for values, counts in parts:
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            totals[tuple(value)] += count
    hot = sorted(value for value, count in totals.items() if count >= inputs.config.pipeline.hot_key_rows)
    _num_hot_keys.inc(len(hot))
    return set_index, np.array(hot, np.int32)


def build_postings(
    slice_of_set: SliceOfSet, inputs: PipelineInputs, boundaries: Boundaries, hot_keys: HotKeys
) -> Iterator[Keyed]:
    """The posting lists of a set over one slice by part of the keys, with the slice's number. In static mode: each key's newest rows."""
    slice_index, set_index = slice_of_set
    postings = _build_slice(slice_of_set, inputs, boundaries, _listing_rule(inputs), inputs.first_new_rank)
    for key, chosen in route_keys(set_index, postings.values, inputs, hot_keys, slice_index):
        piece = postings.select(chosen)
        _shuffled_bytes.inc(piece.num_bytes())
        yield key, (slice_index, piece)


def route_keys(
    set_index: int, values: np.ndarray, inputs: PipelineInputs, hot_keys: HotKeys, slices: int | np.ndarray
) -> Iterator[tuple[tuple[int, int, int, int], np.ndarray]]:
    """Where keys are grouped, and bool [n] which of them.

    Args:
        set_index: the match set.
        values: int32 [n, G] distinct keys, or keys that ask.
        inputs: for the number of parts.
        hot_keys: the hot keys of all sets.
        slices: which slice of the pool's order each key stands or asks in, int or [n].
    """
    bits = inputs.config.pipeline.key_parts.bit_length() - 1
    hashes = hash_values(values)
    parts = (hashes >> np.uint64(64 - bits)).astype(np.int64) if bits else np.zeros(len(values), np.int64)
    is_hot = np.zeros(len(values), bool)
    for number, hot in enumerate(hot_keys.get(set_index, ())):
        same = (values == hot).all(axis=1)
        is_hot |= same
        for slice_index in np.unique(np.broadcast_to(slices, same.shape)[same]).tolist():
            chosen = same & (slices == slice_index)
            yield (set_index, int(parts[chosen][0]), number, slice_index), chosen
    for part in np.unique(parts[~is_hot]).tolist():
        yield (set_index, part, -1, -1), (parts == part) & ~is_hot


def write_part(
    key_and_pieces: tuple[tuple[int, int, int, int], Iterable[Any]], inputs: PipelineInputs
) -> dict[str, int]:
    """Merges the pieces of a part, oldest slice first, and writes its posting lists."""
    key, pieces = PartKey(*key_and_pieces[0]), key_and_pieces[1]
    postings = merge_pieces(pieces, inputs)
    with inputs.folder.writing(key.name) as path:
        write_set_postings(postings, path)
    num_keys = len(postings.values) if key.hot < 0 else 0  # a hot key has a part for every slice: `count_hot_keys`
    _num_keys.inc(num_keys)
    return {"posting_keys": num_keys, "hot_keys": 0, "posting_entries": len(postings.ranks)}


def count_hot_keys(set_and_keys: tuple[int, np.ndarray]) -> dict[str, int]:
    """Hot keys in the counts."""
    _num_keys.inc(len(set_and_keys[1]))
    return {"posting_keys": len(set_and_keys[1]), "hot_keys": len(set_and_keys[1])}


def merge_pieces(pieces: Iterable[tuple[int, SetPostings]], inputs: PipelineInputs) -> SetPostings:
    """One part's lists from its pieces, oldest slice first."""
    ordered = [piece for _, piece in sorted(pieces, key=lambda piece: piece[0])]
    return merge_set_postings(ordered, _listing_rule(inputs))


def _listing_rule(inputs: PipelineInputs) -> NewestRule | None:
    """Which rows of a key are listed; None: all."""
    config = inputs.config
    return newest_rule(build_match_sets(config.schema), config.split.mode == "rolling", config.retrieval)


def _carrying_rule(inputs: PipelineInputs) -> NewestRule:
    """Which rows of a hot key its later slices need."""
    retrieval = inputs.config.retrieval
    return NewestRule(retrieval.num_neighbours, retrieval.exclude_own_user)


def summarize_hot_piece(element: Keyed, inputs: PipelineInputs) -> Iterator[Keyed]:
    """What later slices need of a hot key's piece: its newest rows and its counts."""
    (set_index, part, hot, slice_index), (_, piece) = element
    if hot >= 0:
        yield (set_index, part, hot, -1), (slice_index, merge_set_postings([piece], _carrying_rule(inputs)))


def carry_hot_key(key_and_summaries: Keyed, inputs: PipelineInputs) -> Iterator[Keyed]:
    """Streams a hot key's slices in time order: each gets the newest rows and the counts of all that precede it.

    The state is bounded: K rows, or 2K where the own user is excluded.
    """
    (set_index, part, hot, _), summaries = key_and_summaries
    rule = _carrying_rule(inputs)
    by_slice: dict[int, SetPostings] = {}
    for slice_index, summary in sorted(summaries, key=lambda element: int(element[1].ranks[0])):
        before = (
            [by_slice[slice_index]] if slice_index in by_slice else []
        )  # what was appended to a slice comes after it
        by_slice[slice_index] = merge_set_postings([*before, summary], rule)
    num_slices = -(-len(read_rank_to_row(inputs)) // inputs.config.pipeline.pool_slice_rows)
    state: SetPostings | None = None
    for slice_index in range(num_slices + 1):  # one more: those who ask after the last row
        if state is not None:
            yield (set_index, part, hot, slice_index), (-1, state)
        if slice_index in by_slice:
            summary = by_slice[slice_index]
            state = summary if state is None else merge_set_postings([state, summary], rule)


def _build_slice(
    slice_of_set: SliceOfSet,
    inputs: PipelineInputs,
    boundaries: Boundaries,
    rule: NewestRule | None,
    first_rank: int = 0,
) -> SetPostings:
    """The posting lists of a match set over one slice, from a rank on."""
    slice_index, set_index = slice_of_set
    dataset, size = open_log(inputs, boundaries), inputs.config.pipeline.pool_slice_rows
    first = max(first_rank, slice_index * size)
    rows = np.asarray(read_rank_to_row(inputs)[first : (slice_index + 1) * size])
    ranks = np.arange(len(rows), dtype=np.int32) + np.int32(first)
    users = np.zeros(0, np.int32)
    if inputs.config.retrieval.exclude_own_user:
        users = dataset.log.fields[rows, inputs.config.schema.user_index]
    values = np.stack(
        [dataset.log.fields[rows, field] for field in dataset.info.match_sets.generators[set_index]], axis=1
    )
    return build_set_postings(values, ranks, dataset.positive[rows], users, rule)


def read_rank_to_row(inputs: PipelineInputs) -> np.ndarray:
    """int32 [N] row id at each rank of the pool's order, mapped from its file."""
    return np.load(inputs.folder.fetch(RANK_TO_ROW), mmap_mode="r")


def _pool_rows(dataset: Dataset) -> np.ndarray:
    """The pool's row ids, oldest first: all of them in rolling mode, those before train in static mode."""
    config, log = dataset.config, dataset.log
    if config.split.mode == "rolling":
        return log.time_order
    rows = np.flatnonzero(log.time < dataset.info.boundaries.train_from)
    stops = log.rows_before(
        log.fields[rows, config.schema.user_index], np.full(len(rows), dataset.info.boundaries.train_from)
    )
    preferred = stops - rows - 1 >= config.retrieval.min_future
    return rows[pool_order(log.time[rows], rows, preferred)]
