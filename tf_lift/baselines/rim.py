"""RIM (Qin et al., "Retrieval & Interaction Machine for Tabular Data Prediction", KDD 2021)."""

import dataclasses

import tensorflow as tf

from tf_lift.baselines.peer import Peer, PeerSettings, join_fields
from tf_lift.config import Config
from tf_lift.data.dataset_info import DatasetInfo
from tf_lift.datastore import Datastore, Window
from tf_lift.layers.feature_interaction import FieldProducts
from tf_lift.layers.key_attention import KeyAttention
from tf_lift.layers.logit_mlp import LogitMLP


@dataclasses.dataclass(frozen=True)
class RIMSettings(PeerSettings):
    """Settings of RIM."""


class RIM(Peer):
    """Neighbours' rows and labels, mixed by attention, meet the candidate in products of fields.

    With BM25's K rows of the pool (eqs. 12 and 13 of LIFT, which takes them from RIM): alpha = softmax over k of x_t W x_k (eq. 14
    there); x_r and y_r, the sums of the neighbours' fields and label embeddings with these weights; the inner products of all
    pairs among the fields of x_t, those of x_r and y_r; and a batch-normalised MLP over x_t, x_r, the products and y_r.

    Differences from the paper: y_r joins the MLP's input alone, where the authors' code joins it to the last layer as well.
    """

    def __init__(
        self, settings: PeerSettings, config: Config, info: DatasetInfo, datastore: Datastore, name: str
    ) -> None:
        super().__init__(settings, config, info, datastore, name)
        self._labels = tf.keras.layers.Embedding(
            config.behaviour.num_classes, settings.embedding_dim, name="label_embedding"
        )
        self._attention = KeyAttention(score_bias=False, name="attention")
        self._products = FieldProducts(name="products")
        self._norm = tf.keras.layers.BatchNormalization(momentum=0.9, name="norm")  # an epoch may have 100 steps
        self._mlp = LogitMLP(settings.hidden_dims, settings.dropout_rate, name="mlp")

    def neighbour_rows(self, slate: dict[str, tf.Tensor]) -> tf.Tensor:
        """Row ids int32 [B, C, K] of each candidate's neighbours, below 0 where there is none."""
        return slate["neighbour_rows"]

    def logits(self, slate: dict[str, tf.Tensor], history: Window, training: bool | None) -> tf.Tensor:
        """See `Peer.logits`; the history is not read."""
        rows = self.neighbour_rows(slate)
        known = tf.maximum(rows, 0)
        embedded = self.embedding(slate["fields"])  # [B, C, M, w]
        neighbours = self.embedding(tf.gather(self.datastore.fields, known))  # [B, C, K, M, w]
        scores = tf.zeros_like(rows, tf.float32)  # not read
        attention = self._attention(join_fields(embedded), join_fields(neighbours), scores, rows >= 0)
        mixed = tf.einsum("bck,bckmw->bcmw", attention, neighbours)
        labels = tf.einsum("bck,bckw->bcw", attention, self._labels(self.datastore.behaviours_of(known)))
        fields = tf.concat([embedded, mixed, labels[:, :, None]], axis=2)  # [B, C, 2 M + 1, w]
        inputs = tf.concat([join_fields(fields), self._products(fields)], axis=-1)
        return self._mlp(self._norm(inputs, training=training), training=training)
