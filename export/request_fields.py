"""From the strings of a request to the fields of its candidates and of its history."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_lift.data.dataset_info import DatasetInfo
from tf_lift.retrieval.graph import constant_variable
from tf_lift.schema import FIRST_VALUE_ID, PADDING_ID, UNKNOWN_ID, Field, Schema

from .id_table import IdTable


class RequestFields(tf.Module):
    """Vocabularies, and the attributes of users and items.

    Args:
        schema: the M fields.
        info: vocabularies and entity tables.
        asset_dir: a folder for the vocabularies' files until the model is saved.

    Raises:
        ValueError: a field that requests bring has a pattern.
    """

    def __init__(self, schema: Schema, info: DatasetInfo, asset_dir: Path) -> None:
        super().__init__(name="request_fields")
        self._schema = schema
        looked_up = [*schema.indices("user"), schema.item_index, *schema.indices("context")]
        _check_patterns([schema.fields[index] for index in looked_up])
        self._tables = {
            schema.names[index]: IdTable(info.vocabularies[index].values, schema.names[index], asset_dir)
            for index in looked_up
        }
        self._first_times = [
            constant_variable(vocabulary.first_times, f"first_times_{vocabulary.name}")
            for vocabulary in info.vocabularies
        ]
        users, items = (
            _with_reserved_rows(info.entity_fields[entity], schema.indices(entity)) for entity in ("user", "item")
        )
        self._users, self._items = constant_variable(users, "user_fields"), constant_variable(items, "item_fields")

    @property
    def context_names(self) -> tuple[str, ...]:
        """Names of the context fields, which a request brings."""
        return tuple(self._schema.names[index] for index in self._schema.indices("context"))

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """Names of the user's attributes, which a request may bring."""
        others = [index for index in self._schema.indices("user") if index != self._schema.user_index]
        return tuple(self._schema.names[index] for index in others)

    def user_ids(self, user: tf.Tensor) -> tf.Tensor:
        """int32 ids of users, of the strings' shape."""
        return self._tables[self._schema.names[self._schema.user_index]].lookup(user)

    def users(self, user_ids: tf.Tensor, attributes: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The user's fields.

        Args:
            user_ids: int32 [B].
            attributes: string [B] for some or all of `attribute_names`; "" takes the log's.

        Returns:
            int32 [B, M] ids, 0 in the other fields.
        """
        fields = tf.gather(self._users, user_ids)
        if not attributes:
            return fields
        columns = tf.unstack(fields, axis=1)
        for name, values in attributes.items():
            index = self._schema.index(name)
            columns[index] = tf.where(values == "", columns[index], self._tables[name].lookup(values))
        return tf.stack(columns, axis=1)

    def interactions(
        self, users: tf.Tensor, items: tf.Tensor, context: Mapping[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The fields of interactions, or candidates, of users.

        Args:
            users: int32 [B, M], from `users`.
            items: string [B, C]; "" is padding.
            context: string [B, C] or [B, 1] for each of `context_names`; "" is padding.

        Returns:
            int32 [B, C, M] ids, and int32 [B, C], those of the items.
        """
        item_ids = self._tables[self._schema.names[self._schema.item_index]].lookup(items)
        fields = tf.gather(self._items, item_ids) + users[:, None, :]  # each has 0 in the other's columns
        if not context:
            return fields, item_ids
        columns = tf.unstack(fields, axis=2)
        for name in self.context_names:
            columns[self._schema.index(name)] = tf.broadcast_to(
                self._tables[name].lookup(context[name]), tf.shape(items)
            )
        return tf.stack(columns, axis=2), item_ids

    def known_as_of(self, fields: tf.Tensor, times: tf.Tensor) -> tf.Tensor:
        """As `Dataset.known_as_of`.

        Args:
            fields: int32 [B, C, M].
            times: int64 [B].
        """
        known = [tf.searchsorted(first, times) + FIRST_VALUE_ID for first in self._first_times]
        return tf.where(fields < tf.stack(known, axis=1)[:, None, :], fields, UNKNOWN_ID)


def _check_patterns(requested: Sequence[Field]) -> None:
    """Checks that what a request brings is what the log has: a pattern is Python's, and the graph cannot apply it."""
    names = [field.name for field in requested if field.pattern]
    if names:
        raise ValueError(
            "A field that requests bring (keys, the user's attributes, context fields) must not have a pattern, as the served graph looks "
            f"its values up as they are. Received: a pattern for {', '.join(names)}. Extract that part before preprocessing."
        )


def _with_reserved_rows(table: np.ndarray, columns: tuple[int, ...]) -> np.ndarray:
    """The entity table by id: padding, then unknown in the entity's own columns, then the entities."""
    reserved = np.full((FIRST_VALUE_ID, table.shape[1]), PADDING_ID, np.int32)
    reserved[UNKNOWN_ID, list(columns)] = UNKNOWN_ID
    return np.concatenate([reserved, table])
