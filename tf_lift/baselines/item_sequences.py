"""Users' positives as sequences of items, to learn the next item from."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_lift.data.dataset import build_input_options
from tf_lift.data.dataset_files import Dataset


class ItemSequences(NamedTuple):
    """Sequences of items; real rows stand at the right, in the order of time.

    Attributes:
        items: int32 [W, T] ids, 0 where there is no row.
        mask: bool [W, T], True where a row is real.
        last_before: int32 [W, T] the last place strictly before each row's time; -1 where the sequence holds none.
    """

    items: np.ndarray
    mask: np.ndarray
    last_before: np.ndarray

    def batches(self, chosen: np.ndarray, batch_size: int, shuffle_seed: int | None) -> tf.data.Dataset:
        """Batches of some sequences, as one-element tuples of the three arrays, which Keras takes as inputs alone.

        Args:
            chosen: bool [W].
            batch_size: sequences of a batch.
            shuffle_seed: None: the sequences' order; otherwise one drawn by it.
        """
        order = np.flatnonzero(chosen)
        if shuffle_seed is not None:
            np.random.default_rng(shuffle_seed).shuffle(order)
        rows = tf.data.Dataset.from_tensor_slices((self.items[order], self.mask[order], self.last_before[order]))
        return rows.batch(batch_size).prefetch(tf.data.AUTOTUNE).with_options(build_input_options())


def build_item_sequences(dataset: Dataset, until: int, length: int) -> ItemSequences:
    """Cuts every user's positives into sequences, from the newest backwards; neighbouring sequences share one row.

    Args:
        dataset: the data set.
        until: only rows strictly before this time are read, epoch seconds.
        length: T, rows of a sequence at most, two or more.

    Raises:
        ValueError: no user has two positives.
    """
    log = dataset.log
    rows = np.flatnonzero(dataset.positive & ~log.synthetic & (log.time < until))
    users = log.user_indices()[rows]
    starts = np.flatnonzero(np.r_[True, users[1:] != users[:-1]]) if len(rows) else np.zeros(0, np.int64)
    stops = np.r_[starts[1:], len(rows)][: len(starts)]
    numbers = np.maximum(-(-(stops - starts - 1) // (length - 1)), 0)  # a user with one row has none
    if not numbers.sum():
        raise ValueError(
            "The next item is learnt from users with two positives or more. Received: none before train. Move split.train_from, or "
            "leave this ranker out."
        )
    first = np.repeat(np.cumsum(numbers) - numbers, numbers)
    ends = np.repeat(stops, numbers) - (np.arange(numbers.sum()) - first) * (length - 1)
    places = ends[:, None] - length + np.arange(length)  # [W, T], into `rows`
    mask = places >= np.repeat(starts, numbers)[:, None]
    chosen = rows[np.where(mask, places, 0)]
    times = np.where(mask, log.time[chosen], np.iinfo(np.int64).min)
    is_new = np.c_[mask[:, :1], (times[:, 1:] != times[:, :-1])] & mask  # first row of its time
    last_before = np.maximum.accumulate(np.where(is_new, np.arange(length) - 1, -1), axis=1)
    last_before = np.where(np.take_along_axis(mask, np.maximum(last_before, 0), 1) & mask, last_before, -1)
    items = np.where(mask, log.fields[chosen, dataset.config.schema.item_index], 0)
    return ItemSequences(items.astype(np.int32), mask, last_before.astype(np.int32))
