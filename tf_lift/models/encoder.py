"""E_omega: from a user's rows to a state (eqs. 4 and 5)."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from tf_lift.config import Encoder as EncoderConfig
from tf_lift.data.masking import masked_label
from tf_lift.layers.causal_transformer import TransformerBlock
from tf_lift.layers.interaction_embedding import InteractionEmbedding


class EncoderStates(NamedTuple):
    """States of an encoder.

    Attributes:
        rows: float32 [B, L, v], the state after each row.
        queries: float32 [B, Q, v], the state of each query as the last, masked row of what it sees.
    """

    rows: tf.Tensor
    queries: tf.Tensor


class Encoder(tf.keras.Model):
    """Encodes a history, and queries appended to it one at a time.

    The input of a row is the embeddings of its fields, or of some of them, and its label's (eq. 9), projected to v. Rows stand at the
    left of their window. A causal row sees the rows before it; a query sees the rows that its `visible` counts, and itself.

    Differences from the paper: queries, for the candidate-aware state s_t = E(h_t, (x_t, MSK)); some fields may be left out.

    Args:
        config: the configuration's section.
        num_ids: M numbers of ids to embed.
        num_classes: behaviours.
        context_length: L.
        field_indices: of the fields that are read; None: all M.
    """

    def __init__(
        self,
        config: EncoderConfig,
        num_ids: Sequence[int],
        num_classes: int,
        context_length: int,
        name: str = "encoder",
        field_indices: Sequence[int] | None = None,
    ) -> None:
        super().__init__(name=name)
        self.field_indices = None if field_indices is None else tuple(field_indices)
        self.config = config
        self.num_classes = num_classes
        self.context_length = context_length
        self.embedding = InteractionEmbedding(num_ids, config.embedding_dim, name="embedding")
        self._label_embedding = tf.keras.layers.Embedding(num_classes + 2, config.embedding_dim, name="label_embedding")
        self._project = tf.keras.layers.Dense(config.state_dim, name="project")
        self._dropout = tf.keras.layers.Dropout(config.dropout_rate)
        if config.kind == "gru":
            self._cell = tf.keras.layers.GRUCell(config.state_dim, name="cell")
            self._recurrence = tf.keras.layers.RNN(self._cell, return_sequences=True)
        else:
            self._positions = tf.keras.layers.Embedding(context_length + 1, config.state_dim, name="positions")
            self._blocks = [
                TransformerBlock(config.num_heads, config.state_dim, config.dropout_rate, name=f"block_{index}")
                for index in range(config.num_layers)
            ]
            self._final_norm = tf.keras.layers.LayerNormalization(name="final_norm")

    def call(
        self,
        fields: tf.Tensor,
        labels: tf.Tensor,
        mask: tf.Tensor,
        query_fields: tf.Tensor,
        visible: tf.Tensor,
        training: bool | None = None,
    ) -> EncoderStates:
        """Encodes.

        Args:
            fields: int32 [B, L, M].
            labels: int32 [B, L], from `label_ids`, or MSK where hidden.
            mask: bool [B, L], True where a row is real; real rows stand at the left.
            query_fields: int32 [B, Q, M].
            visible: int32 [B, Q], how many rows each query sees.
            training: whether dropout is on.
        """
        hidden = tf.fill(tf.shape(visible), masked_label(self.num_classes))
        row_inputs = self._embed(fields, labels, training)
        query_inputs = self._embed(query_fields, hidden, training)
        if self.config.kind == "gru":
            return self._run_recurrence(row_inputs, query_inputs, visible)
        length = tf.shape(fields)[1]
        places = tf.range(length)
        query_sees = places < visible[..., None]  # [B, Q, L]
        row_places = tf.broadcast_to(places, tf.shape(labels))
        inputs = tf.concat([row_inputs, query_inputs], axis=1)  # [B, L + Q, v]
        inputs += self._positions(tf.concat([row_places, visible], axis=1))
        sees = tf.concat([self._row_sees(mask), query_sees], axis=1)
        for block in self._blocks:
            inputs = block(inputs, sees, training=training)
        states = self._final_norm(inputs)
        return EncoderStates(states[:, :length], states[:, length:])

    def encode_rows(
        self, fields: tf.Tensor, labels: tf.Tensor, mask: tf.Tensor, training: bool | None = None
    ) -> tf.Tensor:
        """The states of rows alone, float32 [B, L, v]; arguments as of `call`."""
        nothing = fields[:, :0]
        return self(fields, labels, mask, nothing, nothing[..., 0], training=training).rows

    def encode_last(self, fields: tf.Tensor, labels: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """The vector of each window, eq. 5, without dropout: `last_states` of `encode_rows`, but no other row costs a last block.

        Args:
            fields: int32 [B, L, M].
            labels: int32 [B, L].
            mask: bool [B, L].

        Returns:
            float32 [B, v].
        """
        num_rows = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
        if self.config.kind == "gru":
            return self.last_states(self.encode_rows(fields, labels, mask, training=False), num_rows)
        inputs = self._embed(fields, labels, training=False) + self._positions(tf.range(tf.shape(fields)[1]))
        sees = self._row_sees(mask)
        for block in self._blocks[:-1]:
            inputs = block(inputs, sees, training=False)
        last = tf.maximum(num_rows - 1, 0)[:, None]
        states = self._blocks[-1](inputs, tf.gather(sees, last, batch_dims=1), last, training=False)
        return tf.where(num_rows[:, None] > 0, self._final_norm(states)[:, 0], 0.0)

    def last_states(self, rows: tf.Tensor, num_rows: tf.Tensor) -> tf.Tensor:
        """The vector of each window, eq. 5: the state of its last real row, zeros for an empty window.

        Args:
            rows: float32 [B, L, v].
            num_rows: int32 [B].

        Returns:
            float32 [B, v].
        """
        return self.states_before(rows, num_rows[:, None])[:, 0]

    def states_before(self, rows: tf.Tensor, num_rows: tf.Tensor) -> tf.Tensor:
        """The states after the first rows of a window, zeros where there are none.

        Args:
            rows: float32 [B, L, v].
            num_rows: int32 [B, Q], how many.

        Returns:
            float32 [B, Q, v].
        """
        before = tf.gather(rows, tf.maximum(num_rows - 1, 0), batch_dims=1)
        return tf.where(num_rows[..., None] > 0, before, 0.0)

    def _row_sees(self, mask: tf.Tensor) -> tf.Tensor:
        """bool [B, L, L], True where a row sees another one."""
        places = tf.range(tf.shape(mask)[1])
        if self.config.kind == "bidirectional":
            others = places[None, :] != places[:, None]
        else:
            others = places[None, :] < places[:, None]
        return others[None] & mask[:, None, :]

    def _embed(self, fields: tf.Tensor, labels: tf.Tensor, training: bool | None) -> tf.Tensor:
        embedded = self.embedding(fields, field_indices=self.field_indices)
        flat = tf.reshape(embedded, tf.concat([tf.shape(labels), [embedded.shape[-2] * embedded.shape[-1]]], 0))
        joined = tf.concat([flat, self._label_embedding(labels)], axis=-1)
        return self._dropout(self._project(joined), training=training)

    def _run_recurrence(self, row_inputs: tf.Tensor, query_inputs: tf.Tensor, visible: tf.Tensor) -> EncoderStates:
        rows = self._recurrence(row_inputs)
        before = self.states_before(rows, visible)  # [B, Q, v]
        width = self.config.state_dim
        queries, _ = self._cell(tf.reshape(query_inputs, [-1, width]), [tf.reshape(before, [-1, width])])
        return EncoderStates(rows, tf.reshape(queries, tf.shape(before)))
