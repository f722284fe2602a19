"""The item that a user has next: its loss in pretraining, and the logits of candidates."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_lift.config import Config
from tf_lift.data.masking import label_ids, rows_strictly_before
from tf_lift.datastore import Window
from tf_lift.layers.latent_cross import LatentCross
from tf_lift.layers.next_item_head import NextItemHead
from tf_lift.models.encoder import Encoder
from tf_lift.schema import UNKNOWN_ID


class NextItemLosses(NamedTuple):
    """The losses of the rows of a window as next items.

    Attributes:
        losses: float32 [B, L + 1], 0 where a row does not count.
        weights: float32 [B, L + 1], 1 where a row counts, 0 elsewhere.
    """

    losses: tf.Tensor
    weights: tf.Tensor


class NextItem(tf.keras.layers.Layer):
    """Tells the items of positive rows from what their user did before; called, it gives softmax cross-entropies.

    The item of a row is told from the state of the rows strictly before its time, which is what the predictor asks: rows that share
    a time are all told from the state before it. If configured, that state is first crossed with the time since those rows and with
    the user (`LatentCross`).

    Differences from the paper: it has no such loss.

    Args:
        encoder: the encoder of the behaviours, built or not.
        config: the configuration.
        popular_items: int32 [R] item ids of pool rows, to draw items by popularity.
    """

    def __init__(
        self,
        encoder: Encoder,
        config: Config,
        popular_items: tf.Tensor,
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)
        section, num_classes = config.encoder, config.behaviour.num_classes
        self._item_index = config.schema.item_index
        self._shares_encoder = config.pretraining.share_encoder
        self.encoder = (
            encoder
            if self._shares_encoder
            else Encoder(
                section,
                encoder.embedding.num_ids,
                num_classes,
                encoder.context_length,
                "next_item_encoder",
                encoder.field_indices,
            )
        )
        self.head = NextItemHead(
            self.encoder.embedding, self._item_index, section.state_dim, section.unknown_rate, name="head"
        )
        reads_gap, reads_user = config.pretraining.next_item_gap, config.pretraining.next_item_user
        self._user_indices = config.schema.indices("user")
        self.cross: LatentCross | None = None
        if reads_gap or reads_user:
            dropout = config.pretraining.next_item_user_dropout if reads_user else None
            self.cross = LatentCross(section.state_dim, reads_gap, dropout, name="latent_cross")
        self._is_positive = tf.constant([config.behaviour.is_positive(value) for value in range(num_classes)])
        self._num_samples, self._unknown_rate = config.pretraining.next_item_samples, section.unknown_rate
        self._popular_items = popular_items
        counts = np.bincount(popular_items.numpy(), minlength=self.head.num_items)
        rates = (1.0 - self._unknown_rate) * counts / max(1, counts.sum())
        rates[UNKNOWN_ID] = self._unknown_rate
        self._draw_rates = tf.constant(rates, tf.float32)

    def call(
        self,
        window: Window,
        fields: tf.Tensor,
        rows: tf.Tensor,
        noise: tf.Tensor,
        training: bool | None = None,
    ) -> NextItemLosses:
        """Computes the losses.

        Args:
            window: the rows, L + 1 of them.
            fields: int32 [B, L + 1, M], theirs, with UNKNOWN_ID where training hides them.
            rows: float32 [B, L + 1, v], their states by the encoder of the behaviours.
            noise: float32 [B, L + 1, ..] uniform in [0, 1), of which samples are drawn.
            training: whether dropout is on.
        """
        rows = self._own_rows(window._replace(fields=fields), rows, training)
        visible = rows_strictly_before(window.times, window.mask)  # [B, L + 1]
        counts = window.mask & tf.gather(self._is_positive, window.behaviours) & (visible > 0)
        before = tf.boolean_mask(self.encoder.states_before(rows, visible), counts)  # [n, v]
        if self.cross is not None:
            # Who asks is read off the row before: ids are hidden row by row, so the row itself would tell that its item is hidden.
            last = tf.maximum(visible - 1, 0)
            gaps = tf.boolean_mask(window.times - tf.gather(window.times, last, batch_dims=1), counts)
            users = self._embed_users(tf.boolean_mask(tf.gather(fields, last, batch_dims=1), counts))
            before = self.cross(before, gaps, users, training=training)
        losses = self._cross_entropies(before, tf.boolean_mask(fields[..., self._item_index], counts), noise)
        shape = tf.shape(counts, tf.int64)
        return NextItemLosses(tf.scatter_nd(tf.where(counts), losses, shape), tf.cast(counts, tf.float32))

    def logits(
        self,
        history: Window,
        rows: tf.Tensor,
        items: tf.Tensor,
        times: tf.Tensor,
        training: bool | None = None,
    ) -> tf.Tensor:
        """Logits of candidates as what comes after histories; of no rows, the items' biases.

        Args:
            history: each user's rows, all before its time.
            rows: float32 [B, L, v], their states by the encoder of the behaviours, none of them masked.
            items: int32 [B, C] item ids.
            times: int64 [B], at which they are asked for.
            training: whether dropout is on.

        Returns:
            float32 [B, C].
        """
        rows = self._own_rows(history, rows, training)
        states = self.encoder.last_states(rows, history.num_rows)
        if self.cross is not None:
            last = history.newest(1)
            users = self._embed_users(last.fields[:, 0])
            crossed = self.cross(states, times - last.times[:, 0], users, training=training)
            states = tf.where(last.mask, crossed, states)  # training never asks behind no rows
        return self.head(states, items)

    def _embed_users(self, fields: tf.Tensor) -> tf.Tensor:
        """float32 [n, F, w] embeddings of the users of rows int32 [n, M]."""
        return self.encoder.embedding(fields, field_indices=self._user_indices)

    def _own_rows(self, window: Window, rows: tf.Tensor, training: bool | None) -> tf.Tensor:
        """The states [B, L, v] to read: those given, or those of the next item's own encoder, which knows all behaviours."""
        if self._shares_encoder:
            return rows
        labels = label_ids(window.behaviours, window.mask)
        return self.encoder.encode_rows(window.fields, labels, window.mask, training=training)

    def _cross_entropies(self, states: tf.Tensor, items: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
        """float32 [n], the losses of states float32 [n, v] and the items int32 [n] that came next."""
        if not self._num_samples:
            return self.head.cross_entropy(states, items)
        seed = tf.reduce_sum(tf.bitcast(noise[:, 0, :2], tf.int32), axis=0)  # of a batch that may be empty
        places = tf.random.stateless_uniform([self._num_samples], seed, 0, tf.size(self._popular_items), tf.int32)
        is_hidden = tf.random.stateless_uniform([self._num_samples], seed + 1) < self._unknown_rate
        samples = tf.where(is_hidden, UNKNOWN_ID, tf.gather(self._popular_items, places))
        return self.head.sampled_cross_entropy(states, items, samples, self._draw_rates)
