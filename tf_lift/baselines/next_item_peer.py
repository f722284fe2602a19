"""Rankers that first learn, by a softmax over all items, which item comes next."""

import abc
import dataclasses
from pathlib import Path
from typing import get_args

import numpy as np
import tensorflow as tf

from tf_lift.baselines.item_sequences import ItemSequences, build_item_sequences
from tf_lift.baselines.peer import Peer, PeerSettings, check_choice, check_setting
from tf_lift.config import Config
from tf_lift.config.model_sections import LearningRateDecay
from tf_lift.data.dataset_files import Dataset
from tf_lift.data.dataset_info import DatasetInfo
from tf_lift.datastore import Datastore, Window
from tf_lift.layers.interaction_embedding import InteractionEmbedding
from tf_lift.layers.softmax_loss import softmax_cross_entropy
from tf_lift.training_loop import Schedule, build_learning_rate, train_epochs

_VALIDATION_SHARE = 0.05  # of the sequences, drawn by the seed, to stop the first stage by


@dataclasses.dataclass(frozen=True)
class NextItemSettings(PeerSettings):
    """Settings of a ranker that learns the next item first."""

    embedding_dim: int = 64
    """Width of an item's embedding and of a state."""
    dropout_rate: float = 0.2
    """Dropout of the inputs and inside the sequence's layers."""
    learning_rate: float = 1e-3
    """Adam's learning rate, of both stages."""
    l2: float = 0.0
    """Weight of the squared norm of the dense layers' kernels in the second stage's loss."""
    context_length: int = 50
    """L, positive rows of a user that are read."""
    search_length: int = 256
    """Rows of the user's history in which the newest L positives are looked for."""
    pretraining_epochs: int = 50
    """Most passes over the sequences in the first stage."""
    pretraining_patience: int = 3
    """Epochs of the first stage without a better validation loss before stopping."""
    pretraining_batch_size: int = 128
    """Sequences of a step."""
    pretraining_learning_rate_decay: LearningRateDecay = "none"
    """Of the first stage's learning rate: `cosine`, to 0 over `pretraining_epochs`, all of which are run; `none`: it stays."""
    learn_until: str = "pool"
    """The first stage learns from positives before `pool`: train begins (as the project's own encoder), or `train`: train ends."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_setting("context_length", self.context_length, 1, 1 << 14)
        check_setting("search_length", self.search_length, self.context_length, 1 << 14)
        check_setting("pretraining_epochs", self.pretraining_epochs, 1, 10_000)
        check_setting("pretraining_patience", self.pretraining_patience, 1, 10_000)
        check_setting("pretraining_batch_size", self.pretraining_batch_size, 1, 1 << 20)
        decay = "pretraining_learning_rate_decay"
        check_choice(decay, self.pretraining_learning_rate_decay, get_args(LearningRateDecay))
        check_choice("learn_until", self.learn_until, ("pool", "train"))


class NextItemPeer(Peer):
    """A ranker with a first stage: of a user's positives so far, which of all items comes next.

    Sequences stand at the right of their window, so that the newest row always has the same place. An item that was not seen before
    the first stage's end is read, and scored, as the unknown item.

    Args:
        settings: of this class.
        config: the configuration.
        info: numbers of ids.
        datastore: the log.
        name: the ranker's name in the registry.
    """

    settings: NextItemSettings

    def __init__(
        self, settings: NextItemSettings, config: Config, info: DatasetInfo, datastore: Datastore, name: str
    ) -> None:
        super().__init__(settings, config, info, datastore, name)
        ids = info.num_pool_ids if settings.learn_until == "pool" else info.num_train_ids
        self._item_field = config.schema.item_index
        self.num_items = ids[self._item_field]
        self.item_embedding = InteractionEmbedding([self.num_items], settings.embedding_dim, name="item_embedding")
        self.item_bias = InteractionEmbedding([self.num_items], 1, name="item_bias")
        self._long_store = dataclasses.replace(self.datastore, context_length=settings.search_length)

    @abc.abstractmethod
    def learning_states(self, sequences: ItemSequences, training: bool | None) -> tuple[tf.Tensor, tf.Tensor]:
        """What the first stage learns: states float32 [n, d], and the item id that each should give, int32 [n]."""

    def embed_items(self, items: tf.Tensor) -> tf.Tensor:
        """Embeddings of item ids, float32 [.., d]."""
        return self.item_embedding(items[..., None])[..., 0, :]

    def bias_of(self, items: tf.Tensor) -> tf.Tensor:
        """Biases of item ids, float32 of their shape."""
        return self.item_bias(items[..., None])[..., 0, 0]

    def cross_entropy(self, states: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        """Softmax cross-entropy over all items, float32 [n], of states float32 [n, d] and the true items int32 [n].

        A score is the inner product with the item's input embedding, and its bias.
        """
        return softmax_cross_entropy(states, items, self.item_embedding.table, self.item_bias.table[:, 0])

    def newest_positives(self, slate: dict[str, tf.Tensor], count: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Items of the newest positive rows strictly before each slate's time.

        Args:
            slate: what `RowReferences.resolve` returns.
            count: rows to keep.

        Returns:
            int32 [B, count] ids, 0 where there is none, and bool [B, count], True where a row is real; real rows stand at the right.
        """
        rows = self._long_store.history(slate["history_position"])
        places = tf.range(1, self.settings.search_length + 1)
        newest = tf.math.top_k(tf.where(self.positives(rows), places, 0), count).values  # descending
        newest = tf.reverse(newest, axis=[1])
        items = tf.gather(rows.fields[..., self._item_field], tf.maximum(newest - 1, 0), batch_dims=1)
        return tf.where(newest > 0, items, 0), newest > 0

    def logits(self, slate: dict[str, tf.Tensor], history: Window, training: bool | None) -> tf.Tensor:
        """See `Peer.logits`; `history` is not read, as it may hold other rows than positives."""
        items, mask = self.newest_positives(slate, self.settings.context_length)
        return self.rank(slate, items, mask, training)

    @abc.abstractmethod
    def rank(self, slate: dict[str, tf.Tensor], items: tf.Tensor, mask: tf.Tensor, training: bool | None) -> tf.Tensor:
        """Logits float32 [B, C] of candidates, given `newest_positives`."""

    def pretrain(self, dataset: Dataset, folder: Path, resume_from: Path | None) -> None:
        """The first stage: softmax over all items, by `learning_states`.

        Raises:
            ValueError: no user has two positives before the first stage's end.
        """
        settings, boundaries = self.settings, self.info.boundaries
        until = boundaries.train_from if settings.learn_until == "pool" else boundaries.validation_from
        sequences = build_item_sequences(dataset, until, settings.context_length + 1)
        rng = np.random.default_rng(self.config.seed)
        held_out = rng.random(len(sequences.items)) < _VALIDATION_SHARE
        held_out[0] = True  # both parts have one at least
        held_out[1:2] = False
        taught = ~held_out if len(held_out) > 1 else held_out
        model = _NextItemTask(self)
        decay = settings.pretraining_learning_rate_decay
        rate = build_learning_rate(
            settings.learning_rate,
            decay,
            num_epochs=settings.pretraining_epochs,
            num_examples=int(taught.sum()),
            batch_size=settings.pretraining_batch_size,
        )
        model.compile(optimizer=tf.keras.optimizers.Adam(rate))
        validation = sequences.batches(held_out, settings.pretraining_batch_size, None).cache()

        def validate() -> dict[str, float]:
            return {"loss": model.evaluate(validation, verbose=0, return_dict=True)["log_loss"]}

        train_epochs(
            f"{self.name} next item",
            model,
            lambda epoch: sequences.batches(taught, settings.pretraining_batch_size, self.config.seed * 1000 + epoch),
            validate,
            Schedule.of_falling_rate(settings.pretraining_epochs, settings.pretraining_patience, decay),
            folder,
            resume_from,
        )


class _NextItemTask(tf.keras.Model):
    """The first stage as a model: the mean cross-entropy of a batch's targets."""

    def __init__(self, peer: NextItemPeer) -> None:
        super().__init__(name="next_item")
        self.peer = peer
        self._log_loss = tf.keras.metrics.Mean(name="log_loss")

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        return [self._log_loss]

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor, tf.Tensor], training: bool | None = None) -> tf.Tensor:
        states, truth = self.peer.learning_states(ItemSequences(*inputs), training)
        return self.peer.cross_entropy(states, truth)

    def train_step(self, inputs: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            losses = self(inputs, training=True)
            loss = tf.reduce_sum(losses) / tf.maximum(tf.cast(tf.size(losses), tf.float32), 1.0)
        self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
        self._log_loss.update_state(losses)
        return {"log_loss": self._log_loss.result()}

    def test_step(self, inputs: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        self._log_loss.update_state(self(inputs, training=False))
        return {"log_loss": self._log_loss.result()}
