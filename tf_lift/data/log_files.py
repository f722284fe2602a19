"""The interaction log on disk: TFRecord shards of column batches."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_lift.interactions import InteractionLog

_COLUMNS = {"fields": "<i4", "time": "<i8", "behaviour": "i1", "synthetic": "?"}
_ROWS_PER_RECORD = 65536


def write_log_shard(path: Path, columns: dict[str, np.ndarray], user_counts: np.ndarray) -> None:
    """Writes the rows of consecutive users.

    Args:
        path: the TFRecord file.
        columns: `fields` int32 [n, M], `time` int64 [n], `behaviour` int8 [n], `synthetic` bool [n].
        user_counts: int64, rows of each of the shard's users.
    """
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(user_counts.astype("<i8").tobytes())
        for first in range(0, len(columns["time"]), _ROWS_PER_RECORD):
            features = {
                name: _bytes_feature(
                    np.ascontiguousarray(columns[name][first : first + _ROWS_PER_RECORD], dtype).tobytes()
                )
                for name, dtype in _COLUMNS.items()
            }
            writer.write(
                tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)
            )


def read_log(paths: Sequence[Path], num_fields: int) -> InteractionLog:
    """Reads the shards of a log, in the order of users.

    Args:
        paths: the TFRecord files, sorted.
        num_fields: M.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in _COLUMNS}
    counts = [np.zeros(0, np.int64)]
    for path in paths:
        records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
        counts.append(np.frombuffer(next(records), "<i8"))
        for record in records:
            features = tf.train.Example.FromString(record).features.feature
            for name, dtype in _COLUMNS.items():
                parts[name].append(np.frombuffer(features[name].bytes_list.value[0], dtype))
    columns = {name: np.concatenate(part) if part else np.zeros(0, _COLUMNS[name]) for name, part in parts.items()}
    return InteractionLog(
        columns["fields"].reshape(-1, num_fields),
        columns["time"],
        columns["behaviour"],
        columns["synthetic"],
        np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64),
    )


def _bytes_feature(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
