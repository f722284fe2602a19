"""The logits of the items that a user may have next."""

import math

import tensorflow as tf

from tf_lift.layers.interaction_embedding import InteractionEmbedding
from tf_lift.layers.softmax_loss import softmax_cross_entropy
from tf_lift.schema import UNKNOWN_ID

_MASKED_LOGIT = -1e9  # far below any real logit


class NextItemHead(tf.keras.layers.Layer):
    """Tells the next item from a state: the state times the item's output embedding, plus the item's bias.

    The output embeddings are the encoder's own rows of the item field where those are as wide as a state, else a table of this layer.

    Training hides a share of the items as UNKNOWN_ID, so the unknown id is trained as one class that stands for that share of all
    items. `call` divides its probability by their number: what an unknown candidate gets is that of one of them.

    Differences from the paper: it has no such loss.

    Args:
        embedding: the encoder's; built before this layer's first use.
        field: index of the item's key among its fields.
        state_dim: v.
        unknown_rate: share of the items that training hides.
    """

    def __init__(
        self, embedding: InteractionEmbedding, field: int, state_dim: int, unknown_rate: float, **kwargs: object
    ) -> None:
        super().__init__(**kwargs)
        self.num_items = embedding.num_ids[field]  # padding and the unknown id among them
        self._tied = embedding if embedding.embedding_dim == state_dim else None
        self._first = sum(embedding.num_ids[:field]) if self._tied else 0
        self._unknown_discount = math.log(max(1.0, unknown_rate * self.num_items))
        self._bias = self.add_weight(name="bias", shape=(self.num_items,), initializer="zeros")
        if self._tied is None:
            self._own_table = self.add_weight(
                name="table",
                shape=(self.num_items, state_dim),
                initializer=tf.keras.initializers.RandomNormal(stddev=0.05),
            )

    def call(self, states: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        """Logits of some items.

        Args:
            states: float32 [B, v].
            items: int32 [B, C] ids; one that was not in the vocabulary when the model was trained is read as UNKNOWN_ID.

        Returns:
            float32 [B, C].
        """
        items = tf.where(items < self.num_items, items, UNKNOWN_ID)
        embedded = tf.gather(self._table, self._first + items)  # [B, C, v]
        logits = tf.einsum("bv,bcv->bc", states, embedded) + tf.gather(self._bias, items)
        return tf.where(items == UNKNOWN_ID, logits - self._unknown_discount, logits)

    def cross_entropy(self, states: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        """Softmax cross-entropy over all items.

        Args:
            states: float32 [n, v].
            items: int32 [n], the true ones.

        Returns:
            float32 [n].
        """
        embedded = self._table[self._first : self._first + self.num_items]
        return softmax_cross_entropy(states, items, embedded, self._bias)

    def sampled_cross_entropy(
        self, states: tf.Tensor, items: tf.Tensor, samples: tf.Tensor, rates: tf.Tensor
    ) -> tf.Tensor:
        """Softmax cross-entropy over the true item and drawn ones, whose logits are corrected for how often they are drawn (logQ).

        The true item is there without being drawn and is not corrected, so that many samples give what all items give.

        Args:
            states: float32 [n, v].
            items: int32 [n], the true ones.
            samples: int32 [S], drawn with replacement; a true item among them is left out for its state.
            rates: float32 [items], the probability of each item in one draw.

        Returns:
            float32 [n].
        """
        embedded, bias = tf.gather(self._table, self._first + samples), tf.gather(self._bias, samples)
        expected = tf.cast(tf.size(samples), tf.float32) * tf.gather(rates, samples)
        drawn = tf.matmul(states, embedded, transpose_b=True) + bias - tf.math.log(expected)  # [n, S]
        drawn = tf.where(items[:, None] == samples, _MASKED_LOGIT, drawn)
        true = tf.reduce_sum(states * tf.gather(self._table, self._first + items), axis=1) + tf.gather(
            self._bias, items
        )
        logits = tf.concat([true[:, None], drawn], axis=1)
        return tf.reduce_logsumexp(logits, axis=1) - true  # as `softmax_cross_entropy`

    @property
    def _table(self) -> tf.Variable:
        return self._own_table if self._tied is None else self._tied.table
