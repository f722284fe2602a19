"""The times at which the transition tables are kept."""

from typing import Literal

import numpy as np

from tf_lift.situation.levels import SNAPSHOT_RADIX


def place_snapshots(
    mode: Literal["static", "rolling"], train_from: int, test_from: int, last_time: int, num_snapshots: int
) -> np.ndarray:
    """Times of the snapshots; one at T holds the transitions whose second row is strictly before T.

    Static mode has one, at `train_from`. In rolling mode they begin there too, `num_snapshots` of them before `test_from` and at the same
    distance after it, and a last one follows the log's end. None but that last one moves when what is later than it changes.

    Args:
        mode: of the split.
        train_from: epoch seconds.
        test_from: epoch seconds.
        last_time: the log's last, epoch seconds.
        num_snapshots: from `train_from` to `test_from`.

    Returns:
        int64 [S], ascending.
    """
    if mode == "static":
        return np.array([train_from], np.int64)
    steps = np.arange(SNAPSHOT_RADIX - 1, dtype=np.int64)
    times = np.unique(train_from + steps * (test_from - train_from) // num_snapshots)
    return np.append(times[times <= last_time], last_time + 1)
