"""Parts of the test split that a pooled number hides."""

import numpy as np

from tf_lift.data.dataset_files import Dataset
from tf_lift.schema import PADDING_ID

_MINUTE, _SIX_HOURS = 60, 6 * 3600


def slice_masks(dataset: Dataset, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Which slates belong to each slice.

    People who rate page by page make a log whose order is a site's display order; the gap since the user's last event
    tells such targets from the start of a session.

    Args:
        dataset: the data set.
        rows: int64 [S] target rows.

    Returns:
        name -> bool [S]: `all`; by gap, which a user's first event has over 6 h; those first events; and whether the user had the item
        before.
    """
    log, schema = dataset.log, dataset.config.schema
    users = log.fields[rows, schema.user_index]
    times = log.time[rows]
    ends = log.rows_before(users, times)
    starts = log.user_starts[log.user_indices()[rows]]
    has_history = ends > starts
    gap = np.where(has_history, times - log.time[np.maximum(ends - 1, 0)], np.iinfo(np.int64).max)
    items = log.fields[rows, schema.item_index]
    had = np.where(log.synthetic, PADDING_ID, log.fields[:, schema.item_index])  # a drawn row's item was never had
    repeat = np.array([item in had[start:end] for item, start, end in zip(items, starts, ends, strict=True)], bool)
    return {
        "all": np.ones(len(rows), bool),
        "gap at most 60 s": gap <= _MINUTE,
        "gap 60 s to 6 h": (gap > _MINUTE) & (gap <= _SIX_HOURS),
        "gap over 6 h": gap > _SIX_HOURS,
        "no earlier event": ~has_history,
        "item new to the user": ~repeat,
        "item had before": repeat,
    }
