"""What the compiled lookup is given: posting lists, targets and room to work in."""

from typing import NamedTuple

import numpy as np

BLOCK = 128  # targets that advance together; what they need fits in the first two caches


class Tables(NamedTuple):
    """The posting lists of all match sets as the compiled functions take them; `PostingLists` documents the arrays."""

    rolling: bool
    lucene: bool
    score_fields: np.ndarray  # bool [S, Q]: the fields of each set
    base_sets: np.ndarray  # int32 [S]: a set of which each is a superset, -1 if there is none; it comes before it
    added_columns: np.ndarray  # int32 [S, Q]: the columns that each set has beyond that
    num_added: np.ndarray  # int32 [S]
    generators: np.ndarray  # int32 [S, G]: columns of each set's generators
    num_generators: np.ndarray  # int32 [S]
    single_sets: np.ndarray  # int32 [Q]: the smallest set of each column
    value_slots: np.ndarray
    value_starts: np.ndarray
    value_idf: np.ndarray  # int64: static mode: `bm25.idf_units` of each value, in the places of `value_slots`
    directory: np.ndarray
    directory_starts: np.ndarray
    directory_bits: np.ndarray
    slot_starts: np.ndarray
    tags: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    positives: np.ndarray
    ranks: np.ndarray
    rank_starts: np.ndarray
    positive_words: np.ndarray
    positives_before: np.ndarray
    rank_to_row: np.ndarray
    rank_to_fields: np.ndarray
    rank_to_user: np.ndarray


class Targets(NamedTuple):
    """n targets."""

    fields: np.ndarray  # int32 [n, Q]
    visible: np.ndarray  # int64 [n]: how many rows of the pool's order each may see
    own_users: np.ndarray  # int32 [n], or empty: nobody is excluded


class Memo(NamedTuple):
    """What the latest lookup of each set found, for the next target: candidates of one slate share the user's side of every key."""

    targets: np.ndarray  # int64 [S]: whose, -1 at first
    slots: np.ndarray  # int64 [S]: its slot, -1 if the key has no rows
    stops: np.ndarray  # int64 [S]: where its visible rows end in `ranks`


class Block(NamedTuple):
    """Room for B targets that advance together. An active one, which is not done, has a place among the first of the lower arrays."""

    idf: np.ndarray  # int64 [Q, B]
    packed: np.ndarray  # int64 [S, B]: score and number of each set that is not read, else -1
    best: np.ndarray  # int64 [B]: the largest of these
    top_ranks: np.ndarray  # int64 [B, K]
    top_scores: np.ndarray  # int64 [B, K]
    sizes: np.ndarray  # int64 [B]: how many rows stand in the top
    active: np.ndarray  # int64 [B]: which target
    sets: np.ndarray  # int64 [B]: the match set that it reads
    scores: np.ndarray  # int64 [B]: that set's
    hashes: np.ndarray  # uint64 [B]: its key's
    slots: np.ndarray  # int64 [B]: its key's bucket, then the first slot to compare, -1 for none
    ends: np.ndarray  # int64 [B]: where the bucket's slots end


class Scratch(NamedTuple):
    """Room to work in."""

    memo: Memo
    block: Block


def build_scratch(num_sets: int, num_columns: int, k: int) -> Scratch:
    """Room for lookups one after the other, the memo empty."""
    memo = Memo(np.full(num_sets, -1, np.int64), np.zeros(num_sets, np.int64), np.zeros(num_sets, np.int64))
    shapes = {
        "idf": (num_columns, BLOCK),
        "packed": (num_sets, BLOCK),
        "top_ranks": (BLOCK, k),
        "top_scores": (BLOCK, k),
    }
    arrays = {name: np.zeros(shapes.get(name, BLOCK), np.int64) for name in Block._fields}
    return Scratch(memo, Block(**(arrays | {"hashes": np.zeros(BLOCK, np.uint64)})))


def find_visiting_order(columns: np.ndarray) -> np.ndarray:
    """int64 [n], the targets sorted by their ids, as many fields as fit in 63 bits: those that share keys meet one after the other.

    Twice as fast, as what a target looks up is in the cache, or is what the one before it looked up.
    """
    limits = columns.max(axis=0, initial=0)
    packed, num_bits = columns[:, 0].astype(np.int64), int(limits[0]).bit_length()
    for column in 1 + np.argsort(limits[1:]):  # few ids first: more neighbours in the order share them
        num_bits += int(limits[column]).bit_length()
        if num_bits > 63:
            break
        packed = packed << int(limits[column]).bit_length() | columns[:, column]
    return np.argsort(packed)
