"""A candidate's attention over the encoded futures of the neighbours of its user's situation."""

import numpy as np
import tensorflow as tf

_DECAY = 0.03  # of a row's initial logit with each step of age, as `OverlapGraph` weighs rows
_SLOPE_UNIT = 10.0  # Adam moves a weight by about its learning rate a step: slopes of 1 must not take a thousand steps
_MASKED_LOGIT = -1e9  # far below any real logit, and finite so that a user without neighbours gives no NaN


class EncodedFutures(tf.keras.layers.Layer):
    """What followed the neighbours of a situation, as states, weighed by each candidate: eqs. 14 and 15 with the situation as the query.

    An experiment of ours; the paper retrieves by the target. A logit of the attention is q s / sqrt(v), q a projection of the candidate;
    and a learnt number for the age of the history's row, which begins as -0.03 age; and a learnt multiple of ln(1 + overlap), which
    begins as 1.

    Args:
        num_rows: m.
        state_dim: v.
    """

    def __init__(self, num_rows: int, state_dim: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.num_rows, self.state_dim = num_rows, state_dim
        self._query = tf.keras.layers.Dense(state_dim, use_bias=False, name="query")

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes the weights of age [m], of overlaps and of the logit."""
        ages = tf.keras.initializers.Constant((-_DECAY * np.arange(self.num_rows)).astype(np.float32))
        self._age = self.add_weight(name="age", shape=(self.num_rows,), initializer=ages)
        self._overlap = self.add_weight(name="overlap", shape=(), initializer="ones")
        self._slope = self.add_weight(name="slope", shape=(), initializer="zeros")
        super().build(input_shape)

    def call(
        self, target: tf.Tensor, states: tf.Tensor, overlaps: tf.Tensor, mask: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Weighs.

        Args:
            target: float32 [B, C, D], x_t.
            states: float32 [B, m, K, v] of futures, those of the history's newest row first.
            overlaps: float32 [B, m, K], at least 0.
            mask: bool [B, m, K], True where there is a future.

        Returns:
            features float32 [B, C, 2 v], the mean state and its products with the query, zeros where there is no future; and what they
            add to the logit, float32 [B, C].
        """
        query = self._query(target)
        batch, count = tf.shape(states)[0], self.num_rows * tf.shape(states)[2]
        flat = tf.reshape(states, [batch, count, self.state_dim])
        bias = self._age[:, None] + self._overlap * tf.math.log1p(overlaps)  # [B, m, K]
        logits = tf.einsum("bcv,bnv->bcn", query, flat) / self.state_dim**0.5 + tf.reshape(bias, [batch, 1, count])
        seen = tf.reshape(mask, [batch, 1, count])
        weights = tf.where(seen, tf.nn.softmax(tf.where(seen, logits, _MASKED_LOGIT)), 0.0)
        mean = tf.einsum("bcn,bnv->bcv", weights, flat)
        products = query * mean
        logit = _SLOPE_UNIT * self._slope * tf.reduce_sum(products, axis=-1) / self.state_dim**0.5
        return tf.concat([mean, products], axis=-1), logit

    def get_config(self) -> dict[str, object]:
        """Arguments of the constructor."""
        return {**super().get_config(), "num_rows": self.num_rows, "state_dim": self.state_dim}
