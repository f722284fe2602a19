"""The neighbours of the situations of a split, and what they say of its candidates, found once and read in every epoch."""

import collections
import dataclasses
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tf_lift.models.predictor import OVERLAPS, Predictor


@dataclasses.dataclass(frozen=True)
class SlateOverlaps:
    """What is known of slates, which depends on no weight.

    Attributes:
        places: int32 [N], for each row of the log the place of the slate whose target it is, 0 where there is none.
        found: name -> [S, ..], as of `Predictor.read_overlaps`; slates of fewer candidates are padded with 0.
    """

    places: tf.Tensor
    found: Mapping[str, tf.Tensor]

    def join(self, slates: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """A batch with what `Predictor.read_overlaps` would find, for `Predictor.predict_slate`."""
        places = tf.gather(self.places, slates["row"])
        found = {name: tf.gather(values, places) for name, values in self.found.items()}
        found[OVERLAPS] = found[OVERLAPS][:, : tf.shape(slates["mask"])[1]]
        return {**slates, **found}


def find_slate_overlaps(model: Predictor, examples: tf.data.Dataset, num_rows: int, split: str) -> SlateOverlaps:
    """Finds what is known of a split's slates.

    Args:
        model: the predictor, which reads overlaps; its weights do not matter.
        examples: the split's batches, in any order.
        num_rows: N of the log.
        split: its name, for the progress bar.
    """
    read = tf.function(model.read_overlaps, reduce_retracing=True)
    rows: list[np.ndarray] = []
    parts: dict[str, list[np.ndarray]] = collections.defaultdict(list)
    for batch in tqdm(examples, desc=f"neighbours of situations, {split}", unit="batch", mininterval=1.0):
        rows.append(batch["row"].numpy())
        for name, values in read(batch, model.datastore.history(batch["history_position"])).items():
            parts[name].append(values.numpy())
    widest = max(part.shape[1] for part in parts[OVERLAPS])
    parts[OVERLAPS] = [np.pad(part, [(0, 0), (0, widest - part.shape[1]), (0, 0)]) for part in parts[OVERLAPS]]
    places = np.zeros(num_rows, np.int32)
    places[np.concatenate(rows)] = np.arange(sum(map(len, rows)))
    with tf.device("CPU"):  # joined while examples are read
        found = {name: tf.constant(np.concatenate(values)) for name, values in parts.items()}
        return SlateOverlaps(tf.constant(places), found)
