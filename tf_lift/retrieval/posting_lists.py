"""Posting lists: for every match set and values, the pool rows that have them, oldest first."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tf_lift.config import Retrieval
from tf_lift.retrieval.bm25 import idf_units, score_from_units
from tf_lift.retrieval.match_sets import NO_KEY, MatchSets
from tf_lift.segments import segment_lower_bound

NO_ROW = -1


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """What retrieval answers for n targets.

    Attributes:
        rows: int32 [n, K] row ids by score descending, then newest first; NO_ROW where fewer exist.
        scores: float32 [n, K] BM25 scores; 0 where there is no row.
        counts: int32 [n, S] pool rows of each match set before the target's time.
        positives: int32 [n, S] how many of them have label 1.
    """

    rows: np.ndarray
    scores: np.ndarray
    counts: np.ndarray
    positives: np.ndarray


@dataclasses.dataclass(frozen=True)
class SetPostings:
    """The posting lists of one match set.

    Attributes:
        keys: int64 [U] ascending.
        lengths: int64 [U] rows of each key.
        ranks: int32 [sum of lengths] each key's rows as ranks in the pool's order, ascending.
        positive: bool, of the same length, the rows' labels.
    """

    keys: np.ndarray
    lengths: np.ndarray
    ranks: np.ndarray
    positive: np.ndarray


def build_set_postings(keys: np.ndarray, ranks: np.ndarray, positive: np.ndarray) -> SetPostings:
    """Groups pool rows by key.

    Args:
        keys: int64 [N] key of each row in one match set; rows with NO_KEY are in no list.
        ranks: int32 [N] rank of each row in the pool's order.
        positive: bool [N] labels.
    """
    usable = keys != NO_KEY
    keys, ranks, positive = keys[usable], ranks[usable], positive[usable]
    order = np.lexsort((ranks, keys))
    unique, lengths = np.unique(keys[order], return_counts=True)
    return SetPostings(unique, lengths.astype(np.int64), ranks[order].astype(np.int32), positive[order])


@dataclasses.dataclass(frozen=True)
class PostingLists:
    """All posting lists of a pool, and the order of its rows.

    In rolling mode the pool's order is (time, row id), so "before t" is a prefix of every list. In static mode the whole
    pool precedes every target, and the order may prefer rows with long futures (`min_future`).

    Attributes:
        match_sets: the S match sets.
        rolling: whether lists are cut at the target's time.
        keys: int64 [U] ascending, over all sets.
        starts: int64 [U + 1] where each key's rows begin in `ranks`.
        ranks: int32 [P] ranks, ascending inside a key.
        positives_before: int32 [P + 1] how many of the entries before one have label 1.
        rank_to_row: int32 [N] row id at each rank.
        rank_to_time: int64 [N] time at each rank.
    """

    match_sets: MatchSets
    rolling: bool
    keys: np.ndarray
    starts: np.ndarray
    ranks: np.ndarray
    positives_before: np.ndarray
    rank_to_row: np.ndarray
    rank_to_time: np.ndarray

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

    def spans(self, fields: np.ndarray, visible: np.ndarray, set_index: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the rows of each target's key begin and end in `ranks`, as of its time.

        Args:
            fields: [n, M] ids of the targets.
            visible: int64 [n] from `num_rows_before`.
            set_index: which match set.

        Returns:
            starts and stops, int64 [n]; equal where nothing matches.
        """
        if not len(self.keys):
            return np.zeros(len(fields), np.int64), np.zeros(len(fields), np.int64)
        keys = self.match_sets.keys(fields, set_index)
        index = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        found = self.keys[index] == keys
        starts = np.where(found, self.starts[index], 0)
        stops = np.where(found, self.starts[index + 1], 0)
        if self.rolling:
            stops = segment_lower_bound(self.ranks, starts, stops, visible)
        return starts, stops

    def nearest(
        self,
        fields: np.ndarray,
        times: np.ndarray,
        retrieval: Retrieval,
        own_users: np.ndarray | None = None,
        rank_to_user: np.ndarray | None = None,
    ) -> Neighbours:
        """The exact top K of eq. 12 for each target: score descending, then newest, then highest row id.

        Match sets are read in the order of their score. A row is seen first under the set of exactly its matching fields, or
        else K rows outrank it there; so a target is done once one set has given K rows and the next scores less.

        Args:
            fields: int32 [n, M] ids of the targets.
            times: int64 [n] as-of times. Static mode expects them after the pool's end.
            retrieval: K, the idf and whether the own user is excluded.
            own_users: int32 [n] the targets' user ids, needed when the own user is excluded.
            rank_to_user: int32 [N] the user id at each rank of the pool, likewise.
        """
        if retrieval.exclude_own_user and (own_users is None or rank_to_user is None):
            raise ValueError("Excluding the own user needs `own_users` and `rank_to_user`. Received: None.")
        num_targets, num_sets = len(fields), len(self.match_sets)
        visible = self.num_rows_before(times)
        starts = np.zeros((num_targets, num_sets), np.int64)
        stops = np.zeros((num_targets, num_sets), np.int64)
        for index in range(num_sets):
            starts[:, index], stops[:, index] = self.spans(fields, visible, index)
        counts = stops - starts
        units = self._set_scores(counts, visible, retrieval)
        top = self._merge_sets(starts, stops, units, retrieval, own_users, rank_to_user)
        found = top >= 0
        ranks = np.where(found, top & 0xFFFFFFFF, 0)
        rows = self.rank_to_row[ranks] if len(self.rank_to_row) else np.zeros_like(ranks)
        return Neighbours(
            np.where(found, rows, NO_ROW).astype(np.int32),
            np.where(found, score_from_units(top >> 32), 0).astype(np.float32),
            counts.astype(np.int32),
            (self.positives_before[stops] - self.positives_before[starts]).astype(np.int32),
        )

    def _set_scores(self, counts: np.ndarray, visible: np.ndarray, retrieval: Retrieval) -> np.ndarray:
        """Score of each set for each target, int64 [n, S] in units: the sum of its fields' idf."""
        units = np.zeros(counts.shape, np.int64)
        membership = self.match_sets.membership()
        for field in self.match_sets.query_fields():
            matches = counts[:, self.match_sets.set_of(field)]
            idf = np.where(matches > 0, idf_units(visible, matches, retrieval.idf), 0)
            units += idf[:, None] * membership[:, field]
        return units

    def _merge_sets(
        self,
        starts: np.ndarray,
        stops: np.ndarray,
        units: np.ndarray,
        retrieval: Retrieval,
        own_users: np.ndarray | None,
        rank_to_user: np.ndarray | None,
    ) -> np.ndarray:
        """int64 [n, K] of score << 32 | rank, descending; -1 where there is no row."""
        k = retrieval.num_neighbours
        top = np.full((len(units), k), -1, np.int64)
        units = np.where(stops > starts, units, -1)  # a set without rows comes last
        order = np.argsort(-units, axis=1, kind="stable")
        active = np.arange(len(units))
        for turn in range(units.shape[1]):
            sets = order[active, turn]
            active, sets = active[units[active, sets] >= 0], sets[units[active, sets] >= 0]
            if not len(active):
                break
            lower, upper = starts[active, sets], stops[active, sets]
            if retrieval.exclude_own_user:
                ranks = self._newest_of_others(lower, upper, k, own_users[active], rank_to_user)  # type: ignore[index, arg-type]
            else:
                ranks = _newest(self.ranks, lower, upper, k)
            score = units[active, sets]
            top[active] = _merge(top[active], np.where(ranks >= 0, (score[:, None] << 32) | ranks, -1))
            if turn + 1 < units.shape[1]:
                following = units[active, order[active, turn + 1]]
                active = active[(ranks[:, -1] < 0) | (following >= score)]
        return top

    def _newest_of_others(
        self, starts: np.ndarray, stops: np.ndarray, k: int, own_users: np.ndarray, rank_to_user: np.ndarray
    ) -> np.ndarray:
        """int64 [n, k] newest ranks of users other than the own, newest first, -1 where there are fewer."""
        result = np.full((len(starts), k), -1, np.int64)
        pending, width = np.arange(len(starts)), 2 * k
        while len(pending):
            ranks = _newest(self.ranks, starts[pending], stops[pending], width)
            own = (ranks >= 0) & (rank_to_user[np.maximum(ranks, 0)] == own_users[pending, None])
            ranks[own] = -1
            kept = np.take_along_axis(ranks, np.argsort(ranks < 0, axis=1, kind="stable"), 1)[:, :k]
            done = (kept[:, -1] >= 0) | (stops[pending] - starts[pending] <= width)
            result[pending[done]] = kept[done]
            pending, width = pending[~done], 4 * width
        return result


def _newest(ranks: np.ndarray, starts: np.ndarray, stops: np.ndarray, k: int) -> np.ndarray:
    """int64 [n, k] last ranks of each span, newest first, -1 where it has fewer."""
    places = stops[:, None] - 1 - np.arange(k)
    inside = places >= starts[:, None]
    return np.where(inside, ranks[np.maximum(places, 0)].astype(np.int64), -1)


def _merge(top: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The K largest of [n, K] entries and [n, K] new ones; a rank that both hold counts once, with its higher score."""
    repeated = np.zeros(new.shape, bool)
    ranks = np.where(new >= 0, new & 0xFFFFFFFF, -2)
    for column in range(top.shape[1]):
        held = np.where(top[:, column] >= 0, top[:, column] & 0xFFFFFFFF, -1)
        repeated |= ranks == held[:, None]
    both = np.concatenate([top, np.where(repeated, -1, new)], axis=1)
    return -np.sort(-both, axis=1)[:, : top.shape[1]]


def join_postings(
    match_sets: MatchSets,
    rolling: bool,
    postings: Sequence[SetPostings],
    rank_to_row: np.ndarray,
    rank_to_time: np.ndarray,
) -> PostingLists:
    """Joins the sets' posting lists, given in the order of the match sets."""
    lengths = np.concatenate([part.lengths for part in postings])
    positive = np.concatenate([part.positive for part in postings])
    return PostingLists(
        match_sets,
        rolling,
        np.concatenate([part.keys for part in postings]),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate([part.ranks for part in postings]),
        np.concatenate([[0], np.cumsum(positive, dtype=np.int32)]).astype(np.int32),
        rank_to_row,
        rank_to_time,
    )


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


def write_set_postings(postings: SetPostings, path: Path) -> None:
    """Writes the lists of one set as `<path>.<array>.npy`."""
    for field in dataclasses.fields(SetPostings):
        np.save(path.with_name(f"{path.name}.{field.name}.npy"), getattr(postings, field.name))


def read_set_postings(path: Path) -> SetPostings:
    """Reads what `write_set_postings` wrote."""
    return SetPostings(
        *(np.load(path.with_name(f"{path.name}.{field.name}.npy")) for field in dataclasses.fields(SetPostings))
    )
