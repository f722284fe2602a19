"""The global-time split's boundaries."""

import numpy as np

from tf_lift.config import Split
from tf_lift.data.dataset_info import Boundaries

from .parse_values import parse_iso_time


def count_times(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct times, ascending int64, and how often each occurs, int64."""
    values, counts = np.unique(times, return_counts=True)
    return values.astype(np.int64), counts.astype(np.int64)


def add_counts(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Joins the results of `count_times`."""
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    values, inverse = np.unique(np.concatenate([values for values, _ in parts]), return_inverse=True)
    counts = np.bincount(
        inverse.reshape(-1), weights=np.concatenate([counts for _, counts in parts]), minlength=len(values)
    )
    return values, counts.astype(np.int64)


def find_boundaries(values: np.ndarray, counts: np.ndarray, split: Split) -> Boundaries:
    """Places the boundaries of pool, train, validation and test.

    A share q is placed at the time of the row of rank floor(q * rows): rows strictly before it are on its near side.

    Args:
        values: int64 distinct times, ascending.
        counts: int64 rows at each.
        split: the configuration's section.

    Raises:
        ValueError: the pool, train, validation or test would be empty.
    """
    ends = np.cumsum(counts)

    def time_at(rank: int) -> int:
        return int(values[np.searchsorted(ends, rank, side="right")])

    def place(boundary: float | str) -> int:
        if isinstance(boundary, str):
            return parse_iso_time(boundary)
        return time_at(int(boundary * ends[-1])) if split.by == "quantiles" else int(boundary)

    if not len(values):
        raise ValueError(
            "The log must hold interactions. Received: none; see rejected/ for the reasons, or widen the source's times."
        )
    train_from, test_from = place(split.train_from), place(split.test_from)
    before_train, before_test = (int(counts[values < time].sum()) for time in (train_from, test_from))
    if before_train == 0:
        raise ValueError(
            f"The retrieval pool must hold interactions before split.train_from. Received: none before {train_from}; the log "
            f"begins at {values[0]} and ends at {values[-1]} (epoch seconds)."
        )
    if test_from <= train_from:
        raise ValueError(
            "split.train_from must be before split.test_from. Received: "
            f"{train_from} and {test_from} (epoch seconds). Move one of them."
        )
    if before_test == before_train or before_test == ends[-1]:
        raise ValueError(
            f"Train and test must hold interactions. Received: {before_test - before_train} from {train_from} to {test_from} and "
            f"{ends[-1] - before_test} after it; the log ends at {values[-1]} (epoch seconds). Move split.train_from or "
            "split.test_from."
        )
    validation_from = time_at(before_train + int((1.0 - split.validation_share) * (before_test - before_train)))
    if validation_from <= train_from:
        later = values[(values > train_from) & (values < test_from)]
        if not len(later):
            raise ValueError(
                f"The train window must hold two different times, one for validation. Received: {train_from} alone. "
                "Move split.train_from or split.test_from."
            )
        validation_from = int(later[0])
    return Boundaries(train_from, validation_from, test_from)
