"""The lookup of `posting_lists` in stock TensorFlow operations, for the SavedModel: no custom op, no hash table, no network hop."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import tensorflow as tf

from tf_lift.config import Retrieval
from tf_lift.interactions import NO_ROW
from tf_lift.retrieval.bm25 import SCORE_UNITS, idf_units
from tf_lift.retrieval.graph_keys import FieldLanes, KeyPlan, Keys
from tf_lift.retrieval.graph_scan import bound_supersets, scan_supersets
from tf_lift.retrieval.graph_spans import Spans, SpanTables, constant_variable, segment_lower_bound
from tf_lift.retrieval.graph_top import RANK_BITS, OwnRows, TopFinder
from tf_lift.retrieval.posting_lists import PostingLists
from tf_lift.schema import PADDING_ID

__all__ = ["GraphNeighbours", "PostingListGraph", "constant_variable", "listed_ranks", "segment_lower_bound"]


class GraphNeighbours(NamedTuple):
    """As `Neighbours`, with tensors: rows int32 and scores float32 [B, C, K], counts and positives int32 [B, C, S']."""

    rows: tf.Tensor
    scores: tf.Tensor
    counts: tf.Tensor
    positives: tf.Tensor


class PostingListGraph(tf.Module):
    """The posting lists as variables, and the lookup as a graph.

    A request's different keys are looked up once each, all sets at once: those of shared fields once a slate, the others once for
    each different value within it. Only then are the answers spread to the candidates.

    Args:
        lists: the posting lists.
        retrieval: K, the idf and whether the own user is excluded.
        shared: columns of [.., M] fields that are equal for all candidates of a slate.
        statistics: S' match sets whose rows are counted.
        user: the shared column that holds the own users' ids, if there is one: with it, exclusion reads less.
        pool_until: static mode: epoch seconds that all rows precede; a slate of an earlier time finds nothing. None: times are not
            looked at.

    Raises:
        ValueError: the lists were built for another K, or without the users that exclusion needs; `user` is not shared; or
            scores may be too high to be sorted with their rows.
    """

    def __init__(
        self,
        lists: PostingLists,
        retrieval: Retrieval,
        shared: Sequence[int] = (),
        statistics: Sequence[int] = (),
        user: int | None = None,
        pool_until: int | None = None,
    ) -> None:
        super().__init__(name="posting_lists")
        self._pool_until = pool_until
        _check(lists, retrieval, shared, user)
        num_rows = len(lists.rank_to_row)
        lanes = FieldLanes(lists.rank_to_fields.max(axis=0, initial=0))
        lists = _drop_unlisted(lists)
        match_sets = lists.match_sets
        query = list(match_sets.query_fields())
        self._match_sets, self._retrieval, self._user = match_sets, retrieval, user
        singles = [match_sets.set_of(field) for field in query]
        counted = sorted({*singles, *statistics})
        self._plan = KeyPlan(match_sets, shared, counted, lanes)
        order = self._plan.set_order()
        self._singles = [order.index(index) for index in singles]
        self._statistics = [order.index(index) for index in statistics]
        self._membership = match_sets.membership()[order][:, query]
        self._tables = SpanTables(lists, self._plan, len(counted), lanes)
        self._own_rows = OwnRows(lists, order, user) if retrieval.exclude_own_user else None
        self._finder = TopFinder(
            self._tables, self._own_rows, lanes, self._membership, retrieval.num_neighbours, match_sets.is_complete
        )
        self._num_rows, self._no_rank = num_rows, len(lists.rank_to_row)
        _check_scores(len(query), num_rows, retrieval.idf)
        self._rank_to_row = constant_variable(np.append(lists.rank_to_row, np.int32(NO_ROW)), "rank_to_row")
        self._rank_to_time = constant_variable(lists.rank_to_time, "rank_to_time") if lists.rolling else None

    def num_bytes(self) -> int:
        """Bytes of the variables."""
        return sum(variable.dtype.size * variable.shape.num_elements() for variable in self.variables)

    @tf.autograph.experimental.do_not_convert
    def nearest(self, fields: tf.Tensor, times: tf.Tensor, own_users: tf.Tensor) -> GraphNeighbours:
        """The exact top K of eq. 12, as `PostingLists.nearest`.

        Args:
            fields: int32 [B, C, M] ids as of the times; a candidate of zeros is padding and has no neighbours.
            times: int64 [B] epoch seconds.
            own_users: int32 [B] the slates' user ids; read only when the own user is excluded.
        """
        visible = tf.fill(tf.shape(times), self._num_rows)
        if self._rank_to_time is not None:
            visible = tf.searchsorted(self._rank_to_time, times)
        elif self._pool_until is not None:
            fields = tf.where((times >= self._pool_until)[:, None, None], fields, PADDING_ID)
        visible = tf.pad(visible, [[0, 1]])  # the last slate is that of padded candidates
        keys = self._plan.build(fields)
        spans = self._tables.find(keys, visible)
        counts = self._tables.count(spans, keys.num_counted)
        top = self._find_top(keys, spans, counts, visible, fields, own_users)
        found = top >= 0
        ranks = tf.where(found, tf.cast(tf.bitwise.bitwise_and(top, (1 << RANK_BITS) - 1), tf.int32), self._no_rank)
        units = tf.bitwise.right_shift(tf.maximum(top, 0), tf.constant(RANK_BITS, tf.int64))
        places = tf.transpose(tf.gather(keys.places, np.array(self._statistics, np.int32)))  # [n, S']
        answer = (
            tf.gather(self._rank_to_row, ranks),
            tf.cast(tf.cast(units, tf.float64) / SCORE_UNITS, tf.float32),
            tf.gather(counts, places),
            tf.gather(self._tables.count_positives(spans, keys.num_counted), places),
        )
        grid = tf.shape(fields)[:2]
        return GraphNeighbours(*(tf.reshape(part, tf.concat([grid, [part.shape[1]]], axis=0)) for part in answer))

    def _find_top(
        self,
        keys: Keys,
        spans: Spans,
        counts: tf.Tensor,
        visible: tf.Tensor,
        fields: tf.Tensor,
        own_users: tf.Tensor,
    ) -> tf.Tensor:
        """int64 [n, K] of score << RANK_BITS | rank, descending; negative where there is no row."""
        matches = tf.gather(counts, tf.gather(keys.places, self._singles))  # [Q, n]
        idf = self._idf(matches, tf.gather(visible, keys.candidate_slates))
        scores = tf.matmul(tf.constant(self._membership, tf.float64), idf)  # [S, n], whole numbers far below 2^53
        own_users = tf.pad(own_users, [[0, 1]])
        slate_users = own_users
        if self._own_rows is not None and self._user is not None:
            slate_users = tf.pad(tf.reduce_max(fields[:, :, self._user], axis=1), [[0, 1]])
        top = self._finder.find(keys, spans, idf, scores, own_users, slate_users)
        if self._match_sets.is_complete:
            return top
        own = tf.gather(own_users, keys.candidate_slates)[:, None]
        words = [word[:, None] for word in keys.candidate_words]
        terms = [column[:, None] for column in tf.unstack(tf.cast(idf, tf.int64))]

        def score(ranks: tf.Tensor) -> tf.Tensor:
            joined = self._finder.score_rows(ranks, words, terms)
            if self._own_rows is None:
                return joined
            return tf.where(self._own_rows.is_other(ranks, own), joined, -tf.ones_like(joined))

        bounds = bound_supersets(
            idf, matches > 0, scores, self._membership, self._plan.generators(), self._match_sets.depth
        )
        return scan_supersets(top, keys, spans, bounds, score, self._tables.ranks)

    def _idf(self, matches: tf.Tensor, num_rows: tf.Tensor) -> tf.Tensor:
        """float64 [Q, n] `bm25.idf_units` of the candidates' values, 0 where no visible row has one.

        Args:
            matches: int32 [Q, n] visible rows with the value.
            num_rows: int32 [n] visible rows.
        """
        odds = tf.cast(num_rows - matches, tf.float64) + 0.5
        odds /= tf.cast(matches, tf.float64) + 0.5
        idf = tf.math.log(odds) if self._retrieval.idf == "paper" else tf.math.log(1.0 + odds)
        return tf.round(tf.maximum(idf, 0.0) * SCORE_UNITS) * tf.cast(matches > 0, tf.float64)


def listed_ranks(lists: PostingLists) -> np.ndarray:
    """bool [N], which of the pool's ranks stand in some list: the others can never be retrieved."""
    is_listed = np.zeros(len(lists.rank_to_row), bool)
    is_listed[lists.ranks] = True
    return is_listed


def _drop_unlisted(lists: PostingLists) -> PostingLists:
    """The same lists with the rows alone that can be retrieved. Rolling mode needs all ranks: times are cut by them."""
    kept = listed_ranks(lists)
    if lists.rolling or kept.all():
        return lists
    new_ranks = np.cumsum(kept, dtype=np.int32) - 1
    names = ("rank_to_row", "rank_to_fields", "rank_to_user")
    rows = {name: getattr(lists, name)[kept] for name in names if len(getattr(lists, name))}
    return dataclasses.replace(lists, ranks=new_ranks[lists.ranks], **rows)


def _check(lists: PostingLists, retrieval: Retrieval, shared: Sequence[int], user: int | None) -> None:
    if lists.rule is not None and retrieval.num_neighbours > lists.rule.num_neighbours:
        raise ValueError(
            f"These posting lists hold the newest {lists.rule.num_neighbours} rows of a key. Received: num_neighbours = "
            f"{retrieval.num_neighbours}. Build them for that number."
        )
    if retrieval.exclude_own_user and len(lists.rank_to_user) < len(lists.rank_to_row):
        raise ValueError(
            "Excluding the own user needs posting lists that were built for it. Received: lists of a configuration with "
            "exclude_own_user = false."
        )
    if user is not None and user not in shared:
        raise ValueError(f"The own user's column must be shared. Received: user = {user}, shared = {list(shared)}.")


def _check_scores(num_fields: int, num_rows: int, idf: Literal["lucene", "paper"]) -> None:
    """Checks that a score and a rank fit in one int64."""
    highest = num_fields * int(idf_units(np.array(num_rows), np.array(1), idf))
    if highest >= 1 << (63 - RANK_BITS):
        raise ValueError(
            f"Scores must be below {(1 << (63 - RANK_BITS)) // SCORE_UNITS} to be sorted with their rows. Received: {num_fields} query "
            f"fields and {num_rows:,} pool rows, which may give {highest // SCORE_UNITS}. Set `query = false` on some of the fields."
        )
