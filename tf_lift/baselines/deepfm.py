"""DeepFM (Guo et al., "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction", IJCAI 2017)."""

import dataclasses

import tensorflow as tf

from tf_lift.baselines.peer import join_fields
from tf_lift.baselines.pool_peer import PoolPeer, PoolPeerSettings
from tf_lift.config import Config
from tf_lift.data.dataset_info import DatasetInfo
from tf_lift.datastore import Datastore, Window
from tf_lift.layers.interaction_embedding import InteractionEmbedding
from tf_lift.layers.logit_mlp import LogitMLP


@dataclasses.dataclass(frozen=True)
class DeepFMSettings(PoolPeerSettings):
    """Settings of DeepFM."""


class DeepFM(PoolPeer):
    """A factorization machine and an MLP on the same embeddings, summed before the sigmoid.

    y = sigmoid(y_FM + y_DNN) (eq. 1); y_FM = sum_i w_i + sum_{i<j} <v_i, v_j> over the M fields of a row (eq. 2); y_DNN is an MLP on
    the embeddings side by side (eqs. 3 and 4). It reads neither history nor neighbours.
    """

    def __init__(
        self, settings: DeepFMSettings, config: Config, info: DatasetInfo, datastore: Datastore, name: str
    ) -> None:
        super().__init__(settings, config, info, datastore, name)
        self._weights = InteractionEmbedding(info.num_train_ids, 1, name="weights")
        self._bias = self.add_weight(name="bias", shape=(), initializer="zeros")
        self._mlp = LogitMLP(settings.hidden_dims, settings.dropout_rate, name="mlp")

    def logits(self, slate: dict[str, tf.Tensor], history: Window, training: bool | None) -> tf.Tensor:
        """See `Peer.logits`; the history is not read."""
        embedded = self.embedding(slate["fields"])  # [B, C, M, w]
        linear = tf.reduce_sum(self._weights(slate["fields"]), axis=[-2, -1])
        total = tf.reduce_sum(embedded, axis=-2)
        # sum_{i<j} <v_i, v_j> = (|sum_i v_i|^2 - sum_i |v_i|^2) / 2
        pairs = tf.reduce_sum(tf.square(total), axis=-1) - tf.reduce_sum(tf.square(embedded), axis=[-2, -1])
        return self._bias + linear + pairs / 2.0 + self._mlp(join_fields(embedded), training=training)
