"""SASRec (Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018)."""

import dataclasses

import tensorflow as tf

from tf_lift.baselines.causal_next_item import CausalNextItemPeer, CausalNextItemSettings
from tf_lift.config import Config
from tf_lift.data.dataset_info import DatasetInfo
from tf_lift.datastore import Datastore
from tf_lift.layers.causal_transformer import TransformerBlock


@dataclasses.dataclass(frozen=True)
class SASRecSettings(CausalNextItemSettings):
    """Settings of SASRec."""

    num_layers: int = 2
    """Self-attention blocks."""
    num_heads: int = 1
    """Attention heads; a divisor of `embedding_dim`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_layers < 1 or self.num_heads < 1 or self.embedding_dim % self.num_heads:
            raise ValueError(
                "SASRec needs a block and heads that divide its width. Received: "
                f"num_layers {self.num_layers}, num_heads {self.num_heads}, embedding_dim {self.embedding_dim}."
            )


class SASRec(CausalNextItemPeer):
    """Items and positions (eq. 1) through causal self-attention blocks (eqs. 2 to 5); the score of an item is its inner product.

    Differences from the paper: the softmax over all items in the place of one drawn negative a row, which is known to be much
    stronger; pre-norm blocks with GELU; item biases; ties of time as `CausalNextItemPeer` says.
    """

    settings: SASRecSettings

    def __init__(
        self, settings: SASRecSettings, config: Config, info: DatasetInfo, datastore: Datastore, name: str
    ) -> None:
        super().__init__(settings, config, info, datastore, name)
        self._positions = tf.keras.layers.Embedding(settings.context_length, settings.embedding_dim, name="positions")
        self._dropout = tf.keras.layers.Dropout(settings.dropout_rate)
        self._blocks = [
            TransformerBlock(settings.num_heads, settings.embedding_dim, settings.dropout_rate, name=f"block_{index}")
            for index in range(settings.num_layers)
        ]
        self._final_norm = tf.keras.layers.LayerNormalization(name="final_norm")

    def encode(self, items: tf.Tensor, mask: tf.Tensor, training: bool | None) -> tf.Tensor:
        """See `CausalNextItemPeer.encode`: a row sees the rows before it."""
        places = tf.range(self.settings.context_length)
        sees = (places[None, :] < places[:, None])[None] & mask[:, None, :]  # [B, L, L]
        scale = self.settings.embedding_dim**0.5
        states = self._dropout(self.embed_items(items) * scale + self._positions(places), training=training)
        for block in self._blocks:
            states = block(states, sees, training=training)
        return self._final_norm(states)
