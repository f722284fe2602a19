"""The truth, by brute force over all rows, and how much of it an engine's answers share."""

import dataclasses

import numpy as np

from benchmarks.retrieval.data import DataSpec, Rows
from tf_lift.retrieval.bm25 import SCORE_UNITS, idf_units
from tf_lift.schema import FIRST_VALUE_ID

NO_ROW = -1
RELATIVE_TOLERANCE = 1e-4  # of other engines' float32 scores


@dataclasses.dataclass(frozen=True)
class Answers:
    """Neighbours of n targets.

    Attributes:
        rows: int32 [n, K] row ids by score descending, then newest first; NO_ROW where fewer exist.
        scores: float32 [n, K] BM25 scores in nats; 0 where there is no row.
    """

    rows: np.ndarray
    scores: np.ndarray


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How an engine's answers compare with the truth.

    Attributes:
        num_targets: how many were compared.
        scores: share of targets whose K scores are the true ones.
        rows: share of targets with the true rows in the true order.
        first_difference: what differs first, or empty.
    """

    num_targets: int
    scores: float
    rows: float
    first_difference: str


def brute_force(pool: Rows, targets: Rows, spec: DataSpec, num_neighbours: int) -> Answers:
    """Scores every pool row for every target, and sorts."""
    columns = np.ascontiguousarray(pool.fields.T)
    rows = np.full((len(targets.fields), num_neighbours), NO_ROW, np.int32)
    units = np.zeros(rows.shape, np.int64)
    for index, (values, time, own_user) in enumerate(zip(targets.fields, targets.time, targets.user, strict=True)):
        num_rows = np.count_nonzero(pool.time < time) if spec.rolling else len(pool.time)
        scores = np.zeros(num_rows, np.int64)
        for column, value in zip(columns, values, strict=True):
            same = column[:num_rows] == value
            if value >= FIRST_VALUE_ID:
                np.add(
                    scores,
                    idf_units(np.asarray(num_rows), np.asarray(np.count_nonzero(same)), "lucene"),
                    out=scores,
                    where=same,
                )
        if spec.exclude_own_user:
            scores[pool.user[:num_rows] == own_user] = 0
        candidates = np.flatnonzero(scores >= max(_kth_largest(scores, num_neighbours), 1))
        best = candidates[np.lexsort((-candidates, -scores[candidates]))][:num_neighbours]
        rows[index, : len(best)] = best
        units[index, : len(best)] = scores[best]
    return Answers(rows, (units / SCORE_UNITS).astype(np.float32))


def _kth_largest(scores: np.ndarray, k: int) -> int:
    return int(np.partition(scores, len(scores) - k)[len(scores) - k]) if len(scores) > k else 0


def compare(found: Answers, truth: Answers, tolerance: float) -> Agreement:
    """Compares answers target by target.

    Args:
        found: an engine's answers.
        truth: of the same targets.
        tolerance: relative, of the scores; 0 asks for equality.
    """
    if found.rows.shape != truth.rows.shape:
        raise ValueError(f"Answers must be of the same targets. Received: {found.rows.shape} and {truth.rows.shape}.")
    same_scores = np.isclose(found.scores, truth.scores, rtol=tolerance, atol=0.0).all(axis=1)
    same_rows = (found.rows == truth.rows).all(axis=1)
    different = np.flatnonzero(~(same_scores & same_rows))
    difference = ""
    if len(different):
        index = int(different[0])
        difference = (
            f"target {index} of {len(same_rows)}: rows {found.rows[index].tolist()}, scores {found.scores[index].tolist()}; "
            f"true rows {truth.rows[index].tolist()}, scores {truth.scores[index].tolist()}"
        )
    return Agreement(len(same_rows), float(same_scores.mean()), float(same_rows.mean()), difference)
