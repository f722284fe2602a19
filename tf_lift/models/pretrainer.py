"""Pretraining of the encoder by masking behaviours (eqs. 9 and 10), and by the next item."""

import dataclasses
from typing import NamedTuple

import tensorflow as tf
import tensorflow_recommenders as tfrs

from tf_lift.config import Config
from tf_lift.data.masking import choose_masked, label_ids, masked_label, rows_strictly_before
from tf_lift.datastore import Datastore, Window
from tf_lift.models.encoder import Encoder
from tf_lift.models.next_item import NextItem, NextItemLosses
from tf_lift.models.slate_losses import mean_weights
from tf_lift.schema import UNKNOWN_ID


class BehaviourHead(tf.keras.layers.Layer):
    """The MLP that reads a behaviour off a state, eq. 10: logits, one for two behaviours, else one a class.

    Args:
        state_dim: v.
        num_classes: behaviours.
    """

    def __init__(self, state_dim: int, num_classes: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.state_dim, self.num_classes = state_dim, num_classes
        self._hidden = tf.keras.layers.Dense(state_dim, activation="relu", name="hidden")
        self._logits = tf.keras.layers.Dense(1 if num_classes == 2 else num_classes, name="logits")

    def call(self, states: tf.Tensor) -> tf.Tensor:
        """Logits, float32 [.., 1] or [.., classes], of states float32 [.., v]."""
        return self._logits(self._hidden(states))

    def get_config(self) -> dict[str, object]:
        """Arguments of the constructor."""
        return {**super().get_config(), "state_dim": self.state_dim, "num_classes": self.num_classes}


class PretrainerAnswers(NamedTuple):
    """What the pretrainer says of windows; T places are asked of each.

    Attributes:
        logits: float32 [B, T, 1 or classes].
        truth: int32 [B, T] classes.
        weights: float32 [B, T], 1 where a place counts, 0 elsewhere.
        next_items: losses of next items; None without `pretraining.next_item`.
    """

    logits: tf.Tensor
    truth: tf.Tensor
    weights: tf.Tensor
    next_items: NextItemLosses | None


class _AskedRows(NamedTuple):
    """Rows of windows that are asked about; A of each.

    Attributes:
        fields: int32 [B, A, M].
        behaviours: int32 [B, A].
        visible: int32 [B, A], how many rows of the window each sees.
        counts: bool [B, A], False where a place is no row of the window.
        unknown: bool [B, A], whether training hides its ids.
        noise: float32 [B, A, ..], uniform in [0, 1).
    """

    fields: tf.Tensor
    behaviours: tf.Tensor
    visible: tf.Tensor
    counts: tf.Tensor
    unknown: tf.Tensor
    noise: tf.Tensor

    def draw(self, count: int) -> "_AskedRows":
        """Some of them by the last of their noise, those that count first: A = count."""
        places = tf.math.top_k(tf.where(self.counts, self.noise[..., -1], -1.0), count).indices
        return _AskedRows(*(tf.gather(values, places, batch_dims=1) for values in self))


class Pretrainer(tfrs.Model):
    """Learns to tell a hidden behaviour from what its user did before, and the next item if configured.

    `targets = "masked"` is eq. 10: the labels of some rows of a window are replaced by MSK, and the loss is read at their states.
    `targets = "queries"` reads it at (x, MSK) appended to the rows strictly before x, which is what the predictor asks: for every
    row of the window, or in training a drawn share of them, and for `negatives_per_row` items drawn at random in a log of positives only.

    A window is read with the row before it, L + 1 rows at most: its newest row then stands behind a full history, as every row of a
    user of many rows does when the predictor asks. The row before is asked for in its own window alone.

    Differences from the paper: the row before a window, "queries" and their share, and `next_item`, a second loss (`NextItem`).

    Args:
        encoder: the encoder.
        config: the configuration.
        datastore: the log, without states.
        item_table: int32 [I + 2, M] fields of each item id; needed to draw negatives.
        popular_items: int32 [R] item ids of pool rows, to draw negatives by popularity.
    """

    def __init__(
        self,
        encoder: Encoder,
        config: Config,
        datastore: Datastore,
        item_table: tf.Tensor,
        popular_items: tf.Tensor,
    ) -> None:
        super().__init__(name="pretrainer")
        self.encoder = encoder
        self.head = BehaviourHead(config.encoder.state_dim, config.behaviour.num_classes, name="behaviour_head")
        self.config = config
        self._datastore = dataclasses.replace(datastore, context_length=datastore.context_length + 1)
        self._item_table = item_table
        self._popular_items = popular_items
        self._num_classes = config.behaviour.num_classes
        binary = self._num_classes == 2
        losses = tf.keras.losses
        loss = losses.BinaryCrossentropy if binary else losses.SparseCategoricalCrossentropy
        metric = tf.keras.metrics.BinaryCrossentropy if binary else tf.keras.metrics.SparseCategoricalCrossentropy
        metrics = [metric(name="log_loss", from_logits=True)]
        if binary:
            metrics.append(tf.keras.metrics.AUC(name="auc", from_logits=True))
        self.task = tfrs.tasks.Ranking(loss=loss(from_logits=True, reduction=losses.Reduction.SUM), metrics=metrics)
        self.next_item: NextItem | None = None
        if config.pretraining.next_item:
            self.next_item = NextItem(encoder, config, popular_items, name="next_item")
            self._next_item_loss = tf.keras.metrics.Mean(name="next_item_loss")

    @property
    def window_length(self) -> int:
        """L + 1, the rows that a window is read with."""
        return self._datastore.context_length

    @property
    def num_negatives(self) -> int:
        """Sampled queries of each row."""
        config = self.config
        is_asked = config.behaviour.kind == "positive_only" and config.pretraining.targets == "queries"
        sampled = is_asked and not config.negatives.logged_per_pool_row
        return self.config.pretraining.negatives_per_row if sampled else 0

    @property
    def noise_width(self) -> int:
        """Uniform numbers that each row of a window needs: masking, unknown ids, two a negative, and one if not all rows are asked."""
        section = self.config.pretraining
        draws_rows = section.targets == "queries" and section.query_share < 1.0
        return 2 + 2 * self.num_negatives + (1 if draws_rows else 0)

    def call(self, inputs: dict[str, tf.Tensor], training: bool | None = None) -> PretrainerAnswers:
        """Predicts hidden behaviours and next items.

        Args:
            inputs: `first_row`, `num_rows` int32 [B], and `noise` float32 [B, L + 1, noise_width] uniform in [0, 1).
            training: whether dropout is on.
        """
        window, is_asked = self._read_window(inputs["first_row"], inputs["num_rows"])
        noise = inputs["noise"]
        masked = choose_masked(noise[..., 0], window.times, window.mask, self.config.pretraining.mask_ratio)
        labels = tf.where(masked, masked_label(self._num_classes), label_ids(window.behaviours, window.mask))
        fields, unknown = window.fields, noise[..., 1] < self.config.encoder.unknown_rate
        if training:
            fields = _hide_ids(fields, unknown)
        if self.config.pretraining.targets == "masked":
            rows = self.encoder.encode_rows(fields, labels, window.mask, training=training)
            next_items = self._next_items(window, fields, rows, noise, training)
            weights = tf.cast(masked & is_asked, tf.float32)
            return PretrainerAnswers(self.head(rows), window.behaviours, weights, next_items)
        asked = _AskedRows(
            window.fields, window.behaviours, rows_strictly_before(window.times, window.mask), is_asked, unknown, noise
        )
        if training and self.config.pretraining.query_share < 1.0:
            asked = asked.draw(max(1, round(self.config.pretraining.query_share * self.window_length)))
        queries, truth = self._queries(asked)
        copies = 1 + self.num_negatives
        if training:  # drawn items too: else an unknown item would mean a positive
            queries = _hide_ids(queries, tf.tile(asked.unknown, [1, copies]))
        visible = tf.tile(asked.visible, [1, copies])
        states = self.encoder(fields, labels, window.mask, queries, visible, training=training)
        weights = tf.tile(tf.cast(asked.counts, tf.float32), [1, copies])
        next_items = self._next_items(window, fields, states.rows, noise, training)
        return PretrainerAnswers(self.head(states.queries), truth, weights, next_items)

    def _read_window(self, first_row: tf.Tensor, num_rows: tf.Tensor) -> tuple[Window, tf.Tensor]:
        """A window with the row before it of the same user, if there is one; and bool [B, L + 1], True for the window's own rows."""
        users = self._datastore.user_indices
        is_first = tf.gather(users, tf.maximum(first_row - 1, 0)) != tf.gather(users, first_row)
        num_before = tf.where(is_first | (first_row == 0), 0, 1)
        window = self._datastore.window(first_row - num_before, num_rows + num_before)
        return window, window.mask & (tf.range(self.window_length) >= num_before[:, None])

    def _queries(self, asked: _AskedRows) -> tuple[tf.Tensor, tf.Tensor]:
        """int32 [B, T, M] fields and [B, T] classes: the rows themselves, then the sampled items in their users' places."""
        schema, noise = self.config.schema, asked.noise
        is_item = tf.constant([field.entity == "item" for field in schema.fields])
        queries, truth = [asked.fields], [asked.behaviours]
        num_items = tf.shape(self._item_table)[0] - 2
        num_popular = tf.shape(self._popular_items)[0]
        for index in range(self.num_negatives):
            kind, place = noise[..., 2 + 2 * index], noise[..., 3 + 2 * index]
            uniform = 2 + tf.minimum(tf.cast(place * tf.cast(num_items, tf.float32), tf.int32), num_items - 1)
            drawn = tf.minimum(tf.cast(place * tf.cast(num_popular, tf.float32), tf.int32), num_popular - 1)
            popular = tf.gather(self._popular_items, drawn)
            items = tf.where(kind < self.config.negatives.popularity_share, popular, uniform)
            queries.append(tf.where(is_item, tf.gather(self._item_table, items), asked.fields))
            truth.append(tf.zeros_like(asked.behaviours))
        return tf.concat(queries, axis=1), tf.concat(truth, axis=1)

    def _next_items(
        self,
        window: Window,
        fields: tf.Tensor,
        rows: tf.Tensor,
        noise: tf.Tensor,
        training: bool | None,
    ) -> NextItemLosses | None:
        """What `NextItem` returns, where there is one."""
        if self.next_item is None:
            return None
        return self.next_item(window, fields, rows, noise, training=training)

    def compute_loss(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Mean over a window's places, summed over windows and divided by the global batch size, so that replicas add up."""
        answers = self(inputs, training=training)
        loss = self.task(
            labels=answers.truth[..., None],
            predictions=answers.logits,
            sample_weight=self._shares(answers.weights),
            training=training,
        )
        if answers.next_items is not None:
            shares = self._shares(answers.next_items.weights)
            self._next_item_loss.update_state(answers.next_items.losses, sample_weight=shares)
            loss += self.config.pretraining.next_item_weight * tf.reduce_sum(answers.next_items.losses * shares)
        return loss

    def _shares(self, weights: tf.Tensor) -> tf.Tensor:
        """What each place counts in the loss, of the weights' shape."""
        return mean_weights(weights) / float(self.config.pretraining.batch_size)


def _hide_ids(fields: tf.Tensor, unknown: tf.Tensor) -> tf.Tensor:
    """Fields int32 [B, T, M] with UNKNOWN_ID for the values of the rows where `unknown`, bool [B, T], holds."""
    return tf.where(unknown[..., None] & (fields > UNKNOWN_ID), UNKNOWN_ID, fields)
