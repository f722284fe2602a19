"""Attention over the rows of a history, by what their followers say of a candidate."""

import numpy as np
import tensorflow as tf

_DECAY = 0.1  # of a row's initial weight with each step of age
_SCALE = 100.0  # typical sums are 0.001 to 0.3: ln(1 + 100 x) tells them apart
_UNIT = 4.0  # the largest ln(1 + 100 x) that is common: features of about 1, as the others of the predictor
_MAX_LOGIT = 5.0
_SLOPE_UNIT = 10.0  # Adam moves a weight by about its learning rate a step: slopes of 1 must not take a thousand steps


class SituationAttention(tf.keras.layers.Layer):
    """Features ln(1 + 100 sum over h of a_h w(h, c)) / 4 of a candidate c, one for each relation at each level.

    Ours; the paper has no such input. The a_h are positive, exp of a learnt function of the row's age in steps, its behaviour and its
    item's embedding, and are not normalised: a longer history says more. They begin as exp(-0.1 age).

    Args:
        num_rows: m.
        num_labels: behaviours, an unknown one among them.
    """

    def __init__(self, num_rows: int, num_labels: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.num_rows, self.num_labels = num_rows, num_labels

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes the weights of age [m, R], behaviour [labels, R] and each relation [R]; see `call` for the embedding's."""
        num_features = int(input_shape[-1])
        ages = np.repeat(-_DECAY * np.arange(self.num_rows)[:, None], num_features, axis=1)
        self._age = self.add_weight(
            name="age", shape=ages.shape, initializer=tf.keras.initializers.Constant(ages.astype(np.float32))
        )
        self._label = self.add_weight(name="label", shape=(self.num_labels, num_features), initializer="zeros")
        self._item = tf.keras.layers.Dense(num_features, use_bias=False, kernel_initializer="zeros", name="item")
        self._slope = self.add_weight(name="slope", shape=(num_features,), initializer="zeros")
        super().build(input_shape)

    def call(
        self, weights: tf.Tensor, labels: tf.Tensor, items: tf.Tensor, mask: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Weighs.

        Args:
            weights: float32 [B, C, m, R] of each row, the newest first.
            labels: int32 [B, m] behaviours.
            items: float32 [B, m, w] embeddings of the rows' items.
            mask: bool [B, m], True where a row is real.

        Returns:
            features float32 [B, C, R], and their learnt sum float32 [B, C], for the logit.
        """
        logits = self._age + tf.gather(self._label, labels) + self._item(items)  # [B, m, R]
        attention = tf.exp(tf.minimum(logits, _MAX_LOGIT)) * tf.cast(mask, tf.float32)[..., None]
        features = tf.math.log1p(_SCALE * tf.einsum("bmr,bcmr->bcr", attention, weights)) / _UNIT
        return features, tf.linalg.matvec(features, _SLOPE_UNIT * self._slope)

    def get_config(self) -> dict[str, object]:
        """Arguments of the constructor."""
        return {**super().get_config(), "num_rows": self.num_rows, "num_labels": self.num_labels}
