"""The lookup of `posting_lists` in stock TensorFlow operations, for the SavedModel: no custom op, no hash table, no network hop."""

import math
from typing import NamedTuple

import tensorflow as tf

from tf_lift.config import Retrieval
from tf_lift.retrieval.bm25 import SCORE_UNITS
from tf_lift.retrieval.match_sets import NO_KEY, MatchSets
from tf_lift.retrieval.posting_lists import NO_ROW, PostingLists
from tf_lift.schema import FIRST_VALUE_ID


class GraphNeighbours(NamedTuple):
    """As `Neighbours`, with tensors: rows int32 and scores float32 [n, K], counts and positives int32 [n, S]."""

    rows: tf.Tensor
    scores: tf.Tensor
    counts: tf.Tensor
    positives: tf.Tensor


class PostingListGraph(tf.Module):
    """The posting lists as variables, and the lookup as a graph.

    Args:
        lists: the posting lists.
        retrieval: K, the idf and whether the own user is excluded.
        rank_to_user: int32 [N] the user id at each rank of the pool.
    """

    def __init__(self, lists: PostingLists, retrieval: Retrieval, rank_to_user: tf.Tensor) -> None:
        super().__init__(name="posting_lists")
        self._match_sets: MatchSets = lists.match_sets
        self._retrieval = retrieval
        self._rolling = lists.rolling
        self._num_steps = math.ceil(math.log2(int((lists.starts[1:] - lists.starts[:-1]).max(initial=0)) + 1))
        self._keys = constant_variable(lists.keys, "keys")
        self._starts = constant_variable(lists.starts, "starts")
        self._ranks = constant_variable(lists.ranks, "ranks")
        self._positives_before = constant_variable(lists.positives_before, "positives_before")
        self._rank_to_row = constant_variable(lists.rank_to_row, "rank_to_row")
        self._rank_to_time = constant_variable(lists.rank_to_time, "rank_to_time")
        self._rank_to_user = constant_variable(rank_to_user, "rank_to_user") if retrieval.exclude_own_user else None

    def nearest(self, fields: tf.Tensor, times: tf.Tensor, own_users: tf.Tensor) -> GraphNeighbours:
        """The exact top K of eq. 12, as `PostingLists.nearest`.

        Args:
            fields: int32 [n, M] ids as of the times.
            times: int64 [n] epoch seconds.
            own_users: int32 [n] the targets' user ids; read only when the own user is excluded.
        """
        num_rows = tf.shape(self._rank_to_row, tf.int64)[0]
        visible = tf.fill(tf.shape(times), num_rows)
        if self._rolling:
            visible = tf.searchsorted(self._rank_to_time, times, out_type=tf.int64)
        starts, stops = self._spans(fields, visible)  # [n, S]
        counts = stops - starts
        units = self._set_scores(counts, visible)
        if self._retrieval.exclude_own_user:
            ranks = self._newest_of_others(starts, stops, own_users)
        else:
            ranks = self._newest(starts, stops, tf.constant(self._retrieval.num_neighbours, tf.int64))
        top = self._merge(tf.cast(ranks, tf.int64), units)
        found = top >= 0
        best = tf.where(found, tf.bitwise.bitwise_and(top, tf.constant(0xFFFFFFFF, tf.int64)), 0)
        rows = tf.where(found, tf.gather(self._rank_to_row, best), NO_ROW)
        scores = tf.cast(
            tf.cast(tf.bitwise.right_shift(tf.maximum(top, 0), tf.constant(32, tf.int64)), tf.float64) / SCORE_UNITS,
            tf.float32,
        )
        positives = tf.gather(self._positives_before, stops) - tf.gather(self._positives_before, starts)
        return GraphNeighbours(rows, tf.where(found, scores, 0.0), tf.cast(counts, tf.int32), positives)

    def _spans(self, fields: tf.Tensor, visible: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """int64 [n, S] where each target's rows begin and end in each set's list, as of its time."""
        keys = tf.stack([self._set_keys(fields, index) for index in range(len(self._match_sets))], axis=1)
        num_keys = tf.shape(self._keys, tf.int64)[0]
        flat = tf.reshape(keys, [-1])
        index = tf.minimum(tf.searchsorted(self._keys, flat, out_type=tf.int64), num_keys - 1)
        index = tf.reshape(tf.where(tf.gather(self._keys, index) == flat, index, -1), tf.shape(keys))
        found, index = index >= 0, tf.maximum(index, 0)
        starts = tf.where(found, tf.gather(self._starts, index), 0)
        stops = tf.where(found, tf.gather(self._starts, index + 1), 0)
        if self._rolling:
            bounds = tf.broadcast_to(visible[:, None], tf.shape(starts))
            stops = segment_lower_bound(self._ranks, starts, stops, bounds, self._num_steps)
        return starts, stops

    def _set_keys(self, fields: tf.Tensor, set_index: int) -> tf.Tensor:
        """int64 [n], as `MatchSets.keys`."""
        key = tf.zeros_like(fields[:, 0], tf.int64)
        usable = tf.ones_like(fields[:, 0], tf.bool)
        for field in self._match_sets.generators[set_index]:
            ids = tf.cast(fields[:, field], tf.int64)
            usable &= (ids >= FIRST_VALUE_ID) & (ids < self._match_sets.num_ids[field])
            key = key * self._match_sets.num_ids[field] + ids
        return tf.where(usable, key + self._match_sets.offset(set_index), NO_KEY)

    def _set_scores(self, counts: tf.Tensor, visible: tf.Tensor) -> tf.Tensor:
        """int64 [n, S] in units, as `PostingLists._set_scores`."""
        membership = tf.constant(self._match_sets.membership(), tf.int64)
        units = tf.zeros_like(counts)
        for field in self._match_sets.query_fields():
            matches = counts[:, self._match_sets.set_of(field)]
            odds = tf.cast(visible - matches, tf.float64) + 0.5
            odds /= tf.cast(matches, tf.float64) + 0.5
            idf = tf.math.log(odds) if self._retrieval.idf == "paper" else tf.math.log(1.0 + odds)
            rounded = tf.cast(tf.round(tf.maximum(idf, 0.0) * SCORE_UNITS), tf.int64)
            units += tf.where(matches > 0, rounded, 0)[:, None] * membership[:, field]
        return units

    def _newest(self, starts: tf.Tensor, stops: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        """int32 [n, S, width] last ranks of each span, newest first, -1 where it has fewer."""
        places = stops[..., None] - 1 - tf.range(width)
        return tf.where(places >= starts[..., None], tf.gather(self._ranks, tf.maximum(places, 0)), -1)

    def _newest_of_others(self, starts: tf.Tensor, stops: tf.Tensor, own_users: tf.Tensor) -> tf.Tensor:
        """int32 [n, S, K] newest ranks of users other than the own; reads further back until every span has K or is at its end."""
        k = self._retrieval.num_neighbours

        def is_short(width: tf.Tensor, ranks: tf.Tensor) -> tf.Tensor:
            return tf.reduce_any((ranks[..., -1] < 0) & (stops - starts > width))

        def read(width: tf.Tensor) -> tf.Tensor:
            ranks = self._newest(starts, stops, width)
            own = tf.gather(self._rank_to_user, tf.maximum(ranks, 0)) == own_users[:, None, None]
            return tf.math.top_k(tf.where(own, -1, ranks), k).values

        first = tf.constant(2 * k, tf.int64)
        return tf.while_loop(is_short, lambda width, _: (4 * width, read(4 * width)), (first, read(first)))[1]

    def _merge(self, ranks: tf.Tensor, units: tf.Tensor) -> tf.Tensor:
        """int64 [n, K] of score << 32 | rank, descending; -1 where there is no row.

        Args:
            ranks: int64 [n, S, K].
            units: int64 [n, S].
        """
        joined = tf.where(ranks >= 0, tf.bitwise.left_shift(ranks, tf.constant(32, tf.int64)) + units[..., None], -1)
        num_entries = joined.shape[1] * joined.shape[2]
        by_rank = tf.math.top_k(tf.reshape(joined, [-1, num_entries]), num_entries).values
        rank = tf.bitwise.right_shift(by_rank, tf.constant(32, tf.int64))
        # A row found under several sets stands once for each, with its true score first.
        repeated = tf.concat([tf.zeros_like(rank[:, :1], tf.bool), rank[:, 1:] == rank[:, :-1]], axis=1)
        score = tf.bitwise.bitwise_and(by_rank, tf.constant(0xFFFFFFFF, tf.int64))
        by_score = tf.where(
            (by_rank >= 0) & ~repeated, tf.bitwise.left_shift(score, tf.constant(32, tf.int64)) + rank, -1
        )
        missing = max(0, self._retrieval.num_neighbours - num_entries)
        by_score = tf.pad(by_score, [[0, 0], [0, missing]], constant_values=-1)
        return tf.math.top_k(by_score, self._retrieval.num_neighbours).values


def segment_lower_bound(
    values: tf.Tensor, starts: tf.Tensor, stops: tf.Tensor, bounds: tf.Tensor, num_steps: int
) -> tf.Tensor:
    """First position of each segment whose value is not below a bound, as `segments.segment_lower_bound`.

    Args:
        values: [N], ascending inside every segment; N is at least 1.
        starts: int64 [..] first position of each segment.
        stops: int64 [..] one past its last.
        bounds: integers [..].
        num_steps: enough for the longest segment, ceil(log2(length + 1)).

    Returns:
        int64 [..].
    """
    last = tf.shape(values, tf.int64)[0] - 1
    low, high = starts, stops
    for _ in range(num_steps):
        middle = (low + high) // 2
        below = tf.cast(tf.gather(values, tf.minimum(middle, last)), tf.int64) < bounds
        searching = low < high
        low = tf.where(searching & below, middle + 1, low)
        high = tf.where(searching & ~below, middle, high)
    return low


def constant_variable(value: object, name: str) -> tf.Variable:
    """A variable that is never trained: restored from the SavedModel's variable files, not embedded in its graph."""
    return tf.Variable(value, trainable=False, name=name)
