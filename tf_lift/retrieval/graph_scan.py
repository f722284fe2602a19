"""Rows that match more fields than any match set holds, where not all sets have lists: `nearest._scan_supersets` in TensorFlow."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_lift.retrieval.graph_keys import Keys
from tf_lift.retrieval.graph_spans import Spans
from tf_lift.retrieval.graph_top import RANK_BITS, top_distinct

_ENTRIES_AT_ONCE = 1 << 18
_LEAST_WIDTH = 64


class _Progress(NamedTuple):
    """How far the scan is."""

    top: tf.Tensor  # int64 [n, K]
    turns: tf.Tensor  # int32 [n]: which list of its order each candidate reads
    offsets: tf.Tensor  # [n]: how many of its rows were read


def scan_supersets(
    top: tf.Tensor,
    keys: Keys,
    spans: Spans,
    bounds: tf.Tensor,
    score: Callable[[tf.Tensor], tf.Tensor],
    ranks: tf.Variable,
) -> tf.Tensor:
    """Reads to their end the lists whose upper bound reaches the last of the top K; each candidate its own, in the bounds' order.

    Args:
        top: int64 [n, K] of score << RANK_BITS | rank, descending.
        keys: T keys.
        spans: their rows.
        bounds: int64 [S, n] from `bound_supersets`.
        score: from int32 [n, width] rows to score << RANK_BITS | rank, negative for a row that may not be given.
        ranks: the entries.

    Returns:
        int64 [n, K], the top of all rows.
    """
    num_sets, k = bounds.shape[0], top.shape[1]
    num_candidates = tf.shape(bounds)[1]
    order = tf.argsort(-tf.transpose(bounds), axis=1, stable=True)  # [n, S]
    bounds = tf.gather(tf.transpose(bounds), order, batch_dims=1)
    places = tf.gather(tf.transpose(keys.places), order, batch_dims=1)
    width = tf.maximum(_ENTRIES_AT_ONCE // tf.maximum(num_candidates, 1), _LEAST_WIDTH)

    def active(progress: _Progress) -> tf.Tensor:
        turns = tf.minimum(progress.turns, num_sets - 1)
        bound = tf.gather(bounds, turns, batch_dims=1)
        last = tf.bitwise.right_shift(progress.top[:, -1], tf.constant(RANK_BITS, tf.int64))  # negative: there is room
        return (progress.turns < num_sets) & (bound >= 0) & (bound >= last)

    def read(progress: _Progress) -> tuple[_Progress]:
        is_active = active(progress)
        key = tf.gather(places, tf.minimum(progress.turns, num_sets - 1), batch_dims=1)
        starts, stops = tf.gather(spans.starts, key), tf.gather(spans.stops, key)
        entries = (stops - 1 - progress.offsets)[:, None] - tf.range(tf.cast(width, stops.dtype))
        is_row = (entries >= starts[:, None]) & is_active[:, None]
        found = score(tf.gather(ranks, tf.maximum(entries, 0)))
        found = tf.where(is_row, found, -tf.ones_like(found))
        offsets = progress.offsets + tf.cast(width, stops.dtype)
        is_finished = is_active & (offsets >= stops - starts)
        return (
            _Progress(
                top_distinct(tf.concat([progress.top, found], axis=1), k),
                progress.turns + tf.cast(is_finished, tf.int32),
                tf.where(is_finished | ~is_active, tf.zeros_like(offsets), offsets),
            ),
        )

    first = _Progress(top, tf.zeros_like(order[:, 0]), tf.zeros_like(order[:, 0], spans.stops.dtype))
    return tf.while_loop(lambda progress: tf.reduce_any(active(progress)), read, (first,))[0].top


def bound_supersets(
    idf: tf.Tensor, found: tf.Tensor, scores: tf.Tensor, membership: np.ndarray, generators: np.ndarray, depth: int
) -> tf.Tensor:
    """The highest score of a row listed under a set that matches more than the set holds (see `nearest.find_nearest`).

    Args:
        idf: float64 [Q, n].
        found: bool [Q, n], whether any row has the value.
        scores: float64 [S, n] of the sets.
        membership: bool [S, Q] the fields of the sets.
        generators: bool [S, Q].
        depth: how many fields it takes at most to generate one of the sets.

    Returns:
        int64 [S, n], -1 where there can be none.
    """
    num_columns = membership.shape[1]
    columns, values = tf.unstack(idf, num_columns), tf.unstack(found, num_columns)
    least = tf.fill(tf.shape(scores), tf.constant(np.inf, tf.float64))
    for column in range(num_columns):
        of_set = np.where(generators[:, column], 0.0, np.inf)[:, None]
        least = tf.minimum(least, columns[column] + of_set)
    extra, is_possible = tf.zeros_like(scores), tf.zeros_like(scores, tf.bool)
    for column in range(num_columns):
        beyond = values[column] & (columns[column] <= least) & ~membership[:, column, None]
        extra += tf.cast(beyond, tf.float64) * columns[column]
        is_possible |= beyond
    is_possible &= (membership.sum(axis=1) >= depth)[:, None]
    return tf.cast(tf.where(is_possible, scores + extra, -tf.ones_like(scores)), tf.int64)
