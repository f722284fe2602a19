"""Next-item rankers whose states see the past alone."""

import abc
import dataclasses
from pathlib import Path

import tensorflow as tf

from tf_lift.baselines.item_sequences import ItemSequences
from tf_lift.baselines.next_item_peer import NextItemPeer, NextItemSettings
from tf_lift.config import Config
from tf_lift.data.dataset_files import Dataset
from tf_lift.data.dataset_info import DatasetInfo
from tf_lift.datastore import Datastore

_STEP = 20.0  # Adam moves a number by about its learning rate a step, far too little for a logit's scale and offset


@dataclasses.dataclass(frozen=True)
class CausalNextItemSettings(NextItemSettings):
    """Settings of a causal next-item ranker."""

    tune_all: bool = False
    """The second stage learns, from the train examples, False: the scale and the offset that make a logit of a score; True: all."""


class CausalNextItemPeer(NextItemPeer):
    """Scores a candidate by the inner product of the newest row's state and the candidate's embedding, and its bias.

    In the first stage each positive is to be told by the state of the newest row strictly before its time: rows of one time are in no
    order, and a slate's history ends before its time as well. The second stage learns the scale and offset of the logit; with
    `tune_all` the whole model goes on learning.
    """

    settings: CausalNextItemSettings

    def __init__(
        self, settings: CausalNextItemSettings, config: Config, info: DatasetInfo, datastore: Datastore, name: str
    ) -> None:
        super().__init__(settings, config, info, datastore, name)
        self._scale_change = self.add_weight(name="scale_change", shape=(), initializer="zeros")
        self._offset = self.add_weight(name="offset", shape=(), initializer="zeros")

    @abc.abstractmethod
    def encode(self, items: tf.Tensor, mask: tf.Tensor, training: bool | None) -> tf.Tensor:
        """States of sequences, float32 [B, L, d]: of each row, from itself and what it may see.

        Args:
            items: int32 [B, L] ids.
            mask: bool [B, L], True where a row is real; real rows stand at the right.
            training: whether dropout is on.
        """

    def learning_states(self, sequences: ItemSequences, training: bool | None) -> tuple[tf.Tensor, tf.Tensor]:
        """Each row is to be told by the state of the last row strictly before its time."""
        states = self.encode(sequences.items[:, :-1], sequences.mask[:, :-1], training)
        known = sequences.last_before >= 0
        before = tf.gather(states, tf.maximum(sequences.last_before, 0), batch_dims=1)
        return tf.boolean_mask(before, known), tf.boolean_mask(sequences.items, known)

    def rank(self, slate: dict[str, tf.Tensor], items: tf.Tensor, mask: tf.Tensor, training: bool | None) -> tf.Tensor:
        """See `NextItemPeer.rank`; of a user without positives the biases alone are left."""
        training = training and self.settings.tune_all
        state = tf.where(mask[:, -1:], self.encode(items, mask, training)[:, -1], 0.0)
        candidates = slate["fields"][..., self._item_field]
        scores = tf.einsum("bd,bcd->bc", state, self.embed_items(candidates)) + self.bias_of(candidates)
        return (1.0 + _STEP * self._scale_change) * scores + _STEP * self._offset

    def pretrain(self, dataset: Dataset, folder: Path, resume_from: Path | None) -> None:
        """See `NextItemPeer.pretrain`; what the second stage does not learn is frozen at its end."""
        super().pretrain(dataset, folder, resume_from)
        for layer in self.layers:
            layer.trainable = self.settings.tune_all
