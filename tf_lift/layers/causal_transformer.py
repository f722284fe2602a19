"""A Transformer over a history, and over queries that are appended to it one at a time."""

import tensorflow as tf

_MASKED_LOGIT = -1e9  # far below any real logit, and finite so that a row without keys gives no NaN


class HistoryAttention(tf.keras.layers.Layer):
    """Attention of P places to the L rows of a history and, each, to itself.

    The first L places are the rows. The others are queries: each sees rows and itself, never another query, so a slate of C
    candidates costs L + C places and not C copies of the history.

    Args:
        num_heads: attention heads.
        state_dim: v.
    """

    def __init__(self, num_heads: int, state_dim: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.state_dim = state_dim
        self._project = tf.keras.layers.Dense(3 * state_dim, name="query_key_value")
        self._output = tf.keras.layers.Dense(state_dim, name="output")

    def call(self, states: tf.Tensor, visible: tf.Tensor, asked: tf.Tensor | None = None) -> tf.Tensor:
        """Attends.

        Args:
            states: float32 [B, P, v].
            visible: bool [B, A, L], True where a place that is asked sees a row other than itself.
            asked: int32 [B, A], the places that attend; None: all P.

        Returns:
            float32 [B, A, v].
        """
        length = tf.shape(visible)[2]
        head_dim = self.state_dim // self.num_heads
        projected = self._project(states)
        shape = tf.concat([tf.shape(states)[:2], [3, self.num_heads, head_dim]], 0)
        query, key, value = tf.unstack(tf.reshape(projected, shape), axis=2)  # [B, P, H, d] each
        row_key, row_value = key[:, :length], value[:, :length]
        if asked is not None:
            query, key, value = (tf.gather(part, asked, batch_dims=1) for part in (query, key, value))
        query = query * head_dim**-0.5
        to_rows = tf.einsum("bphd,blhd->bhpl", query, row_key)  # [B, H, A, L]
        to_rows = tf.where(visible[:, None], to_rows, _MASKED_LOGIT)
        to_self = tf.transpose(tf.reduce_sum(query * key, axis=-1), [0, 2, 1])[..., None]  # [B, H, A, 1]
        weights = tf.nn.softmax(tf.concat([to_rows, to_self], axis=-1))
        mixed = tf.einsum("bhpl,blhd->bphd", weights[..., :-1], row_value)
        mixed += tf.transpose(weights[..., -1], [0, 2, 1])[..., None] * value
        return self._output(tf.reshape(mixed, tf.concat([tf.shape(mixed)[:2], [self.state_dim]], 0)))

    def get_config(self) -> dict[str, object]:
        """Arguments of the constructor."""
        return {**super().get_config(), "num_heads": self.num_heads, "state_dim": self.state_dim}


class TransformerBlock(tf.keras.layers.Layer):
    """A pre-norm block: attention, then two dense layers, each with a residual connection.

    Args:
        num_heads: attention heads.
        state_dim: v.
        dropout_rate: dropout after each of the two parts.
    """

    def __init__(self, num_heads: int, state_dim: int, dropout_rate: float, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.num_heads, self.state_dim, self.dropout_rate = num_heads, state_dim, dropout_rate
        self._attention_norm = tf.keras.layers.LayerNormalization(name="attention_norm")
        self._attention = HistoryAttention(num_heads, state_dim, name="attention")
        self._dense_norm = tf.keras.layers.LayerNormalization(name="dense_norm")
        self._expand = tf.keras.layers.Dense(4 * state_dim, activation="gelu", name="expand")
        self._contract = tf.keras.layers.Dense(state_dim, name="contract")
        self._dropout = tf.keras.layers.Dropout(dropout_rate)

    def call(
        self, states: tf.Tensor, visible: tf.Tensor, asked: tf.Tensor | None = None, training: bool | None = None
    ) -> tf.Tensor:
        """As `HistoryAttention.call`."""
        attended = self._attention(self._attention_norm(states), visible, asked)
        if asked is not None:
            states = tf.gather(states, asked, batch_dims=1)
        states += self._dropout(attended, training=training)
        dense = self._contract(self._expand(self._dense_norm(states)))
        return states + self._dropout(dense, training=training)

    def get_config(self) -> dict[str, object]:
        """Arguments of the constructor."""
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "state_dim": self.state_dim,
            "dropout_rate": self.dropout_rate,
        }
