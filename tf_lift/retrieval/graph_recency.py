"""How often and how lately the pool met a candidate's values, as of a time, in stock TensorFlow operations.

What others did with an item an hour ago is the newest thing that is known of it; counts over all time do not tell.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_lift.interactions import InteractionLog
from tf_lift.retrieval.graph_spans import make_constant, segment_lower_bound
from tf_lift.schema import FIRST_VALUE_ID

_SECONDS_PER_DAY = 86_400
NEVER = -1  # seconds since the newest row, where there is none


class Recency(NamedTuple):
    """What was met of the F values of each candidate.

    Attributes:
        counts: int32 [B, C, F, W], pool rows within each of the W spans that end at the slate's time, which they leave out.
        seconds: int64 [B, C, F], from the newest pool row before that time to it; NEVER where there is none.
    """

    counts: tf.Tensor
    seconds: tf.Tensor


@dataclasses.dataclass(frozen=True)
class RecencyGraph:
    """Rows of the pool by value of each of F fields, as tensors, which may be constants (training) or variables (the SavedModel).

    Attributes:
        field_indices: the F fields.
        span_seconds: W lengths.
        pool_times: int64 [P], of the pool's rows in ascending order.
        ranks: int32 [F P], places in that order: field after field, value after value, ascending.
        starts: int64 [V + 1], where each value's ranks begin; V values of all fields.
        first_values: int64 [F], which of the V each field's id 0 is.
        search_steps: of a binary search in the longest list.
    """

    field_indices: tuple[int, ...]
    span_seconds: tuple[int, ...]
    pool_times: tf.Tensor
    ranks: tf.Tensor
    starts: tf.Tensor
    first_values: tf.Tensor
    search_steps: int

    def read(self, fields: tf.Tensor, times: tf.Tensor) -> Recency:
        """Counts the rows strictly before a time.

        Args:
            fields: int32 [B, C, M] ids. A missing or unknown value was never met.
            times: int64 [B].
        """
        values = tf.gather(fields, self.field_indices, axis=2)  # [B, C, F]
        places = tf.where(values >= FIRST_VALUE_ID, tf.cast(values, tf.int64) + self.first_values, 0)
        starts, stops = tf.gather(self.starts, places), tf.gather(self.starts, places + 1)
        edges = times[:, None] - tf.constant((0, *self.span_seconds), tf.int64)  # [B, 1 + W]
        bounds = tf.searchsorted(self.pool_times, tf.reshape(edges, [-1]), side="left")
        num_edges = 1 + len(self.span_seconds)
        shape = tf.concat([tf.shape(values), [num_edges]], axis=0)
        found = segment_lower_bound(
            self.ranks,
            tf.broadcast_to(starts[..., None], shape),
            tf.broadcast_to(stops[..., None], shape),
            tf.broadcast_to(tf.reshape(bounds, [-1, 1, 1, num_edges]), shape),
            self.search_steps,
        )
        until = found[..., 0]
        newest = tf.gather(self.pool_times, tf.gather(self.ranks, tf.maximum(until - 1, 0)))
        seconds = tf.where(until > starts, times[:, None, None] - newest, NEVER)
        return Recency(tf.cast(until[..., None] - found[..., 1:], tf.int32), seconds)


def build_recency_graph(
    log: InteractionLog,
    in_pool: np.ndarray,
    field_sizes: dict[int, int],
    days: Sequence[float],
    make: Callable[[np.ndarray, str], tf.Tensor] = make_constant,
) -> RecencyGraph:
    """Makes the lists of a log.

    Args:
        log: the interaction log.
        in_pool: bool [N], the rows that are counted.
        field_sizes: ids of each field that is read, by its index.
        days: lengths of the spans.
        make: makes a tensor of an array and a name.
    """
    pool = log.time_order[in_pool[log.time_order]]
    ranks, starts, first_values, num_values = [], [np.zeros(1, np.int64)], [], 0
    longest = 1
    for field, size in field_sizes.items():
        values = log.fields[pool, field]
        counts = np.bincount(values, minlength=size)
        counts[:FIRST_VALUE_ID] = 0  # missing and unknown values have no list; `read` looks up id 0 for them
        order = np.argsort(values, kind="stable")
        ranks.append(order[values[order] >= FIRST_VALUE_ID].astype(np.int32))
        starts.append(starts[-1][-1] + np.cumsum(counts))
        first_values.append(num_values)
        num_values += size
        longest = max(longest, int(counts.max(initial=1)))
    all_ranks = np.concatenate(ranks)
    arrays = {
        "pool_times": log.time[pool] if len(pool) else np.zeros(1, np.int64),
        "ranks": all_ranks if len(all_ranks) else np.zeros(1, np.int32),
        "starts": np.concatenate(starts),
        "first_values": np.array(first_values, np.int64),
    }
    with tf.device("CPU"):  # looked up beside the interaction log
        tensors = {name: make(value, f"recency_{name}") for name, value in arrays.items()}
    span_seconds = tuple(round(length * _SECONDS_PER_DAY) for length in days)
    return RecencyGraph(tuple(field_sizes), span_seconds, **tensors, search_steps=longest.bit_length())
