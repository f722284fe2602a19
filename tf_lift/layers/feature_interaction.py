"""Pairwise products of the fields of one interaction (eq. 16)."""

import tensorflow as tf
import tensorflow_recommenders as tfrs


class FieldProducts(tf.keras.layers.Layer):
    """The inner product of every pair of fields, eq. 16, by `tfrs.layers.feature_interaction.DotInteraction`."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self._dot = tfrs.layers.feature_interaction.DotInteraction()

    def call(self, embedded: tf.Tensor) -> tf.Tensor:
        """Multiplies.

        Args:
            embedded: float32 [B, C, M, w].

        Returns:
            float32 [B, C, M (M - 1) / 2].
        """
        num_fields, width = embedded.shape[-2], embedded.shape[-1]
        fields = tf.unstack(tf.reshape(embedded, [-1, num_fields, width]), axis=1)
        products = self._dot(fields)
        shape = tf.shape(embedded)
        return tf.reshape(products, [shape[0], shape[1], num_fields * (num_fields - 1) // 2])
