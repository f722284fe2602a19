"""DIN's local activation unit, which weighs a user's rows for a candidate."""

import tensorflow as tf


class ActivationUnit(tf.keras.layers.Layer):
    """One number for each pair of a candidate and a row, a(e_j, v_A) of DIN's eq. 3.

    A hidden layer over the row e_j, the candidate v_A and their product, and a linear one. The difference of the two, which the
    authors' code joins as well, is linear in what is there already.

    Args:
        hidden_dim: width of the hidden layer.
    """

    def __init__(self, hidden_dim: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.hidden_dim = hidden_dim
        self._of_row = tf.keras.layers.Dense(hidden_dim, name="of_row")
        self._of_candidate = tf.keras.layers.Dense(hidden_dim, use_bias=False, name="of_candidate")
        self._of_product = tf.keras.layers.Dense(hidden_dim, use_bias=False, name="of_product")
        self._activation = tf.keras.layers.PReLU(shared_axes=[1, 2], name="activation")
        self._weight = tf.keras.layers.Dense(1, name="weight")

    def call(self, candidates: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """Weighs rows.

        Args:
            candidates: float32 [B, C, d].
            rows: float32 [B, L, d].

        Returns:
            float32 [B, C, L], of any sign and not normalised.
        """
        products = candidates[:, :, None] * rows[:, None]  # [B, C, L, d]
        hidden = self._of_product(products) + self._of_row(rows)[:, None] + self._of_candidate(candidates)[:, :, None]
        return self._weight(self._activation(hidden))[..., 0]

    def get_config(self) -> dict[str, object]:
        """Arguments of the constructor."""
        return {**super().get_config(), "hidden_dim": self.hidden_dim}
