"""F_theta: from a candidate, its neighbours and their contexts to a probability (eqs. 14 to 18)."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf
import tensorflow_recommenders as tfrs

from tf_lift.config import Config
from tf_lift.data.dataset_info import DatasetInfo
from tf_lift.data.masking import label_ids
from tf_lift.data.situation_graphs import NO_SITUATION, SituationGraphs
from tf_lift.datastore import Datastore, Window
from tf_lift.interactions import NO_ROW
from tf_lift.layers.encoded_futures import EncodedFutures
from tf_lift.layers.feature_interaction import FieldProducts
from tf_lift.layers.history_agreements import count_agreements
from tf_lift.layers.interaction_embedding import InteractionEmbedding
from tf_lift.layers.key_attention import KeyAttention
from tf_lift.layers.match_statistics import MatchStatistics
from tf_lift.layers.overlap_features import OverlapFeatures
from tf_lift.layers.recency_statistics import RecencyStatistics, log_gap
from tf_lift.layers.situation_attention import SituationAttention
from tf_lift.models.encoder import Encoder
from tf_lift.models.next_item import NextItem
from tf_lift.models.pretrainer import BehaviourHead
from tf_lift.models.slate_losses import build_label_task, listwise_loss, mean_weights
from tf_lift.retrieval.graph_recency import Recency
from tf_lift.situation.overlap import OverlapGraph

FROZEN = "frozen"  # the input that holds what `Predictor.read_frozen` returned for the others
_RECENCY, _TRANSITIONS, _OVERLAP, _ENCODED = "recency", "transitions", "overlap", "encoded"  # its groups
_COUNTS, _SECONDS = Recency._fields
_WEIGHTS, _SUMS, _QUERIES, _NEXT_ITEM = "weights", "sums", "queries", "next_item"
_LAST_STATE, _FUTURE_ROWS, _FUTURE_OVERLAPS, _NUM_FUTURE = "last_state", "future_rows", "future_overlaps", "num_future"
CANDIDATE_FEATURES = frozenset({_COUNTS, _SECONDS, _WEIGHTS, _SUMS, _QUERIES, _NEXT_ITEM})  # [B, C, ..]; others [B, ..]

Frozen = Mapping[str, Mapping[str, tf.Tensor]]
"""Groups of features of slates that no trained weight changes: group -> name -> tensor."""


class Prediction(NamedTuple):
    """Answers for slates.

    Attributes:
        logits: float32 [B, C].
        attention: float32 [B, C, K], alpha of eq. 14.
    """

    logits: tf.Tensor
    attention: tf.Tensor


class Predictor(tfrs.Model):
    """Ranks the candidates of slates.

    Differences from the paper, each a switch of the configuration's `[predictor]`: the candidate-aware state and the pretraining
    head's logit as a residual; the logit of the candidate as the next item; raw x_t and x_r and their products beside eq. 16; the
    neighbours' labels as a value; BM25 scores in the attention; match and history statistics and recency; what followed the items of the
    history (`[situation]`); joint training of the encoder.

    Args:
        config: the configuration.
        info: numbers of ids and match sets.
        encoder: the pretrained encoder.
        head: the pretraining head.
        datastore: the log with its states.
        prior: rate of positives of the pool, in (0, 1).
        situation: the tables that `[situation]` and `recency_days` ask for.
        next_item: the pretrained next item; needed where `next_item_logit` is set.
    """

    def __init__(
        self,
        config: Config,
        info: DatasetInfo,
        encoder: Encoder,
        head: BehaviourHead,
        datastore: Datastore,
        prior: float,
        situation: SituationGraphs = NO_SITUATION,
        next_item: NextItem | None = None,
    ) -> None:
        super().__init__(name="predictor")
        self.config = config
        self.encoder, self.head = encoder, head
        encoder.trainable = head.trainable = config.predictor.joint
        self.datastore = datastore
        switches = config.predictor
        embedding_dim = config.encoder.embedding_dim
        self.embedding = InteractionEmbedding(
            info.num_train_ids, embedding_dim, name="embedding", trainable=not switches.freeze_embeddings
        )
        self._products = FieldProducts(name="field_products")
        self._attention = KeyAttention(switches.score_bias, name="key_attention")
        self._statistics = MatchStatistics(prior, switches.standardise, name="match_statistics")
        self._history_statistics = MatchStatistics(prior, switches.standardise, name="history_statistics")
        self._recency_statistics = RecencyStatistics(switches.standardise, name="recency_statistics")
        self.situation = situation
        self._situation_attention = SituationAttention(
            config.situation_rows, config.behaviour.num_classes + 1, name="situation_attention"
        )
        self._overlap_features = OverlapFeatures(name="overlap_features")
        self._encoded_futures = EncodedFutures(config.situation_rows, config.encoder.state_dim, name="encoded_futures")
        self._has_trained_heads = config.pretraining.enabled or switches.joint  # an untrained head is noise
        self.next_item = next_item if switches.next_item_logit and self._has_trained_heads else None
        if self.next_item is not None:
            self.next_item.trainable = switches.joint
            self._next_item_weight = self.add_weight(name="next_item_weight", shape=(), initializer="ones")
        self._dense = [
            tf.keras.layers.Dense(width, activation="relu", name=f"dense_{index}")
            for index, width in enumerate(switches.hidden_dims)
        ]
        self._dropout = tf.keras.layers.Dropout(switches.dropout_rate)
        self._logit = tf.keras.layers.Dense(1, name="logit")
        behaviour = config.behaviour
        self._is_positive = tf.constant([float(behaviour.is_positive(value)) for value in range(behaviour.num_classes)])
        self.task = build_label_task()
        self._is_listwise = config.training.loss == "listwise"
        if self._is_listwise:
            self._listwise_loss = tf.keras.metrics.Mean(name="listwise_loss")
            self._platt = self.add_weight(
                name="platt", shape=(2,), initializer=tf.keras.initializers.Constant([1.0, 0.0]), trainable=False
            )

    def call(self, inputs: dict[str, tf.Tensor], training: bool | None = None) -> Prediction:
        """Ranks.

        Args:
            inputs: what `RowReferences.resolve` returns.
            training: whether dropout is on.
        """
        return self.predict_slate(inputs, self.datastore.history(inputs["history_position"]), training)

    def predict_slate(self, inputs: dict[str, Any], history: Window, training: bool | None = None) -> Prediction:
        """Ranks, given the rows of the users' histories.

        Args:
            inputs: what `RowReferences.resolve` returns; `history_position` is not read. The groups of FROZEN, if it is there, are not
                found anew.
            history: each user's rows strictly before its time.
            training: whether dropout is on.
        """
        switches = self.config.predictor
        known = inputs.get(FROZEN, {})
        frozen = {**known, **self.read_frozen(inputs, history, known)}
        embedded = self.embedding(inputs["fields"])  # [B, C, M, w]
        target = _flatten(embedded)
        features = [self._products(embedded)]
        neighbours, attention = self._read_neighbours(inputs, target)
        features += neighbours
        if switches.raw_inputs:
            features.append(target)
        if switches.match_statistics:
            features.append(self._statistics(inputs["match_counts"], inputs["match_positives"]))
        if switches.history_statistics:
            features += self._read_history_statistics(inputs, history)
        if _RECENCY in frozen:
            features.append(self._recency_statistics(frozen[_RECENCY][_COUNTS], frozen[_RECENCY][_SECONDS]))
        encoded = self._encode(inputs, history, bool(training)) if switches.joint else frozen[_ENCODED]
        own, residual = self._read_encoded(encoded, target)
        features += own
        for said, logit in self._read_situation(frozen, history, target):
            features.append(said)
            residual += logit
        hidden = tf.concat(features, axis=-1)
        for dense in self._dense:
            hidden = self._dropout(dense(hidden), training=training)
        logits = self._logit(hidden)[..., 0] + residual
        return Prediction(self._platt[0] * logits + self._platt[1] if self._is_listwise else logits, attention)

    def _read_neighbours(self, inputs: dict[str, tf.Tensor], target: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Features of the neighbours and their contexts, [B, C, ..] each, and the attention that weighs them."""
        switches = self.config.predictor
        rows = inputs["neighbour_rows"]
        mask = rows >= 0
        known = tf.maximum(rows, 0)
        embedded = self.embedding(tf.gather(self.datastore.fields, known))  # [B, C, K, M, w]
        attention = self._attention(target, _flatten(embedded), inputs["neighbour_scores"], mask)
        mixed = tf.einsum("bck,bckmw->bcmw", attention, embedded)  # x_r
        features = [self._products(mixed)]
        if switches.raw_inputs:
            features += [_flatten(mixed), _flatten(mixed) * target]
        if switches.contexts in ("both", "history"):
            features.append(tf.einsum("bck,bckv->bcv", attention, self.datastore.states_before(rows)))
        if switches.contexts in ("both", "future"):
            after = self.datastore.states_after(rows, inputs["neighbour_num_future"])
            features.append(tf.einsum("bck,bckv->bcv", attention, after))
        if switches.neighbour_label:
            labels = tf.gather(self._is_positive, self.datastore.behaviours_of(known))
            weighed = tf.reduce_sum(attention * labels, axis=-1, keepdims=True)
            features += [weighed, tf.reduce_mean(tf.cast(mask, tf.float32), axis=-1, keepdims=True)]
        return features, attention

    def _count_history(self, fields: tf.Tensor, history: Window) -> tuple[tf.Tensor, tf.Tensor]:
        """Rows of the history that agree with the candidates, and the positive ones, int32 [B, C, item fields + 1] each."""
        positive = tf.gather(self._is_positive, tf.maximum(history.behaviours, 0))
        return count_agreements(fields, history, positive, self.config.schema.indices("item"))

    def _read_history_statistics(self, inputs: dict[str, tf.Tensor], history: Window) -> list[tf.Tensor]:
        """What `_count_history` says and how long ago the last row was, [B, C, ..] each."""
        last = history.newest(1)
        seconds = tf.where(last.mask, inputs["time"][:, None] - last.times, 0)  # [B, 1]
        gap = log_gap(seconds)
        statistics = self._history_statistics(*self._count_history(inputs["fields"], history))
        return [statistics, tf.tile(gap[:, None], [1, tf.shape(statistics)[1], 1])]

    def read_frozen(self, inputs: dict[str, Any], history: Window, known: Collection[str] = ()) -> Frozen:
        """Finds what no trained weight changes, and takes long to find.

        Recency, the weights of transitions, what neighbours of the situation say, and, unless the encoder is trained as well
        (`predictor.joint`), what it says of the history and the candidates.

        Args:
            inputs: as of `predict_slate`.
            history: likewise.
            known: groups that are not to be found.

        Returns:
            Tensors [B, C, ..] of those names that are in CANDIDATE_FEATURES, else [B, ..]; only groups that are asked for.
        """
        fields, time, graphs = inputs["fields"], inputs["time"], self.situation
        found: dict[str, Mapping[str, tf.Tensor]] = {}
        if graphs.recency is not None and _RECENCY not in known:
            found[_RECENCY] = graphs.recency.read(fields, time)._asdict()
        if graphs.transitions is not None and _TRANSITIONS not in known:
            rows, relations = history.newest(self.config.situation_rows), self.config.situation.relation_names
            weights = graphs.transitions.weights(rows.fields, rows.mask, fields, time, relations)
            found[_TRANSITIONS] = {_WEIGHTS: weights}
        if graphs.overlap is not None and _OVERLAP not in known:
            found[_OVERLAP] = self._read_overlaps(graphs.overlap, inputs, history.newest(self.config.situation_rows))
        if not self.config.predictor.joint and _ENCODED not in known:
            found[_ENCODED] = self._encode(inputs, history, training=False)
        return found

    def _read_overlaps(self, graph: OverlapGraph, inputs: dict[str, Any], rows: Window) -> dict[str, tf.Tensor]:
        """What the neighbours of the users' situations say.

        Returns:
            Sums for the candidates, float32 [B, C, F]. With `situation.encoded_neighbours` K', the neighbours of most overlap, [B, m, K']
            each: int32 row ids, -1 where there is none, float32 overlaps, and int32 numbers of rows after each.
        """
        schema, fields, time = self.config.schema, inputs["fields"], inputs["time"]
        users = tf.reduce_max(fields[..., schema.user_index], axis=1)
        found = graph.neighbours(rows.fields[..., schema.item_index], rows.mask, users, time)
        read = {_SUMS: graph.features(found, time, fields[..., schema.item_index])}
        if self.config.situation.encoded_neighbours:
            near = found.nearest(self.config.situation.encoded_neighbours)
            rows_or_none = tf.where(near.mask, near.rows, NO_ROW)
            read |= {
                _FUTURE_ROWS: rows_or_none,
                _FUTURE_OVERLAPS: near.overlaps,
                _NUM_FUTURE: self.datastore.num_visible_future(rows_or_none, time[:, None, None]),
            }
        return read

    def _encode(self, inputs: dict[str, Any], history: Window, training: bool) -> dict[str, tf.Tensor]:
        """h_t, float32 [B, v], s_t, [B, C, v], and the next item's logits, [B, C]: those that are asked for."""
        switches, fields = self.config.predictor, inputs["fields"]
        read: dict[str, tf.Tensor] = {}
        if not (switches.own_history or switches.target_state or self.next_item is not None):
            return read
        visible = tf.tile(history.num_rows[:, None], [1, tf.shape(fields)[1]])
        labels = label_ids(history.behaviours, history.mask)
        states = self.encoder(history.fields, labels, history.mask, fields, visible, training=training)
        if switches.own_history:
            read[_LAST_STATE] = self.encoder.last_states(states.rows, history.num_rows)
        if switches.target_state:
            read[_QUERIES] = states.queries
        if self.next_item is not None:
            items = fields[..., self.config.schema.item_index]
            read[_NEXT_ITEM] = self.next_item.logits(history, states.rows, items, inputs["time"], training=training)
        return read

    def _read_encoded(self, encoded: Mapping[str, tf.Tensor], target: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        """h_t and s_t, [B, C, v] each, the next item's logit, [B, C, 1], and what the heads add to the logit, [B, C]."""
        features, residual = [], tf.zeros_like(target[..., 0])
        if _LAST_STATE in encoded:
            features.append(tf.tile(encoded[_LAST_STATE][:, None], [1, tf.shape(target)[1], 1]))
        if _QUERIES in encoded:
            features.append(encoded[_QUERIES])
            if self.config.predictor.residual_logit and self._has_trained_heads:
                residual = self._positive_logit(self.head(encoded[_QUERIES]))
        if _NEXT_ITEM in encoded:
            features.append(encoded[_NEXT_ITEM][..., None])
            residual += self._next_item_weight * encoded[_NEXT_ITEM]
        return features, residual

    def _read_situation(self, frozen: Frozen, history: Window, target: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor]]:
        """Features of what people in the user's situation did, [B, C, F] each, and what they add to the logit, [B, C]."""
        read = []
        if _TRANSITIONS in frozen:
            rows = history.newest(self.config.situation_rows)
            items = self.embedding(rows.fields)[..., self.config.schema.item_index, :]  # [B, m, w]
            weights = frozen[_TRANSITIONS][_WEIGHTS]
            read.append(self._situation_attention(weights, rows.behaviours, items, rows.mask))
        overlap = frozen.get(_OVERLAP, {})
        if overlap:
            read.append(self._overlap_features(overlap[_SUMS]))
        if _FUTURE_ROWS in overlap:
            num_future = overlap[_NUM_FUTURE]
            states = self.datastore.states_after(overlap[_FUTURE_ROWS], num_future)
            read.append(self._encoded_futures(target, states, overlap[_FUTURE_OVERLAPS], num_future > 0))
        return read

    def adapt(self, slates: Iterable[dict[str, tf.Tensor]]) -> None:
        """Sets what is computed from the train examples and not learnt, before training: `predictor.standardise`'s means and deviations.

        Args:
            slates: inputs of `call`; read once for each kind of statistics, so no generator.

        Raises:
            ValueError: they have no real candidate.
        """
        switches = self.config.predictor
        if switches.standardise and switches.match_statistics:
            self._statistics.adapt((slate["match_counts"], slate["match_positives"], slate["mask"]) for slate in slates)
        if switches.standardise and switches.history_statistics:
            histories = ((slate, self.datastore.history(slate["history_position"])) for slate in slates)
            self._history_statistics.adapt(
                (*self._count_history(slate["fields"], history), slate["mask"]) for slate, history in histories
            )
        if switches.standardise and self.situation.recency is not None:
            recency = self.situation.recency
            self._recency_statistics.adapt(
                (*recency.read(slate["fields"], slate["time"]), slate["mask"]) for slate in slates
            )

    def calibrate(self, slope: float, intercept: float) -> None:
        """Makes log-odds of what a listwise loss learnt, after training: `slope` times a logit, plus `intercept`.

        Raises:
            ValueError: the slope would turn the order around.
        """
        if slope <= 0.0:
            raise ValueError(f"The slope of a calibration must be above 0. Received: {slope}.")
        self._platt.assign([slope, intercept])

    def _positive_logit(self, logits: tf.Tensor) -> tf.Tensor:
        """The log-odds that a behaviour's label is 1, [B, C], from the head's logits."""
        if logits.shape[-1] == 1:  # of class 1
            return logits[..., 0] if self.config.behaviour.is_positive(1) else -logits[..., 0]
        positive = tf.cast(self._is_positive, tf.bool)
        return tf.reduce_logsumexp(tf.boolean_mask(logits, positive, axis=2), axis=-1) - tf.reduce_logsumexp(
            tf.boolean_mask(logits, ~positive, axis=2), axis=-1
        )

    def compute_loss(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Eq. 18's loss: mean over a slate's candidates, summed over slates and divided by the global batch size; and L2.

        Replicas' losses add up to that of one device.

        Differences from the paper: with `training.loss = "listwise"`, a slate's loss is the softmax cross-entropy of its candidates.
        """
        prediction = self(inputs, training=training)
        per_slate = mean_weights(tf.cast(inputs["mask"], tf.float32))
        loss = self.task(
            labels=inputs["label"][..., None],
            predictions=prediction.logits[..., None],
            sample_weight=per_slate / float(self.config.training.batch_size),
            training=training,
        )
        if self._is_listwise:
            loss = self._read_slates(prediction.logits, inputs["label"], inputs["mask"])
        if training and self.config.training.l2:
            kernels = [layer.kernel for layer in [*self._dense, self._logit]]
            penalty = tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])
            loss += self.config.training.l2 * penalty / tf.distribute.get_strategy().num_replicas_in_sync
        return loss

    def _read_slates(self, logits: tf.Tensor, labels: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """Softmax cross-entropy over the real candidates of slates that have two or more and a positive; all [B, C]."""
        losses, weights = listwise_loss(logits, labels, mask)
        self._listwise_loss.update_state(losses, sample_weight=weights)
        return tf.reduce_sum(losses) / float(self.config.training.batch_size)


def _flatten(embedded: tf.Tensor) -> tf.Tensor:
    """[.., M, w] to [.., M w]."""
    shape = tf.shape(embedded)
    return tf.reshape(embedded, tf.concat([shape[:-2], [embedded.shape[-2] * embedded.shape[-1]]], 0))
