"""Numbers about a candidate that trees can split on."""

import numpy as np

from tf_lift.baselines.history_rows import read_history_rows
from tf_lift.baselines.no_learning import Candidates
from tf_lift.data.dataset_files import Dataset
from tf_lift.interactions import NO_ROW
from tf_lift.schema import FIRST_VALUE_ID

_RATE_STRENGTH = 3.0  # rows of the average kind that a rate is smoothed with
_SLATES_PER_BATCH = 4096


def build_features(dataset: Dataset, candidates: Candidates, length: int) -> tuple[np.ndarray, list[int]]:
    """Features of candidates, all of them as of the slate's time.

    For each match set of the examples: how many pool rows agree, and their smoothed rate of positives. For each item field: how many
    of the user's last rows agree, and their smoothed rate. Rows in the history, their rate, and the seconds since the last. The
    ids of the fields that are no keys.

    Args:
        dataset: the data set.
        candidates: n candidates.
        length: L, rows of the history that are read.

    Returns:
        float32 [n, D], and the columns that hold ids.
    """
    schema = dataset.config.schema
    prior = float(np.mean(dataset.positive[dataset.log.time < dataset.info.boundaries.train_from]))
    columns = [
        np.log1p(candidates.match_counts),
        _smooth(candidates.match_positives, candidates.match_counts, prior),
        _of_histories(dataset, candidates, length, prior),
    ]
    plain = [index for index in range(len(schema)) if index not in (schema.user_index, schema.item_index)]
    width = sum(column.shape[1] for column in columns)
    columns.append(candidates.fields[:, plain])
    return np.concatenate(columns, axis=1).astype(np.float32), list(range(width, width + len(plain)))


def _smooth(positives: np.ndarray, counts: np.ndarray, prior: float) -> np.ndarray:
    return (positives + _RATE_STRENGTH * prior) / (counts + _RATE_STRENGTH)


def _of_histories(dataset: Dataset, candidates: Candidates, length: int, prior: float) -> np.ndarray:
    """float64 [n, 3 + 2 item fields]."""
    log, item_fields = dataset.log, list(dataset.config.schema.indices("item"))
    rows = read_history_rows(dataset, candidates, length)
    is_real = (rows != NO_ROW) & ~log.synthetic[rows]
    is_positive = is_real & dataset.positive[rows]
    _, first = np.unique(candidates.slates, return_index=True)
    gaps = np.where(rows[:, 0] != NO_ROW, candidates.times[first] - log.time[rows[:, 0]], -1)
    counts = is_real.sum(axis=1)
    of_slates = np.stack([counts, _smooth(is_positive.sum(axis=1), counts, prior), gaps], axis=1)

    features = np.zeros((len(candidates.labels), 3 + 2 * len(item_fields)))
    features[:, :3] = of_slates[candidates.slates]
    for begin in range(0, len(rows), _SLATES_PER_BATCH):
        part = np.flatnonzero((candidates.slates >= begin) & (candidates.slates < begin + _SLATES_PER_BATCH))
        slates = candidates.slates[part]
        for place, field in enumerate(item_fields):
            values = candidates.fields[part, field]
            agrees = (log.fields[rows[slates], field] == values[:, None]) & (values >= FIRST_VALUE_ID)[:, None]
            found, liked = ((agrees & chosen[slates]).sum(axis=1) for chosen in (is_real, is_positive))
            features[part, 3 + 2 * place] = found
            features[part, 4 + 2 * place] = _smooth(liked, found, prior)
    return features
