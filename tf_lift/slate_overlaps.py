"""What neighbours of a situation say of the candidates of a split, found once and read in every epoch."""

import dataclasses

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tf_lift.models.predictor import OVERLAPS, Predictor


@dataclasses.dataclass(frozen=True)
class SlateOverlaps:
    """The sums of slates, which depend on no weight.

    Attributes:
        places: int32 [N], for each row of the log the place of the slate whose target it is, 0 where there is none.
        sums: float32 [S, C, F], as of `OverlapGraph.features`; slates of fewer candidates are padded with 0.
    """

    places: tf.Tensor
    sums: tf.Tensor

    def join(self, slates: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """A batch with its sums, [B, C, F], for `Predictor.predict_slate`."""
        sums = tf.gather(self.sums, tf.gather(self.places, slates["row"]))
        return {**slates, OVERLAPS: sums[:, : tf.shape(slates["mask"])[1]]}


def find_slate_overlaps(model: Predictor, examples: tf.data.Dataset, num_rows: int, split: str) -> SlateOverlaps:
    """Finds the sums of a split's slates.

    Args:
        model: the predictor, which reads overlaps; its weights do not matter.
        examples: the split's batches, in any order.
        num_rows: N of the log.
        split: its name, for the progress bar.
    """
    read = tf.function(model.read_overlaps, reduce_retracing=True)
    rows, sums = [], []
    for batch in tqdm(examples, desc=f"neighbours of situations, {split}", unit="batch", mininterval=1.0):
        rows.append(batch["row"].numpy())
        sums.append(read(batch, model.datastore.history(batch["history_position"])).numpy())
    widest = max(part.shape[1] for part in sums)
    padded = [np.pad(part, [(0, 0), (0, widest - part.shape[1]), (0, 0)]) for part in sums]
    places = np.zeros(num_rows, np.int32)
    places[np.concatenate(rows)] = np.arange(sum(map(len, rows)))
    with tf.device("CPU"):  # joined while examples are read
        return SlateOverlaps(tf.constant(places), tf.constant(np.concatenate(padded)))
