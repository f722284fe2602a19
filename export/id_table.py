"""A vocabulary in the graph."""

from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from tf_lift.schema import FIRST_VALUE_ID, PADDING_ID, UNKNOWN_ID


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
