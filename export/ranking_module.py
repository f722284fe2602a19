"""Everything between raw ids and probabilities, as one graph of stock TensorFlow operations (DESIGN.md section 6)."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_lift.config import Config
from tf_lift.data.dataset_files import Dataset
from tf_lift.data.examples import ExampleSpec
from tf_lift.data.row_references import RowReferences
from tf_lift.data.situation_graphs import SituationGraphs, build_situation_graphs
from tf_lift.datastore import Datastore, Window, quantise_states, select_states
from tf_lift.models.predictor import Prediction, Predictor
from tf_lift.retrieval.graph import PostingListGraph, constant_variable, listed_ranks, segment_lower_bound
from tf_lift.schema import FIRST_VALUE_ID, HISTORY_PREFIX, PADDING_ID

from .reasons import describe_reasons
from .request_fields import RequestFields
from .request_history import BehaviourTable, select_window

NUM_NEXT_ITEMS = 5  # items after a neighbour that `explain` names


class Ranked(NamedTuple):
    """A ranked batch.

    Attributes:
        slate: what the predictor read of `RowReferences.resolve`'s, `mask` among it.
        prediction: logits [B, C] and attention [B, C, K].
        history: the users' rows that it was told of, [B, L].
    """

    slate: dict[str, tf.Tensor]
    prediction: Prediction
    history: Window


class RankingModule(tf.Module):
    """The ranker with all that it looks up: vocabularies, attributes, posting lists, log, states and weights.

    Constants are variables, so that they are restored from the SavedModel's variable files. The vocabularies of users, their
    attributes, items and context fields are asset files.

    Args:
        dataset: the data set.
        predictor: the trained predictor, whose tables must be variables: `served_datastore`'s and `served_situation`'s.
        spec: the examples' definition.
        asset_dir: a folder for the vocabularies' files until the model is saved.
    """

    def __init__(self, dataset: Dataset, predictor: Predictor, spec: ExampleSpec, asset_dir: Path) -> None:
        super().__init__(name="tf_lift")
        self._config, self._schema, self._spec = dataset.config, dataset.config.schema, spec
        # The predictor itself is not an attribute: saving a Keras model traces each of its layers once more.
        self._predict, store = predictor.predict_slate, predictor.datastore
        self._store = store
        self._transitions = predictor.situation.transitions
        values = [getattr(store, field.name) for field in dataclasses.fields(store)]
        if self._transitions is not None:
            values += [self._transitions.times, self._transitions.keys, self._transitions.counts]
            values += self._transitions.value_counts
        for table in (predictor.situation.overlap, predictor.situation.recency):
            if table is not None:
                values += [getattr(table, field.name) for field in dataclasses.fields(table)]
        self._saved = [*predictor.variables, *(value for value in values if isinstance(value, tf.Variable))]
        log, lists, schema = dataset.log, dataset.posting_lists, self._schema
        shared = (*schema.indices("user"), *schema.indices("context"))
        self.posting_lists = PostingListGraph(
            lists,
            self._config.retrieval,
            shared,
            dataset.info.statistic_sets,
            schema.user_index,
            dataset.info.boundaries.train_from,
        )
        self._row_references = RowReferences(constant_variable(log.time_order, "time_order"), store.user_starts)
        self._time_order = self._row_references.time_order
        self._longest_user = int(np.diff(log.user_starts).max(initial=0))
        self.fields = RequestFields(schema, dataset.info, asset_dir)
        self._behaviours = BehaviourTable(self._config.behaviour)
        # One function for all signatures that retrieve: it is traced, saved and loaded once.
        self._rank_fields = tf.function(self._rank_slate, input_signature=self._rank_inputs(), autograph=False)
        self._names = {
            entity: constant_variable(
                np.array(["", "", *dataset.info.vocabularies[index].values], object), f"{entity}_names"
            )
            for entity, index in (("user", schema.user_index), ("item", schema.item_index))
        }

    def rank_known_user(self, request: Mapping[str, tf.Tensor]) -> Ranked:
        """Ranks candidates for users of the log, using the log as it stood strictly before a time. A static pool has one state: requests
        of a time before its end find no neighbours in it.

        Args:
            request: `user` string [B]; `candidates` string [B, C], "" is padding; `time` int64 [B] epoch seconds; and each context
                field, string [B], "" is unknown.
        """
        user_ids = self.fields.user_ids(request["user"])
        history = self._store.history(self._positions_at(user_ids, request["time"]))
        return self._rank(request, self.fields.users(user_ids, {}), history)

    def rank(self, request: Mapping[str, tf.Tensor]) -> Ranked:
        """Ranks candidates for users whose history the request brings.

        Args:
            request: as for `rank_known_user`, and `history_items`, `history_behaviours` string and `history_times` int64 [B, H], "" is
                padding; `history_<name>` string [B, H] for each context field; and each of the user's attributes, string [B], ""
                takes the log's. Interactions at or after `time` are not seen, nor more than the newest L.
        """
        user_ids = self.fields.user_ids(request["user"])
        users = self.fields.users(user_ids, {name: request[name] for name in self.fields.attribute_names})
        return self._rank(request, users, self._read_history(request, users))

    def rank_examples(self, serialized: tf.Tensor) -> Ranked:
        """Ranks serialized examples, string [B]."""
        slate = self._row_references.resolve(self._spec.parse(serialized))
        history = self._store.history(slate["history_position"])
        return Ranked(slate, self._predict(slate, history, training=False), history)

    def describe_neighbours(self, ranked: Ranked) -> dict[str, tf.Tensor]:
        """The neighbours of a slate, [B, C, K] each, and the next items after them, [B, C, K, NUM_NEXT_ITEMS]."""
        schema, store, slate = self._schema, self._store, ranked.slate
        rows = slate["neighbour_rows"]
        known = rows >= 0
        safe = tf.maximum(rows, 0)
        fields = tf.gather(store.fields, safe)
        places = tf.range(1, NUM_NEXT_ITEMS + 1)
        following = safe[..., None] + places
        is_visible = places <= slate["neighbour_num_future"][..., None]
        following = tf.where(is_visible, following, 0)
        next_items = tf.gather(store.fields, following)[..., schema.item_index]
        names, users = self._names["item"], self._names["user"]
        return {
            "neighbour_user": tf.where(known, tf.gather(users, fields[..., schema.user_index]), ""),
            "neighbour_item": tf.where(known, tf.gather(names, fields[..., schema.item_index]), ""),
            "neighbour_time": tf.where(known, tf.gather(store.times, safe), 0),
            "neighbour_score": slate["neighbour_scores"],
            "attention": ranked.prediction.attention,
            "neighbour_next_items": tf.where(is_visible, tf.gather(names, next_items), ""),
        }

    def describe_reasons(self, ranked: Ranked) -> dict[str, tf.Tensor]:
        """What `reasons.describe_reasons` says of a slate; nothing where no transitions are read."""
        if self._transitions is None:
            return {}
        newest, item = ranked.history.newest(self._config.situation_rows), self._schema.item_index
        return describe_reasons(self._transitions, newest, ranked.slate, item, self._names["item"])

    def _rank(self, request: Mapping[str, tf.Tensor], users: tf.Tensor, history: Window) -> Ranked:
        context = {name: request[name][:, None] for name in self.fields.context_names}
        fields, item_ids = self.fields.interactions(users, request["candidates"], context)
        slate, prediction = self._rank_fields(fields, item_ids != PADDING_ID, request["time"], *history)
        return Ranked(slate, prediction, history)

    def _rank_slate(
        self, fields: tf.Tensor, mask: tf.Tensor, time: tf.Tensor, *history: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], Prediction]:
        """Retrieval and prediction.

        Args:
            fields: int32 [B, C, M] ids.
            mask: bool [B, C], True where a candidate is real.
            time: int64 [B].
            *history: a `Window`.
        """
        fields = tf.where(mask[..., None], self.fields.known_as_of(fields, time), PADDING_ID)
        own_users = tf.reduce_max(fields[..., self._schema.user_index], axis=1)  # as of the time, as in Beam's examples
        found = self.posting_lists.nearest(fields, time, own_users)
        slate = {
            "fields": fields,
            "mask": mask,
            "time": time,
            "neighbour_rows": found.rows,
            "neighbour_scores": found.scores,
            "neighbour_num_future": self._store.num_visible_future(found.rows, time[:, None, None]),
            "match_counts": found.counts,
            "match_positives": found.positives,
        }
        return slate, self._predict(slate, Window(*history), training=False)

    def _rank_inputs(self) -> list[tf.TensorSpec]:
        """The arguments of `_rank_slate`."""
        num_fields, length = len(self._schema), self._config.retrieval.context_length
        window = Window(
            fields=tf.TensorSpec([None, length, num_fields], tf.int32),
            behaviours=tf.TensorSpec([None, length], tf.int32),
            times=tf.TensorSpec([None, length], tf.int64),
            mask=tf.TensorSpec([None, length], tf.bool),
            num_rows=tf.TensorSpec([None], tf.int32),
        )
        fields = tf.TensorSpec([None, None, num_fields], tf.int32)
        return [fields, tf.TensorSpec([None, None], tf.bool), tf.TensorSpec([None], tf.int64), *window]

    def _read_history(self, request: Mapping[str, tf.Tensor], users: tf.Tensor) -> Window:
        items, behaviours, times = (request[HISTORY_PREFIX + name] for name in ("items", "behaviours", "times"))
        context = {name: request[HISTORY_PREFIX + name] for name in self.fields.context_names}
        fields, item_ids = self.fields.interactions(users, items, context)
        classes = self._behaviours.lookup(behaviours)
        length = self._config.retrieval.context_length
        return select_window(fields, classes, times, item_ids != PADDING_ID, request["time"], length)

    def _positions_at(self, user_ids: tf.Tensor, times: tf.Tensor) -> tf.Tensor:
        """int64 [B], as `InteractionLog.positions_at`."""
        store = self._store
        known = user_ids >= FIRST_VALUE_ID
        index = tf.where(known, user_ids - FIRST_VALUE_ID, 0)
        starts, stops = tf.gather(store.user_starts, index), tf.gather(store.user_starts, index + 1)
        steps = max(1, self._longest_user).bit_length()
        ends = segment_lower_bound(store.times, starts, stops, times, steps)
        return tf.where(known, ends + tf.cast(index, tf.int64) + 1, 0)


def typed_datastore(config: Config, store: Datastore) -> Datastore:
    """The datastore with states of the configured type, all of them; from float16."""
    return quantise_states(store) if config.export.state_type == "int8" else store


def served_datastore(dataset: Dataset, store: Datastore) -> Datastore:
    """The datastore as it is exported: variables, and the states of those positions alone that a neighbour's contexts may point at.

    Args:
        dataset: the data set.
        store: all states, of the type to be served.
    """
    lists, length = dataset.posting_lists, dataset.config.retrieval.context_length
    is_needed = dataset.log.positions_around(lists.rank_to_row[listed_ranks(lists)], length)
    # Neighbours of a situation come from no posting list: their futures may be any.
    reads_any = dataset.config.situation.encoded_neighbours > 0
    if not is_needed[1:].all() and not reads_any:
        store = select_states(store, is_needed)
    values = {field.name: getattr(store, field.name) for field in dataclasses.fields(store)}
    tensors = {name: value for name, value in values.items() if tf.is_tensor(value)}
    return dataclasses.replace(store, **{name: constant_variable(value, name) for name, value in tensors.items()})


def served_situation(dataset: Dataset, store: Datastore) -> SituationGraphs:
    """The tables of situations and of recency as they are exported: variables.

    Args:
        dataset: the data set.
        store: what `served_datastore` returned.
    """
    return build_situation_graphs(dataset, store, constant_variable)
