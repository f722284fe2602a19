"""The values of one field, with ids in order of first appearance."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tf_lift.schema import FIRST_VALUE_ID, PADDING_ID, UNKNOWN_ID


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Values of a field; value i has id i + FIRST_VALUE_ID.

    Ids follow the time of first appearance, so what happens later never changes an earlier id, and "known as of t" is a
    comparison with one number. A model's embedding table ends at `num_ids_at(train's end)`; ids beyond it serve retrieval alone.

    Attributes:
        name: the field.
        values: the strings, as the log had them.
        first_times: [len(values)] int64 epoch seconds of first appearance, ascending.
    """

    name: str
    values: tuple[str, ...]
    first_times: np.ndarray

    def __post_init__(self) -> None:
        if len(self.values) != len(self.first_times) or np.any(np.diff(self.first_times) < 0):
            raise ValueError(
                f"Vocabulary {self.name!r} needs one time a value, ascending. Received: {len(self.values)} values and "
                f"{len(self.first_times)} times."
            )

    @property
    def num_ids(self) -> int:
        """Number of ids, padding and unknown among them."""
        return len(self.values) + FIRST_VALUE_ID

    def num_ids_at(self, time: int | np.ndarray) -> np.ndarray:
        """Ids below this number had appeared strictly before a time.

        Args:
            time: epoch seconds, any shape.

        Returns:
            int64 of the same shape.
        """
        return np.searchsorted(self.first_times, time, side="left") + FIRST_VALUE_ID

    def ids(self, values: Iterable[str]) -> np.ndarray:
        """Ids of values.

        Args:
            values: strings; the empty string is padding.

        Returns:
            int32 [len(values)]; UNKNOWN_ID where the vocabulary lacks a value.
        """
        table = {value: index for index, value in enumerate(self.values, start=FIRST_VALUE_ID)}
        table[""] = PADDING_ID
        return np.array([table.get(value, UNKNOWN_ID) for value in values], np.int32)

    def value(self, value_id: int) -> str:
        """The string of an id; "" for padding and "(unknown)" for the unknown id."""
        if value_id == PADDING_ID:
            return ""
        return "(unknown)" if value_id == UNKNOWN_ID else self.values[value_id - FIRST_VALUE_ID]

    def write(self, path: Path) -> None:
        """Writes a line a value: its first time, a tab, the value as JSON."""
        lines = [
            f"{time}\t{json.dumps(value)}\n" for time, value in zip(self.first_times.tolist(), self.values, strict=True)
        ]
        path.write_text("".join(lines), encoding="utf-8")


def read_vocabulary(path: Path) -> Vocabulary:
    """Reads what `Vocabulary.write` wrote; the file's stem is the field's name."""
    rows = [line.split("\t", 1) for line in path.read_text(encoding="utf-8").splitlines()]
    values = tuple(json.loads(value) for _, value in rows)
    return Vocabulary(path.stem, values, np.array([int(time) for time, _ in rows], np.int64))
