"""BERT4Rec (Sun et al., CIKM 2019) as a predictor of clicks, the form that LIFT's Table 2 compares with."""

import dataclasses

import tensorflow as tf

from tf_lift.baselines.item_sequences import ItemSequences
from tf_lift.baselines.next_item_peer import NextItemPeer, NextItemSettings
from tf_lift.baselines.peer import check_setting, join_fields
from tf_lift.config import Config
from tf_lift.data.dataset_info import DatasetInfo
from tf_lift.datastore import Datastore
from tf_lift.layers.causal_transformer import TransformerBlock
from tf_lift.layers.logit_mlp import LogitMLP


@dataclasses.dataclass(frozen=True)
class BERT4RecSettings(NextItemSettings):
    """Settings of BERT4Rec."""

    num_layers: int = 2
    """Transformer blocks."""
    num_heads: int = 2
    """Attention heads; a divisor of `embedding_dim`."""
    mask_ratio: float = 0.2
    """Share of a sequence's items that the first stage hides."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_setting("mask_ratio", self.mask_ratio, 0.0, 1.0)
        if self.num_layers < 1 or self.num_heads < 1 or self.embedding_dim % self.num_heads:
            raise ValueError(
                "BERT4Rec needs a block and heads that divide its width. Received: "
                f"num_layers {self.num_layers}, num_heads {self.num_heads}, embedding_dim {self.embedding_dim}."
            )


class BERT4Rec(NextItemPeer):
    """A bidirectional Transformer over the positives and, after them, a [mask] that stands for the candidate.

    First stage, the Cloze task: some items are hidden, the newest one always, and told by a softmax over all items (eqs. 7 and 8).
    Second stage, on the train examples: the state of the appended [mask] meets the candidate in the inner product of the first
    stage and in an MLP over both and the candidate's other fields; everything goes on learning.

    Differences from the paper: the second stage; pre-norm blocks; no projection before the softmax. The newest item is hidden in
    every sequence, and a part of the others, where the paper adds sequences of which only the newest is hidden.
    """

    settings: BERT4RecSettings

    def __init__(
        self, settings: BERT4RecSettings, config: Config, info: DatasetInfo, datastore: Datastore, name: str
    ) -> None:
        super().__init__(settings, config, info, datastore, name)
        width = settings.embedding_dim
        self._places = settings.context_length + 1  # the candidate's among them
        self._hidden_item = self.add_weight(name="hidden_item", shape=(width,), initializer="random_normal")
        self._positions = tf.keras.layers.Embedding(self._places, width, name="positions")
        self._dropout = tf.keras.layers.Dropout(settings.dropout_rate)
        self._blocks = [
            TransformerBlock(settings.num_heads, width, settings.dropout_rate, name=f"block_{index}")
            for index in range(settings.num_layers)
        ]
        self._final_norm = tf.keras.layers.LayerNormalization(name="final_norm")
        self._mlp = LogitMLP(settings.hidden_dims, settings.dropout_rate, name="mlp")

    def encode_hidden(self, items: tf.Tensor, hidden: tf.Tensor, mask: tf.Tensor, training: bool | None) -> tf.Tensor:
        """States float32 [B, L + 1, d] of sequences, some of whose items are hidden.

        Args:
            items: int32 [B, L + 1] ids.
            hidden: bool [B, L + 1], True where the item is to be told.
            mask: bool [B, L + 1], True where a row is real.
            training: whether dropout is on.
        """
        inputs = tf.where(hidden[..., None], self._hidden_item, self.embed_items(items))
        places = tf.range(self._places)
        sees = (places[None, :] != places[:, None])[None] & mask[:, None, :]
        scale = self.settings.embedding_dim**0.5
        states = self._dropout(inputs * scale + self._positions(places), training=training)
        for block in self._blocks:
            states = block(states, sees, training=training)
        return self._final_norm(states)

    def learning_states(self, sequences: ItemSequences, training: bool | None) -> tuple[tf.Tensor, tf.Tensor]:
        """The hidden items are to be told; validation hides the newest alone.

        Other rows of the newest one's time are left out, as no slate's history has them.
        """
        newest = tf.range(self._places) == self._places - 1
        read = sequences.mask & (newest | (sequences.last_before != sequences.last_before[:, -1:]))
        hidden = tf.broadcast_to(newest, tf.shape(sequences.items))
        if training:
            hidden |= tf.random.uniform(tf.shape(sequences.items)) < self.settings.mask_ratio
        hidden &= read
        states = self.encode_hidden(sequences.items, hidden, read, training)
        return tf.boolean_mask(states, hidden), tf.boolean_mask(sequences.items, hidden)

    def rank(self, slate: dict[str, tf.Tensor], items: tf.Tensor, mask: tf.Tensor, training: bool | None) -> tf.Tensor:
        """See `NextItemPeer.rank`."""
        items, mask = tf.pad(items, [[0, 0], [0, 1]]), tf.pad(mask, [[0, 0], [0, 1]], constant_values=True)
        newest = tf.range(self._places) == self._places - 1
        state = self.encode_hidden(items, newest[None], mask, training)[:, -1:]  # [B, 1, d]
        candidates = slate["fields"][..., self._item_field]
        embedded = self.embed_items(candidates)  # [B, C, d]
        scores = tf.reduce_sum(state * embedded, axis=-1) + self.bias_of(candidates)
        fields = join_fields(self.embedding(slate["fields"]))
        states = tf.broadcast_to(state, tf.shape(embedded))
        inputs = tf.concat([states, embedded, states * embedded, fields], axis=-1)
        return scores + self._mlp(inputs, training=training)
