"""How often and how lately the pool met a candidate's values, as numbers."""

import tensorflow as tf

from tf_lift.layers.standardised_features import StandardisedFeatures

_LOG_COUNT = 4.0  # ln of 55 rows
_LONG_GAP = 10.0  # ln of 6 hours in seconds
_NEVER_MET = 2.0  # in long gaps: 15 years, the longest


class RecencyStatistics(StandardisedFeatures):
    """Features of a candidate's recency: ln(1 + count) / 4 of each of F fields and W spans, and `log_gap` since the newest row of each
    field, at most 2, which is also that of a value that was never met.

    Ours; the paper has no such input.
    """

    def count_features(self, input_shape: tf.TensorShape) -> int:
        """F (W + 1)."""
        return int(input_shape[-2]) * (int(input_shape[-1]) + 1)

    def compute_features(self, counts: tf.Tensor, seconds: tf.Tensor) -> tf.Tensor:
        """Computes the features.

        Args:
            counts: int32 [B, C, F, W].
            seconds: int64 [B, C, F]; below 0 where no row was met.

        Returns:
            float32 [B, C, F (W + 1)].
        """
        often = tf.math.log1p(tf.cast(counts, tf.float32)) / _LOG_COUNT
        gaps = tf.where(seconds >= 0, tf.minimum(log_gap(seconds), _NEVER_MET), _NEVER_MET)
        width = counts.shape[2] * counts.shape[3]
        shape = tf.concat([tf.shape(counts)[:2], [width]], axis=0)
        return tf.concat([tf.ensure_shape(tf.reshape(often, shape), [None, None, width]), gaps], axis=-1)


def log_gap(seconds: tf.Tensor) -> tf.Tensor:
    """ln(1 + seconds), float32, in units of 6 hours' own; of what is below 0, that of 0."""
    return tf.math.log1p(tf.cast(tf.maximum(seconds, 0), tf.float32)) / _LONG_GAP
