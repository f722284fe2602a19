"""Binary search inside many segments of one array at once."""

import numpy as np


def segment_lower_bound(values: np.ndarray, starts: np.ndarray, stops: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """First position of each segment whose value is not below a bound.

    Args:
        values: [N], ascending inside every segment.
        starts: [n] integers, first position of each segment.
        stops: [n] integers, one past its last.
        bounds: [n], of the values' type.

    Returns:
        int64 [n], from starts to stops.
    """
    low, high = starts.astype(np.int64), stops.astype(np.int64)
    open_segments = np.flatnonzero(low < high)
    while len(open_segments):
        middle = (low[open_segments] + high[open_segments]) >> 1
        below = values[middle] < bounds[open_segments]
        low[open_segments[below]] = middle[below] + 1
        high[open_segments[~below]] = middle[~below]
        open_segments = open_segments[low[open_segments] < high[open_segments]]
    return low
