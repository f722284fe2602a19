"""The rows of the users before their slates, as NumPy arrays."""

import numpy as np

from tf_lift.baselines.no_learning import Candidates
from tf_lift.data.dataset_files import Dataset
from tf_lift.interactions import NO_ROW


def read_history_rows(dataset: Dataset, candidates: Candidates, length: int) -> np.ndarray:
    """The last rows of each slate's user strictly before its time, without drawn negatives (protocol rim).

    Args:
        dataset: the data set.
        candidates: of S slates.
        length: L.

    Returns:
        int64 [S, L] row ids, the newest first; NO_ROW where there is none.
    """
    _, first = np.unique(candidates.slates, return_index=True)
    users = candidates.fields[first, dataset.config.schema.user_index]
    positions = dataset.log.positions_at(users, candidates.times[first])
    begin, count = dataset.log.windows_at(positions, len(dataset.log))
    real = np.flatnonzero(~dataset.log.synthetic)
    first, stop = np.searchsorted(real, begin), np.searchsorted(real, begin + count)
    places = stop[:, None] - 1 - np.arange(length)
    return np.where(places >= first[:, None], real[np.maximum(places, 0)], NO_ROW)
