"""The lookup of `transition_table` in stock TensorFlow operations, for training and for the SavedModel."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_lift.config import Relation
from tf_lift.retrieval.graph_spans import make_constant
from tf_lift.schema import FIRST_VALUE_ID
from tf_lift.situation.levels import SNAPSHOT_RADIX, Level, counted_fields, transition_keys
from tf_lift.situation.transition_table import TransitionTable


class Followers(NamedTuple):
    """What is said of pairs of a history's row and a candidate, of one shape.

    Attributes:
        weights: float32, T / sqrt(n n).
        totals: int32, the rows of the first value that the second followed.
        rows: int32, the first value's positive rows.
    """

    weights: tf.Tensor
    totals: tf.Tensor
    rows: tf.Tensor


@dataclasses.dataclass(frozen=True)
class TransitionGraph:
    """A `TransitionTable` as tensors, which may be constants (training) or variables (the SavedModel).

    Attributes:
        levels: what is counted.
        times: int64 [S].
        keys: int64 [E].
        counts: int32 [E].
        value_counts: int32 [V, S] each.
    """

    levels: tuple[Level, ...]
    times: tf.Tensor
    keys: tf.Tensor
    counts: tf.Tensor
    value_counts: tuple[tf.Tensor, ...]

    def weights(
        self,
        history: tf.Tensor,
        mask: tf.Tensor,
        candidates: tf.Tensor,
        times: tf.Tensor,
        relations: tuple[Relation, ...],
    ) -> tf.Tensor:
        """As `TransitionTable.weights`, with tensors: float32 [B, C, m, R]."""
        as_of = self.snapshots_at(times)[:, None, None]
        seen = tf.cast(mask, tf.float32)[:, None]
        weights = []
        for index, level in enumerate(self.levels):
            rows, ours = history[:, None], candidates[:, :, None]
            by_name = {}
            if relations != ("past",):
                future = self.followers(index, rows[..., level.first], ours[..., level.second], as_of)
                by_name["future"] = future.weights * seen
            if relations != ("future",):
                past = self.followers(index, ours[..., level.first], rows[..., level.second], as_of)
                by_name["past"] = past.weights * seen
            if "any" in relations:
                by_name["any"] = by_name["future"] + by_name["past"]
            weights += [by_name[name] for name in relations]
        return tf.stack(weights, axis=-1)

    def snapshots_at(self, times: tf.Tensor) -> tf.Tensor:
        """int64 [B], the newest snapshot that is not later than each time; -1 if there is none."""
        return tf.searchsorted(self.times, times, side="right", out_type=tf.int64) - 1

    def followers(self, index: int, first: tf.Tensor, second: tf.Tensor, snapshots: tf.Tensor) -> Followers:
        """Looks pairs up.

        Args:
            index: of the level.
            first: int32 ids, of a shape that broadcasts with the others'.
            second: int32 ids.
            snapshots: int64.
        """
        level = self.levels[index]
        safe = tf.maximum(snapshots, 0)
        wanted = transition_keys(index, tf.cast(first, tf.int64), tf.cast(second, tf.int64), safe)
        places = tf.searchsorted(self.keys, tf.reshape(wanted, [-1]), side="right", out_type=tf.int64) - 1
        places = tf.reshape(places, tf.shape(wanted))
        is_found = tf.gather(self.keys, places) // SNAPSHOT_RADIX == wanted // SNAPSHOT_RADIX
        is_found &= (first >= FIRST_VALUE_ID) & (second >= FIRST_VALUE_ID) & (snapshots >= 0)
        totals = tf.where(is_found, tf.gather(self.counts, places), 0)
        rows = self._rows_of(level.first, first, safe)
        others = self._rows_of(level.second, second, safe)
        scale = tf.cast(rows, tf.float32) * tf.cast(others, tf.float32)
        weights = tf.cast(totals, tf.float32) / tf.sqrt(tf.maximum(scale, 1.0))
        return Followers(weights, totals, tf.broadcast_to(tf.where(snapshots >= 0, rows, 0), tf.shape(totals)))

    def _rows_of(self, field: int, values: tf.Tensor, snapshots: tf.Tensor) -> tf.Tensor:
        """int32 positive rows of values as of snapshots."""
        table = self.value_counts[counted_fields(self.levels).index(field)]
        width = tf.shape(table, tf.int64)[1]
        return tf.gather(tf.reshape(table, [-1]), tf.cast(values, tf.int64) * width + snapshots)


def build_transition_graph(
    table: TransitionTable, make: Callable[[np.ndarray, str], tf.Tensor] = make_constant
) -> TransitionGraph:
    """Makes the tensors of a table.

    Args:
        table: the table.
        make: makes a tensor of an array and a name.
    """
    with tf.device("CPU"):  # looked up beside the interaction log
        return TransitionGraph(
            table.levels,
            make(table.times, "transition_times"),
            make(table.keys, "transition_keys"),
            make(table.counts, "transition_counts"),
            tuple(make(counts, f"value_counts_{index}") for index, counts in enumerate(table.value_counts)),
        )
