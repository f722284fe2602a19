"""The log and its states as tensors: what contexts point into (eq. 11, DESIGN.md section 3)."""

import dataclasses
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_lift.interactions import InteractionLog
from tf_lift.retrieval.graph_spans import segment_lower_bound


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

    def newest(self, count: int) -> "Window":
        """The newest rows, at most `count`, in the order of their age: [B, count, ..]."""
        ages = tf.range(count)
        mask = ages < self.num_rows[:, None]
        places = tf.where(mask, self.num_rows[:, None] - 1 - ages, 0)
        fields, behaviours, times = (
            tf.gather(column, places, batch_dims=1) for column in (self.fields, self.behaviours, self.times)
        )
        return Window(fields, behaviours, times, mask, tf.minimum(self.num_rows, count))


@dataclasses.dataclass(frozen=True)
class Datastore:
    """The interaction log, and the state at each of its P positions.

    The tensors may be constants (training) or variables (the SavedModel).

    Attributes:
        fields: int32 [N, M].
        behaviours: int8 [N].
        times: int64 [N].
        user_indices: int32 [N].
        user_starts: int64 [U + 1] where each user's rows begin.
        states: float16 [R, v], or int8 with `state_scales`.
        context_length: L.
        state_places: int32 [P] which of the R states each position has; None: R is P, and each has its own. Position 0 has zeros.
        state_scales: float32 [v] what each number of an int8 state is multiplied with; None: states are float16.
    """

    fields: tf.Tensor
    behaviours: tf.Tensor
    times: tf.Tensor
    user_indices: tf.Tensor
    user_starts: tf.Tensor
    states: tf.Tensor
    context_length: int
    state_places: tf.Tensor | None = None
    state_scales: tf.Tensor | None = None

    def window(self, first_rows: tf.Tensor, num_rows: tf.Tensor) -> Window:
        """Slices of the log.

        Args:
            first_rows: integers [B].
            num_rows: int32 [B], at most L.
        """
        places = tf.range(self.context_length)
        mask = places < num_rows[:, None]
        rows = tf.where(mask, first_rows[:, None] + tf.cast(places, first_rows.dtype), 0)
        fields = tf.where(mask[..., None], tf.gather(self.fields, rows), 0)
        return Window(fields, self.behaviours_of(rows), tf.gather(self.times, rows), mask, num_rows)

    def behaviours_of(self, rows: tf.Tensor) -> tf.Tensor:
        """int32 classes of rows, of their shape."""
        return tf.cast(tf.gather(self.behaviours, rows), tf.int32)

    def history(self, positions: tf.Tensor) -> Window:
        """The rows just before positions.

        Args:
            positions: integers [B].
        """
        positions = tf.cast(positions, tf.int64)
        users = tf.range(tf.size(self.user_starts) - 1, dtype=tf.int64)
        first_positions = self.user_starts[:-1] + users + 1
        user = tf.maximum(tf.searchsorted(first_positions, positions, side="right", out_type=tf.int64) - 1, 0)
        stop = tf.where(positions > 0, positions - user - 1, 0)
        start = tf.where(positions > 0, tf.gather(self.user_starts, user), 0)
        first = tf.maximum(stop - self.context_length, start)
        return self.window(first, tf.cast(stop - first, tf.int32))

    def num_visible_future(self, rows: tf.Tensor, times: tf.Tensor) -> tf.Tensor:
        """How many rows of its user follow each row and lie strictly before a time, as `InteractionLog.num_visible_future`.

        Args:
            rows: int32 [..] row ids; below 0 where there is none.
            times: int64, of a shape that broadcasts to theirs.

        Returns:
            int32 of the rows' shape, from 0 to L; 0 where there is no row.
        """
        safe = tf.maximum(rows, 0)
        first = tf.cast(safe, tf.int64) + 1
        stops = tf.gather(self.user_starts, tf.gather(self.user_indices, safe) + 1)
        stops = tf.minimum(first + self.context_length, stops)
        bounds = tf.broadcast_to(times, tf.shape(first))
        ends = segment_lower_bound(self.times, first, stops, bounds, self.context_length.bit_length())
        return tf.where(rows >= 0, tf.cast(ends - first, tf.int32), 0)

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
        places = positions if self.state_places is None else tf.gather(self.state_places, positions)
        states = tf.cast(tf.gather(self.states, places), tf.float32)
        return states if self.state_scales is None else states * self.state_scales


def build_datastore(log: InteractionLog, states: np.ndarray | None, context_length: int) -> Datastore:
    """Makes the tensors of a log.

    Args:
        log: the interaction log.
        states: float16 [P, v]; None before the encoder has run.
        context_length: L.
    """
    if states is not None and len(states) != log.num_positions:
        raise ValueError(
            f"The datastore must hold one state a position. Received: {len(states)} for {log.num_positions} positions."
        )
    with tf.device("CPU"):  # gathered from by the input side of every step; accelerators receive what was gathered
        return Datastore(
            tf.constant(log.fields),
            tf.constant(log.behaviour),
            tf.constant(log.time),
            tf.constant(log.user_indices()),
            tf.constant(log.user_starts),
            tf.constant(np.zeros((1, 1), np.float16) if states is None else states),
            context_length,
        )


def select_states(store: Datastore, is_needed: np.ndarray) -> Datastore:
    """The same datastore with the states of some positions alone.

    Args:
        store: a datastore with a state a position.
        is_needed: bool [P] the positions; a context that points at another one gets zeros.
    """
    kept = np.flatnonzero(is_needed)
    places = np.zeros(len(is_needed), np.int32)
    places[kept] = np.arange(1, len(kept) + 1)
    nothing = np.zeros_like(store.states[:1])
    with tf.device("CPU"):
        states = tf.constant(np.concatenate([nothing, store.states.numpy()[kept]]))
        return dataclasses.replace(store, states=states, state_places=tf.constant(places))


def quantise_states(store: Datastore) -> Datastore:
    """The same datastore with int8 states: each of the v numbers has its own scale, its largest absolute value being 127."""
    states = store.states.numpy()
    largest = np.abs(states).max(axis=0, initial=0).astype(np.float32)
    scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    with tf.device("CPU"):
        quantised = tf.constant(np.rint(states / scales).astype(np.int8))
        return dataclasses.replace(store, states=quantised, state_scales=tf.constant(scales))
