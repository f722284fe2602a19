"""Everything between raw ids and probabilities, as one graph of stock TensorFlow operations (DESIGN.md section 6)."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_lift.data.dataset_files import Dataset
from tf_lift.data.examples import ExampleSpec
from tf_lift.data.row_references import RowReferences
from tf_lift.datastore import Datastore
from tf_lift.models.predictor import Prediction, Predictor
from tf_lift.retrieval.graph import PostingListGraph, constant_variable, segment_lower_bound
from tf_lift.schema import FIRST_VALUE_ID, PADDING_ID, UNKNOWN_ID

NUM_NEXT_ITEMS = 5  # items after a neighbour that `explain` names


class RankingModule(tf.Module):
    """The ranker with all that it looks up: vocabularies, attributes, posting lists, log, states and weights.

    Constants are variables, so that they are restored from the SavedModel's variable files. The vocabularies of users, items and
    context fields are asset files.

    Args:
        dataset: the data set.
        predictor: the trained predictor, whose `datastore` must be `variable_datastore`'s.
        spec: the examples' definition.
        asset_dir: a folder for the vocabularies' files until the model is saved.
    """

    def __init__(self, dataset: Dataset, predictor: Predictor, spec: ExampleSpec, asset_dir: Path) -> None:
        super().__init__(name="tf_lift")
        self._config, self._schema, self._spec = dataset.config, dataset.config.schema, spec
        self._predictor = predictor
        store = predictor.datastore
        self._variables = [store.fields, store.behaviours, store.times, store.user_indices, store.window_first]
        self._variables += [store.window_length, store.states]
        log, lists, schema = dataset.log, dataset.posting_lists, self._schema
        shared = (*schema.indices("user"), *schema.indices("context"))
        self.posting_lists = PostingListGraph(
            lists, self._config.retrieval, shared, dataset.info.statistic_sets, schema.user_index
        )
        self._user_starts = constant_variable(log.user_starts, "user_starts")
        self._time_order = constant_variable(log.time_order, "time_order")
        self._row_references = RowReferences(self._time_order, self._user_starts)
        self._longest_user = int(np.diff(log.user_starts).max(initial=0))
        self._first_times = [
            constant_variable(vocabulary.first_times, f"first_times_{vocabulary.name}")
            for vocabulary in dataset.info.vocabularies
        ]
        self._entity_fields = {
            entity: constant_variable(_with_reserved_rows(table, schema.indices(entity)), f"{entity}_fields")  # type: ignore[arg-type]
            for entity, table in dataset.info.entity_fields.items()
        }
        looked_up = [schema.user_index, schema.item_index, *schema.indices("context")]
        self._tables = {
            schema.names[index]: IdTable(dataset.info.vocabularies[index].values, schema.names[index], asset_dir)
            for index in looked_up
        }
        self._names = {
            entity: constant_variable(
                np.array(["", "", *dataset.info.vocabularies[index].values], object), f"{entity}_names"
            )
            for entity, index in (("user", schema.user_index), ("item", schema.item_index))
        }

    @property
    def context_names(self) -> tuple[str, ...]:
        """Names of the context fields, which a request brings."""
        return tuple(self._schema.fields[index].name for index in self._schema.indices("context"))

    def rank(
        self, user: tf.Tensor, candidates: tf.Tensor, time: tf.Tensor, context: dict[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """Ranks candidates for users of the log, using the log as it stood strictly before a time.

        Args:
            user: string [B].
            candidates: string [B, C]; "" is padding.
            time: int64 [B] epoch seconds.
            context: string [B] for each context field; "" is unknown.

        Returns:
            `slate`, what `RowReferences.resolve` would return; `prediction`, logits [B, C] and attention [B, C, K].
        """
        slate = self._build_slate(user, candidates, time, context)
        return {"slate": slate, "prediction": self._predictor(slate, training=False)}

    def rank_examples(self, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        """Ranks serialized examples, string [B]; returns as `rank`."""
        slate = self._row_references.resolve(self._spec.parse(serialized))
        return {"slate": slate, "prediction": self._predictor(slate, training=False)}

    def describe_neighbours(self, slate: dict[str, tf.Tensor], prediction: Prediction) -> dict[str, tf.Tensor]:
        """The neighbours of a slate, [B, C, K] each, and the next items after them, [B, C, K, NUM_NEXT_ITEMS]."""
        schema, store = self._schema, self._predictor.datastore
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
            "attention": prediction.attention,
            "neighbour_next_items": tf.where(is_visible, tf.gather(names, next_items), ""),
        }

    def _build_slate(
        self, user: tf.Tensor, candidates: tf.Tensor, time: tf.Tensor, context: dict[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        schema = self._schema
        batch, num_candidates = tf.unstack(tf.shape(candidates))
        user_ids = self._tables[schema.names[schema.user_index]].lookup(user)
        item_ids = self._tables[schema.names[schema.item_index]].lookup(candidates)
        raw = self._gather_fields(user_ids, item_ids, context)
        flat_times = tf.repeat(time, num_candidates)
        known = self._known_as_of(tf.reshape(raw, [-1, len(schema)]), flat_times)
        fields = tf.reshape(known, [batch, num_candidates, len(schema)])
        found = self.posting_lists.nearest(fields, time, tf.reduce_max(fields[..., schema.user_index], axis=1))
        k = self._config.retrieval.num_neighbours
        num_future = self._num_visible_future(tf.reshape(found.rows, [-1, k]), flat_times)
        return {
            "time": time,
            "row": tf.fill([batch], tf.constant(-1, tf.int64)),
            "history_position": self._positions_at(user_ids, time),
            "fields": fields,
            "label": tf.zeros([batch, num_candidates]),
            "mask": item_ids != PADDING_ID,
            "neighbour_rows": found.rows,
            "neighbour_scores": found.scores,
            "neighbour_num_future": tf.reshape(num_future, [batch, num_candidates, k]),
            "match_counts": found.counts,
            "match_positives": found.positives,
        }

    def _gather_fields(self, user_ids: tf.Tensor, item_ids: tf.Tensor, context: dict[str, tf.Tensor]) -> tf.Tensor:
        """int32 [B, C, M] ids, each field from its entity."""
        schema = self._schema
        users = tf.gather(self._entity_fields["user"], user_ids)[:, None, :]
        items = tf.gather(self._entity_fields["item"], item_ids)
        columns = []
        for index, field in enumerate(schema.fields):
            if field.entity == "item":
                columns.append(items[..., index])
            elif field.entity == "user":
                columns.append(tf.broadcast_to(users[..., index], tf.shape(item_ids)))
            else:
                ids = self._tables[field.name].lookup(context[field.name])
                columns.append(tf.broadcast_to(ids[:, None], tf.shape(item_ids)))
        return tf.stack(columns, axis=-1)

    def _known_as_of(self, fields: tf.Tensor, times: tf.Tensor) -> tf.Tensor:
        """As `Dataset.known_as_of`."""
        known = [tf.searchsorted(first, times) + FIRST_VALUE_ID for first in self._first_times]
        return tf.where(fields < tf.stack(known, axis=1), fields, UNKNOWN_ID)

    def _positions_at(self, user_ids: tf.Tensor, times: tf.Tensor) -> tf.Tensor:
        """int64 [B], as `InteractionLog.positions_at`."""
        known = user_ids >= FIRST_VALUE_ID
        index = tf.where(known, user_ids - FIRST_VALUE_ID, 0)
        starts, stops = tf.gather(self._user_starts, index), tf.gather(self._user_starts, index + 1)
        steps = max(1, self._longest_user).bit_length()
        ends = segment_lower_bound(self._predictor.datastore.times, starts, stops, times, steps)
        return tf.where(known, ends + tf.cast(index, tf.int64) + 1, 0)

    def _num_visible_future(self, rows: tf.Tensor, times: tf.Tensor) -> tf.Tensor:
        """int32 [n, K], as `InteractionLog.num_visible_future`; 0 where there is no row."""
        store, length = self._predictor.datastore, self._config.retrieval.context_length
        safe = tf.maximum(rows, 0)
        first = tf.cast(safe, tf.int64) + 1
        stops = tf.minimum(first + length, tf.gather(self._user_starts, tf.gather(store.user_indices, safe) + 1))
        bounds = tf.broadcast_to(times[:, None], tf.shape(first))
        ends = segment_lower_bound(store.times, first, stops, bounds, length.bit_length())
        return tf.where(rows >= 0, tf.cast(ends - first, tf.int32), 0)


def variable_datastore(store: Datastore) -> Datastore:
    """The same datastore with variables in the place of constants."""
    names = ("fields", "behaviours", "times", "user_indices", "window_first", "window_length", "states")
    return dataclasses.replace(store, **{name: constant_variable(getattr(store, name), name) for name in names})


def _with_reserved_rows(table: np.ndarray, columns: tuple[int, ...]) -> np.ndarray:
    """The entity table by id: padding, then unknown in the entity's own columns, then the entities."""
    reserved = np.full((FIRST_VALUE_ID, table.shape[1]), PADDING_ID, np.int32)
    reserved[UNKNOWN_ID, list(columns)] = UNKNOWN_ID
    return np.concatenate([reserved, table])


class IdTable(tf.Module):
    """Strings to ids, from an asset file with a value a line.

    Args:
        values: the vocabulary's values, the first with id FIRST_VALUE_ID.
        name: the field.
        asset_dir: where the asset file is written; saving the model copies it.

    Raises:
        ValueError: a value holds a line break.
    """

    def __init__(self, values: Sequence[str], name: str, asset_dir: Path) -> None:
        super().__init__(name=f"ids_{name}")
        broken = next((value for value in values if "\n" in value or "\r" in value), None)
        if broken is not None:
            raise ValueError(
                f"Identifiers must not hold line breaks. Received: {broken!r} in field {name!r}. Clean the log's column."
            )
        path = asset_dir / f"{name}.txt"
        path.write_text("".join(f"{value}\n" for value in values), encoding="utf-8")
        content = tf.lookup.TextFileIndex
        initializer = tf.lookup.TextFileInitializer(
            str(path), tf.string, content.WHOLE_LINE, tf.int64, content.LINE_NUMBER, vocab_size=len(values)
        )
        self._table = tf.lookup.StaticHashTable(initializer, default_value=-1)

    def lookup(self, values: tf.Tensor) -> tf.Tensor:
        """int32 ids of strings: PADDING_ID for "", UNKNOWN_ID for what the vocabulary lacks."""
        lines = tf.cast(self._table.lookup(values), tf.int32)
        ids = tf.where(lines >= 0, lines + FIRST_VALUE_ID, UNKNOWN_ID)
        return tf.where(values == "", PADDING_ID, ids)
