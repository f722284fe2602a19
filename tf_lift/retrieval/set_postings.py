"""The posting lists of one match set: built from a slice of the pool's rows, merged, written and read."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import zstandard

from tf_lift.config import Retrieval
from tf_lift.retrieval.match_sets import MatchSets, hash_values
from tf_lift.schema import FIRST_VALUE_ID


@dataclasses.dataclass(frozen=True)
class SetPostings:
    """The posting lists of some keys of one match set, in the order of (hash, values).

    Attributes:
        values: int32 [U, G] the generators' ids of each key.
        counts: int32 [U] pool rows of each key.
        positives: int32 [U] how many of them have label 1.
        lengths: int32 [U] how many of them are listed: all in rolling mode, the newest that any target can need in static mode.
        ranks: int32 [sum of lengths] each key's listed rows as ranks in the pool's order, ascending.
        positive: bool of the same length, their labels.
        users: int32 of the same length, their users, if the own user is excluded; else empty.
    """

    values: np.ndarray
    counts: np.ndarray
    positives: np.ndarray
    lengths: np.ndarray
    ranks: np.ndarray
    positive: np.ndarray
    users: np.ndarray

    def select(self, keys: np.ndarray) -> "SetPostings":
        """The lists of some keys: bool [U]."""
        rows = np.repeat(keys, self.lengths)
        return SetPostings(
            self.values[keys],
            self.counts[keys],
            self.positives[keys],
            self.lengths[keys],
            self.ranks[rows],
            self.positive[rows],
            self.users[rows] if len(self.users) else self.users,
        )

    def num_bytes(self) -> int:
        """Bytes of the lists in narrow types: as they are written, and before they are compressed to be sent."""
        return sum(array.nbytes for array in self._pack())

    def __reduce__(self) -> tuple[Callable[..., "SetPostings"], tuple[bytes, list[tuple[str, tuple[int, ...]]]]]:
        """What is written, compressed: runners hold several copies of what they shuffle, and a quarter of the bytes is left."""
        arrays = self._pack()
        compressed = zstandard.compress(b"".join(map(_split_bytes, arrays)), 1)
        return _restore, (compressed, [(array.dtype.str, array.shape) for array in arrays])

    def _pack(self) -> tuple[np.ndarray, ...]:
        arrays = [self.values, self.lengths, self.ranks, self.users]
        if (self.counts != self.lengths).any():  # with all rows listed, counts and positives are those of the lists
            arrays += [self.counts, self.positives]
        return (np.packbits(self.positive), *map(_narrow, arrays))


def _narrow(array: np.ndarray) -> np.ndarray:
    return array.astype(np.min_scalar_type(int(array.max(initial=0))))


def _split_bytes(array: np.ndarray) -> bytes:
    """The lowest bytes of all numbers, then the next ones, column after column: alike beside alike, which compresses well."""
    return array.T.reshape(-1).view(np.uint8).reshape(-1, array.itemsize).T.tobytes()


def _restore(compressed: bytes, kinds: list[tuple[str, tuple[int, ...]]]) -> SetPostings:
    data, arrays = np.frombuffer(zstandard.decompress(compressed), np.uint8), []
    for kind, shape in kinds:
        size = math.prod(shape)
        planes, data = np.split(data, [size * np.dtype(kind).itemsize])
        numbers = np.ascontiguousarray(planes.reshape(-1, size).T if size else planes).view(kind)
        arrays.append(np.ascontiguousarray(numbers.reshape(shape[::-1]).T))
    return _unpack(*arrays)


def _unpack(
    positive_bits: np.ndarray,
    values: np.ndarray,
    lengths: np.ndarray,
    ranks: np.ndarray,
    users: np.ndarray,
    counts: np.ndarray | None = None,
    positives: np.ndarray | None = None,
) -> SetPostings:
    positive = np.unpackbits(positive_bits, count=len(ranks)).astype(bool)
    lengths = lengths.astype(np.int32)
    if counts is None or positives is None:
        counts = lengths
        before = np.concatenate([[0], np.cumsum(positive)])
        ends = np.cumsum(lengths, dtype=np.int64)
        positives = before[ends] - before[ends - lengths]
    values, counts, positives, ranks, users = (
        array.astype(np.int32) for array in (values, counts, positives, ranks, users)
    )
    return SetPostings(values, counts, positives, lengths, ranks, positive, users)


@dataclasses.dataclass(frozen=True)
class NewestRule:
    """Which rows of a key can be among the newest K that a target is given, in static mode.

    Without exclusion the newest K. With it: a row with K newer ones of its own user is never among the newest K of others, and of
    what remains the newest 2K hold K of any user's others. Both counts only grow with more rows, so that rows dropped
    from a slice of the pool are not needed in the whole: slices may be cut before they are merged.

    Attributes:
        num_neighbours: K.
        exclude_own_user: whether a target's neighbours are other users' rows.
    """

    num_neighbours: int
    exclude_own_user: bool

    def needed(self, keys: np.ndarray, users: np.ndarray) -> np.ndarray:
        """bool [n], which rows to keep.

        Args:
            keys: integers [n] ascending, which key each row has; the rows of a key are oldest first.
            users: int32 [n] their users, if the own user is excluded.
        """
        if not self.exclude_own_user:
            return _newest(keys, self.num_neighbours)
        by_user = np.lexsort((np.arange(len(keys)), users, keys))
        pairs = np.cumsum(np.r_[False, (np.diff(keys[by_user]) != 0) | (np.diff(users[by_user]) != 0)])
        kept = np.zeros(len(keys), bool)
        kept[by_user] = _newest(pairs, self.num_neighbours)
        kept[np.flatnonzero(kept)] = _newest(keys[kept], 2 * self.num_neighbours)
        return kept


def newest_rule(match_sets: MatchSets, rolling: bool, retrieval: Retrieval) -> NewestRule | None:
    """The rule of a configuration; None where a target may need any row: in rolling mode, and where some sets have no lists."""
    if rolling or not match_sets.is_complete:
        return None
    return NewestRule(retrieval.num_neighbours, retrieval.exclude_own_user)


def build_set_postings(
    values: np.ndarray, ranks: np.ndarray, positive: np.ndarray, users: np.ndarray, rule: NewestRule | None
) -> SetPostings:
    """Groups pool rows by key.

    Args:
        values: int32 [n, G] the generators' ids; a row with padding or an unknown value is in no list.
        ranks: int32 [n] ascending.
        positive: bool [n] labels.
        users: int32 [n] users if the own user is excluded, else empty.
        rule: which rows to keep; None: all.
    """
    usable = np.logical_and.reduce([column >= FIRST_VALUE_ID for column in values.T])
    if not usable.all():
        values, ranks, positive = values[usable], ranks[usable], positive[usable]
        users = users[usable] if len(users) else users
    order, first = _group_keys(values)
    counts = np.diff(np.append(first, len(order))).astype(np.int32)
    labels = positive[order]
    positives = np.add.reduceat(labels, first, dtype=np.int32) if len(first) else counts
    users = users[order] if len(users) else users
    return _cut(SetPostings(values[order[first]], counts, positives, counts, ranks[order], labels, users), rule)


def merge_set_postings(parts: Sequence[SetPostings], rule: NewestRule | None) -> SetPostings:
    """Merges the lists of consecutive slices of the pool, oldest slice first."""
    if len(parts) == 1:
        return _cut(parts[0], rule)
    joined = (
        np.concatenate([getattr(part, field.name) for part in parts]) for field in dataclasses.fields(SetPostings)
    )
    lists = SetPostings(*joined)
    order, first = _group_keys(lists.values)
    lengths = lists.lengths[order].astype(np.int64)
    starts = (np.cumsum(lists.lengths, dtype=np.int64) - lists.lengths)[order]
    # The place of every row: where its part's list starts, plus its number there.
    rows = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))
    counts, positives, lengths = (
        np.add.reduceat(array, first).astype(np.int32) if len(first) else array.astype(np.int32)
        for array in (lists.counts[order], lists.positives[order], lengths)
    )
    users = lists.users[rows] if len(lists.users) else lists.users
    return _cut(
        SetPostings(
            lists.values[order[first]], counts, positives, lengths, lists.ranks[rows], lists.positive[rows], users
        ),
        rule,
    )


def _cut(lists: SetPostings, rule: NewestRule | None) -> SetPostings:
    """Drops the rows that the rule does not keep."""
    if rule is None:
        return lists
    keys = np.repeat(np.arange(len(lists.lengths)), lists.lengths)
    kept = rule.needed(keys, lists.users)
    return dataclasses.replace(
        lists,
        lengths=np.bincount(keys[kept], minlength=len(lists.lengths)).astype(np.int32),
        ranks=lists.ranks[kept],
        positive=lists.positive[kept],
        users=lists.users[kept] if len(lists.users) else lists.users,
    )


def _group_keys(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int64 [n], the stable order of keys by (hash, values), and int64 [U], where in it each distinct key begins."""
    hashes = hash_values(values)
    # The first bits of a hash and the place in one number: NumPy sorts numbers much faster than it argsorts them stably.
    num_bits = np.uint64(max(len(hashes) - 1, 1).bit_length())
    packed = hashes >> num_bits << num_bits | np.arange(len(hashes), dtype=np.uint64)
    packed.sort()
    order = (packed & ((np.uint64(1) << num_bits) - np.uint64(1))).astype(np.int64)
    hashes = hashes[order]
    if (hashes[1:] < hashes[:-1]).any():  # hashes that differ in their last bits alone
        again = np.argsort(hashes, kind="stable")
        order, hashes = order[again], hashes[again]
    is_first = _find_changes(values, order)
    if (is_first[1:] & (hashes[1:] == hashes[:-1])).any():  # two keys of one hash: once in 2^64 pairs
        order = np.lexsort((*values.T[::-1], hash_values(values)))
        is_first = _find_changes(values, order)
    return order, np.flatnonzero(is_first)


def _find_changes(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """bool [n], True where a key is not the one before it in an order."""
    changes = np.ones(len(order), bool)
    changes[1:] = False
    for column in values.T:
        ids = column[order]
        changes[1:] |= ids[1:] != ids[:-1]
    return changes


def _newest(groups: np.ndarray, count: int) -> np.ndarray:
    """bool [n], the last `count` rows of each group; groups ascend."""
    ends = np.searchsorted(groups, groups, side="right")
    return ends - np.arange(len(groups)) <= count


def write_set_postings(postings: SetPostings, path: Path) -> None:
    """Writes lists as one `.npz` file."""
    np.savez(path, *postings._pack())


def read_set_postings(path: Path) -> SetPostings:
    """Reads what `write_set_postings` wrote."""
    with np.load(path) as file:
        return _unpack(*(file[f"arr_{index}"] for index in range(len(file.files))))
