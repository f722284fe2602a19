"""What no trained weight changes about the slates of a split: looked up and encoded once, and read in every epoch."""

import collections
import dataclasses
import logging
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tf_lift.models.predictor import FROZEN, OF_CANDIDATES, Predictor

logger = logging.getLogger(__name__)

_MAX_BYTES = 4 << 30  # of a split; the features of larger ones are found anew in every step


@dataclasses.dataclass(frozen=True)
class FrozenFeatures:
    """Features of the S slates of a split.

    Attributes:
        places: int32 [N], for each row of the log the place of the slate whose target it is, 0 where there is none.
        found: name -> [S, ..], as of `Predictor.read_frozen`; slates of fewer candidates are padded with 0.
    """

    places: tf.Tensor
    found: Mapping[str, tf.Tensor]

    def join(self, slates: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """A batch with what `Predictor.read_frozen` would find, for `Predictor.predict_slate`."""
        places, width = tf.gather(self.places, slates["row"]), tf.shape(slates["mask"])[1]
        found = {name: tf.gather(values, places) for name, values in self.found.items()}
        fitting = {name: values[:, :width] if name in OF_CANDIDATES else values for name, values in found.items()}
        return {**slates, FROZEN: fitting}


def find_frozen_features(
    model: Predictor, examples: tf.data.Dataset, num_rows: int, split: str, max_bytes: int = _MAX_BYTES
) -> FrozenFeatures | None:
    """Finds the features of a split's slates.

    Args:
        model: the predictor, with the encoder that it is to be trained with.
        examples: the split's batches, in any order; it knows how many they are.
        num_rows: N of the log.
        split: its name, for the progress bar.
        max_bytes: memory that they may take.

    Returns:
        The features; None where the model asks for none, or they would take more memory, reckoned by the first batch.
    """
    find = tf.function(model.read_frozen, reduce_retracing=True)
    rows: list[np.ndarray] = []
    parts: dict[str, list[tf.Tensor]] = collections.defaultdict(list)
    bar = tqdm(examples, desc=f"frozen features, {split}", unit="batch", mininterval=1.0, leave=False)
    for batch in bar:
        found = find(batch, model.datastore.history(batch["history_position"]))
        rows.append(batch["row"].numpy())
        with tf.device("CPU"):  # joined while examples are read
            for name, values in found.items():
                parts[name].append(tf.identity(values))
        if len(rows) == 1:
            num_bytes = sum(values[0].numpy().nbytes for values in parts.values()) * len(bar)
            if not found or num_bytes > max_bytes:
                bar.close()
                logger.info("fit: %s's frozen features (%d MiB) are found anew in every step", split, num_bytes >> 20)
                return None
    places = np.zeros(num_rows, np.int32)
    places[np.concatenate(rows)] = np.arange(sum(map(len, rows)))
    with tf.device("CPU"):
        joined = {name: _concatenate(parts.pop(name), name in OF_CANDIDATES) for name in list(parts)}
        return FrozenFeatures(tf.constant(places), joined)


def _concatenate(parts: list[tf.Tensor], are_of_candidates: bool) -> tf.Tensor:
    """[S, ..] of batches [B, ..], those of candidates padded to the widest slate."""
    if are_of_candidates:
        widest = max(part.shape[1] for part in parts)
        parts = [tf.pad(part, [(0, 0), (0, widest - part.shape[1]), *[(0, 0)] * (part.ndim - 2)]) for part in parts]
    return tf.concat(parts, axis=0)
