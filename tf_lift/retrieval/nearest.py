"""The exact top K of targets, compiled by numba: a block of targets advances together, so that it waits for memory together."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tf_lift.retrieval.bm25 import SCORE_UNITS
from tf_lift.retrieval.compiled import compile_function, compile_inline
from tf_lift.retrieval.lookup import (
    find_bucket,
    find_idf,
    find_key,
    find_stop,
    find_tag,
    hash_key,
    look_up,
)
from tf_lift.retrieval.match_sets import MAX_MATCH_SETS

_SET_BITS = MAX_MATCH_SETS.bit_length()
_SET_MASK = np.int64((1 << _SET_BITS) - 1)


@compile_function
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

    In each round every target of a block that is not done reads its next set. What a lookup reads lies in main memory, at
    addresses that the reading before gave, so that each step is taken for the whole block: its readings wait together.

    `order` int64 [n] is where the answers of each target belong.
    """
    memo, block = scratch
    for first in range(0, len(targets.visible), len(block.sizes)):
        size = min(len(block.sizes), len(targets.visible) - first)
        for member in range(size):
            block.active[member], block.sizes[member] = member, 0
            find_idf(tables, targets, memo, first + member, block.idf, member)
        _score_sets(tables, block, size)
        num_active = _choose_sets(block, size, size)
        while num_active > 0:
            _find_slots(tables, targets, block, first, num_active)
            for place in range(num_active):
                if block.slots[place] >= 0:
                    _take_newest(tables, targets, block, first, place, is_complete)
            num_active = _choose_sets(block, size, num_active)
        for member in range(size):
            if not is_complete:
                _scan_supersets(tables, targets, memo, block, first, member, depth)
            answer = order[first + member]
            for place in range(block.sizes[member]):
                rows[answer, place] = tables.rank_to_row[block.top_ranks[member, place]]
                scores[answer, place] = block.top_scores[member, place] / SCORE_UNITS


@intrinsic
def _prefetch(typing_context, array, place):  # type: ignore[no-untyped-def]
    """Asks for the first bytes of `array[place]`, and does not wait for them."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        stride = builder.extract_value(view.strides, 0)
        address = builder.add(builder.ptrtoint(view.data, stride.type), builder.mul(arguments[1], stride))
        pointer, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        prefetch = builder.module.declare_intrinsic(
            "llvm.prefetch", [pointer], ir.FunctionType(ir.VoidType(), [pointer, flag, flag, flag])
        )
        builder.call(prefetch, [builder.inttoptr(address, pointer), flag(0), flag(3), flag(1)])  # read, keep, data
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@compile_inline
def _score_sets(tables, block, size):  # type: ignore[no-untyped-def]
    """Fills `packed` with the scores of rows that match exactly each set; -1 where no row has the target's value of a generator.

    A field that is only determined may be missing in target and rows alike: it adds nothing, and takes nothing away.
    """
    idf, packed = block.idf, block.packed
    for set_index in range(len(packed)):
        base = tables.base_sets[set_index]
        for member in range(size):
            packed[set_index, member] = packed[base, member] if base >= 0 else 0
        for place in range(tables.num_added[set_index]):
            column = tables.added_columns[set_index, place]
            for member in range(size):
                packed[set_index, member] += max(idf[column, member], 0)
    for set_index in range(len(packed)):
        for member in range(size):
            packed[set_index, member] = _pack(packed[set_index, member], set_index)
        for place in range(tables.num_generators[set_index]):
            column = tables.generators[set_index, place]
            for member in range(size):
                packed[set_index, member] = packed[set_index, member] if idf[column, member] >= 0 else -1


@compile_inline
def _pack(score, set_index):  # type: ignore[no-untyped-def]
    """Score and set in one number, so that the largest is found without a branch; of equal scores the first set."""
    return score << _SET_BITS | (_SET_MASK - set_index)


@compile_inline
def _unpack(number):  # type: ignore[no-untyped-def]
    """Set and score."""
    return _SET_MASK - (number & _SET_MASK), number >> _SET_BITS


@compile_inline
def _choose_sets(block, size, num_active):  # type: ignore[no-untyped-def]
    """Gives each active target the best set that it has not read; returns how many targets go on, the first of `active`."""
    best, packed, k = block.best, block.packed, block.top_ranks.shape[1]
    best[:] = -1
    for set_index in range(len(packed)):
        for member in range(size):
            best[member] = max(best[member], packed[set_index, member])
    kept = 0
    for place in range(num_active):
        member = block.active[place]
        set_index, score = _unpack(best[member])
        if best[member] >= 0 and (block.sizes[member] < k or score >= block.top_scores[member, k - 1]):
            packed[set_index, member] = -1
            block.active[kept], block.sets[kept], block.scores[kept] = member, set_index, score
            kept += 1
    return kept


@compile_inline
def _find_slots(tables, targets, block, first, num_active):  # type: ignore[no-untyped-def]
    """Fills `slots` with the first slot that has the tag of each active target's key, -1 where none has; asks for its rows."""
    for place in range(num_active):
        set_index = block.sets[place]
        block.hashes[place] = hash_key(tables, targets.fields, first + block.active[place], set_index)
        block.slots[place] = find_bucket(tables, set_index, block.hashes[place])
        _prefetch(tables.directory, block.slots[place])
    for place in range(num_active):
        bucket, first_slot = block.slots[place], tables.slot_starts[block.sets[place]]
        block.slots[place] = first_slot + tables.directory[bucket]
        block.ends[place] = first_slot + tables.directory[bucket + 1]
        _prefetch(tables.tags, block.slots[place])
        _prefetch(tables.starts, block.slots[place])
    for place in range(num_active):
        slot = find_tag(tables, block.slots[place], block.ends[place], block.hashes[place])
        block.slots[place] = slot
        if slot >= 0:
            start = tables.rank_starts[block.sets[place]]
            _prefetch(tables.ranks, start + tables.starts[slot])
            _prefetch(tables.ranks, start + tables.starts[slot + 1] - 1)
    for place in range(num_active):
        slot = block.slots[place]
        if slot >= 0:
            rank = tables.ranks[tables.rank_starts[block.sets[place]] + tables.starts[slot]]
            _prefetch(tables.rank_to_fields, np.int64(rank))


@compile_inline
def _take_newest(tables, targets, block, first, place, is_complete):  # type: ignore[no-untyped-def]
    """Puts the newest K rows of an active target's key among its top; unless all sets have lists, each row is scored."""
    member, set_index, score = block.active[place], block.sets[place], block.scores[place]
    target = first + member
    slot = find_key(
        tables, targets.fields, target, set_index, block.slots[place], block.ends[place], block.hashes[place]
    )
    if slot < 0:
        return
    start = tables.rank_starts[set_index] + tables.starts[slot]
    entry = find_stop(tables, targets, target, set_index, slot) - 1
    left = block.top_ranks.shape[1]
    num_others = block.sizes[member]
    while left > 0 and entry >= start:
        rank = np.int64(tables.ranks[entry])
        entry -= 1
        if len(targets.own_users) and tables.rank_to_user[rank] == targets.own_users[target]:
            continue
        left -= 1
        if not is_complete:
            score = _score_row(tables, targets, target, block, member, rank)
        if _is_among_top(block, member, score, rank):
            num_others = _insert(tables, block, member, score, rank, num_others)
        elif is_complete:
            break  # older rows of this set are below the top as well


@compile_inline
def _score_row(tables, targets, target, block, member, rank):  # type: ignore[no-untyped-def]
    """Eq. 12 for one row."""
    score = np.int64(0)
    for column in range(len(block.idf)):
        idf = block.idf[column, member]
        if idf > 0 and tables.rank_to_fields[rank, column] == targets.fields[target, column]:
            score += idf
    return score


@compile_inline
def _is_among_top(block, member, score, rank):  # type: ignore[no-untyped-def]
    last = block.top_ranks.shape[1] - 1
    return block.sizes[member] <= last or _is_above(
        score, rank, block.top_scores[member, last], block.top_ranks[member, last]
    )


@compile_inline
def _is_above(score, rank, other_score, other_rank):  # type: ignore[no-untyped-def]
    return score > other_score or (score == other_score and rank > other_rank)


@compile_inline
def _insert(tables, block, member, score, rank, num_others):  # type: ignore[no-untyped-def]
    """Puts a row in its place among the top, unless it stands there; its first score is its true one.

    It can only stand among the first `num_others`, which other sets' rows take. Returns how many first places these take then.
    """
    top_ranks, top_scores = block.top_ranks, block.top_scores
    stands = False
    for place in range(num_others):
        stands |= top_ranks[member, place] == rank
    if stands:
        return num_others
    if block.sizes[member] < top_ranks.shape[1]:
        block.sizes[member] += 1
    size = block.sizes[member]
    place = size - 1
    while place > 0 and _is_above(score, rank, top_scores[member, place - 1], top_ranks[member, place - 1]):
        top_scores[member, place], top_ranks[member, place] = (
            top_scores[member, place - 1],
            top_ranks[member, place - 1],
        )
        place -= 1
    top_scores[member, place], top_ranks[member, place] = score, rank
    _prefetch(tables.rank_to_row, rank)
    return min(num_others + 1, size) if place < num_others else num_others


@compile_inline
def _scan_supersets(tables, targets, memo, block, first, member, depth):  # type: ignore[no-untyped-def]
    """Reads to their end the lists of sets whose upper bound reaches the last of the top K (see `find_nearest`)."""
    bounds, k, target = block.packed, block.top_ranks.shape[1], first + member
    for set_index in range(len(bounds)):
        bound = _bound_supersets(tables, block, member, depth, set_index)
        bounds[set_index, member] = _pack(bound, set_index) if bound >= 0 else -1
    while True:
        best = np.int64(-1)
        for set_index in range(len(bounds)):
            best = max(best, bounds[set_index, member])
        set_index, bound = _unpack(best)
        if best < 0 or (block.sizes[member] == k and bound < block.top_scores[member, k - 1]):
            return
        bounds[set_index, member] = -1
        look_up(tables, targets, memo, set_index, target)
        if memo.slots[set_index] < 0:
            continue
        start = tables.rank_starts[set_index] + tables.starts[memo.slots[set_index]]
        for entry in range(memo.stops[set_index] - 1, start - 1, -1):
            rank = np.int64(tables.ranks[entry])
            if len(targets.own_users) and tables.rank_to_user[rank] == targets.own_users[target]:
                continue
            score = _score_row(tables, targets, target, block, member, rank)
            if _is_among_top(block, member, score, rank):
                _insert(tables, block, member, score, rank, block.sizes[member])


@compile_inline
def _bound_supersets(tables, block, member, depth, set_index):  # type: ignore[no-untyped-def]
    """The highest score of a row found under a set that matches more than the set holds; -1 if there can be none."""
    idf = block.idf
    score, num_fields, least, extra = np.int64(0), 0, np.int64(1 << 62), np.int64(-1)
    for column in range(len(idf)):
        if tables.score_fields[set_index, column]:
            score += max(idf[column, member], 0)
            num_fields += 1
    for place in range(tables.num_generators[set_index]):
        least = min(least, idf[tables.generators[set_index, place], member])
    if least < 0:
        return np.int64(-1)
    for column in range(len(idf)):
        if not tables.score_fields[set_index, column] and 0 <= idf[column, member] <= least:
            extra = max(extra, 0) + idf[column, member]
    if num_fields < depth or extra < 0:
        return np.int64(-1)
    return score + extra
