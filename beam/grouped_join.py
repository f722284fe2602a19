"""Targets and pool rows joined by key, for pools whose posting lists no worker could hold.

    candidates -> distinct keys that ask -> (grouped with the keys' posting lists) answers -> (grouped by batch) neighbours

Every key that a batch of targets asks for travels once, whatever its number of candidates.
"""

import dataclasses

import numpy as np

from tf_lift.config import Retrieval
from tf_lift.interactions import NO_ROW
from tf_lift.retrieval.bm25 import score_from_units
from tf_lift.retrieval.match_sets import MatchSets, hash_values
from tf_lift.retrieval.newest_lists import merge_newest, score_sets
from tf_lift.retrieval.posting_lists import Neighbours
from tf_lift.retrieval.set_postings import SetPostings
from tf_lift.schema import FIRST_VALUE_ID
from tf_lift.segments import segment_lower_bound

_PLACES_AT_ONCE = 1 << 22  # of lists that are read together: bounds the memory where an own user's rows are passed over


@dataclasses.dataclass(frozen=True)
class KeyQueries:
    """The distinct keys of one match set that a batch asks for, or some of them.

    Attributes:
        batch: first row id of the batch.
        set_index: the match set.
        places: int32 [q] numbers among the batch's distinct keys of the set.
        values: int32 [q, G].
        visible: int64 [q] how many rows of the pool's order each may see.
        users: int32 [q] whose rows are excluded; empty if nobody's.
        num_wanted: how many rows each key wants: K, or 0 where all its rows are the excluded user's.
    """

    batch: int
    set_index: int
    places: np.ndarray
    values: np.ndarray
    visible: np.ndarray
    users: np.ndarray
    num_wanted: int

    def select(self, chosen: np.ndarray) -> "KeyQueries":
        """Some of the keys: bool [q]."""
        users = self.users[chosen] if len(self.users) else self.users
        places, values, visible = self.places[chosen], self.values[chosen], self.visible[chosen]
        return KeyQueries(self.batch, self.set_index, places, values, visible, users, self.num_wanted)

    def num_bytes(self) -> int:
        """Bytes of all arrays."""
        return self.places.nbytes + self.values.nbytes + self.visible.nbytes + self.users.nbytes


@dataclasses.dataclass(frozen=True)
class KeyAnswers:
    """What posting lists answer to `KeyQueries`; keys without rows are left out.

    Attributes:
        set_index: the match set.
        places: int32 [a] as in the queries.
        counts: int32 [a] visible rows of each key.
        positives: int32 [a] how many of them have label 1.
        lengths: int32 [a] how many rows follow, at most K.
        ranks: int32 [sum of lengths] the newest rows of each key, newest first.
    """

    set_index: int
    places: np.ndarray
    counts: np.ndarray
    positives: np.ndarray
    lengths: np.ndarray
    ranks: np.ndarray

    def num_bytes(self) -> int:
        """Bytes of all arrays."""
        arrays = (self.places, self.counts, self.positives, self.lengths, self.ranks)
        return sum(array.nbytes for array in arrays)


@dataclasses.dataclass(frozen=True)
class DistinctKeys:
    """The distinct keys of one match set among n candidates.

    Attributes:
        first: int64 [q] a candidate that has each key.
        inverse: int64 [n] the key of each candidate, -1 where a generator is padding or unknown.
    """

    first: np.ndarray
    inverse: np.ndarray


def find_distinct_keys(
    fields: np.ndarray, visible: np.ndarray, users: np.ndarray, generators: tuple[int, ...]
) -> DistinctKeys:
    """Finds what a set has to be asked: distinct (values, visible rows, excluded user).

    Args:
        fields: int32 [n, M] candidates.
        visible: int64 [n].
        users: int32 [n], or empty if nobody is excluded.
        generators: of the set.
    """
    usable = np.flatnonzero((fields[:, list(generators)] >= FIRST_VALUE_ID).all(axis=1))
    columns = [fields[usable, field].astype(np.int64) for field in generators]
    columns.append(visible[usable])
    if len(users):
        columns.append(users[usable].astype(np.int64))
    table = np.stack(columns, axis=1)
    _, first, inverse = np.unique(hash_values(table), return_index=True, return_inverse=True)
    if (table[first[inverse]] != table).any():  # two keys of one hash
        _, first, inverse = np.unique(table, axis=0, return_index=True, return_inverse=True)
    whole = np.full(len(fields), -1, np.int64)
    whole[usable] = inverse.reshape(-1)
    return DistinctKeys(usable[first], whole)


def build_queries(
    batch: int,
    fields: np.ndarray,
    visible: np.ndarray,
    users: np.ndarray,
    match_sets: MatchSets,
    num_neighbours: int,
    user_field: int,
) -> list[KeyQueries]:
    """What a batch asks of every match set.

    Args:
        batch: its first row id.
        fields: int32 [n, M] candidates.
        visible: int64 [n] pool rows that each may see.
        users: int32 [n] users whose rows are excluded, or empty.
        match_sets: the S match sets.
        num_neighbours: K.
        user_field: index of the user field.
    """
    queries = []
    for set_index, generators in enumerate(match_sets.generators):
        first = find_distinct_keys(fields, visible, users, generators).first
        queries.append(
            KeyQueries(
                batch,
                set_index,
                np.arange(len(first), dtype=np.int32),
                fields[first][:, list(generators)],
                visible[first],
                users[first] if len(users) else users,
                0 if len(users) and user_field in generators else num_neighbours,
            )
        )
    return queries


def answer_queries(postings: SetPostings, queries: KeyQueries) -> KeyAnswers:
    """Looks keys up in the posting lists of their part.

    Rows that the lists lack, because newer ones of theirs are all that anybody needs, are older than those listed.
    """
    keys = _find_keys(postings, queries.values)
    found = np.flatnonzero(keys >= 0)
    keys = keys[found]
    ends = np.cumsum(postings.lengths, dtype=np.int64)
    starts = ends[keys] - postings.lengths[keys]
    stops = segment_lower_bound(postings.ranks, starts, ends[keys], queries.visible[found])
    before = np.concatenate([[0], np.cumsum(postings.positive)])
    positives = postings.positives[keys] - (before[ends[keys]] - before[stops])
    counts = postings.counts[keys] - (ends[keys] - stops)
    users = queries.users[found] if len(queries.users) else None
    lengths, ranks = _read_newest(postings, starts, stops, queries.num_wanted, users)
    kept = counts > 0
    rows = np.repeat(kept, lengths)
    return KeyAnswers(
        queries.set_index,
        queries.places[found][kept],
        counts[kept].astype(np.int32),
        positives[kept].astype(np.int32),
        lengths[kept].astype(np.int32),
        ranks[rows],
    )


def _find_keys(postings: SetPostings, values: np.ndarray) -> np.ndarray:
    """int64 [q], the place of each key among those of the lists, -1 where it has none."""
    hashes, wanted = hash_values(postings.values), hash_values(values)
    first, last = np.searchsorted(hashes, wanted, side="left"), np.searchsorted(hashes, wanted, side="right")
    keys = np.full(len(values), -1, np.int64)
    for offset in range(int((last - first).max(initial=0))):  # more than one only where keys share a hash
        place = np.minimum(first + offset, max(len(hashes) - 1, 0))
        same = (first + offset < last) & (postings.values[place] == values).all(axis=1)
        keys[same] = place[same]
    return keys


def _read_newest(
    postings: SetPostings, starts: np.ndarray, stops: np.ndarray, k: int, own_users: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers int64 [q] and ranks int32 of the newest K rows of each span, newest first, without those of the own users."""
    lists: list[np.ndarray] = [np.zeros(0, np.int32)] * len(starts)
    pending, width = np.flatnonzero((stops > starts) & (k > 0)), k
    while len(pending):
        at_once = max(1, _PLACES_AT_ONCE // width)
        left = []
        for first in range(0, len(pending), at_once):
            part = pending[first : first + at_once]
            places = stops[part][:, None] - 1 - np.arange(width)
            kept = places >= starts[part][:, None]
            ranks = postings.ranks[np.maximum(places, 0)]
            if own_users is not None:
                kept &= postings.users[np.maximum(places, 0)] != own_users[part][:, None]
            kept &= np.cumsum(kept, axis=1) <= k
            done = (kept.sum(axis=1) == k) | (stops[part] - starts[part] <= width)
            for index in np.flatnonzero(done).tolist():
                lists[part[index]] = ranks[index][kept[index]]
            left.append(part[~done])
        pending, width = np.concatenate(left), 4 * width
    return np.array([len(part) for part in lists], np.int64), np.concatenate([np.zeros(0, np.int32), *lists])


def merge_answers(
    answers: list[KeyAnswers],
    fields: np.ndarray,
    visible: np.ndarray,
    users: np.ndarray,
    match_sets: MatchSets,
    retrieval: Retrieval,
    rank_to_row: np.ndarray,
    statistics: tuple[int, ...],
) -> Neighbours:
    """The neighbours of a batch's candidates, as `PostingLists.nearest`.

    Args:
        answers: to what `build_queries` asked with the same candidates.
        fields: int32 [n, M].
        visible: int64 [n].
        users: int32 [n], or empty.
        match_sets: the S match sets.
        retrieval: K and the idf.
        rank_to_row: int32 [N].
        statistics: the match sets whose rows are counted.
    """
    shape = (len(fields), len(match_sets))
    counts, positives, starts, stops = (np.zeros(shape, np.int64) for _ in range(4))
    newest = [np.zeros(0, np.int32)]
    num_newest = 0
    for set_index, generators in enumerate(match_sets.generators):
        inverse = find_distinct_keys(fields, visible, users, generators).inverse
        table = np.zeros((int(inverse.max(initial=-1)) + 2, 4), np.int64)  # the last row is that of no key
        for answer in (answer for answer in answers if answer.set_index == set_index):
            ends = np.cumsum(answer.lengths, dtype=np.int64) + num_newest
            table[answer.places] = np.stack([answer.counts, answer.positives, ends - answer.lengths, ends], axis=1)
            newest.append(answer.ranks)
            num_newest += len(answer.ranks)
        for place, column in enumerate((counts, positives, starts, stops)):
            column[:, set_index] = table[inverse, place]
    units = score_sets(match_sets, counts, visible, retrieval.idf)
    ranks, scores = merge_newest(np.concatenate(newest), starts, stops, units, retrieval.num_neighbours)
    chosen = list(statistics)
    return Neighbours(
        np.where(ranks >= 0, rank_to_row[ranks], NO_ROW).astype(np.int32),
        score_from_units(scores),
        counts[:, chosen].astype(np.int32),
        positives[:, chosen].astype(np.int32),
    )
