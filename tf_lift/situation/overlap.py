"""The K neighbours of a situation by overlap, and what they did next, in stock TensorFlow operations (FINDINGS.md).

For each of the user's last m items, the newest pool rows of other users with that item are looked up in the item's posting list. Those
whose preceding items share most with the user's own are kept, and a candidate is counted in what followed them.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_lift.interactions import InteractionLog
from tf_lift.retrieval.graph_spans import make_constant, segment_lower_bound
from tf_lift.schema import FIRST_VALUE_ID, PADDING_ID

NUM_FEATURES = 4  # of a candidate; see `OverlapGraph.features`
_AGE_DECAY = 0.97  # of a row of the history, each step
_PLACE_DECAY = 0.9  # of what followed or preceded a row, each step


class OverlapSettings(NamedTuple):
    """How neighbours are chosen.

    Attributes:
        num_rows: newest rows of each item of the history that are compared.
        num_neighbours: K, rows of each item that are kept.
        length: rows before one that are compared with the history, and rows after it where a candidate is looked for.
    """

    num_rows: int
    num_neighbours: int
    length: int


class SituationNeighbours(NamedTuple):
    """The neighbours of a batch's situations.

    Attributes:
        rows: int32 [B, m, K] row ids.
        overlaps: float32 [B, m, K].
        mask: bool [B, m, K], True where there is one.
    """

    rows: tf.Tensor
    overlaps: tf.Tensor
    mask: tf.Tensor

    def nearest(self, count: int) -> "SituationNeighbours":
        """Those of most overlap of each item, [B, m, count]."""
        return SituationNeighbours(*(value[..., :count] for value in self))


@dataclasses.dataclass(frozen=True)
class OverlapGraph:
    """The lists of all items as tensors, which may be constants (training) or variables (the SavedModel).

    Attributes:
        settings: how neighbours are chosen.
        item_rows: int32 [P], the pool's positive rows by item, each item's by time rank.
        item_times: int64 [P], their times.
        item_starts: int64 [I + 1], where each item's rows begin.
        pool_times: int64 [P], the same times in ascending order.
        positive_items: int32 [N], the item of each row of the log, PADDING_ID where its label is 0.
        row_times: int64 [N].
        row_users: int32 [N] user indices.
        user_starts: int32 [U + 1].
        search_steps: of a binary search in the longest list.
    """

    settings: OverlapSettings
    item_rows: tf.Tensor
    item_times: tf.Tensor
    item_starts: tf.Tensor
    pool_times: tf.Tensor
    positive_items: tf.Tensor
    row_times: tf.Tensor
    row_users: tf.Tensor
    user_starts: tf.Tensor
    search_steps: int

    def features(self, found: SituationNeighbours, times: tf.Tensor, candidates: tf.Tensor) -> tf.Tensor:
        """What neighbours say of candidates.

        Args:
            found: what `neighbours` returned.
            times: int64 [B].
            candidates: int32 [B, C] items.

        Returns:
            float32 [B, C, 4]: sums over the neighbours that had the candidate next, with weights that fall with the history's age and
            the place; the same weighed by their overlap; the first over what preceded them; and how many had it next.
        """
        steps = tf.range(1, self.settings.length + 1)
        before, exists = self._items_before(found.rows, steps)  # [B, m, K, L]
        after, visible = self._items_after(found.rows, steps, times)
        ages = tf.cast(tf.range(tf.shape(found.rows)[1]), tf.float32)[:, None, None]
        decay = tf.pow(_AGE_DECAY, ages) * tf.pow(_PLACE_DECAY, tf.cast(steps - 1, tf.float32))
        is_next = tf.cast(visible & found.mask[..., None], tf.float32)
        was_before = tf.cast(exists & found.mask[..., None], tf.float32)
        weights = [is_next * decay, is_next * decay * found.overlaps[..., None], is_next]
        later = self._count(after, tf.stack(weights, axis=-1), candidates)
        earlier = self._count(before, (was_before * decay)[..., None], candidates)
        return tf.concat([later[..., :2], earlier, later[..., 2:]], axis=-1)

    def neighbours(self, items: tf.Tensor, mask: tf.Tensor, users: tf.Tensor, times: tf.Tensor) -> SituationNeighbours:
        """The rows of each item whose preceding items overlap most with the history, those of most overlap first.

        Args:
            items: int32 [B, m] of the history, the newest first.
            mask: bool [B, m], True where a row is real.
            users: int32 [B] user ids, whose own rows are left out.
            times: int64 [B].
        """
        starts = tf.gather(self.item_starts, items)
        ends = tf.gather(self.item_starts, items + 1)
        stops = segment_lower_bound(
            self.item_times, starts, ends, tf.broadcast_to(times[:, None], tf.shape(items)), self.search_steps
        )
        places = stops[..., None] - 1 - tf.range(self.settings.num_rows, dtype=tf.int64)  # the newest first
        is_row = (places >= starts[..., None]) & (mask & (items >= FIRST_VALUE_ID))[..., None]
        rows = tf.gather(self.item_rows, tf.maximum(places, 0))  # [B, m, R]
        is_row &= tf.gather(self.row_users, rows) != users[:, None, None] - FIRST_VALUE_ID
        shares = self._item_weights(items, mask, tf.cast(stops - starts, tf.float32), times)  # [B, I]
        before, exists = self._items_before(rows, tf.range(1, self.settings.length + 1))
        flat = tf.reshape(tf.range(tf.shape(items)[0]) * tf.shape(shares)[1], [-1, 1, 1, 1]) + before
        weights = tf.gather(tf.reshape(shares, [-1]), flat) * tf.cast(exists, tf.float32)
        overlaps = tf.where(is_row, tf.reduce_sum(weights, axis=-1), -1.0)
        top, chosen = tf.math.top_k(overlaps, tf.minimum(self.settings.num_neighbours, self.settings.num_rows))
        return SituationNeighbours(tf.gather(rows, chosen, batch_dims=2), tf.maximum(top, 0.0), top >= 0.0)

    def _item_weights(self, items: tf.Tensor, mask: tf.Tensor, num_rows: tf.Tensor, times: tf.Tensor) -> tf.Tensor:
        """float32 [B, I]: idf of each item of the history as of the time, times 0.9 for each step of its age; 0 for other items."""
        total = tf.cast(tf.searchsorted(self.pool_times, times, side="left"), tf.float32)[:, None]
        idf = tf.math.log1p((tf.maximum(total - num_rows, 0.0) + 0.5) / (num_rows + 0.5))
        ages = tf.cast(tf.range(tf.shape(items)[1]), tf.float32)
        weights = tf.where(mask & (items >= FIRST_VALUE_ID), idf * tf.pow(_PLACE_DECAY, ages), 0.0)
        batch, num_items = tf.shape(items)[0], tf.shape(self.item_starts)[0] - 1
        flat = tf.reshape(tf.range(batch)[:, None] * num_items + items, [-1])
        shares = tf.math.unsorted_segment_max(tf.reshape(weights, [-1]), flat, batch * num_items)
        return tf.reshape(tf.maximum(shares, 0.0), [batch, num_items])

    def _items_before(self, rows: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Items of the rows some steps before others of the same user, [.., L], and which of them there are; all are older than these."""
        first = tf.gather(self.user_starts, tf.gather(self.row_users, rows))[..., None]
        places = rows[..., None] - steps
        return tf.gather(self.positive_items, tf.maximum(places, 0)), places >= first

    def _items_after(self, rows: tf.Tensor, steps: tf.Tensor, times: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Items of the rows some steps after others of the same user, and which of them there are strictly before a time."""
        last = tf.gather(self.user_starts, tf.gather(self.row_users, rows) + 1)[..., None] - 1
        places = rows[..., None] + steps
        safe = tf.minimum(places, last)
        is_there = (places <= last) & (tf.gather(self.row_times, safe) < tf.reshape(times, [-1, 1, 1, 1]))
        return tf.gather(self.positive_items, safe), is_there

    def _count(self, items: tf.Tensor, weights: tf.Tensor, candidates: tf.Tensor) -> tf.Tensor:
        """Sums weights [B, m, K, L, F] of the places [B, m, K, L] whose item is a candidate: [B, C, F]."""
        batch, count = tf.shape(candidates)[0], tf.shape(candidates)[1]
        order = tf.argsort(candidates, axis=1)
        ordered = tf.gather(candidates, order, batch_dims=1)
        flat = tf.reshape(items, [batch, -1])
        places = tf.minimum(tf.searchsorted(ordered, flat, side="left"), count - 1)
        is_one = (tf.gather(ordered, places, batch_dims=1) == flat) & (flat >= FIRST_VALUE_ID)
        segments = tf.where(is_one, tf.range(batch)[:, None] * count + places, -1)
        num_features = weights.shape[-1]
        sums = tf.math.unsorted_segment_sum(
            tf.reshape(weights, [-1, num_features]), tf.reshape(segments, [-1]), batch * count
        )
        sums = tf.reshape(sums, [batch, count, num_features])
        # A candidate that is there twice has its sum at its first place among the ordered.
        first = tf.searchsorted(ordered, candidates, side="left")
        return tf.gather(sums, first, batch_dims=1)


def build_overlap_graph(
    log: InteractionLog,
    in_pool: np.ndarray,
    positive: np.ndarray,
    item_index: int,
    num_items: int,
    settings: OverlapSettings,
    times_and_users: tuple[tf.Tensor, tf.Tensor],
    make: Callable[[np.ndarray, str], tf.Tensor] = make_constant,
) -> OverlapGraph:
    """Makes the lists of a log.

    Args:
        log: the interaction log.
        in_pool: bool [N], the rows that may be neighbours: the static pool, or all rows of a rolling one.
        positive: bool [N], rows of the log itself whose label is 1.
        item_index: the item's column.
        num_items: I, ids of items.
        settings: how neighbours are chosen.
        times_and_users: of the log's rows, int64 [N] and int32 [N] user indices, as the datastore has them.
        make: makes a tensor of an array and a name.
    """
    items = log.fields[:, item_index]
    ranked = log.time_order[(in_pool & positive)[log.time_order]]
    rows = ranked[np.argsort(items[ranked], kind="stable")].astype(np.int32)
    counts = np.bincount(items[rows], minlength=num_items)
    arrays = {
        "item_rows": rows if len(rows) else np.zeros(1, np.int32),
        "item_times": log.time[rows] if len(rows) else np.zeros(1, np.int64),
        "item_starts": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "pool_times": log.time[ranked],
        "positive_items": np.where(positive, items, PADDING_ID).astype(np.int32),
        "user_starts": log.user_starts.astype(np.int32),
    }
    with tf.device("CPU"):  # looked up beside the interaction log
        tensors = {name: make(value, f"overlap_{name}") for name, value in arrays.items()}
    row_times, row_users = times_and_users
    return OverlapGraph(
        settings,
        **tensors,
        row_times=row_times,
        row_users=row_users,
        search_steps=int(counts.max(initial=1)).bit_length(),
    )
