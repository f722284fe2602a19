"""A history's state, crossed with the moment and the user that ask (Latent Cross, Beutel et al., WSDM'18)."""

import tensorflow as tf

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
GAP_EDGES = (10, _MINUTE, 10 * _MINUTE, _HOUR, 6 * _HOUR, _DAY, 7 * _DAY, 30 * _DAY, 365 * _DAY)
"""Seconds: a gap's bucket is the number of edges below it."""


class LatentCross(tf.keras.layers.Layer):
    """Crosses states with their context: (1 + a_g) * h + b_g + W u.

    g is the bucket of the time since the last row, u the embeddings of the user's fields. a and b begin at 0.

    Differences from its source: b, and a user that is added. LIFT has no such layer.

    Args:
        state_dim: v.
        reads_gap: False: a and b stay 0.
        user_dropout: share of u's numbers that training sets to 0; None: W is 0.
    """

    def __init__(self, state_dim: int, reads_gap: bool, user_dropout: float | None, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self._reads_gap, self._reads_user = reads_gap, user_dropout is not None
        if self._reads_gap:
            self._scales, self._shifts = (
                tf.keras.layers.Embedding(len(GAP_EDGES) + 1, state_dim, embeddings_initializer="zeros", name=name)
                for name in ("scales", "shifts")
            )
        if self._reads_user:
            self._dropout = tf.keras.layers.Dropout(user_dropout)
            self._project = tf.keras.layers.Dense(state_dim, use_bias=False, name="project_user")

    def call(self, states: tf.Tensor, seconds: tf.Tensor, users: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Crosses.

        Args:
            states: float32 [n, v].
            seconds: int64 [n] since the last row.
            users: float32 [n, F, w], embeddings of the user's fields.
            training: whether dropout is on.

        Returns:
            float32 [n, v].
        """
        crossed = states
        if self._reads_gap:
            buckets = tf.searchsorted(tf.constant(GAP_EDGES, tf.int64), seconds)
            crossed = (1.0 + self._scales(buckets)) * states + self._shifts(buckets)
        if self._reads_user:
            flat = tf.reshape(users, [-1, users.shape[1] * users.shape[2]])
            crossed += self._project(self._dropout(flat, training=training))
        return crossed
