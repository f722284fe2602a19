"""The log and its states as tensors: what contexts point into (eq. 11, DESIGN.md section 3)."""

import dataclasses
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_lift.interactions import InteractionLog


class Window(NamedTuple):
    """Rows of the log.

    Attributes:
        fields: int32 [B, L, M].
        behaviours: int32 [B, L].
        times: int64 [B, L].
        mask: bool [B, L], True where a row is real; real rows stand at the left.
        num_rows: int32 [B].
    """

    fields: tf.Tensor
    behaviours: tf.Tensor
    times: tf.Tensor
    mask: tf.Tensor
    num_rows: tf.Tensor


@dataclasses.dataclass(frozen=True)
class Datastore:
    """The interaction log, and the state at each of its P positions.

    The tensors may be constants (training) or variables (the SavedModel).

    Attributes:
        fields: int32 [N, M].
        behaviours: int32 [N].
        times: int64 [N].
        user_indices: int32 [N].
        window_first: int32 [P], the first row that a position's state encodes.
        window_length: int32 [P], how many rows it encodes.
        states: float16 [P, v]; position 0 is zeros.
        context_length: L.
    """

    fields: tf.Tensor
    behaviours: tf.Tensor
    times: tf.Tensor
    user_indices: tf.Tensor
    window_first: tf.Tensor
    window_length: tf.Tensor
    states: tf.Tensor
    context_length: int

    def window(self, first_rows: tf.Tensor, num_rows: tf.Tensor) -> Window:
        """Slices of the log.

        Args:
            first_rows: int32 [B].
            num_rows: int32 [B], at most L.
        """
        places = tf.range(self.context_length)
        mask = places < num_rows[:, None]
        rows = tf.where(mask, first_rows[:, None] + places, 0)
        fields = tf.where(mask[..., None], tf.gather(self.fields, rows), 0)
        return Window(fields, tf.gather(self.behaviours, rows), tf.gather(self.times, rows), mask, num_rows)

    def history(self, positions: tf.Tensor) -> Window:
        """The rows just before positions.

        Args:
            positions: integers [B].
        """
        return self.window(tf.gather(self.window_first, positions), tf.gather(self.window_length, positions))

    def states_before(self, rows: tf.Tensor) -> tf.Tensor:
        """States of the histories of rows, float32 [.., v]; zeros for rows below 0."""
        positions = rows + tf.gather(self.user_indices, tf.maximum(rows, 0)) + 1
        return self._states_at(tf.where(rows >= 0, positions, 0))

    def states_after(self, rows: tf.Tensor, num_future: tf.Tensor) -> tf.Tensor:
        """States of the visible futures of rows, float32 [.., v]; zeros where no row is visible.

        Args:
            rows: int32 [..] row ids.
            num_future: int32 [..] visible rows after each, at most L.
        """
        positions = rows + tf.gather(self.user_indices, tf.maximum(rows, 0)) + 2 + num_future
        return self._states_at(tf.where((rows >= 0) & (num_future > 0), positions, 0))

    def _states_at(self, positions: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.gather(self.states, positions), tf.float32)


def build_datastore(log: InteractionLog, states: np.ndarray | None, context_length: int) -> Datastore:
    """Makes the tensors of a log.

    Args:
        log: the interaction log.
        states: float16 [P, v]; None before the encoder has run.
        context_length: L.
    """
    first, count = log.windows_at(np.arange(log.num_positions), context_length)
    if states is not None and len(states) != log.num_positions:
        raise ValueError(
            f"The datastore must hold one state a position. Received: {len(states)} for {log.num_positions} positions."
        )
    with tf.device("CPU"):  # gathered from by the input side of every step; accelerators receive what was gathered
        return Datastore(
            tf.constant(log.fields),
            tf.constant(log.behaviour, tf.int32),
            tf.constant(log.time),
            tf.constant(log.user_indices()),
            tf.constant(first, tf.int32),
            tf.constant(count, tf.int32),
            tf.constant(np.zeros((1, 1), np.float16) if states is None else states),
            context_length,
        )
