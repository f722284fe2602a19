"""Embeds the categorical fields of interactions."""

from collections.abc import Collection, Sequence

import numpy as np
import tensorflow as tf

from tf_lift.schema import UNKNOWN_ID


class InteractionEmbedding(tf.keras.layers.Layer):
    """Maps each of the M fields to w numbers (DESIGN.md section 5, "Embedding").

    All fields share one table, each in its own rows. An id at or beyond its field's number of ids was not in the vocabulary when
    the model was trained, and is read as UNKNOWN_ID.

    Args:
        num_ids: M numbers of ids.
        embedding_dim: w.
    """

    def __init__(self, num_ids: Sequence[int], embedding_dim: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.num_ids = tuple(int(count) for count in num_ids)
        self.embedding_dim = embedding_dim
        self._offsets = np.concatenate([[0], np.cumsum(self.num_ids)[:-1]]).astype(np.int32)

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes the table, [sum of num_ids, w]."""
        initializer = tf.keras.initializers.RandomNormal(stddev=0.05)
        self.table = self.add_weight(
            name="table", shape=(sum(self.num_ids), self.embedding_dim), initializer=initializer, trainable=True
        )
        super().build(input_shape)

    def call(self, fields: tf.Tensor, field_indices: Sequence[int] | None = None) -> tf.Tensor:
        """Embeds ids.

        Args:
            fields: int32 [.., M].
            field_indices: of the fields to embed; None: all M.

        Returns:
            float32 [.., M, w], or [.., len(field_indices), w].
        """
        known, offsets = np.array(self.num_ids, np.int32), self._offsets
        if field_indices is not None:
            chosen = list(field_indices)
            fields, known, offsets = tf.gather(fields, chosen, axis=-1), known[chosen], offsets[chosen]
        ids = tf.where(fields < known, fields, UNKNOWN_ID)
        return tf.gather(self.table, ids + offsets)

    def copy_known(self, other: "InteractionEmbedding") -> None:
        """Takes over the rows of the ids that another embedding knows as well."""
        table = self.table.numpy()
        source = other.table.numpy()
        for field, count in enumerate(other.num_ids):
            shared = min(count, self.num_ids[field])
            table[self._offsets[field] : self._offsets[field] + shared] = source[other._offsets[field] :][:shared]
        self.table.assign(table)

    def clear(self, field_indices: Collection[int]) -> None:
        """Makes all values of some fields 0, so that they say nothing."""
        table = self.table.numpy()
        for field in field_indices:
            table[self._offsets[field] :][: self.num_ids[field]] = 0.0
        self.table.assign(table)

    def get_config(self) -> dict[str, object]:
        """Arguments of the constructor."""
        return {**super().get_config(), "num_ids": self.num_ids, "embedding_dim": self.embedding_dim}
