"""DIN (Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018)."""

import dataclasses

import tensorflow as tf

from tf_lift.baselines.history_peer import HistoryPeer, HistoryPeerSettings
from tf_lift.baselines.peer import join_fields
from tf_lift.config import Config
from tf_lift.data.dataset_info import DatasetInfo
from tf_lift.datastore import Datastore, Window
from tf_lift.layers.activation_unit import ActivationUnit
from tf_lift.layers.logit_mlp import LogitMLP


@dataclasses.dataclass(frozen=True)
class DINSettings(HistoryPeerSettings):
    """Settings of DIN."""


class DIN(HistoryPeer):
    """The user's interest as a sum of their rows, weighed for the candidate.

    v_U(A) = sum_j a(e_j, v_A) e_j, without softmax (eq. 3), beside the candidate's own fields in an MLP.

    Differences from the paper: a row's behaviour is part of the summed e_j; PReLU in the activation unit and ReLU in the MLP in the
    place of Dice; `embedding_l2` in the place of eq. 4's regularisation by frequency.
    """

    def __init__(
        self, settings: DINSettings, config: Config, info: DatasetInfo, datastore: Datastore, name: str
    ) -> None:
        super().__init__(settings, config, info, datastore, name)
        self._unit = ActivationUnit(settings.attention_dim, name="activation_unit")
        self._mlp = LogitMLP(settings.hidden_dims, settings.dropout_rate, name="mlp")

    def logits(self, slate: dict[str, tf.Tensor], history: Window, training: bool | None) -> tf.Tensor:
        """See `Peer.logits`."""
        weights, rows = self.weigh(slate, history)
        interest = tf.einsum("bcl,bld->bcd", weights, rows)
        inputs = tf.concat([join_fields(self.embedding(slate["fields"])), interest], axis=-1)
        return self._mlp(inputs, training=training)

    def weigh(self, slate: dict[str, tf.Tensor], history: Window) -> tuple[tf.Tensor, tf.Tensor]:
        """Eq. 3's weights float32 [B, C, L], 0 where there is no row, and e_j float32 [B, L, d + w]."""
        items = self.items_of(history.fields)
        weights = self._unit(self.items_of(slate["fields"]), items)
        return (
            tf.where(history.mask[:, None], weights, 0.0),
            tf.concat([items, self.labels_of(history)], axis=-1),
        )
