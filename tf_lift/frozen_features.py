"""What no trained weight changes about the slates of a split: looked up and encoded once, and read in every epoch."""

import dataclasses
import logging
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tf_lift.models.predictor import CANDIDATE_FEATURES, FROZEN, Frozen, Predictor

logger = logging.getLogger(__name__)

_MAX_BYTES = 2 << 30  # of a split; tf.data keeps a copy of its own beside it
_NOWHERE = -1


@dataclasses.dataclass(frozen=True)
class FrozenFeatures:
    """Features of the S slates of a split.

    Attributes:
        places: int32 [N], for each row of the log the place of the slate whose target it is, -1 where there is none.
        found: group -> name -> [S, ..], as of `Predictor.read_frozen`; slates of fewer candidates are padded with 0.
    """

    places: tf.Tensor
    found: Frozen

    def join(self, slates: dict[str, tf.Tensor]) -> dict[str, Any]:
        """A batch with what `Predictor.read_frozen` would find, for `Predictor.predict_slate`.

        TensorFlow fails where a slate is of another split: it has no place.
        """
        places, width = tf.gather(self.places, slates["row"]), tf.shape(slates["mask"])[1]

        def read(name: str, values: tf.Tensor) -> tf.Tensor:
            chosen = tf.gather(values, places)
            return chosen[:, :width] if name in CANDIDATE_FEATURES else chosen

        found = {group: {name: read(name, one) for name, one in named.items()} for group, named in self.found.items()}
        return {**slates, FROZEN: found}


def find_frozen_features(
    model: Predictor, examples: tf.data.Dataset, num_rows: int, split: str, max_bytes: int = _MAX_BYTES
) -> FrozenFeatures | None:
    """Finds the features of a split's slates: those groups that fit in memory, the smallest first.

    Args:
        model: the predictor, with the encoder that it is to be trained with.
        examples: the split's batches, in any order; it knows how many they are.
        num_rows: N of the log.
        split: its name, for the progress bar and the log.
        max_bytes: memory that the features may take, reckoned by the first batch.

    Returns:
        The features; None where the model asks for none, or none fit.
    """

    def find(batch: dict[str, tf.Tensor], left_out: tuple[str, ...]) -> Frozen:
        return model.read_frozen(batch, model.datastore.history(batch["history_position"]), left_out)

    found = find(next(iter(examples)), ())
    sizes = {group: len(examples) * sum(one.numpy().nbytes for one in named.values()) for group, named in found.items()}
    asked = sorted((size, group) for group, size in sizes.items() if size)
    fits = np.cumsum([size for size, _ in asked]) <= max_bytes
    for (size, group), is_kept in zip(asked, fits, strict=True):
        if not is_kept:
            logger.info("fit: %s's features %r (%d MiB) are found anew in every step", split, group, size >> 20)
    kept = [group for (_, group), is_kept in zip(asked, fits, strict=True) if is_kept]
    if not kept:
        return None
    left_out = tuple(group for group in found if group not in kept)
    find_traced = tf.function(find, reduce_retracing=True)
    rows: list[np.ndarray] = []
    parts: dict[str, dict[str, list[tf.Tensor]]] = {group: {name: [] for name in found[group]} for group in kept}
    for batch in tqdm(examples, desc=f"frozen features, {split}", unit="batch", mininterval=1.0, leave=False):
        rows.append(batch["row"].numpy())
        features = find_traced(batch, left_out)
        with tf.device("CPU"):  # joined while examples are read
            for group, named in features.items():
                for name, values in named.items():
                    parts[group][name].append(tf.identity(values))
    places = np.full(num_rows, _NOWHERE, np.int32)
    places[np.concatenate(rows)] = np.arange(sum(map(len, rows)))
    with tf.device("CPU"):
        joined = {
            group: {name: _concatenate(named.pop(name), name) for name in list(named)} for group, named in parts.items()
        }
        return FrozenFeatures(tf.constant(places), joined)


def _concatenate(parts: list[tf.Tensor], name: str) -> tf.Tensor:
    """[S, ..] of batches [B, ..], those of candidates padded to the widest slate."""
    widest = max(part.shape[1] for part in parts)
    if name in CANDIDATE_FEATURES and any(part.shape[1] < widest for part in parts):
        parts = [tf.pad(part, [(0, 0), (0, widest - part.shape[1]), *[(0, 0)] * (part.ndim - 2)]) for part in parts]
    return tf.concat(parts, axis=0)
