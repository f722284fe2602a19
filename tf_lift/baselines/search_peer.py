"""Rankers that search the user's long history for rows that bear on the candidate."""

import abc
import dataclasses

import tensorflow as tf

from tf_lift.baselines.peer import check_setting, join_fields
from tf_lift.baselines.pool_peer import PoolPeer, PoolPeerSettings
from tf_lift.config import Config
from tf_lift.data.dataset_info import DatasetInfo
from tf_lift.data.masking import label_ids
from tf_lift.datastore import Datastore, Window
from tf_lift.layers.logit_mlp import LogitMLP

_MAX_GAP = 40  # classes of log2(seconds): 2^39 seconds are older than any log


@dataclasses.dataclass(frozen=True)
class SearchSettings(PoolPeerSettings):
    """Settings of a ranker that searches the user's history."""

    search_length: int = 256
    """Rows of the user's history that are searched, the newest ones strictly before the slate's time."""
    num_hits: int = 20
    """Rows that a candidate is given at most."""
    num_heads: int = 2
    """Heads of the attention over them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_setting("search_length", self.search_length, 1, 1 << 14)
        check_setting("num_hits", self.num_hits, 1, self.search_length)
        check_setting("num_heads", self.num_heads, 1, 64)


class SearchPeer(PoolPeer):
    """A candidate is given the rows of its user's long history that score best, and attends to them.

    A row is its fields, its behaviour and the time that has passed since, in classes of log2(seconds).

    Args:
        settings: of this class.
        config: the configuration.
        info: numbers of ids.
        datastore: the log.
        name: the ranker's name in the registry.
    """

    settings: SearchSettings

    def __init__(
        self, settings: SearchSettings, config: Config, info: DatasetInfo, datastore: Datastore, name: str
    ) -> None:
        super().__init__(settings, config, info, datastore, name)
        self._long_store = dataclasses.replace(datastore, context_length=settings.search_length)
        width = settings.embedding_dim
        self._labels = tf.keras.layers.Embedding(config.behaviour.num_classes + 1, width, name="label_embedding")
        self._gaps = tf.keras.layers.Embedding(_MAX_GAP, width, name="gap_embedding")
        self._attention = self.build_attention("attention")
        self._mlp = LogitMLP(settings.hidden_dims, settings.dropout_rate, name="mlp")

    @abc.abstractmethod
    def relevance(self, fields: tf.Tensor, rows: Window) -> tf.Tensor:
        """How well each row bears on each candidate, float32 [B, C, S]; a row at 0 or below is never given.

        Args:
            fields: int32 [B, C, M] of the candidates.
            rows: the S rows of each user's long history.
        """

    def interests(
        self, target: tf.Tensor, slate: dict[str, tf.Tensor], history: Window, training: bool | None
    ) -> list[tf.Tensor]:
        """Vectors [B, C, ..] that the MLP reads beside the candidate's, target float32 [B, C, M w]."""
        rows = self._long_store.history(slate["history_position"])
        hits = self.best_rows(self.relevance(slate["fields"], rows), rows)
        return [self.attend(self._attention, target, self.embed_rows(rows, slate["time"]), hits, training)]

    def logits(self, slate: dict[str, tf.Tensor], history: Window, training: bool | None) -> tf.Tensor:
        """See `Peer.logits`."""
        target = join_fields(self.embedding(slate["fields"]))
        inputs = [target, *self.interests(target, slate, history, training)]
        return self._mlp(tf.concat(inputs, axis=-1), training=training)

    def best_rows(self, scores: tf.Tensor, rows: Window) -> tf.Tensor:
        """bool [B, C, S], True at the `num_hits` real rows of the best scores above 0, of equal ones the newest.

        Args:
            scores: float32 [B, C, S].
            rows: the rows; their times ascend.
        """
        scores = tf.where(rows.mask[:, None], scores, 0.0)
        worst = tf.math.top_k(scores, self.settings.num_hits).values[..., -1:]
        above, equal = scores > worst, scores == worst
        num_free = self.settings.num_hits - tf.reduce_sum(tf.cast(above, tf.int32), axis=-1, keepdims=True)
        newer = tf.cumsum(tf.cast(equal, tf.int32), axis=-1, reverse=True)  # equals from a row to the newest
        return (above | (equal & (newer <= num_free))) & (scores > 0.0)

    def embed_rows(self, rows: Window, time: tf.Tensor) -> tf.Tensor:
        """float32 [B, S, (M + 2) w] of rows, as of times int64 [B]."""
        seconds = tf.cast(tf.maximum(time[:, None] - rows.times, 1), tf.float64)
        gaps = tf.minimum(
            tf.cast(tf.math.log(seconds) / tf.math.log(tf.constant(2.0, tf.float64)), tf.int32), _MAX_GAP - 1
        )
        labels = self._labels(label_ids(rows.behaviours, rows.mask))
        return tf.concat([join_fields(self.embedding(rows.fields)), labels, self._gaps(gaps)], axis=-1)

    def build_attention(self, name: str) -> tf.keras.layers.MultiHeadAttention:
        """Attention of candidates to rows, with `num_heads` heads of one embedding's width."""
        return tf.keras.layers.MultiHeadAttention(self.settings.num_heads, self.settings.embedding_dim, name=name)

    @staticmethod
    def attend(
        attention: tf.keras.layers.MultiHeadAttention,
        target: tf.Tensor,
        rows: tf.Tensor,
        hits: tf.Tensor,
        training: bool | None,
    ) -> tf.Tensor:
        """What candidates read off their rows, float32 [B, C, M w + 1]: zeros without a row, and the log of the number of rows.

        Args:
            attention: of `build_attention`.
            target: float32 [B, C, M w].
            rows: float32 [B, S, D].
            hits: bool [B, C, S], True where a candidate reads a row.
            training: whether dropout is on.
        """
        read = attention(target, rows, attention_mask=hits, training=training)
        number = tf.reduce_sum(tf.cast(hits, tf.float32), axis=-1, keepdims=True)
        return tf.concat([tf.where(number > 0.0, read, 0.0), tf.math.log1p(number)], axis=-1)
