"""Candidates of slates, flat or as a grid."""

import numpy as np
from numpy.typing import NDArray

MIN_RANKED = 10  # candidates: HR@10 of fewer says nothing


def is_ranking(slates: NDArray[np.int64]) -> bool:
    """Whether slates are long enough to be ranked; else candidates are judged one by one.

    Args:
        slates: int64 [n], which slate each candidate belongs to.
    """
    return int(np.bincount(slates).max()) >= MIN_RANKED


def slate_grid(slates: NDArray[np.int64], values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Values of flat candidates, a row a slate.

    Args:
        slates: int64 [n], ascending from 0 without gaps: which slate each candidate belongs to.
        values: float64 [n].

    Returns:
        (float64 [S, C], 0 where there is no candidate; bool [S, C], True where there is one).
    """
    counts = np.bincount(slates)
    mask = np.arange(counts.max()) < counts[:, None]
    grid = np.zeros(mask.shape)
    grid[mask] = values
    return grid, mask
