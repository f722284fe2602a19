"""DIEN (Zhou et al., "Deep Interest Evolution Network for Click-Through Rate Prediction", AAAI 2019)."""

import dataclasses

import tensorflow as tf

from tf_lift.baselines.history_peer import HistoryPeer, HistoryPeerSettings
from tf_lift.baselines.peer import check_setting, join_fields
from tf_lift.config import Config
from tf_lift.data.dataset_info import DatasetInfo
from tf_lift.datastore import Datastore, Window
from tf_lift.layers.attentional_gru_cell import AttentionalGRUCell
from tf_lift.layers.logit_mlp import LogitMLP

_FAR_BELOW = 1e9  # the attention logit of a row that is not there: none of the softmax's mass


@dataclasses.dataclass(frozen=True)
class DIENSettings(HistoryPeerSettings):
    """Settings of DIEN."""

    auxiliary_weight: float = 1.0
    """alpha of eq. 7, weight of the auxiliary loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_setting("auxiliary_weight", self.auxiliary_weight, 0.0, 100.0)


class DIEN(HistoryPeer):
    """Interests that evolve: a GRU over the rows, and a second one whose update gate follows the attention to the candidate.

    Extractor: h_t of a GRU over the rows (eqs. 2 to 5), taught by an auxiliary loss that tells the next row's item from another by
    the inner product with h_t (eq. 6), L = L_target + alpha L_aux (eq. 7). Evolution: a_t = softmax over t of h_t W e_a (eq. 8), and
    AUGRU over h_t with the update gate scaled by a_t (eqs. 11 and 12); its last state meets the candidate's fields in an MLP.

    Differences from the paper: a row's behaviour is part of the extractor's input; the next row counts where its behaviour is a
    positive; the other item of eq. 6 is that of another user of the batch in the same place, if that has one.
    """

    settings: DIENSettings

    def __init__(
        self, settings: DIENSettings, config: Config, info: DatasetInfo, datastore: Datastore, name: str
    ) -> None:
        super().__init__(settings, config, info, datastore, name)
        width = settings.embedding_dim * len(
            config.schema.indices("item")
        )  # of an item: eq. 6 is an inner product with it
        self._extractor = tf.keras.layers.GRU(width, return_sequences=True, name="extractor")
        self._attention = tf.keras.layers.Dense(width, use_bias=False, name="attention")  # W of eq. 8
        self._evolution = tf.keras.layers.RNN(AttentionalGRUCell(width, name="cell"), name="evolution")
        self._mlp = LogitMLP(settings.hidden_dims, settings.dropout_rate, name="mlp")

    def logits(self, slate: dict[str, tf.Tensor], history: Window, training: bool | None) -> tf.Tensor:
        """See `Peer.logits`."""
        interests = self._extract(history)  # [B, L, d]
        weights = self._attend(self.items_of(slate["fields"]), interests, history.mask)  # [B, C, L]
        shape = tf.shape(weights)
        width, length = interests.shape[-1], self.settings.context_length
        per_candidate = tf.repeat(interests, shape[1], axis=0)  # [B C, L, d]
        states = self._evolution((per_candidate, tf.reshape(weights, [-1, length, 1])))
        evolved = tf.reshape(states, [shape[0], shape[1], width])
        inputs = tf.concat([join_fields(self.embedding(slate["fields"])), evolved], axis=-1)
        return self._mlp(inputs, training=training)

    def compute_loss(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Eq. 7: the loss of all peers and, in training, the auxiliary loss."""
        loss = super().compute_loss(inputs, training=training)
        if training and self.settings.auxiliary_weight:
            history = self.datastore.history(inputs["history_position"])
            loss += self.settings.auxiliary_weight * self.auxiliary_loss(history)
        return loss

    def auxiliary_loss(self, history: Window) -> tf.Tensor:
        """Eq. 6, mean over the pairs of rows, a scalar.

        Args:
            history: rows of users.
        """
        states = self._extract(history)[:, :-1]
        items = self.items_of(history.fields)[:, 1:]
        others = tf.roll(items, shift=1, axis=0)
        is_item = self.positives(history)[:, 1:]
        is_other = tf.roll(history.mask[:, 1:], shift=1, axis=0) & is_item
        of_item = tf.reduce_sum(states * items, axis=-1)
        of_other = tf.reduce_sum(states * others, axis=-1)
        losses = tf.where(is_item, tf.nn.softplus(-of_item), 0.0) + tf.where(is_other, tf.nn.softplus(of_other), 0.0)
        return tf.reduce_sum(losses) / tf.maximum(tf.reduce_sum(tf.cast(is_item, tf.float32)), 1.0)

    def _extract(self, history: Window) -> tf.Tensor:
        """h_t float32 [B, L, d]; rows stand at the left, so that padding changes none of a real row's."""
        return self._extractor(tf.concat([self.items_of(history.fields), self.labels_of(history)], axis=-1))

    def _attend(self, candidates: tf.Tensor, interests: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """Eq. 8, float32 [B, C, L]; all 0 for an empty history."""
        logits = tf.einsum("bld,bcd->bcl", self._attention(interests), candidates)
        weights = tf.nn.softmax(tf.where(mask[:, None], logits, tf.reduce_min(logits) - _FAR_BELOW))
        return tf.where(mask[:, None], weights, 0.0)
