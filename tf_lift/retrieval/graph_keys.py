"""What a request's lookup shares: the keys of its slates, each once, and fields packed into words that compare in one operation."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_lift.retrieval.match_sets import MatchSets
from tf_lift.schema import FIRST_VALUE_ID

_WORD_BITS = 63


class FieldLanes:
    """Ids of the Q query fields as lanes of W int64 words: `low` bits of an id and above them a guard bit, which is 0.

    Of x = word ^ other word, a lane is 0 where the ids are equal, and (x + low) has the lane's guard where they differ. An id that
    no row of the pool has, or that is no value, becomes all ones: it equals none of the pool's.

    Args:
        largest_ids: int [Q] the largest id of each query field in the pool.
    """

    def __init__(self, largest_ids: np.ndarray) -> None:
        self._largest = np.asarray(largest_ids, np.int64)
        bits = [max(int(value) + 1, FIRST_VALUE_ID + 1).bit_length() for value in self._largest]
        self.no_value = np.array([(1 << width) - 1 for width in bits], np.int64)  # [Q]
        self.num_words = 1
        self._word = np.zeros(len(bits), np.int64)
        self._shift = np.zeros(len(bits), np.int64)
        used = 0
        for column, width in enumerate(bits):
            if used + width + 1 > _WORD_BITS:
                self.num_words, used = self.num_words + 1, 0
            self._word[column], self._shift[column] = self.num_words - 1, used
            used += width + 1

    def masks(self, fields: np.ndarray) -> np.ndarray:
        """int64 [S, W] the id bits of some fields: bool [S, Q]."""
        lanes = self.no_value << self._shift
        words = np.arange(self.num_words)[:, None] == self._word
        return (fields[:, None, :] * (lanes * words)).sum(axis=2)

    def guards(self) -> np.ndarray:
        """int64 [W] the guard bits of all fields."""
        guards = (self.no_value + 1) << self._shift
        return np.array([guards[self._word == word].sum() for word in range(self.num_words)], np.int64)

    def pack(self, fields: np.ndarray) -> np.ndarray:
        """int64 [N, W] from the pool's fields, int32 [N, Q]."""
        words = np.zeros((len(fields), self.num_words), np.int64)
        for column, word in enumerate(self._word):
            words[:, word] |= fields[:, column].astype(np.int64) << self._shift[column]
        return words

    def values_of(self, fields: tf.Tensor) -> tf.Tensor:
        """int64 [.., Q] ids of targets, `no_value` where no row of the pool can have one."""
        fields = tf.cast(fields, tf.int64)
        is_no_value = tf.cast((fields < FIRST_VALUE_ID) | (fields > self._largest), tf.int64)
        return tf.bitwise.bitwise_and(
            tf.bitwise.bitwise_or(fields, -is_no_value), self.no_value
        )  # tf.where broadcasts slowly

    def pack_columns(self, columns: Sequence[int], values: Sequence[tf.Tensor]) -> list[tf.Tensor | None]:
        """W words, int64 [U], of some columns' values, int64 [U] each, and 0 in the other lanes; None: a word of other lanes only."""
        words: list[tf.Tensor | None] = [None] * self.num_words
        for column, value in zip(columns, values, strict=True):
            lane = tf.bitwise.left_shift(value, tf.constant(self._shift[column], tf.int64))
            words[self._word[column]] = _join(words[self._word[column]], lane)
        return words

    def lane(self, column: int) -> tuple[int, int]:
        """A column's word, and its id bits there."""
        return int(self._word[column]), int(self.no_value[column] << self._shift[column])

    def key_bits(self, column: int) -> int:
        """How many bits hold every value of a column."""
        return int(self.no_value[column]).bit_length()


class Keys(NamedTuple):
    """The T different keys that a request looks up, set after set, those of the counted sets first.

    An element is what a group of sets with the same candidate-side generators looks up: one combination of their values in one slate.
    """

    values: tf.Tensor  # uint64 [G, T]: the generators' values, 0 before the first of fewer than G
    sets: tf.Tensor  # int32 [T] each key's set, as an index of `KeyPlan.set_order`
    elements: tf.Tensor  # int32 [T]
    places: tf.Tensor  # int32 [S, n]: which key every candidate has in every set, in the order of `KeyPlan.set_order`
    first_keys: (
        tf.Tensor
    )  # int32 [S] each set's first key, in the same order; sets of one group list its elements alike
    num_counted: tf.Tensor  # int32: the keys of counted sets are the first ones
    element_slates: tf.Tensor  # int32 [elements]: B is the slate of padded candidates
    element_words: list[tf.Tensor]  # W int64 [elements]
    candidate_slates: tf.Tensor  # int32 [n]
    candidate_words: list[tf.Tensor]  # W int64 [n]


class _Group(NamedTuple):
    """The different values of some candidate-side columns, within their slates."""

    inverse: tf.Tensor  # int32 [n] which element each candidate has
    slates: tf.Tensor  # int32 [U]
    values: dict[int, tf.Tensor]  # int64 [U] by column


@dataclasses.dataclass(frozen=True)
class _Piece:
    """Sets that look up the same elements, and are all counted or not."""

    columns: tuple[int, ...]
    sets: tuple[int, ...]


class KeyPlan:
    """How a request's candidates become keys.

    Args:
        match_sets: the S match sets.
        shared: columns of [.., M] fields that are equal for all candidates of a slate.
        counted: match sets whose counts are wanted.
        lanes: how fields are packed.
    """

    def __init__(self, match_sets: MatchSets, shared: Sequence[int], counted: Sequence[int], lanes: FieldLanes) -> None:
        query = match_sets.query_fields()
        self._query, self._lanes = list(query), lanes
        self._shared = [column for column, field in enumerate(query) if field in set(shared)]
        self._own = [column for column in range(len(query)) if column not in self._shared]
        self._generators = [[query.index(field) for field in fields] for fields in match_sets.generators]
        self._width = max(map(len, self._generators))
        groups = [tuple(column for column in columns if column in self._own) for columns in self._generators]
        self._groups = sorted(set(groups), key=lambda columns: (len(columns), columns))
        self._pieces = []
        for is_counted, columns in itertools.product((True, False), self._groups):
            sets = tuple(
                index for index, group in enumerate(groups) if group == columns and (index in counted) == is_counted
            )
            if sets:
                self._pieces.append((is_counted, _Piece(columns, sets)))

    def set_order(self) -> list[int]:
        """The sets as their keys stand in `Keys`."""
        return [index for _, piece in self._pieces for index in piece.sets]

    def generators(self) -> np.ndarray:
        """bool [S, Q] the generators of the sets in that order."""
        table = np.zeros((len(self._generators), len(self._query)), bool)
        for place, index in enumerate(self.set_order()):
            table[place, self._generators[index]] = True
        return table

    def build(self, fields: tf.Tensor) -> Keys:
        """The keys of a request's candidates, int32 [B, C, M]; a candidate that is 0 everywhere is padding."""
        shape = tf.shape(fields)
        batch, num_candidates = shape[0], shape[1]
        if self._query != list(range(fields.shape[2])):
            fields = tf.gather(fields, self._query, axis=2)  # [B, C, Q]
        is_padding = tf.reshape(tf.reduce_max(fields, axis=2) <= 0, [-1])
        slates = tf.where(is_padding, batch, tf.repeat(tf.range(batch), num_candidates))
        by_column = tf.unstack(self._lanes.values_of(tf.reshape(fields, [-1, len(self._query)])), axis=1)
        slate_fields = tf.pad(tf.reduce_max(fields, axis=1), [[0, 1], [0, 0]])  # the last is the padding's slate
        by_slate = tf.unstack(self._lanes.values_of(slate_fields), axis=1)
        groups = self._find_groups(slates, batch + 1, by_column)
        slate_words = self._lanes.pack_columns(self._shared, [by_slate[column] for column in self._shared])
        own_words = self._lanes.pack_columns(self._own, [by_column[column] for column in self._own])
        words = [
            self._words(
                slate_words,
                groups[columns].slates,
                self._lanes.pack_columns(columns, list(groups[columns].values.values())),
            )
            for columns in self._groups
        ]
        return Keys(
            *self._lay_out(groups, by_slate),
            tf.concat([groups[columns].slates for columns in self._groups], axis=0),
            [tf.concat(parts, axis=0) for parts in zip(*words, strict=True)],
            slates,
            self._words(slate_words, slates, own_words),
        )

    def _find_groups(
        self, slates: tf.Tensor, num_slates: tf.Tensor, by_column: list[tf.Tensor]
    ) -> dict[tuple[int, ...], _Group]:
        """The different values of each group's columns, and of what its columns begin with."""
        groups: dict[tuple[int, ...], _Group] = {(): _Group(slates, tf.range(num_slates), {})}

        def find(columns: tuple[int, ...]) -> _Group:
            if columns not in groups:
                parent, bits = find(columns[:-1]), self._lanes.key_bits(columns[-1])
                joined = tf.cast(parent.inverse, tf.int64) * (1 << bits)
                values, inverse = tf.unique(tf.bitwise.bitwise_or(joined, by_column[columns[-1]]))
                elements = tf.cast(tf.bitwise.right_shift(values, tf.constant(bits, tf.int64)), tf.int32)
                groups[columns] = _Group(
                    inverse,
                    tf.gather(parent.slates, elements) if parent.values else elements,
                    {column: tf.gather(value, elements) for column, value in parent.values.items()}
                    | {columns[-1]: tf.bitwise.bitwise_and(values, (1 << bits) - 1)},
                )
            return groups[columns]

        for columns in self._groups:
            find(columns)
        return groups

    def _lay_out(
        self, groups: dict[tuple[int, ...], _Group], by_slate: list[tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """`values`, `sets`, `elements`, `places`, `first_keys` and `num_counted` of `Keys`."""
        values, sets, elements, places, first_keys = [], [], [], [], []
        first_element, position = {}, 0
        num_elements = num_keys = num_counted = tf.constant(0)
        for columns in self._groups:
            first_element[columns] = num_elements
            num_elements += tf.size(groups[columns].slates)
        for is_counted, piece in self._pieces:
            group = groups[piece.columns]
            size, num_sets = tf.size(group.slates), len(piece.sets)
            first = num_keys + size * tf.range(num_sets)
            num_keys += size * num_sets
            num_counted = num_keys if is_counted else num_counted
            first_keys.append(first)
            grid = tf.stack([num_sets, size])
            places.append(first[:, None] + group.inverse)
            sets.append(tf.reshape(tf.broadcast_to(tf.range(position, position + num_sets)[:, None], grid), [-1]))
            own = tf.range(first_element[piece.columns], first_element[piece.columns] + size)
            elements.append(tf.reshape(tf.broadcast_to(own, grid), [-1]))
            values.append(self._generator_values(piece, group, by_slate))
            position += num_sets
        joined = (tf.concat(parts, axis=0) for parts in (sets, elements, places, first_keys))
        return tf.concat(values, axis=1), *joined, num_counted

    def _generator_values(self, piece: _Piece, group: _Group, by_slate: list[tf.Tensor]) -> tf.Tensor:
        """uint64 [G, sets * U] the generators' values of a piece's keys."""
        columns = sorted({column for index in piece.sets for column in self._generators[index]})
        known = [
            group.values[column] if column in group.values else tf.gather(by_slate[column], group.slates)
            for column in columns
        ]
        rows = np.zeros((self._width, len(piece.sets)), np.int32)  # row 0 holds zeros
        for place, index in enumerate(piece.sets):
            generators = self._generators[index]
            rows[self._width - len(generators) :, place] = [columns.index(column) + 1 for column in generators]
        table = tf.cast(tf.stack([tf.zeros_like(known[0]), *known]), tf.uint64)
        return tf.reshape(tf.gather(table, rows.reshape(-1)), [self._width, -1])

    @staticmethod
    def _words(
        slate_words: list[tf.Tensor | None], slates: tf.Tensor, own_words: list[tf.Tensor | None]
    ) -> list[tf.Tensor]:
        """W int64 [U] words of elements or candidates, from their slate's side and their own."""
        pairs = zip(slate_words, own_words, strict=True)
        joined = (_join(None if shared is None else tf.gather(shared, slates), own) for shared, own in pairs)
        return [tf.zeros_like(slates, tf.int64) if word is None else word for word in joined]


def _join(word: tf.Tensor | None, other: tf.Tensor | None) -> tf.Tensor | None:
    """The lanes of both words."""
    if word is None or other is None:
        return other if word is None else word
    return tf.bitwise.bitwise_or(word, other)
