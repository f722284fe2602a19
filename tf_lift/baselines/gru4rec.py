"""GRU4Rec (Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016)."""

import dataclasses

import tensorflow as tf

from tf_lift.baselines.causal_next_item import CausalNextItemPeer, CausalNextItemSettings
from tf_lift.config import Config
from tf_lift.data.dataset_info import DatasetInfo
from tf_lift.datastore import Datastore


@dataclasses.dataclass(frozen=True)
class GRU4RecSettings(CausalNextItemSettings):
    """Settings of GRU4Rec."""


class GRU4Rec(CausalNextItemPeer):
    """A gated recurrent unit over the items (eqs. 1 to 4); the score of an item is its inner product with the newest state.

    Differences from the paper: whole sequences of a user in the place of sessions run in parallel; the softmax over all items in
    the place of BPR or TOP1 with the other sessions' items as negatives; scores by the input's embeddings; the reset gate after the
    state's matrix (Keras' GRU), where eq. 3 has it before; ties of time as `CausalNextItemPeer` says.
    """

    settings: GRU4RecSettings

    def __init__(
        self, settings: GRU4RecSettings, config: Config, info: DatasetInfo, datastore: Datastore, name: str
    ) -> None:
        super().__init__(settings, config, info, datastore, name)
        self._dropout = tf.keras.layers.Dropout(settings.dropout_rate)
        self._recurrence = tf.keras.layers.GRU(settings.embedding_dim, return_sequences=True, name="recurrence")
        self._project = tf.keras.layers.Dense(settings.embedding_dim, name="project")

    def encode(self, items: tf.Tensor, mask: tf.Tensor, training: bool | None) -> tf.Tensor:
        """See `CausalNextItemPeer.encode`: a row sees the rows before it."""
        inputs = self._dropout(self.embed_items(items), training=training)
        states = self._recurrence(inputs, mask=mask)
        return self._project(self._dropout(states, training=training))
