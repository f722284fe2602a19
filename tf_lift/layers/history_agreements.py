"""How a candidate agrees with its user's last rows, as counts."""

from collections.abc import Sequence

import tensorflow as tf

from tf_lift.datastore import Window
from tf_lift.schema import FIRST_VALUE_ID


def count_agreements(
    fields: tf.Tensor, history: Window, is_positive: tf.Tensor, field_indices: Sequence[int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Counts the rows of a history that hold a candidate's value of a field.

    Args:
        fields: int32 [B, C, M], of the candidates.
        history: rows [B, L, ..].
        is_positive: float32 [B, L], 1 where a row's label is 1.
        field_indices: F fields. A candidate's missing or unknown value agrees with nothing.

    Returns:
        int32 [B, C, F + 1] numbers of rows, the last of all rows; and how many of each are positive.
    """
    real = tf.cast(history.mask, tf.float32)
    weights = tf.stack([real, real * is_positive], axis=-1)  # [B, L, 2]
    counts = []
    for field in field_indices:
        values = fields[..., field]
        agrees = (values[:, :, None] == history.fields[:, None, :, field]) & (values >= FIRST_VALUE_ID)[:, :, None]
        counts.append(tf.matmul(tf.cast(agrees, tf.float32), weights))  # [B, C, 2]
    counts.append(tf.tile(tf.reduce_sum(weights, axis=1)[:, None], [1, tf.shape(fields)[1], 1]))
    found = tf.cast(tf.round(tf.stack(counts, axis=2)), tf.int32)  # [B, C, F + 1, 2]
    return found[..., 0], found[..., 1]
