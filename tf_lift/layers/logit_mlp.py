"""Dense layers that end in one number."""

from collections.abc import Sequence

import tensorflow as tf


class LogitMLP(tf.keras.layers.Layer):
    """ReLU layers with dropout after each, and a logit.

    Args:
        hidden_dims: widths of the ReLU layers.
        dropout_rate: dropout after each of them.
    """

    def __init__(self, hidden_dims: Sequence[int], dropout_rate: float, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.hidden_dims, self.dropout_rate = tuple(hidden_dims), dropout_rate
        self._hidden = [
            tf.keras.layers.Dense(width, activation="relu", name=f"dense_{index}")
            for index, width in enumerate(self.hidden_dims)
        ]
        self._dropout = tf.keras.layers.Dropout(dropout_rate)
        self._logit = tf.keras.layers.Dense(1, name="logit")

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Logits float32 [..] of inputs float32 [.., D]."""
        for dense in self._hidden:
            inputs = self._dropout(dense(inputs), training=training)
        return self._logit(inputs)[..., 0]

    def get_config(self) -> dict[str, object]:
        """Arguments of the constructor."""
        return {**super().get_config(), "hidden_dims": self.hidden_dims, "dropout_rate": self.dropout_rate}
