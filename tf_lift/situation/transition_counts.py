"""Counts transitions: who had h positively, and c among the next positive interactions."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from tf_lift.interactions import InteractionLog
from tf_lift.schema import FIRST_VALUE_ID
from tf_lift.situation.levels import SNAPSHOT_RADIX, VALUE_RADIX, Level, counted_fields, transition_keys

_ROWS_AT_ONCE = 1 << 17  # with 20 rows after each, arrays of 20 MB


class KeyCounts(NamedTuple):
    """Numbers by key: keys int64 [n], distinct and ascending, and counts int64 [n]."""

    keys: np.ndarray
    counts: np.ndarray

    def select(self, chosen: np.ndarray) -> "KeyCounts":
        """Some of them: bool [n]."""
        return KeyCounts(self.keys[chosen], self.counts[chosen])


def count_transitions(
    log: InteractionLog, positive: np.ndarray, levels: tuple[Level, ...], window: int, times: np.ndarray
) -> Iterator[KeyCounts]:
    """Counts the transitions of whole users, and the positive rows of each value.

    A transition is a row and a value that one of the next `window` positive rows of its user has, each once. It belongs to the first
    snapshot that is later than the first such row.

    Args:
        log: some users' interactions.
        positive: bool [N], the rows whose label is 1. Synthetic rows count for nothing.
        levels: what is counted.
        window: L.
        times: int64 [S] snapshots.

    Yields:
        What each snapshot adds to the one before, in parts that must be added; a value's own rows have the key levels after `levels`.
    """
    rows = np.flatnonzero(positive & ~log.synthetic & (log.time < times[-1]))
    users = log.user_indices()[rows]
    fields, snapshots = log.fields[rows], np.searchsorted(times, log.time[rows], side="right")
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        first = np.arange(start, min(start + _ROWS_AT_ONCE, len(rows)))
        after = first[:, None] + np.arange(1, window + 1)  # [n, L]
        is_there = after < len(rows)
        after = np.where(is_there, after, 0)
        is_there &= users[after] == users[first][:, None]
        for index, level in enumerate(levels):
            origin, reached = fields[first, level.first][:, None], fields[after, level.second]
            kept = is_there & _is_first(reached) & (origin >= FIRST_VALUE_ID) & (reached >= FIRST_VALUE_ID)
            keys = transition_keys(index, origin.astype(np.int64), reached.astype(np.int64), snapshots[after])
            yield _count(keys[kept])
        for index, field in enumerate(counted_fields(levels), start=len(levels)):
            values = fields[first, field].astype(np.int64)
            keys = transition_keys(index, values, np.zeros_like(values), snapshots[first])
            yield _count(keys[values >= FIRST_VALUE_ID])


def add_counts(parts: Iterable[KeyCounts]) -> KeyCounts:
    """The sum of parts, in whatever order."""
    every = [*parts, KeyCounts(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    keys, inverse = np.unique(np.concatenate([part.keys for part in every]), return_inverse=True)
    counts = np.zeros(len(keys), np.int64)
    np.add.at(counts, inverse, np.concatenate([part.counts for part in every]))
    return KeyCounts(keys, counts)


def keep_most_frequent(added: KeyCounts, max_followers: int) -> KeyCounts:
    """The running totals of each pair of values, where it is among the F most frequent of its first value; 0 where it is not.

    The choice is made at each snapshot for itself, so that no later interaction has a part in what an earlier snapshot keeps; the lower
    id wins among equal counts.

    Args:
        added: what each snapshot adds, all of each first value's.
        max_followers: F.

    Returns:
        Totals under the keys of the snapshots in which they change.
    """
    pairs, pair_of = np.unique(added.keys // SNAPSHOT_RADIX, return_inverse=True)
    snapshot_of = added.keys % SNAPSHOT_RADIX
    groups = np.unique(pairs // VALUE_RADIX, return_inverse=True)[1]
    crowded = np.flatnonzero(np.bincount(groups)[groups] > max_followers)
    totals, shown = np.zeros(len(pairs), np.int64), np.zeros(len(pairs), np.int64)
    parts = []
    for snapshot in np.unique(snapshot_of).tolist():
        changed = snapshot_of == snapshot
        totals[pair_of[changed]] += added.counts[changed]
        visible = totals.copy()
        visible[crowded[~_is_top(groups[crowded], totals[crowded], max_followers)]] = 0
        moved = np.flatnonzero(visible != shown)
        parts.append(KeyCounts(pairs[moved] * SNAPSHOT_RADIX + snapshot, visible[moved]))
        shown = visible
    return add_counts(parts)


def only_transitions(counts: KeyCounts, num_levels: int) -> KeyCounts:
    """Those of the levels, without the values' own rows."""
    return counts.select(counts.keys // (SNAPSHOT_RADIX * VALUE_RADIX * VALUE_RADIX) < num_levels)


def sum_last(totals: KeyCounts) -> int:
    """The sum of all pairs' totals at the last snapshot, from what `keep_most_frequent` returns."""
    pairs = totals.keys // SNAPSHOT_RADIX
    is_last = np.append(pairs[1:] != pairs[:-1], True)[: len(pairs)]
    return int(totals.counts[is_last].sum())


def _is_first(values: np.ndarray) -> np.ndarray:
    """bool [n, L], False where a value stands in its row already."""
    order = np.argsort(values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=1)
    repeated = np.zeros(values.shape, bool)
    np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return ~repeated


def _is_top(groups: np.ndarray, counts: np.ndarray, number: int) -> np.ndarray:
    """bool [n], the highest counts of each group, of equal ones those that stand first."""
    order = np.lexsort((-counts, groups))
    ordered = groups[order]
    is_top = np.zeros(len(groups), bool)
    is_top[order] = np.arange(len(groups)) - np.searchsorted(ordered, ordered) < number
    return is_top


def _count(keys: np.ndarray) -> KeyCounts:
    return KeyCounts(*np.unique(keys, return_counts=True))
