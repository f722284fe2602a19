"""Posting lists: for every match set and values, the pool rows that have them, oldest first."""

import dataclasses
import functools
import math
from typing import Literal, NamedTuple

import numpy as np

from tf_lift.config import Retrieval
from tf_lift.interactions import NO_ROW
from tf_lift.retrieval import lookup, lookup_tables, nearest
from tf_lift.retrieval.bm25 import idf_units
from tf_lift.retrieval.match_sets import MatchSets, hash_values
from tf_lift.retrieval.set_postings import NewestRule, SetPostings, build_set_postings, newest_rule
from tf_lift.schema import FIRST_VALUE_ID

_TARGETS_AT_ONCE = 1 << 16  # bounds the memory of a lookup beyond its answer to 16 K bytes a target of these
_BUILD_PARTS = 16  # slices of the key space that are sorted one after the other: what sorting needs is that much less


class PoolRows(NamedTuple):
    """The N rows of the retrieval pool in the pool's order (`pool_order`): a row's place here is its rank.

    In rolling mode the order is (time, row id), so "before t" is a prefix of every list. In static mode the whole pool
    precedes every target, and the order may prefer rows with long futures (`min_future`).

    Attributes:
        fields: int32 [N, M] ids.
        time: int64 [N] epoch seconds.
        user: int32 [N] user ids.
        positive: bool [N] labels.
        row: int32 [N] row ids.
    """

    fields: np.ndarray
    time: np.ndarray
    user: np.ndarray
    positive: np.ndarray
    row: np.ndarray


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """What retrieval answers for n targets.

    Attributes:
        rows: int32 [n, K] row ids by score descending, then newest first; NO_ROW where fewer exist.
        scores: float32 [n, K] BM25 scores; 0 where there is no row.
        counts: int32 [n, S'] pool rows of each target's key in the chosen match sets, before its time.
        positives: int32 [n, S'] how many of them have label 1.
    """

    rows: np.ndarray
    scores: np.ndarray
    counts: np.ndarray
    positives: np.ndarray


@dataclasses.dataclass(frozen=True)
class PostingLists:
    """All posting lists of a pool.

    A key (a set's generators and their ids) has a slot, and the slots of a set are in the order of their hash. A directory over the
    hash's first bits says where to look; an 8-bit tag says which slots need not be compared; and the key itself is not
    stored: it is compared with the fields of the first row of its list.

    Attributes:
        match_sets: the S match sets.
        rolling: whether lists are cut at the target's time.
        rule: which rows were listed; None: all.
        directory: int32, for each set 2^bits + 1 first slots (numbered within the set) of the hashes that begin with each bits.
        directory_starts: int64 [S] where each set's part of `directory` begins.
        directory_bits: uint64 [S].
        slot_starts: int64 [S] the first slot of each set; each set has one slot more than keys, for its end.
        tags: uint8 [slots] last 8 bits of each key's hash.
        starts: int32 [slots] where each key's rows begin, within its set's part of `ranks`.
        value_slots: int32, for each set of one generator the slot of every id (numbered within the set), -1 where no row has it.
        value_starts: int64 [S + 1] where each set's part of `value_slots` begins; sets of several generators have none.
        counts, positives: static mode: int32 [slots] rows of each key and how many have label 1. Rolling: empty.
        ranks: int32 [P] the rows of each key, ascending.
        rank_starts: int64 [S] where each set's part of `ranks` begins.
        positive_words: uint64 [P // 64 + 1], rolling mode: a bit an entry of `ranks`, 1 where the label is. Static: empty.
        positives_before: int32 of the same length: how many of the entries before each word have label 1.
        rank_to_row: int32 [N] row id at each rank.
        rank_to_time: int64 [N] time at each rank; empty in static mode.
        rank_to_fields: int32 [N, Q] ids of the query fields at each rank.
        rank_to_user: int32 [N] user id at each rank if the own user is excluded, else empty.
    """

    match_sets: MatchSets
    rolling: bool
    rule: NewestRule | None
    directory: np.ndarray
    directory_starts: np.ndarray
    directory_bits: np.ndarray
    slot_starts: np.ndarray
    tags: np.ndarray
    starts: np.ndarray
    value_slots: np.ndarray
    value_starts: np.ndarray
    counts: np.ndarray
    positives: np.ndarray
    ranks: np.ndarray
    rank_starts: np.ndarray
    positive_words: np.ndarray
    positives_before: np.ndarray
    rank_to_row: np.ndarray
    rank_to_time: np.ndarray
    rank_to_fields: np.ndarray
    rank_to_user: np.ndarray

    def num_bytes(self) -> int:
        """Bytes of all arrays."""
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return sum(value.nbytes for value in values if isinstance(value, np.ndarray))

    def num_rows_before(self, times: np.ndarray) -> np.ndarray:
        """Number of pool rows that a target may see: a prefix of the pool's order.

        Args:
            times: int64 [n] as-of times.

        Returns:
            int64 [n].
        """
        if self.rolling:
            return np.searchsorted(self.rank_to_time, times, side="left")
        return np.full(len(times), len(self.rank_to_row), np.int64)

    def nearest(
        self,
        fields: np.ndarray,
        times: np.ndarray,
        retrieval: Retrieval,
        own_users: np.ndarray | None = None,
        statistics: tuple[int, ...] = (),
    ) -> Neighbours:
        """The exact top K of eq. 12 for each target: score descending, then newest, then highest row id.

        Args:
            fields: int32 [n, M] ids of the targets.
            times: int64 [n] as-of times. Static mode expects them after the pool's end.
            retrieval: K, the idf and whether the own user is excluded.
            own_users: int32 [n] the targets' user ids, needed when the own user is excluded.
            statistics: the match sets whose rows are counted.

        Raises:
            ValueError: the lists were built for another K, or without the users that exclusion needs.
        """
        self._check(retrieval, own_users)
        k, num_targets = retrieval.num_neighbours, len(fields)
        columns = np.ascontiguousarray(fields[:, list(self.match_sets.query_fields())], np.int32)
        visible = self.num_rows_before(times)
        users = own_users if retrieval.exclude_own_user and own_users is not None else np.zeros(0, np.int32)
        tables = self.tables(retrieval.idf)
        scratch = lookup_tables.build_scratch(len(self.match_sets), columns.shape[1], k)
        found = Neighbours(
            np.full((num_targets, k), NO_ROW, np.int32),
            np.zeros((num_targets, k), np.float32),
            np.zeros((num_targets, len(statistics)), np.int32),
            np.zeros((num_targets, len(statistics)), np.int32),
        )
        sets = np.array(statistics, np.int64)
        for first in range(0, num_targets if len(self.rank_to_row) else 0, _TARGETS_AT_ONCE):
            part = slice(first, min(first + _TARGETS_AT_ONCE, num_targets))
            order = first + lookup_tables.find_visiting_order(columns[part])
            targets = lookup_tables.Targets(columns[order], visible[order], users[order] if len(users) else users)
            scratch.memo.targets.fill(-1)
            is_complete, depth = self.match_sets.is_complete, self.match_sets.depth
            nearest.find_nearest(tables, targets, scratch, order, is_complete, depth, found.rows, found.scores)
            if statistics:
                lookup.count_rows(tables, targets, scratch.memo, order, sets, found.counts, found.positives)
        return found

    @functools.cached_property
    def _tables(self) -> dict[str, lookup_tables.Tables]:
        return {}

    def tables(self, idf: Literal["lucene", "paper"]) -> lookup_tables.Tables:
        """The arrays as the compiled lookup takes them, for an idf."""
        if idf not in self._tables:
            self._tables[idf] = self._build_tables(idf)
        return self._tables[idf]

    def _build_tables(self, idf: Literal["lucene", "paper"]) -> lookup_tables.Tables:
        match_sets = self.match_sets
        columns = list(match_sets.query_fields())
        width = max(len(generators) for generators in match_sets.generators)
        generators = np.zeros((len(match_sets), width), np.int32)
        base_sets, added = np.full(len(match_sets), -1, np.int32), np.zeros((len(match_sets), len(columns)), np.int32)
        num_added = np.zeros(len(match_sets), np.int32)
        for index, fields in enumerate(match_sets.sets):
            generators[index, : len(match_sets.generators[index])] = [
                columns.index(field) for field in match_sets.generators[index]
            ]
            bases = [base for base in range(index) if set(match_sets.sets[base]) < set(fields)]
            base_sets[index] = bases[-1] if bases else -1
            rest = set(fields) - set(match_sets.sets[bases[-1]] if bases else ())
            num_added[index] = len(rest)
            added[index, : len(rest)] = [columns.index(field) for field in sorted(rest)]
        arrays = {name: getattr(self, name) for name in lookup_tables.Tables._fields if hasattr(self, name)}
        return lookup_tables.Tables(
            **(arrays | {"rolling": self.rolling}),
            lucene=idf == "lucene",
            score_fields=np.ascontiguousarray(match_sets.membership()[:, columns]),
            base_sets=base_sets,
            added_columns=added,
            num_added=num_added,
            generators=generators,
            num_generators=np.array([len(fields) for fields in match_sets.generators], np.int32),
            single_sets=np.array([match_sets.set_of(field) for field in columns], np.int32),
            value_idf=self._value_idf(idf),
        )

    def _value_idf(self, idf: Literal["lucene", "paper"]) -> np.ndarray:
        """int64, in the places of `value_slots`: idf of each value in static mode, -1 where no row has it; empty in rolling mode."""
        if self.rolling:
            return np.zeros(0, np.int64)
        first_slots = np.repeat(self.slot_starts, np.diff(self.value_starts))
        counts = self.counts[first_slots + np.maximum(self.value_slots, 0)]
        units = idf_units(np.array(len(self.rank_to_row)), counts, idf)
        return np.where(self.value_slots >= 0, units, -1)

    def _check(self, retrieval: Retrieval, own_users: np.ndarray | None) -> None:
        if self.rule is not None and retrieval.num_neighbours > self.rule.num_neighbours:
            raise ValueError(
                f"These posting lists hold the newest {self.rule.num_neighbours} rows of a key. Received: num_neighbours = "
                f"{retrieval.num_neighbours}. Build them for that number."
            )
        if retrieval.exclude_own_user and own_users is None:
            raise ValueError("Excluding the own user needs `own_users`. Received: None.")
        if retrieval.exclude_own_user and len(self.rank_to_user) < len(self.rank_to_row):
            raise ValueError(
                "Excluding the own user needs posting lists that were built for it. Received: lists of a configuration with "
                "exclude_own_user = false."
            )


class PostingListsBuilder:
    """Puts the posting lists of the sets together, in the order of sets and of hashes.

    Arrays are reserved for the most entries that there can be, and only what is written takes memory.

    Args:
        match_sets: the S match sets.
        rolling: whether lists are cut at the target's time.
        retrieval: K and whether the own user is excluded.
        num_rows: N.
    """

    def __init__(self, match_sets: MatchSets, rolling: bool, retrieval: Retrieval, num_rows: int) -> None:
        if num_rows >= 1 << 31:
            raise ValueError(
                f"A pool must have fewer than 2^31 rows: ranks are int32. Received: {num_rows:,}. Leave older rows out with "
                "`source.time_from`."
            )
        self._match_sets, self._rolling, self._retrieval = match_sets, rolling, retrieval
        most = len(match_sets) * num_rows
        slots = most + len(match_sets)
        self._ranks = np.empty(most, np.int32)
        self._positive_words = np.zeros((most if rolling else 0) // 64 + 1, np.uint64)
        self._tags, self._starts = np.empty(slots, np.uint8), np.empty(slots, np.int32)
        self._counts, self._positives = (np.empty(0 if rolling else slots, np.int32) for _ in range(2))
        self._directories: list[np.ndarray] = []
        self._value_slots: list[np.ndarray] = []
        self._slot_starts, self._rank_starts = [0], [0]
        self._num_slots = self._num_ranks = 0
        self._hashes: list[np.ndarray] = []
        self._values: list[np.ndarray] = []

    def add(self, postings: SetPostings) -> None:
        """Adds lists of the present set, whose hashes are not below those added before."""
        hashes = hash_values(postings.values)
        slots = slice(self._num_slots, self._num_slots + len(hashes))
        entries = slice(self._num_ranks, self._num_ranks + len(postings.ranks))
        self._tags[slots] = (hashes & np.uint64(0xFF)).astype(np.uint8)
        self._starts[slots] = np.cumsum(postings.lengths) - postings.lengths + (self._num_ranks - self._rank_starts[-1])
        self._ranks[entries] = postings.ranks
        if self._rolling:
            places = np.flatnonzero(postings.positive) + self._num_ranks
            bits = np.uint64(1) << (places & 63).astype(np.uint64)
            np.bitwise_or.at(self._positive_words, places >> 6, bits)
        else:
            self._counts[slots], self._positives[slots] = postings.counts, postings.positives
        self._hashes.append(hashes)
        if postings.values.shape[1] == 1:
            self._values.append(postings.values[:, 0])
        self._num_slots, self._num_ranks = slots.stop, entries.stop

    def end_set(self) -> None:
        """Closes the present set: its directory is made, and the next `add` begins the next set."""
        hashes = np.concatenate(self._hashes) if self._hashes else np.zeros(0, np.uint64)
        values = np.concatenate(self._values) if self._values else np.zeros(0, np.int32)
        self._hashes.clear()
        self._values.clear()
        value_slots = np.full(int(values.max()) + 1 if len(values) else 0, -1, np.int32)
        value_slots[values] = np.arange(len(values))
        self._value_slots.append(value_slots)
        bits = max(1, math.ceil(math.log2(max(len(hashes), 1))) - 1)  # one to two keys a bucket
        sizes = np.bincount((hashes >> np.uint64(64 - bits)).astype(np.int64), minlength=1 << bits)
        self._directories.append(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32))
        self._starts[self._num_slots] = self._num_ranks - self._rank_starts[-1]
        self._tags[self._num_slots] = 0
        if not self._rolling:
            self._counts[self._num_slots] = self._positives[self._num_slots] = 0
        self._num_slots += 1
        self._slot_starts.append(self._num_slots)
        self._rank_starts.append(self._num_ranks)

    def finish(
        self, rank_to_row: np.ndarray, rank_to_time: np.ndarray, rank_to_fields: np.ndarray, rank_to_user: np.ndarray
    ) -> PostingLists:
        """The posting lists, once every set has ended."""
        words = self._positive_words[: self._num_ranks // 64 + 1 if self._rolling else 0]
        before = np.cumsum(np.bitwise_count(words), dtype=np.int64) - np.bitwise_count(words)
        num_ids = [len(slots) for slots in self._value_slots]
        lengths = np.array([len(directory) for directory in self._directories], np.int64)
        return PostingLists(
            self._match_sets,
            self._rolling,
            newest_rule(self._match_sets, self._rolling, self._retrieval),
            np.concatenate(self._directories),
            np.cumsum(lengths) - lengths,
            np.log2(lengths - 1).astype(np.uint64),
            np.array(self._slot_starts[:-1], np.int64),
            self._tags[: self._num_slots],
            self._starts[: self._num_slots],
            np.concatenate(self._value_slots),
            np.concatenate([[0], np.cumsum(num_ids)]).astype(np.int64),
            self._counts[: self._num_slots],
            self._positives[: self._num_slots],
            self._ranks[: self._num_ranks],
            np.array(self._rank_starts[:-1], np.int64),
            words,
            before.astype(np.int32),
            rank_to_row,
            rank_to_time if self._rolling else np.zeros(0, np.int64),
            rank_to_fields,
            rank_to_user if self._retrieval.exclude_own_user else np.zeros(0, np.int32),
        )


def build_posting_lists(pool: PoolRows, match_sets: MatchSets, rolling: bool, retrieval: Retrieval) -> PostingLists:
    """Builds the posting lists of a pool that fits in memory.

    Args:
        pool: the pool's rows.
        match_sets: the S match sets.
        rolling: whether lists are cut at the target's time.
        retrieval: K and whether the own user is excluded.

    Raises:
        ValueError: a field does not determine what `match_sets` says it does, or the rows are not in the order of their times.
    """
    match_sets.check_determined(pool.fields)
    if rolling and (pool.time[1:] < pool.time[:-1]).any():
        row = int(np.flatnonzero(pool.time[1:] < pool.time[:-1])[0])
        raise ValueError(
            f"The pool's rows must be in the order of their times in rolling mode. Received: {pool.time[row]} before "
            f"{pool.time[row + 1]} at rank {row}. Sort them by `pool_order`."
        )
    builder = PostingListsBuilder(match_sets, rolling, retrieval, len(pool.row))
    rule = newest_rule(match_sets, rolling, retrieval)
    for generators in match_sets.generators:
        columns = list(generators)
        parts = _find_parts(pool.fields, columns)
        for part in range(_BUILD_PARTS):
            ranks = np.flatnonzero(parts == part).astype(np.int32)
            users = pool.user[ranks] if retrieval.exclude_own_user else np.zeros(0, np.int32)
            values = np.stack([pool.fields[ranks, column] for column in columns], axis=1)
            builder.add(build_set_postings(values, ranks, pool.positive[ranks], users, rule))
        builder.end_set()
    fields = np.ascontiguousarray(pool.fields[:, list(match_sets.query_fields())], np.int32)
    return builder.finish(pool.row, pool.time, fields, pool.user)


def _find_parts(fields: np.ndarray, columns: list[int]) -> np.ndarray:
    """uint8 [N], which slice of the key space each row's key is in; _BUILD_PARTS for a row without a key."""
    parts = np.full(len(fields), _BUILD_PARTS, np.uint8)
    for first in range(0, len(fields), _TARGETS_AT_ONCE):
        values = fields[first : first + _TARGETS_AT_ONCE, columns]
        usable = (values >= FIRST_VALUE_ID).all(axis=1)
        hashes = hash_values(values) >> np.uint64(64 - int(math.log2(_BUILD_PARTS)))
        parts[first : first + _TARGETS_AT_ONCE][usable] = hashes[usable]
    return parts


def pool_order(times: np.ndarray, rows: np.ndarray, preferred: np.ndarray) -> np.ndarray:
    """The order of the pool's rows, oldest first.

    Args:
        times: int64 [N].
        rows: [N] row ids.
        preferred: bool [N], rows that count as newer than all others: static mode's `min_future`.

    Returns:
        int64 [N], indices into the arguments.
    """
    return np.lexsort((rows, times, preferred))
