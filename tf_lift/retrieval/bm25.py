"""BM25 over categorical rows (eqs. 12 and 13).

A row holds each of its fields once and all rows have the same length, so a matching field's term is its idf and a row's
score is the sum of the idf of the fields it shares with the query. Scores are kept as integer multiples of 2**-20, so that
sums are exact and equal wherever they are computed.
"""

from typing import Literal

import numpy as np

SCORE_UNITS = 1 << 20


def idf_units(num_rows: np.ndarray, num_matches: np.ndarray, kind: Literal["lucene", "paper"]) -> np.ndarray:
    """Inverse document frequency of a value, eq. 13, in units of 1 / SCORE_UNITS.

    Args:
        num_rows: N, pool rows; integers, any shape.
        num_matches: n, pool rows with the value; integers that broadcast with `num_rows`.
        kind: "paper" is ln((N - n + .5) / (n + .5)) clamped at 0; "lucene" is ln(1 + (N - n + .5) / (n + .5)).

    Returns:
        int64, never negative.
    """
    odds = (num_rows - num_matches + 0.5) / (num_matches + 0.5)
    idf = np.log(odds) if kind == "paper" else np.log(1.0 + odds)
    return np.rint(np.maximum(idf, 0.0) * SCORE_UNITS).astype(np.int64)


def score_from_units(units: np.ndarray) -> np.ndarray:
    """Scores as float32, in nats."""
    return (units / SCORE_UNITS).astype(np.float32)
