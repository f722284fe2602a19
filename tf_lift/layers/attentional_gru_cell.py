"""DIEN's GRU cell with an attentional update gate (AUGRU)."""

import tensorflow as tf


class AttentionalGRUCell(tf.keras.layers.Layer):
    """A GRU step whose update gate is scaled by an attention weight, DIEN's eqs. 11 and 12.

    u, r = sigmoid(..), h~ = tanh(W i + r * (U h) + b) (eqs. 2 to 4); u' = a u (eq. 11); h' = (1 - u') h + u' h~ (eq. 12). A row of
    weight 0 leaves the state as it is.

    Args:
        units: width of the state.
    """

    def __init__(self, units: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.state_size = self.output_size = units
        self._of_input = tf.keras.layers.Dense(3 * units, name="of_input")
        self._of_state = tf.keras.layers.Dense(
            3 * units, use_bias=False, kernel_initializer="orthogonal", name="of_state"
        )

    def call(
        self, inputs: tuple[tf.Tensor, tf.Tensor], states: list[tf.Tensor], training: bool | None = None
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """One step.

        Args:
            inputs: the row float32 [n, d] and its weight float32 [n, 1].
            states: the state before it, float32 [n, units], in a list.
            training: not read.

        Returns:
            The state after it, also as the list of states.
        """
        rows, weights = inputs
        (state,) = tf.nest.flatten(states)
        update_in, reset_in, new_in = tf.split(self._of_input(rows), 3, axis=-1)
        update_state, reset_state, new_state = tf.split(self._of_state(state), 3, axis=-1)
        update = weights * tf.sigmoid(update_in + update_state)
        proposal = tf.tanh(new_in + tf.sigmoid(reset_in + reset_state) * new_state)
        after = (1.0 - update) * state + update * proposal
        return after, [after]

    def get_config(self) -> dict[str, object]:
        """Arguments of the constructor."""
        return {**super().get_config(), "units": self.units}
