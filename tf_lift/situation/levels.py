"""The levels that transitions are counted at, and the keys they are kept under."""

from typing import Any, NamedTuple

import numpy as np

from tf_lift.schema import Schema

VALUE_RADIX = 1 << 27  # ids of a field: 134 million
SNAPSHOT_RADIX = 1 << 6


class Level(NamedTuple):
    """Transitions from a value of one field to a value of another.

    Attributes:
        first: index of the field of what came first.
        second: index of the field of what came after it.
    """

    first: int
    second: int


def find_levels(schema: Schema) -> tuple[Level, ...]:
    """Item to item, item to category and category to category; an item's category is its first field besides the key, if it has one."""
    item = schema.item_index
    categories = [index for index in schema.indices("item") if index != item]
    if not categories:
        return (Level(item, item),)
    return Level(item, item), Level(item, categories[0]), Level(categories[0], categories[0])


def counted_fields(levels: tuple[Level, ...]) -> tuple[int, ...]:
    """The fields whose values' own rows are counted; field i has the key level `len(levels) + i`, and second values 0."""
    return tuple(sorted({field for level in levels for field in level}))


def transition_keys(level: Any, first: Any, second: Any, snapshot: Any) -> Any:
    """The int64 keys of a level, its two values and a snapshot in mixed radix: integers, arrays or tensors, which are ordered alike."""
    return ((first + level * VALUE_RADIX) * VALUE_RADIX + second) * SNAPSHOT_RADIX + snapshot


def first_values(keys: np.ndarray) -> np.ndarray:
    """The first values of keys, int64."""
    return keys // (VALUE_RADIX * SNAPSHOT_RADIX) % VALUE_RADIX


def check_num_ids(num_ids: int) -> None:
    """Checks that a field's ids fit into a key.

    Raises:
        ValueError: there are too many.
    """
    if num_ids > VALUE_RADIX:
        raise ValueError(
            f"Transitions are counted for fields of at most {VALUE_RADIX:,} ids. Received: {num_ids:,}. Set "
            '`situation.relations = "none"` and `situation.tables = false`.'
        )
