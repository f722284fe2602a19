"""The transition tables and their lookup in NumPy: the reference of `graph`."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tf_lift.config import Relation
from tf_lift.schema import FIRST_VALUE_ID
from tf_lift.situation.levels import SNAPSHOT_RADIX, Level, counted_fields, transition_keys
from tf_lift.situation.transition_counts import KeyCounts


@dataclasses.dataclass(frozen=True)
class TransitionTable:
    """How often people went from one value to another, as of each of S snapshots.

    A total is kept under the key of the snapshot in which it came about, and holds until the pair's next one.

    Attributes:
        levels: what is counted.
        times: int64 [S] snapshots, ascending, epoch seconds.
        keys: int64 [E] ascending; the first is -1, so that every key has one that is not above it.
        counts: int32 [E] totals, 0 where a pair was cut from then on.
        value_counts: for each of `counted_fields`, int32 [V, S] the positive rows of each id.
    """

    levels: tuple[Level, ...]
    times: np.ndarray
    keys: np.ndarray
    counts: np.ndarray
    value_counts: tuple[np.ndarray, ...]

    def weights(
        self,
        history: np.ndarray,
        mask: np.ndarray,
        candidates: np.ndarray,
        times: np.ndarray,
        relations: Sequence[Relation],
    ) -> np.ndarray:
        """How strongly each candidate is tied to each row of the history, as of the newest snapshot that is not later than the request.

        With T[a, b] the rows of a that were followed by b, the future's weight is T[h, c] / sqrt(n_h n_c), the past's
        T[c, h] / sqrt(n_c n_h), where n counts the positive rows of a value; `any` is both added.

        Args:
            history: int32 [B, m, M].
            mask: bool [B, m], True where a row is real.
            candidates: int32 [B, C, M].
            times: int64 [B] of the requests, epoch seconds.
            relations: what to compute.

        Returns:
            float32 [B, C, m, R]: the relations of the first level, then those of the next.
        """
        snapshots = np.searchsorted(self.times, times, side="right") - 1
        weights = []
        for index, level in enumerate(self.levels):
            rows, seen = history[:, None], mask[:, None]  # [B, 1, m, M]
            ours = candidates[:, :, None]  # [B, C, 1, M]
            as_of = snapshots[:, None, None]
            future = self._weight(index, rows[..., level.first], ours[..., level.second], as_of) * seen
            past = self._weight(index, ours[..., level.first], rows[..., level.second], as_of) * seen
            by_name = {"future": future, "past": past, "any": future + past}
            weights += [by_name[name] for name in relations]
        return np.stack(weights, axis=-1).astype(np.float32)

    def totals(self, level: int, first: np.ndarray, second: np.ndarray, snapshots: np.ndarray) -> np.ndarray:
        """int64 transitions of pairs as of snapshots, of the arguments' common shape; 0 before the first snapshot, -1."""
        is_known = (first >= FIRST_VALUE_ID) & (second >= FIRST_VALUE_ID) & (snapshots >= 0)
        first, second = first.astype(np.int64), second.astype(np.int64)
        wanted = transition_keys(level, first, second, np.maximum(snapshots, 0))
        places = np.searchsorted(self.keys, wanted, side="right") - 1
        is_found = self.keys[places] // SNAPSHOT_RADIX == wanted // SNAPSHOT_RADIX
        return np.where(is_known & is_found, self.counts[places], 0).astype(np.int64)

    def _weight(self, index: int, first: np.ndarray, second: np.ndarray, snapshots: np.ndarray) -> np.ndarray:
        level = self.levels[index]
        totals = self.totals(index, first, second, snapshots).astype(np.float32)
        rows = self._rows_of(level.first, first, snapshots) * self._rows_of(level.second, second, snapshots)
        return totals / np.sqrt(np.maximum(rows, 1.0), dtype=np.float32)

    def _rows_of(self, field: int, values: np.ndarray, snapshots: np.ndarray) -> np.ndarray:
        """float32 positive rows of values."""
        table = self.value_counts[counted_fields(self.levels).index(field)]
        return table[values, np.maximum(snapshots, 0)].astype(np.float32)


def build_transition_table(
    levels: tuple[Level, ...], times: np.ndarray, totals: KeyCounts, num_ids: Sequence[int]
) -> TransitionTable:
    """Sorts totals into a table.

    Args:
        levels: what was counted.
        times: int64 [S] snapshots.
        totals: what `keep_most_frequent` returned, of all keys, in any order.
        num_ids: M numbers of ids.
    """
    order = np.argsort(totals.keys)
    keys, counts = totals.keys[order], totals.counts[order].astype(np.int32)
    fields = counted_fields(levels)
    bounds = transition_keys(np.arange(len(fields) + 1) + len(levels), 0, 0, 0)
    edges = np.searchsorted(keys, bounds)
    value_counts = []
    for index, field in enumerate(fields):
        part = slice(edges[index], edges[index + 1])
        values = (keys[part] - bounds[index]) // transition_keys(0, 1, 0, 0)
        table = np.zeros((num_ids[field], len(times)), np.int32)
        table[values, keys[part] % SNAPSHOT_RADIX] = counts[part]
        value_counts.append(np.maximum.accumulate(table, axis=1))
    kept = slice(0, edges[0])
    return TransitionTable(
        levels,
        times,
        np.concatenate([[-1], keys[kept]]).astype(np.int64),
        np.concatenate([[0], counts[kept]]).astype(np.int32),
        tuple(value_counts),
    )
