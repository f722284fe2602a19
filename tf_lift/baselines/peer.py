"""What the learned rankers of a comparison share: settings, inputs and losses."""

import abc
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import tensorflow as tf
import tensorflow_recommenders as tfrs

from tf_lift.config import Config
from tf_lift.config.model_sections import LearningRateDecay
from tf_lift.data.dataset_files import Dataset
from tf_lift.data.dataset_info import DatasetInfo
from tf_lift.datastore import Datastore, Window
from tf_lift.layers.interaction_embedding import InteractionEmbedding
from tf_lift.models.slate_losses import build_label_task, listwise_loss, mean_weights


@dataclasses.dataclass(frozen=True)
class PeerSettings:
    """What the tuner may choose of a peer; its subclasses add their own.

    Every field has a default, so that a peer can be trained without a choice.
    """

    embedding_dim: int = 16
    """w, width of one field's embedding."""
    hidden_dims: tuple[int, ...] = (200, 80)
    """Widths of the MLP."""
    dropout_rate: float = 0.2
    """Dropout inside the MLP."""
    learning_rate: float = 1e-3
    """Adam's learning rate."""
    learning_rate_decay: LearningRateDecay = "none"
    """Of the train examples' learning rate: `cosine`, to 0 over `num_epochs`, all of which are run; `none`: it stays."""
    l2: float = 1e-4
    """Weight of the squared norm of the dense layers' kernels in the loss."""
    embedding_l2: float = 0.0
    """Weight of the squared norm of a candidate's own embeddings in the loss, mean over a batch's candidates."""
    batch_size: int = 0
    """Slates of a batch of train, the pool and validation; 0: the configuration's `training.batch_size`, which answers have always."""
    num_epochs: int = 10
    """Most passes over the train examples."""
    patience: int = 2
    """Epochs without a better validation loss before stopping."""
    context_length: int = 0
    """Rows of the user's history that are read; 0: the configuration's `retrieval.context_length`."""
    loss: str = "pointwise"
    """`pointwise`: binary cross-entropy. `listwise`: softmax cross-entropy over a slate's candidates; logits are then scores alone."""

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "num_epochs", "patience"):
            check_setting(name, getattr(self, name), 1, 1 << 14)
        check_setting("dropout_rate", self.dropout_rate, 0.0, 0.9)
        check_setting("learning_rate", self.learning_rate, 0.0, 1.0)
        for name in ("context_length", "batch_size"):
            check_setting(name, getattr(self, name), 0, 1 << 14)
        check_choice("learning_rate_decay", self.learning_rate_decay, get_args(LearningRateDecay))
        check_choice("loss", self.loss, ("pointwise", "listwise"))


class Peer(tfrs.Model, abc.ABC):
    """A learned ranker: from a slate and the rows of its user before it to a logit a candidate.

    A subclass makes its layers in `__init__` and answers `logits`. It reads candidates as `self.embedding(slate["fields"])`, and
    other rows of the log through `self.datastore`. Padded candidates (`slate["mask"]` False) may get any finite logit.

    Args:
        settings: of the class that the registry names.
        config: the configuration.
        info: numbers of ids and match sets.
        datastore: the log; its states are not read.
        name: the ranker's name in the registry.
    """

    def __init__(
        self, settings: PeerSettings, config: Config, info: DatasetInfo, datastore: Datastore, name: str
    ) -> None:
        super().__init__(name=name)
        self.settings, self.config, self.info = settings, config, info
        length = settings.context_length or config.retrieval.context_length
        self.datastore = dataclasses.replace(datastore, context_length=length)
        self.embedding = InteractionEmbedding(info.num_train_ids, settings.embedding_dim, name="embedding")
        behaviour = config.behaviour
        self._is_positive = tf.constant([behaviour.is_positive(value) for value in range(behaviour.num_classes)])
        self.task = build_label_task()
        self._slate_loss = tf.keras.metrics.Mean(name="slate_loss")  # of a listwise peer: what validation stops it by

    @abc.abstractmethod
    def logits(self, slate: dict[str, tf.Tensor], history: Window, training: bool | None) -> tf.Tensor:
        """Log-odds that each candidate's label is 1, float32 [B, C].

        Args:
            slate: what `RowReferences.resolve` returns.
            history: the user's last rows strictly before the slate's time, `settings.context_length` of them at most.
            training: whether dropout is on.
        """

    def pretrain(self, dataset: Dataset, folder: Path, resume_from: Path | None) -> None:
        """The peer's own first stage, before `fit` on the train examples; most have none.

        Args:
            dataset: the data set.
            folder: for checkpoints and logs, as `train_epochs` takes it.
            resume_from: likewise; a stage that is done ends at once with its weights.
        """

    def call(self, inputs: dict[str, tf.Tensor], training: bool | None = None) -> tf.Tensor:
        """Logits of slates, float32 [B, C].

        Args:
            inputs: what `RowReferences.resolve` returns.
            training: whether dropout is on.
        """
        return self.logits(inputs, self.datastore.history(inputs["history_position"]), training)

    def compute_loss(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Mean over a slate's candidates, summed over slates and divided by the batch size, as the predictor's; and L2."""
        logits = self(inputs, training=training)
        per_slate = mean_weights(tf.cast(inputs["mask"], tf.float32))
        batch_size = float(self.config.training.batch_size)
        loss = self.task(
            labels=inputs["label"][..., None],
            predictions=logits[..., None],
            sample_weight=per_slate / batch_size,
            training=training,
        )
        if self.settings.loss == "listwise":
            of_slates, _ = listwise_loss(logits, inputs["label"], inputs["mask"])
            self._slate_loss.update_state(of_slates)
            loss = tf.reduce_sum(of_slates) / batch_size
        return loss + self._penalty(inputs["fields"], per_slate / batch_size) if training else loss

    def validate(self, examples: tf.data.Dataset) -> dict[str, float]:
        """What `train_epochs` stops by: `loss`, the one that is trained without L2, and `auc`."""
        result = self.evaluate(examples, verbose=0, return_dict=True)
        is_listwise = self.settings.loss == "listwise"
        return {"loss": result["slate_loss" if is_listwise else "log_loss"], "auc": result["auc"]}

    def positives(self, rows: Window) -> tf.Tensor:
        """bool [B, L], True where a row is real and its behaviour is a positive."""
        return tf.gather(self._is_positive, rows.behaviours) & rows.mask

    def _penalty(self, fields: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        kernels = [layer.kernel for layer in self.submodules if isinstance(layer, tf.keras.layers.Dense)]
        penalty = self.settings.l2 * tf.add_n([tf.zeros([]), *(tf.nn.l2_loss(kernel) for kernel in kernels)])
        if self.settings.embedding_l2:
            squares = tf.reduce_sum(tf.square(self.embedding(fields)), axis=[-2, -1]) / 2.0  # [B, C]
            penalty += self.settings.embedding_l2 * tf.reduce_sum(weights * squares)
        return penalty


def check_setting(name: str, value: float, low: float, high: float) -> None:
    """Checks the range of a ranker's setting.

    Raises:
        ValueError: the value is outside, or no number.
    """
    if not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"The ranker's setting `{name}` must be from {low} to {high}. Received: {value!r}.")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Checks a ranker's setting that is one of a few words.

    Raises:
        ValueError: the value is none of them.
    """
    if value not in choices:
        raise ValueError(
            f"The ranker's setting `{name}` must be {' or '.join(map(repr, choices))}. Received: {value!r}."
        )


def join_fields(embedded: tf.Tensor) -> tf.Tensor:
    """Fields side by side: float32 [.., M, w] to [.., M w]."""
    return tf.concat(tf.unstack(embedded, axis=-2), axis=-1)
