"""Rankers that read the user's history row by row beside the candidate."""

import dataclasses

import tensorflow as tf

from tf_lift.baselines.peer import join_fields
from tf_lift.baselines.pool_peer import PoolPeer, PoolPeerSettings
from tf_lift.config import Config
from tf_lift.data.dataset_info import DatasetInfo
from tf_lift.data.masking import label_ids
from tf_lift.datastore import Datastore, Window


@dataclasses.dataclass(frozen=True)
class HistoryPeerSettings(PoolPeerSettings):
    """Settings of a ranker that reads histories."""

    context_length: int = 20
    """Rows of the user's history that are read."""
    attention_dim: int = 36
    """Width of the hidden layer that weighs rows."""


class HistoryPeer(PoolPeer):
    """A ranker that embeds the items of rows as it embeds the candidates' own.

    A row is its item's fields and what the user did with it: these papers read clicks alone, our logs have other behaviours too.
    """

    def __init__(
        self, settings: HistoryPeerSettings, config: Config, info: DatasetInfo, datastore: Datastore, name: str
    ) -> None:
        super().__init__(settings, config, info, datastore, name)
        self._item_fields = list(config.schema.indices("item"))
        self._labels = tf.keras.layers.Embedding(
            config.behaviour.num_classes + 1, settings.embedding_dim, name="label_embedding"
        )

    def items_of(self, fields: tf.Tensor) -> tf.Tensor:
        """Embeddings of the item's fields, side by side: of int32 [.., M] fields float32 [.., d]."""
        return join_fields(tf.gather(self.embedding(fields), self._item_fields, axis=-2))

    def labels_of(self, rows: Window) -> tf.Tensor:
        """Embeddings of the rows' behaviours, float32 [B, L, w]."""
        return self._labels(label_ids(rows.behaviours, rows.mask))
