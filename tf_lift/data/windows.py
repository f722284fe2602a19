"""Pretraining windows on disk: pointers to slices of the interaction log."""

from pathlib import Path

import numpy as np
import tensorflow as tf

_WINDOWS_PER_RECORD = 65536


def write_windows(path: Path, first_rows: np.ndarray, num_rows: np.ndarray) -> None:
    """Writes windows.

    Args:
        path: the TFRecord file.
        first_rows: int64 [W] first row id of each window.
        num_rows: int64 [W] its number of rows.
    """
    with tf.io.TFRecordWriter(str(path)) as writer:
        for first in range(0, len(first_rows), _WINDOWS_PER_RECORD):
            part = slice(first, first + _WINDOWS_PER_RECORD)
            writer.write(np.stack([first_rows[part], num_rows[part]], axis=1).astype("<i8").tobytes())


def read_windows(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads what `write_windows` wrote."""
    records = [np.frombuffer(record, "<i8") for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]
    table = np.concatenate([np.zeros(0, np.int64), *records]).reshape(-1, 2)
    return table[:, 0], table[:, 1]
