"""The pool's own rows as slates, for rankers that read no neighbours."""

import dataclasses

import numpy as np
import tensorflow as tf

from tf_lift.data.dataset import build_input_options
from tf_lift.data.dataset_files import Dataset
from tf_lift.schema import FIRST_VALUE_ID, UNKNOWN_ID

_NUM_DRAWN = 4  # items beside each row of a log of positives only


@dataclasses.dataclass(frozen=True)
class PoolSlates:
    """Slates at the rows before train, each as of its own time.

    A log with negatives of its own (labels, or drawn ones in the pool) gives slates of one candidate. In a log of positives only
    each row stands among `_NUM_DRAWN` items that had been seen by its time, `negatives.popularity_share` of them the items of
    rows by chance and the others uniform.

    Attributes:
        dataset: the data set.
    """

    dataset: Dataset

    def batches(self, seed: int) -> tf.data.Dataset:
        """All slates in an order by chance, with the keys of `RowReferences.resolve` but for neighbours and match statistics.

        Args:
            seed: of the order and of the drawn items.
        """
        dataset, log = self.dataset, self.dataset.log
        rng = np.random.default_rng(seed)
        rows = rng.permutation(np.flatnonzero(log.time < dataset.info.boundaries.train_from))
        fields, labels = log.fields[rows][:, None], dataset.positive[rows][:, None]  # [n, 1, M], [n, 1]
        if labels.all():
            drawn = self._draw(fields, log.time[rows], rng)
            fields = np.concatenate([fields, drawn], axis=1)
            labels = np.concatenate([labels, np.zeros(drawn.shape[:2], bool)], axis=1)
        known = np.stack([vocabulary.num_ids_at(log.time[rows]) for vocabulary in dataset.info.vocabularies], axis=1)
        users = log.fields[rows, dataset.config.schema.user_index]
        slates = {
            "time": log.time[rows],
            "row": rows,
            "history_position": log.positions_at(users, log.time[rows]),
            "fields": np.where(fields < known[:, None], fields, UNKNOWN_ID).astype(np.int32),
            "label": labels.astype(np.float32),
            "mask": np.ones(labels.shape, bool),
        }
        batch_size = dataset.config.training.batch_size
        batches = tf.data.Dataset.from_tensor_slices(slates).batch(batch_size).prefetch(tf.data.AUTOTUNE)
        return batches.with_options(build_input_options())

    def _draw(self, fields: np.ndarray, times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """int32 [n, _NUM_DRAWN, M]: the row's fields with those of other items."""
        schema, info = self.dataset.config.schema, self.dataset.info
        shape = (len(fields), _NUM_DRAWN)
        num_seen = info.vocabularies[schema.item_index].num_ids_at(times) - FIRST_VALUE_ID
        places = (rng.random(shape) * np.maximum(num_seen, 1)[:, None]).astype(np.int64)
        popular = fields[rng.integers(0, len(fields), shape), 0, schema.item_index] - FIRST_VALUE_ID
        is_popular = rng.random(shape) < self.dataset.config.negatives.popularity_share
        items = info.entity_fields["item"][np.where(is_popular, popular, places)]
        return np.where(np.isin(np.arange(len(schema)), schema.indices("item")), items, fields)
