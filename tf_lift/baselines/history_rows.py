"""The rows of the users before their slates, as NumPy arrays."""

import numpy as np

from tf_lift.baselines.no_learning import Candidates
from tf_lift.data.dataset_files import Dataset
from tf_lift.interactions import NO_ROW


def read_history_rows(dataset: Dataset, candidates: Candidates, length: int) -> np.ndarray:
    """The last rows of each slate's user strictly before its time.

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
    begin, count = dataset.log.windows_at(positions, length)
    ages = np.arange(length)
    return np.where(ages < count[:, None], (begin + count - 1)[:, None] - ages, NO_ROW)
