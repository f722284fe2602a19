"""The rows of the log that hold a value, newest first, as of a time."""

import numpy as np
import tensorflow as tf

from tf_lift.schema import FIRST_VALUE_ID


class ValueRows:
    """Looks up the newest rows that hold a value of one field.

    Rows lie in the order of (value, time); what lies before a time is found by a binary search for (value, rows of the log before the
    time), as one number.

    Args:
        values: int [N] the field's id of each row.
        times: int64 [N] epoch seconds.
    """

    def __init__(self, values: np.ndarray, times: np.ndarray) -> None:
        by_time = np.argsort(times, kind="stable")
        ranks = np.empty(len(times), np.int64)
        ranks[by_time] = np.arange(len(times))
        keys = values.astype(np.int64) * (len(times) + 1) + ranks
        order = np.argsort(keys)
        with tf.device("CPU"):
            self._rows = tf.constant(order.astype(np.int32))
            self._keys = tf.constant(keys[order])
            self._times = tf.constant(times[by_time])

    def newest(self, values: tf.Tensor, times: tf.Tensor, count: int) -> tf.Tensor:
        """Finds rows.

        Args:
            values: int32 [B, C] ids; padding and unknown ids have no rows.
            times: int64 [B] as-of times.
            count: R.

        Returns:
            int32 [B, C, R] row ids strictly before the time, the newest first; -1 where there is none.
        """
        num_before = tf.searchsorted(self._times, times, out_type=tf.int64)[:, None]
        first = tf.cast(values, tf.int64) * (tf.size(self._times, tf.int64) + 1)
        queries = tf.stack([first, first + num_before])  # [2, B, C]
        start, end = tf.unstack(
            tf.reshape(tf.searchsorted(self._keys, tf.reshape(queries, [-1]), out_type=tf.int64), tf.shape(queries))
        )
        places = end[..., None] - 1 - tf.range(count, dtype=tf.int64)
        found = (places >= start[..., None]) & (values >= FIRST_VALUE_ID)[..., None]
        return tf.where(found, tf.gather(self._rows, tf.maximum(places, 0)), -1)
