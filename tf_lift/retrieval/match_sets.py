"""The sets of fields on which a pool row can agree with a target, and the hashes of their posting lists' keys."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from tf_lift.schema import FIRST_VALUE_ID

MAX_MATCH_SETS = 255  # all sets of 8 fields; of more fields, the sets of as many generators as this number allows
HASH_MULTIPLIER = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd
HASH_SHIFT = 32


@dataclasses.dataclass(frozen=True)
class MatchSets:
    """The S closed sets of query fields that have posting lists.

    A user determines its attributes and an item its own, so a set that holds the key field holds all that it determines, and
    only the set's generators, the fields that nothing else in it determines, make up a posting list's key.

    Attributes:
        sets: S tuples of field indices, each closed, smaller sets first.
        generators: S tuples of field indices.
        num_fields: M.
        determined: for a key field, the query fields whose value it determines.
        is_complete: whether these are all closed sets; if not, they are those of at most `depth` fields' closures.
        depth: how many fields it takes at most to generate one of the sets.
    """

    sets: tuple[tuple[int, ...], ...]
    generators: tuple[tuple[int, ...], ...]
    num_fields: int
    determined: Mapping[int, tuple[int, ...]]
    is_complete: bool
    depth: int

    def __len__(self) -> int:
        return len(self.sets)

    def membership(self) -> np.ndarray:
        """bool [S, M], True where a set holds a field."""
        table = np.zeros((len(self.sets), self.num_fields), bool)
        for index, fields in enumerate(self.sets):
            table[index, list(fields)] = True
        return table

    def set_of(self, field: int) -> int:
        """Index of the smallest set that holds a query field: the field with what it determines."""
        return next(index for index, fields in enumerate(self.generators) if fields == (field,))

    def query_fields(self) -> tuple[int, ...]:
        """Indices of the fields that take part in retrieval."""
        return tuple(sorted(set(itertools.chain.from_iterable(self.sets))))

    def check_determined(self, fields: np.ndarray) -> None:
        """Checks on the data that key fields determine what they are declared to.

        Args:
            fields: int32 [n, M] ids.

        Raises:
            ValueError: an id stands beside two values of a field that it should determine.
        """
        for key, others in self.determined.items():
            ids = fields[:, key]
            first = np.zeros(int(ids.max(initial=0)) + 1, np.int64)
            first[ids[::-1]] = np.arange(len(ids))[::-1]
            for other in others:
                bad = (ids >= FIRST_VALUE_ID) & (fields[first[ids], other] != fields[:, other])
                if bad.any():
                    row = int(np.flatnonzero(bad)[0])
                    raise ValueError(
                        f"Field {key} must determine field {other}: one value of it, one of the other. Received: id {int(ids[row])} "
                        f"with {int(fields[first[ids[row]], other])} in row {int(first[ids[row]])} and {int(fields[row, other])} in "
                        f"row {row}. Give the field the entity `context` if it varies."
                    )


def hash_values(values: np.ndarray) -> np.ndarray:
    """Hashes of keys: where their posting lists are looked for. What is found there is compared with the key itself.

    Args:
        values: integers [n, G] ids of the generators.

    Returns:
        uint64 [n].
    """
    mixed = np.zeros(len(values), np.uint64)
    for column in range(values.shape[1]):
        mixed ^= values[:, column].astype(np.uint64)
        mixed *= np.uint64(HASH_MULTIPLIER)
        mixed ^= mixed >> np.uint64(HASH_SHIFT)
    return mixed * np.uint64(HASH_MULTIPLIER)


def find_match_sets(query_fields: Sequence[int], num_fields: int, determined: Mapping[int, Sequence[int]]) -> MatchSets:
    """Enumerates the closed sets of query fields.

    Args:
        query_fields: indices of the fields that take part in retrieval, at most 255 of them.
        num_fields: M.
        determined: for a key field, the fields whose value it determines.

    Returns:
        The match sets, e.g. 26 of them for 6 fields of ML-1M instead of 63. Of 9 and more independent fields, only sets of
        as many generators as keep their number within `MAX_MATCH_SETS`; retrieval stays exact (`nearest.find_nearest`).
    """
    query = tuple(sorted(query_fields))
    if not 0 < len(query) <= MAX_MATCH_SETS:
        raise ValueError(
            f"From 1 to {MAX_MATCH_SETS} fields may take part in retrieval. Received: {len(query)}. Set `query` on the fields."
        )
    rules = {field: frozenset(determined.get(field, ())) & frozenset(query) - {field} for field in query}
    for _ in query:  # what a field determines determines more
        rules = {field: others.union(*(rules[other] for other in others)) for field, others in rules.items()}
    cyclic = [field for field, others in rules.items() if field in others]
    if cyclic:
        raise ValueError(
            f"A field must not determine itself by way of others. Received: {dict(determined)}, with which field {cyclic[0]} does."
        )
    closed: set[frozenset[int]] = set()
    depth = 0
    while depth < len(query):
        found = closed | {
            frozenset(fields).union(*(rules[field] for field in fields))
            for fields in itertools.combinations(query, depth + 1)
        }
        if len(found) > MAX_MATCH_SETS:
            break
        closed, depth = found, depth + 1
    sets = sorted((tuple(sorted(fields)) for fields in closed), key=lambda fields: (len(fields), fields))
    generators = [
        tuple(field for field in fields if not any(field in rules[other] for other in fields if other != field))
        for fields in sets
    ]
    return MatchSets(
        tuple(sets),
        tuple(generators),
        num_fields,
        {field: tuple(sorted(others)) for field, others in rules.items() if others},
        depth == len(query),
        depth,
    )
