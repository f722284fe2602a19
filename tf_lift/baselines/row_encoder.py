"""Rows of the log as vectors, and the task that trains them."""

from collections.abc import Sequence

import tensorflow as tf
import tensorflow_recommenders as tfrs

from tf_lift.baselines.peer import join_fields
from tf_lift.layers.interaction_embedding import InteractionEmbedding


class RowEncoder(tf.keras.layers.Layer):
    """A row's fields as one vector of length 1.

    Args:
        num_ids: M numbers of ids.
        embedding_dim: w.
        key_dim: width of the vector.
    """

    def __init__(self, num_ids: Sequence[int], embedding_dim: int, key_dim: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self._embedding = InteractionEmbedding(num_ids, embedding_dim, name="embedding")
        self._hidden = tf.keras.layers.Dense(2 * key_dim, activation="relu", name="hidden")
        self._key = tf.keras.layers.Dense(key_dim, name="key")

    def call(self, fields: tf.Tensor) -> tf.Tensor:
        """Vectors float32 [.., key_dim] of fields int32 [.., M]."""
        return tf.math.l2_normalize(self._key(self._hidden(join_fields(self._embedding(fields)))), axis=-1)


class RowEncoderTask(tfrs.Model):
    """Tells which row of a batch a corrupted one was made from: softmax over the batch of inner products (InfoNCE).

    Args:
        encoder: what is trained.
        corruption_rate: share of the fields that the corrupted row takes from other rows of its batch.
        temperature: of the softmax.
    """

    def __init__(self, encoder: RowEncoder, corruption_rate: float, temperature: float) -> None:
        super().__init__(name="rows")
        self.encoder = encoder
        self.corruption_rate = corruption_rate
        loss = tf.keras.losses.CategoricalCrossentropy(from_logits=True, reduction=tf.keras.losses.Reduction.SUM)
        self.task = tfrs.tasks.Retrieval(loss=loss, metrics=None, temperature=temperature, remove_accidental_hits=True)
        self._log_loss = tf.keras.metrics.Mean(name="log_loss")

    def compute_loss(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Mean cross-entropy of a batch of rows, int32 [B, M]; a row that is there twice is no negative of itself."""
        size, num_fields = tf.shape(inputs)[0], inputs.shape[-1]
        corrupted = tf.random.uniform([size, num_fields]) < self.corruption_rate
        others = tf.stack([tf.random.shuffle(inputs[:, field]) for field in range(num_fields)], axis=1)
        views = self.encoder(tf.where(corrupted, others, inputs))
        identity = tf.strings.reduce_join(tf.strings.as_string(inputs), axis=1, separator=" ")
        loss = self.task(views, self.encoder(inputs), candidate_ids=identity, compute_metrics=False)
        loss /= tf.cast(size, tf.float32)
        self._log_loss.update_state(loss, sample_weight=tf.cast(size, tf.float32))
        return loss
