"""The lookup of posting lists, compiled by numba: NumPy alone pays for every match set what a target needs of a few."""

import math
from typing import Any

import numpy as np
from numba import njit

from tf_lift.retrieval.bm25 import SCORE_UNITS
from tf_lift.retrieval.lookup_tables import BLOCK, NUM_AHEAD, can_cache
from tf_lift.retrieval.match_sets import HASH_MULTIPLIER, HASH_SHIFT
from tf_lift.schema import FIRST_VALUE_ID

# Without reference counts, which numba would keep for every array of `Tables` at every step: 2.5 times as fast. What a function
# needs beyond scalars is therefore given to it.
_OPTIONS: dict[str, Any] = {"cache": can_cache(), "nogil": True, "error_model": "numpy", "_nrt": False}
_compile = njit(**_OPTIONS)
_inline = njit(**_OPTIONS, forceinline=True)
_MULTIPLIER, _SHIFT = np.uint64(HASH_MULTIPLIER), np.uint64(HASH_SHIFT)
_TAG_MASK = np.uint64(0xFF)
_ONE, _WORD_BITS = np.uint64(1), np.uint64(64)


@_compile
def count_matches(  # type: ignore[no-untyped-def]
    tables: Any, targets: Any, scratch: Any, order: Any, statistics: Any, counts: Any, positives: Any
):
    """Fills `counts` and `positives` int32 [n, len(statistics)] with the visible rows of each target's key in some sets.

    `order` int64 [n] is where the answers of each target belong.
    """
    memo = scratch.memo
    for target in range(len(targets.visible)):
        for place in range(len(statistics)):
            set_index = statistics[place]
            _look_up(tables, targets, memo, set_index, target)
            counts[order[target], place] = _count(tables, memo, set_index)
            positives[order[target], place] = _count_positives(tables, memo, set_index)


@_compile
def find_nearest(  # type: ignore[no-untyped-def]
    tables: Any, targets: Any, scratch: Any, order: Any, is_complete: bool, depth: int, rows: Any, scores: Any
):
    """Fills `rows` int32 and `scores` float32 [n, K] with each target's exact top K, and leaves them where fewer rows match.

    Sets are read in the order of their score. A row is met first under the set of exactly its matching fields, or else K
    newer rows of that set outrank it; so the top K stand once the next set's score is below the last of them.

    Where not all closed sets have lists (`is_complete` is False), a row may match more fields than any set holds. Let R be the
    `depth` fields of highest idf that it matches, and T the closure of R, which has a list. The fields that the row matches beyond
    T have at most the least idf of T's generators; the sum of these is an upper bound of the row's score. Every T whose bound
    reaches the last of the top K is read to its end, and its rows are scored by comparing their fields.

    `order` int64 [n] is where the answers of each target belong.
    """
    memo, idf, set_scores, top_ranks, top_scores, ahead = scratch
    for target in range(len(targets.visible)):
        if target % BLOCK == 0:
            _read_ahead(tables, targets, memo, idf, set_scores, target, ahead)
        _find_idf(tables, targets, memo, target, idf)
        _score_sets(tables, idf, set_scores)
        size = 0
        while True:
            set_index, score = _pop_best(set_scores)
            if set_index < 0 or (size == len(top_ranks) and score < top_scores[size - 1]):
                break
            _look_up(tables, targets, memo, set_index, target)
            known_score = score if is_complete else np.int64(-1)
            size = _take_newest(tables, targets, memo, set_index, target, idf, known_score, top_ranks, top_scores, size)
        if not is_complete:
            size = _scan_supersets(tables, targets, memo, target, idf, set_scores, depth, top_ranks, top_scores, size)
        for place in range(size):
            rows[order[target], place] = tables.rank_to_row[top_ranks[place]]
            scores[order[target], place] = top_scores[place] / SCORE_UNITS


@_compile
def _read_ahead(tables, targets, memo, idf, set_scores, first, ahead):  # type: ignore[no-untyped-def]
    """Reads what the lookups of the next targets will read, and forgets it: then it is in the cache.

    A lookup waits for main memory four times, each time for an address that the one before gave. Read for many keys at once,
    step by step, they wait together.
    """
    num_keys = _hash_best_sets(tables, targets, memo, idf, set_scores, first, ahead)
    total = np.int64(0)
    for key in range(num_keys):
        total += tables.directory[ahead.places[key]]
    for key in range(num_keys):
        total += _read_slot(tables, ahead, key)
    for key in range(num_keys):
        slot = ahead.places[key]
        if slot >= 0:
            start = tables.rank_starts[ahead.sets[key]]
            ahead.places[key] = tables.ranks[start + tables.starts[slot]]
            total += tables.ranks[start + tables.starts[slot + 1] - 1]
    for key in range(num_keys):
        if ahead.places[key] >= 0:
            total += tables.rank_to_fields[ahead.places[key], 0]
    ahead.sink[0] = total


@_inline
def _hash_best_sets(tables, targets, memo, idf, set_scores, first, ahead):  # type: ignore[no-untyped-def]
    """Fills `ahead` with the hashes and buckets of the best sets' keys; returns how many there are."""
    num_keys = 0
    for target in range(first, min(first + BLOCK, len(targets.visible))):
        _find_idf(tables, targets, memo, target, idf)
        _score_sets(tables, idf, set_scores)
        for _ in range(NUM_AHEAD):
            set_index, _score = _pop_best(set_scores)
            if set_index >= 0 and tables.num_generators[set_index] > 1:
                mixed = _hash_key(tables, targets.fields, target, set_index)
                ahead.sets[num_keys], ahead.hashes[num_keys] = set_index, mixed
                ahead.places[num_keys] = _find_bucket(tables, set_index, mixed)
                num_keys += 1
    return num_keys


@_inline
def _read_slot(tables, ahead, key):  # type: ignore[no-untyped-def]
    """Replaces a bucket by the first of its slots that has the key's tag, -1 if none has; returns something it read."""
    bucket, first_slot = ahead.places[key], tables.slot_starts[ahead.sets[key]]
    tag = np.uint8(ahead.hashes[key] & _TAG_MASK)
    ahead.places[key] = -1
    for slot in range(first_slot + tables.directory[bucket], first_slot + tables.directory[bucket + 1]):
        if tables.tags[slot] == tag:
            ahead.places[key] = slot
            return np.int64(tables.starts[slot])
    return np.int64(0)


@_inline
def _look_up(tables, targets, memo, set_index, target):  # type: ignore[no-untyped-def]
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
    start = tables.rank_starts[set_index] + tables.starts[slot]
    stop = tables.rank_starts[set_index] + tables.starts[slot + 1]
    if tables.rolling:
        visible = targets.visible[target]
        low = start
        while low < stop:
            middle = (low + stop) >> 1
            if tables.ranks[middle] < visible:
                low = middle + 1
            else:
                stop = middle
    memo.stops[set_index] = stop


@_inline
def _find_value_slot(tables, value, set_index):  # type: ignore[no-untyped-def]
    """The slot of an id in a set of one generator, -1 if no row has it."""
    start = tables.value_starts[set_index]
    if value < FIRST_VALUE_ID or value >= tables.value_starts[set_index + 1] - start:
        return np.int64(-1)
    slot = np.int64(tables.value_slots[start + value])
    return slot + tables.slot_starts[set_index] if slot >= 0 else slot


@_inline
def _hash_key(tables, fields, target, set_index):  # type: ignore[no-untyped-def]
    """`match_sets.hash_values` of a target's key in one set."""
    mixed = np.uint64(0)
    for place in range(tables.num_generators[set_index]):
        mixed = (mixed ^ np.uint64(fields[target, tables.generators[set_index, place]])) * _MULTIPLIER
        mixed ^= mixed >> _SHIFT
    return mixed * _MULTIPLIER


@_inline
def _find_bucket(tables, set_index, mixed):  # type: ignore[no-untyped-def]
    """Place in `directory` of a hash."""
    return tables.directory_starts[set_index] + np.int64(mixed >> (_WORD_BITS - tables.directory_bits[set_index]))


@_inline
def _find_slot(tables, fields, target, set_index):  # type: ignore[no-untyped-def]
    """The slot of a target's key in one set, -1 if no row has it."""
    num_generators = tables.num_generators[set_index]
    for place in range(num_generators):
        if fields[target, tables.generators[set_index, place]] < FIRST_VALUE_ID:
            return np.int64(-1)
    mixed = _hash_key(tables, fields, target, set_index)
    bucket = _find_bucket(tables, set_index, mixed)
    tag = np.uint8(mixed & _TAG_MASK)
    first_slot = tables.slot_starts[set_index]
    for slot in range(first_slot + tables.directory[bucket], first_slot + tables.directory[bucket + 1]):
        if tables.tags[slot] == tag:
            rank = tables.ranks[tables.rank_starts[set_index] + tables.starts[slot]]
            same = True
            for place in range(num_generators):
                column = tables.generators[set_index, place]
                same &= tables.rank_to_fields[rank, column] == fields[target, column]
            if same:
                return np.int64(slot)
    return np.int64(-1)


@_inline
def _count(tables, memo, set_index):  # type: ignore[no-untyped-def]
    slot = memo.slots[set_index]
    if slot < 0:
        return np.int64(0)
    if tables.rolling:
        return memo.stops[set_index] - tables.rank_starts[set_index] - tables.starts[slot]
    return np.int64(tables.counts[slot])


@_inline
def _count_positives(tables, memo, set_index):  # type: ignore[no-untyped-def]
    slot = memo.slots[set_index]
    if slot < 0:
        return np.int64(0)
    if tables.rolling:
        start = tables.rank_starts[set_index] + tables.starts[slot]
        return _positives_before(tables, memo.stops[set_index]) - _positives_before(tables, start)
    return np.int64(tables.positives[slot])


@_inline
def _positives_before(tables, place):  # type: ignore[no-untyped-def]
    """How many of the entries before a place of `ranks` have label 1: whole words counted before, and bits of one word."""
    word = place >> 6
    total = np.int64(tables.positives_before[word])
    bits = tables.positive_words[word] & ((_ONE << np.uint64(place & 63)) - _ONE)
    while bits:
        bits &= bits - _ONE
        total += 1
    return total


@_inline
def _find_idf(tables, targets, memo, target, idf):  # type: ignore[no-untyped-def]
    """Fills `idf` int64 [Q] with `bm25.idf_units` of the target's values, -1 where no visible row has one."""
    num_rows = targets.visible[target]
    for column in range(len(idf)):
        set_index = tables.single_sets[column]
        if not tables.rolling:
            value, start = targets.fields[target, column], tables.value_starts[set_index]
            known = value >= FIRST_VALUE_ID and value < tables.value_starts[set_index + 1] - start
            idf[column] = tables.value_idf[start + value] if known else -1
            continue
        _look_up(tables, targets, memo, set_index, target)
        matches = _count(tables, memo, set_index)
        idf[column] = -1
        if matches > 0:
            odds = (num_rows - matches + 0.5) / (matches + 0.5)
            term = math.log(1.0 + odds) if tables.lucene else math.log(odds)
            idf[column] = np.int64(np.rint(max(term, 0.0) * SCORE_UNITS))


@_inline
def _score_sets(tables, idf, set_scores):  # type: ignore[no-untyped-def]
    """Fills the scores of rows that match exactly each set; -1 where none can, as no row has the target's value of a generator.

    A field that is only determined may be missing in target and rows alike: it adds nothing, and takes nothing away.
    """
    for set_index in range(len(set_scores)):
        base = tables.base_sets[set_index]
        score = set_scores[base] if base >= 0 else np.int64(0)
        for place in range(tables.num_added[set_index]):
            score += max(idf[tables.added_columns[set_index, place]], 0)
        set_scores[set_index] = score
    for set_index in range(len(set_scores)):
        for place in range(tables.num_generators[set_index]):
            if idf[tables.generators[set_index, place]] < 0:
                set_scores[set_index] = -1


@_inline
def _pop_best(set_scores):  # type: ignore[no-untyped-def]
    """The set of the highest score, which is then taken out, and the score; -1 and -1 if none is left."""
    best, best_score = np.int64(-1), np.int64(-1)
    for set_index in range(len(set_scores)):
        if set_scores[set_index] > best_score:
            best, best_score = np.int64(set_index), set_scores[set_index]
    if best >= 0:
        set_scores[best] = -1
    return best, best_score


@_inline
def _take_newest(tables, targets, memo, set_index, target, idf, known_score, top_ranks, top_scores, size):  # type: ignore[no-untyped-def]
    """Puts the newest K rows of a target's key among the top; returns how many stand there. Unknown scores (-1) are computed."""
    slot = memo.slots[set_index]
    if slot < 0:
        return size
    start = tables.rank_starts[set_index] + tables.starts[slot]
    place = memo.stops[set_index] - 1
    left = len(top_ranks)
    while left > 0 and place >= start:
        rank = np.int64(tables.ranks[place])
        place -= 1
        if len(targets.own_users) and tables.rank_to_user[rank] == targets.own_users[target]:
            continue
        left -= 1
        score = known_score if known_score >= 0 else _score_row(tables, targets, target, idf, rank)
        if size < len(top_ranks) or _is_above(score, rank, top_scores[size - 1], top_ranks[size - 1]):
            size = _insert(score, rank, top_ranks, top_scores, size)
        elif known_score >= 0:
            break  # older rows of this set are below the top as well
    return size


@_inline
def _score_row(tables, targets, target, idf, rank):  # type: ignore[no-untyped-def]
    """Eq. 12 for one row."""
    score = np.int64(0)
    for column in range(len(idf)):
        if idf[column] > 0 and tables.rank_to_fields[rank, column] == targets.fields[target, column]:
            score += idf[column]
    return score


@_inline
def _is_above(score, rank, other_score, other_rank):  # type: ignore[no-untyped-def]
    return score > other_score or (score == other_score and rank > other_rank)


@_inline
def _insert(score, rank, top_ranks, top_scores, size):  # type: ignore[no-untyped-def]
    """Puts a row in its place among the top, unless it stands there; its first score is its true one."""
    for place in range(size):
        if top_ranks[place] == rank:
            return size
    place = size
    if size == len(top_ranks):
        place = size - 1
    else:
        size += 1
    while place > 0 and _is_above(score, rank, top_scores[place - 1], top_ranks[place - 1]):
        top_scores[place], top_ranks[place] = top_scores[place - 1], top_ranks[place - 1]
        place -= 1
    top_scores[place], top_ranks[place] = score, rank
    return size


@_inline
def _scan_supersets(tables, targets, memo, target, idf, bounds, depth, top_ranks, top_scores, size):  # type: ignore[no-untyped-def]
    """Reads to their end the lists of sets whose upper bound reaches the last of the top K (see `find_nearest`)."""
    for set_index in range(len(bounds)):
        bounds[set_index] = _bound_supersets(tables, idf, depth, set_index)
    while True:
        set_index, bound = _pop_best(bounds)
        if set_index < 0 or (size == len(top_ranks) and bound < top_scores[size - 1]):
            return size
        _look_up(tables, targets, memo, set_index, target)
        slot = memo.slots[set_index]
        if slot < 0:
            continue
        start = tables.rank_starts[set_index] + tables.starts[slot]
        for place in range(memo.stops[set_index] - 1, start - 1, -1):
            rank = np.int64(tables.ranks[place])
            if len(targets.own_users) and tables.rank_to_user[rank] == targets.own_users[target]:
                continue
            score = _score_row(tables, targets, target, idf, rank)
            if size < len(top_ranks) or _is_above(score, rank, top_scores[size - 1], top_ranks[size - 1]):
                size = _insert(score, rank, top_ranks, top_scores, size)


@_inline
def _bound_supersets(tables, idf, depth, set_index):  # type: ignore[no-untyped-def]
    """The highest score of a row found under a set that matches more than the set holds; -1 if there can be none."""
    score, num_fields, least, extra = np.int64(0), 0, np.int64(1 << 62), np.int64(-1)
    for column in range(len(idf)):
        if tables.score_fields[set_index, column]:
            score += max(idf[column], 0)
            num_fields += 1
    for place in range(tables.num_generators[set_index]):
        least = min(least, idf[tables.generators[set_index, place]])
    if least < 0:
        return np.int64(-1)
    for column in range(len(idf)):
        if not tables.score_fields[set_index, column] and 0 <= idf[column] <= least:
            extra = max(extra, 0) + idf[column]
    if num_fields < depth or extra < 0:
        return np.int64(-1)
    return score + extra
