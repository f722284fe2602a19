"""The lookup of one key, compiled by numba: NumPy alone pays for every match set what a target needs of a few."""

import math
from typing import Any

import numpy as np

from tf_lift.retrieval.bm25 import SCORE_UNITS
from tf_lift.retrieval.compiled import compile_function, compile_inline
from tf_lift.retrieval.match_sets import HASH_MULTIPLIER, HASH_SHIFT
from tf_lift.schema import FIRST_VALUE_ID

_MULTIPLIER, _SHIFT = np.uint64(HASH_MULTIPLIER), np.uint64(HASH_SHIFT)
_TAG_MASK = np.uint64(0xFF)
_ONE, _WORD_BITS = np.uint64(1), np.uint64(64)


@compile_function
def count_rows(  # type: ignore[no-untyped-def]
    tables: Any, targets: Any, memo: Any, order: Any, statistics: Any, counts: Any, positives: Any
):
    """Fills `counts` and `positives` int32 [n, len(statistics)] with the visible rows of each target's key in some sets.

    `order` int64 [n] is where the answers of each target belong.
    """
    for target in range(len(targets.visible)):
        for place in range(len(statistics)):
            set_index = statistics[place]
            look_up(tables, targets, memo, set_index, target)
            counts[order[target], place] = _count(tables, memo, set_index)
            positives[order[target], place] = _count_positives(tables, memo, set_index)


@compile_inline
def look_up(tables, targets, memo, set_index, target):  # type: ignore[no-untyped-def]
    """Finds a target's key in one set and leaves slot and end in the memo."""
    fields = targets.fields
    before = memo.targets[set_index]
    num_generators = tables.num_generators[set_index]
    if before >= 0 and targets.visible[before] == targets.visible[target]:
        same = True
        for place in range(num_generators):
            column = tables.generators[set_index, place]
            same &= fields[before, column] == fields[target, column]
        if same:
            return
    memo.targets[set_index] = target
    memo.stops[set_index] = 0
    if num_generators == 1:
        slot = _find_value_slot(tables, fields[target, tables.generators[set_index, 0]], set_index)
    else:
        slot = _find_slot(tables, fields, target, set_index)
    memo.slots[set_index] = slot
    if slot < 0:
        return
    memo.stops[set_index] = find_stop(tables, targets, target, set_index, slot)


@compile_inline
def find_stop(tables, targets, target, set_index, slot):  # type: ignore[no-untyped-def]
    """Where in `ranks` the rows of a slot end that a target may see."""
    start = tables.rank_starts[set_index] + tables.starts[slot]
    stop = tables.rank_starts[set_index] + tables.starts[slot + 1]
    if tables.rolling:
        visible = targets.visible[target]
        while start < stop:
            middle = (start + stop) >> 1
            if tables.ranks[middle] < visible:
                start = middle + 1
            else:
                stop = middle
    return stop


@compile_inline
def _find_value_slot(tables, value, set_index):  # type: ignore[no-untyped-def]
    """The slot of an id in a set of one generator, -1 if no row has it."""
    start = tables.value_starts[set_index]
    if value < FIRST_VALUE_ID or value >= tables.value_starts[set_index + 1] - start:
        return np.int64(-1)
    slot = np.int64(tables.value_slots[start + value])
    return slot + tables.slot_starts[set_index] if slot >= 0 else slot


@compile_inline
def hash_key(tables, fields, target, set_index):  # type: ignore[no-untyped-def]
    """`match_sets.hash_values` of a target's key in one set."""
    mixed = np.uint64(0)
    for place in range(tables.num_generators[set_index]):
        mixed = (mixed ^ np.uint64(fields[target, tables.generators[set_index, place]])) * _MULTIPLIER
        mixed ^= mixed >> _SHIFT
    return mixed * _MULTIPLIER


@compile_inline
def find_bucket(tables, set_index, mixed):  # type: ignore[no-untyped-def]
    """Place in `directory` of a hash."""
    return tables.directory_starts[set_index] + np.int64(mixed >> (_WORD_BITS - tables.directory_bits[set_index]))


@compile_inline
def _find_slot(tables, fields, target, set_index):  # type: ignore[no-untyped-def]
    """The slot of a target's key in one set, -1 if no row has it."""
    for place in range(tables.num_generators[set_index]):
        if fields[target, tables.generators[set_index, place]] < FIRST_VALUE_ID:
            return np.int64(-1)
    mixed = hash_key(tables, fields, target, set_index)
    bucket, first_slot = find_bucket(tables, set_index, mixed), tables.slot_starts[set_index]
    begin, end = first_slot + tables.directory[bucket], first_slot + tables.directory[bucket + 1]
    return find_key(tables, fields, target, set_index, begin, end, mixed)


@compile_inline
def find_key(tables, fields, target, set_index, begin, end, mixed):  # type: ignore[no-untyped-def]
    """The slot from `begin` up to `end` of a target's key, whose hash is `mixed`; -1 if there is none."""
    slot = find_tag(tables, begin, end, mixed)
    while slot >= 0:
        rank = tables.ranks[tables.rank_starts[set_index] + tables.starts[slot]]
        same = True
        for place in range(tables.num_generators[set_index]):
            column = tables.generators[set_index, place]
            same &= tables.rank_to_fields[rank, column] == fields[target, column]
        if same:
            break
        slot = find_tag(tables, slot + 1, end, mixed)
    return slot


@compile_inline
def find_tag(tables, begin, end, mixed):  # type: ignore[no-untyped-def]
    """The first slot from `begin` up to `end` that has a hash's tag, -1 if none has."""
    tag = np.uint8(mixed & _TAG_MASK)
    for slot in range(begin, end):
        if tables.tags[slot] == tag:
            return np.int64(slot)
    return np.int64(-1)


@compile_inline
def _count(tables, memo, set_index):  # type: ignore[no-untyped-def]
    slot = memo.slots[set_index]
    if slot < 0:
        return np.int64(0)
    if tables.rolling:
        return memo.stops[set_index] - tables.rank_starts[set_index] - tables.starts[slot]
    return np.int64(tables.counts[slot])


@compile_inline
def _count_positives(tables, memo, set_index):  # type: ignore[no-untyped-def]
    slot = memo.slots[set_index]
    if slot < 0:
        return np.int64(0)
    if tables.rolling:
        start = tables.rank_starts[set_index] + tables.starts[slot]
        return _positives_before(tables, memo.stops[set_index]) - _positives_before(tables, start)
    return np.int64(tables.positives[slot])


@compile_inline
def _positives_before(tables, place):  # type: ignore[no-untyped-def]
    """How many of the entries before a place of `ranks` have label 1: whole words counted before, and bits of one word."""
    word = place >> 6
    total = np.int64(tables.positives_before[word])
    bits = tables.positive_words[word] & ((_ONE << np.uint64(place & 63)) - _ONE)
    while bits:
        bits &= bits - _ONE
        total += 1
    return total


@compile_inline
def find_idf(tables, targets, memo, target, idf, member):  # type: ignore[no-untyped-def]
    """Fills a column of `idf` int64 [Q, B] with `bm25.idf_units` of the target's values, -1 where no visible row has one."""
    num_rows = targets.visible[target]
    for column in range(len(idf)):
        set_index = tables.single_sets[column]
        if not tables.rolling:
            value, start = targets.fields[target, column], tables.value_starts[set_index]
            known = value >= FIRST_VALUE_ID and value < tables.value_starts[set_index + 1] - start
            idf[column, member] = tables.value_idf[start + value] if known else -1
            continue
        look_up(tables, targets, memo, set_index, target)
        matches = _count(tables, memo, set_index)
        idf[column, member] = -1
        if matches > 0:
            odds = (num_rows - matches + 0.5) / (matches + 0.5)
            term = math.log(1.0 + odds) if tables.lucene else math.log(odds)
            idf[column, member] = np.int64(np.rint(max(term, 0.0) * SCORE_UNITS))
