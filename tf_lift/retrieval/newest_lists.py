"""The top K of targets whose sets' newest rows are at hand, in NumPy: the last step where posting lists are grouped by key."""

from typing import Literal

import numpy as np

from tf_lift.retrieval.bm25 import idf_units
from tf_lift.retrieval.match_sets import MatchSets


def score_sets(
    match_sets: MatchSets, counts: np.ndarray, visible: np.ndarray, idf: Literal["lucene", "paper"]
) -> np.ndarray:
    """Score of each set for each target, eq. 12: the sum of its fields' idf.

    Args:
        match_sets: the S match sets.
        counts: int64 [n, S] rows of each target's key.
        visible: int64 [n] pool rows that it may see.
        idf: which idf.

    Returns:
        int64 [n, S] in units of `bm25.SCORE_UNITS`.
    """
    units = np.zeros(counts.shape, np.int64)
    membership = match_sets.membership()
    for field in match_sets.query_fields():
        matches = counts[:, match_sets.set_of(field)]
        terms = np.where(matches > 0, idf_units(visible, matches, idf), 0)
        units += terms[:, None] * membership[:, field]
    return units


def merge_newest(
    newest: np.ndarray, starts: np.ndarray, stops: np.ndarray, units: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The exact top K, from the newest K rows of every set: score descending, then highest rank.

    Sets are read in the order of their score; a target is done once one set has given K rows and the next scores less.

    Args:
        newest: int32 [..] ranks, newest first inside each list.
        starts: int64 [n, S] where each target's list of each set begins.
        stops: int64 [n, S] where it ends, at most K later.
        units: int64 [n, S] scores of the sets.
        k: K.

    Returns:
        ranks int64 [n, K], -1 where fewer rows exist, and scores int64 [n, K].
    """
    top = np.full((len(units), k), -1, np.int64)
    units = np.where(stops > starts, units, -1)  # a set without rows comes last
    order = np.argsort(-units, axis=1, kind="stable")
    active = np.arange(len(units))
    for turn in range(units.shape[1]):
        sets = order[active, turn]
        kept = units[active, sets] >= 0
        active, sets = active[kept], sets[kept]
        if not len(active):
            break
        places = starts[active, sets][:, None] + np.arange(k)
        inside = places < stops[active, sets][:, None]
        ranks = np.where(inside, newest[np.minimum(places, len(newest) - 1)].astype(np.int64), -1)
        score = units[active, sets]
        top[active] = _merge(top[active], np.where(ranks >= 0, (score[:, None] << 32) | ranks, -1))
        if turn + 1 < units.shape[1]:
            following = units[active, order[active, turn + 1]]
            active = active[(ranks[:, -1] < 0) | (following >= score)]
    return np.where(top >= 0, top & 0xFFFFFFFF, -1), np.where(top >= 0, top >> 32, 0)


def _merge(top: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The K largest of [n, K] entries and [n, K] new ones; a rank that both hold counts once, with its higher score."""
    repeated = np.zeros(new.shape, bool)
    ranks = np.where(new >= 0, new & 0xFFFFFFFF, -2)
    for column in range(top.shape[1]):
        held = np.where(top[:, column] >= 0, top[:, column] & 0xFFFFFFFF, -1)
        repeated |= ranks == held[:, None]
    both = np.concatenate([top, np.where(repeated, -1, new)], axis=1)
    return -np.sort(-both, axis=1)[:, : top.shape[1]]
