"""What neighbours of a situation say of candidates, as features."""

import tensorflow as tf

_SLOPE_UNIT = 10.0  # Adam moves a weight by about its learning rate a step: slopes of 1 must not take a thousand steps


class OverlapFeatures(tf.keras.layers.Layer):
    """Features ln(1 + x) of the sums of `OverlapGraph.features`, and their learnt sum for the logit.

    Ours; the paper has no such input.
    """

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes a weight a sum."""
        self._slope = self.add_weight(name="slope", shape=(int(input_shape[-1]),), initializer="zeros")
        super().build(input_shape)

    def call(self, sums: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Features float32 [B, C, F] of sums float32 [B, C, F], at least 0, and what they add to the logit, float32 [B, C]."""
        features = tf.math.log1p(sums)
        return features, tf.linalg.matvec(features, _SLOPE_UNIT * self._slope)
