"""The top K rows of a request's candidates from the spans of its keys, in TensorFlow operations: `nearest.find_nearest`."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_lift.retrieval.graph_keys import FieldLanes, Keys
from tf_lift.retrieval.graph_spans import Spans, SpanTables, constant_variable, expand
from tf_lift.retrieval.posting_lists import PostingLists
from tf_lift.schema import FIRST_VALUE_ID

RANK_BITS = 32  # a row among the top: its score << 32 | its rank, in an int64


class NewestLists(NamedTuple):
    """The newest rows of T keys that may be given: of each key the last `lengths` entries before `stops` of `ranks`."""

    ranks: tf.Tensor
    stops: tf.Tensor  # [T]
    lengths: tf.Tensor  # [T], at most K


class Needed(NamedTuple):
    """R pairs of a candidate and a set whose newest rows may be among its top K, in the candidates' order."""

    candidates: tf.Tensor  # int32 [R]
    sets: tf.Tensor  # int32 [R]
    cells: tf.Tensor  # int32 [R]: of [S, n] in one dimension
    keys: tf.Tensor  # int32 [R]


class OwnRows(tf.Module):
    """The users of the pool's rows, to leave out the rows of a slate's own user.

    Args:
        lists: the posting lists.
        set_order: the order of sets in `Keys`.
        user: column of [.., M] fields that holds what `own_users` does and is shared by a slate's candidates; None: there is none.
    """

    def __init__(self, lists: PostingLists, set_order: Sequence[int], user: int | None) -> None:
        super().__init__(name="own_rows")
        self._rank_to_user = constant_variable(_not_empty(lists.rank_to_user), "rank_to_user")
        num_rows = np.bincount(lists.rank_to_user, minlength=1).astype(np.int32)
        self._num_rows = constant_variable(num_rows, "rows_of_user")
        self._with_user: list[int] | None = None
        match_sets = lists.match_sets
        if user in match_sets.query_fields() and match_sets.is_complete:
            closure = set(match_sets.sets[match_sets.set_of(user)])
            places = {match_sets.sets[index]: place for place, index in enumerate(set_order)}
            self._with_user = [places[tuple(sorted(closure.union(match_sets.sets[index])))] for index in set_order]

    def bound(
        self, keys: Keys, lengths: tf.Tensor, own_users: tf.Tensor, slate_users: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """How many rows of each key may be the own user's.

        Args:
            keys: T keys.
            lengths: [T] how many rows they have.
            own_users: int32 [B + 1].
            slate_users: int32 [B + 1] the ids of `user`'s column.

        Returns:
            [T] at most how many of the lengths are own rows, and bool [T], whether all surely are.
        """
        slates = tf.gather(keys.element_slates, keys.elements)
        last = tf.size(self._num_rows) - 1
        is_known = (own_users >= 0) & (own_users <= last)
        num_rows = tf.gather(self._num_rows, tf.clip_by_value(own_users, 0, last)) * tf.cast(is_known, tf.int32)
        bound = tf.minimum(lengths, tf.cast(tf.gather(num_rows, slates), lengths.dtype))
        if self._with_user is None:
            return bound, tf.zeros_like(bound, tf.bool)
        # Own rows of a key are the rows of the key with the user in it, which the same element of another set has.
        shifts = tf.gather(keys.first_keys, self._with_user) - keys.first_keys
        own = tf.gather(lengths, tf.range(tf.size(keys.sets)) + tf.gather(shifts, keys.sets))
        is_exact = tf.gather((slate_users == own_users) & (own_users >= FIRST_VALUE_ID), slates)
        bound = tf.where(is_exact, tf.minimum(own, lengths), bound)
        return bound, is_exact & (bound == lengths)

    def is_other(self, ranks: tf.Tensor, own_users: tf.Tensor) -> tf.Tensor:
        """bool, whether rows are another user's."""
        return tf.gather(self._rank_to_user, ranks) != own_users


class TopFinder:
    """Finds the top K rows.

    Args:
        tables: the posting lists.
        own_rows: the users of the pool's rows; None: nobody is excluded.
        lanes: how fields are packed.
        membership: bool [S, Q] the fields of each set, in the order of sets in `Keys`.
        num_neighbours: K.
        is_complete: whether these are all closed sets.
    """

    def __init__(
        self,
        tables: SpanTables,
        own_rows: OwnRows | None,
        lanes: FieldLanes,
        membership: np.ndarray,
        num_neighbours: int,
        is_complete: bool,
    ) -> None:
        self._tables, self._own_rows, self._lanes = tables, own_rows, lanes
        self._set_masks = lanes.masks(membership)  # [S, W]
        self._all_masks = lanes.masks(np.ones((1, membership.shape[1]), bool))[0]  # [W]
        self._num_neighbours, self._is_complete = num_neighbours, is_complete

    def find(
        self,
        keys: Keys,
        spans: Spans,
        idf: tf.Tensor,
        scores: tf.Tensor,
        own_users: tf.Tensor,
        slate_users: tf.Tensor,
    ) -> tf.Tensor:
        """int64 [n, K] of score << RANK_BITS | rank, descending; negative where there is no row.

        Of the sets that a row is listed under, that of exactly its matching fields gives its score. Where not all sets have lists,
        the row's fields are compared instead, and rows that match more than a set holds may be missing (`graph_scan`).

        Args:
            keys: T keys.
            spans: their rows.
            idf: float64 [Q, n].
            scores: float64 [S, n] of a row that matches exactly a set.
            own_users: int32 [B + 1].
            slate_users: int32 [B + 1].
        """
        k = self._num_neighbours
        lengths = spans.stops - spans.starts
        if self._own_rows is None:
            needed = self._needed(keys, lengths > 0, lengths >= k, scores)
            lists = NewestLists(self._tables.ranks, spans.stops, tf.minimum(lengths, k))
        else:
            bound, is_own = self._own_rows.bound(keys, lengths, own_users, slate_users)
            needed = self._needed(keys, (lengths > 0) & ~is_own, lengths - bound >= k, scores)
            windows = tf.minimum(lengths, bound + k)
            lists = self._newest_of_others(self._own_rows, keys, spans, windows, needed, own_users)
        stops, lengths = tf.gather(lists.stops, needed.keys), tf.gather(lists.lengths, needed.keys)
        owners, entries = expand(stops - lengths, stops, descending=True)  # `top_k` likes the highest first
        ranks = tf.gather(lists.ranks, entries)
        if self._is_complete:
            joined = self._score_exact(keys, needed, owners, ranks, scores)
        else:
            candidates = tf.gather(needed.candidates, owners)
            words = [tf.gather(word, candidates) for word in keys.candidate_words]
            terms = [tf.gather(column, candidates) for column in tf.unstack(tf.cast(idf, tf.int64))]
            joined = self.score_rows(ranks, words, terms)
        # Every candidate's entries side by side: [n, width].
        num_candidates = tf.shape(scores)[1]
        widths = tf.math.unsorted_segment_sum(tf.cast(lengths, tf.int32), needed.candidates, num_candidates)
        dense = tf.raw_ops.RaggedTensorToTensor(
            shape=tf.stack([num_candidates, tf.maximum(tf.reduce_max(widths), k)]),
            values=joined,
            default_value=tf.constant(-1, tf.int64),
            row_partition_tensors=[tf.pad(tf.cumsum(widths), [[1, 0]])],
            row_partition_types=["ROW_SPLITS"],
        )
        return tf.math.top_k(dense, k).values if self._is_complete else top_distinct(dense, k)

    def score_rows(self, ranks: tf.Tensor, words: list[tf.Tensor], terms: list[tf.Tensor]) -> tf.Tensor:
        """int64, score << RANK_BITS | rank by comparing fields.

        Args:
            ranks: int32 [..] rows.
            words: W int64 that broadcast with them, the candidates' fields.
            terms: Q int64 likewise, the idf of the candidates' values.
        """
        pairs = zip(self._tables.words, words, strict=True)
        differences = [tf.bitwise.bitwise_xor(tf.gather(pool, ranks), word) for pool, word in pairs]
        score = tf.zeros_like(differences[0])
        for column, term in enumerate(terms):
            word, mask = self._lanes.lane(column)
            is_equal = tf.bitwise.bitwise_and(differences[word], mask) == 0
            score += tf.cast(is_equal, tf.int64) * term
        return join(score, ranks)

    def _needed(self, keys: Keys, has_rows: tf.Tensor, has_k: tf.Tensor, scores: tf.Tensor) -> Needed:
        """The sets that score no less than one that surely has K rows; bool [T] each."""
        state = tf.gather(tf.cast(has_rows, tf.int32) + tf.cast(has_k, tf.int32), keys.places)  # [S, n]
        least = tf.reduce_max(scores * tf.cast(state == 2, tf.float64), axis=0)
        # By candidate, larger sets first: `top_k` is fastest where the highest come first.
        pairs = tf.where(tf.transpose(tf.reverse((state > 0) & (scores >= least), [0])))  # [R, 2]
        candidates, sets = tf.unstack(tf.cast(pairs, tf.int32), axis=1)
        sets = scores.shape[0] - 1 - sets
        cells = sets * tf.shape(scores)[1] + candidates
        return Needed(candidates, sets, cells, tf.gather(tf.reshape(keys.places, [-1]), cells))

    def _newest_of_others(
        self, own_rows: OwnRows, keys: Keys, spans: Spans, windows: tf.Tensor, needed: Needed, own_users: tf.Tensor
    ) -> NewestLists:
        """The newest K rows of other users of each needed key, which are among its last `windows` rows, [T]."""
        num_keys = tf.size(keys.sets)
        is_needed = tf.math.unsorted_segment_sum(tf.ones_like(needed.keys), needed.keys, num_keys) > 0
        read = tf.cast(tf.where(is_needed)[:, 0], tf.int32)
        stops = tf.gather(spans.stops, read)
        owners, entries = expand(stops - tf.gather(windows, read), stops)
        ranks = tf.gather(self._tables.ranks, entries)
        own = tf.gather(own_users, tf.gather(keys.element_slates, tf.gather(keys.elements, read)))
        kept = tf.where(own_rows.is_other(ranks, tf.gather(own, owners)))[:, 0]
        owners, ranks = tf.gather(owners, kept), tf.gather(ranks, kept)
        lengths = tf.math.unsorted_segment_sum(tf.ones_like(owners), owners, tf.size(read))
        return NewestLists(
            ranks,
            tf.math.unsorted_segment_sum(tf.cumsum(lengths), read, num_keys),
            tf.math.unsorted_segment_sum(tf.minimum(lengths, self._num_neighbours), read, num_keys),
        )

    def _score_exact(
        self, keys: Keys, needed: Needed, owners: tf.Tensor, ranks: tf.Tensor, scores: tf.Tensor
    ) -> tf.Tensor:
        """int64 [E], the set's score << RANK_BITS | rank; -1 for a row that matches a field beyond its set."""
        units = tf.cast(tf.gather(tf.reshape(scores, [-1]), needed.cells), tf.int64)
        joined = join(tf.gather(units, owners), ranks)
        is_exact = tf.ones_like(ranks, tf.bool)
        guards = self._lanes.guards()
        for word, pool in enumerate(self._tables.words):
            # All ones in the set's own fields, which no row has: so all lanes of the word must differ.
            masks = tf.gather(self._set_masks[:, word], needed.sets)
            target = tf.bitwise.bitwise_or(tf.gather(keys.candidate_words[word], needed.candidates), masks)
            difference = tf.bitwise.bitwise_xor(tf.gather(pool, ranks), tf.gather(target, owners))
            is_exact &= tf.bitwise.bitwise_and(difference + self._all_masks[word], guards[word]) == guards[word]
        return tf.where(is_exact, joined, -tf.ones_like(joined))


def join(scores: tf.Tensor, ranks: tf.Tensor) -> tf.Tensor:
    """int64, score << RANK_BITS | rank."""
    return tf.bitwise.left_shift(scores, tf.constant(RANK_BITS, tf.int64)) + tf.cast(ranks, tf.int64)


def top_distinct(values: tf.Tensor, k: int) -> tf.Tensor:
    """int64 [n, K] highest values, descending, each once, of int64 [n, at least K]; -1 where fewer are not negative."""
    ordered = tf.sort(values, axis=1, direction="DESCENDING")
    is_repeated = tf.pad(ordered[:, 1:] == ordered[:, :-1], [[0, 0], [1, 0]])
    return tf.math.top_k(tf.where(is_repeated, -tf.ones_like(ordered), ordered), k).values


def _not_empty(array: np.ndarray) -> np.ndarray:
    """The array, or one zero: what is not there is looked up at place 0."""
    return array if len(array) else np.zeros(1, array.dtype)
