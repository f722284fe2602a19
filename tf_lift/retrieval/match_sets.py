"""The sets of fields on which a pool row can agree with a target, and the keys of their posting lists."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from tf_lift.schema import FIRST_VALUE_ID

NO_KEY = -1


@dataclasses.dataclass(frozen=True)
class MatchSets:
    """The S closed sets of query fields.

    A user determines its attributes and an item its own, so a set that holds the key field holds all that it determines, and
    only the set's generators, the fields that nothing else in it determines, need to be in a posting list's key. A key is its
    set's offset plus the generators' ids in mixed radix: no two (set, values) share a key, so nothing need be verified.

    Attributes:
        sets: S tuples of field indices, each closed, smaller sets first.
        generators: S tuples of field indices.
        num_ids: M numbers of ids, the radix of each field.
    """

    sets: tuple[tuple[int, ...], ...]
    generators: tuple[tuple[int, ...], ...]
    num_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        if sum(self.key_space(index) for index in range(len(self))) >= 1 << 63:
            raise ValueError(
                "The keys of all posting lists must fit in 63 bits. Received: match sets "
                f"{self.generators} over fields of {self.num_ids} ids. Set `query = false` on some of the fields."
            )

    def __len__(self) -> int:
        return len(self.sets)

    def key_space(self, set_index: int) -> int:
        """Number of different keys that a set can have."""
        return math.prod(self.num_ids[field] for field in self.generators[set_index])

    def offset(self, set_index: int) -> int:
        """The first key of a set."""
        return sum(self.key_space(index) for index in range(set_index))

    def membership(self) -> np.ndarray:
        """bool [S, M], True where a set holds a field."""
        table = np.zeros((len(self.sets), len(self.num_ids)), bool)
        for index, fields in enumerate(self.sets):
            table[index, list(fields)] = True
        return table

    def set_of(self, field: int) -> int:
        """Index of the smallest set that holds a query field: the field with what it determines."""
        return next(index for index, fields in enumerate(self.sets) if field in fields)

    def query_fields(self) -> tuple[int, ...]:
        """Indices of the fields that take part in retrieval."""
        return tuple(sorted(set(itertools.chain.from_iterable(self.sets))))

    def keys(self, fields: np.ndarray, set_index: int) -> np.ndarray:
        """Keys of one set.

        Args:
            fields: [n, M] ids.
            set_index: which set.

        Returns:
            int64 [n]; NO_KEY where a generator's id is padding, unknown, or beyond the vocabulary.
        """
        key = np.zeros(len(fields), np.int64)
        usable = np.ones(len(fields), bool)
        for field in self.generators[set_index]:
            ids = fields[:, field].astype(np.int64)
            usable &= (ids >= FIRST_VALUE_ID) & (ids < self.num_ids[field])
            key = key * self.num_ids[field] + ids
        return np.where(usable, key + self.offset(set_index), NO_KEY)


def find_match_sets(
    query_fields: Sequence[int], num_ids: Sequence[int], determined: Mapping[int, Sequence[int]]
) -> MatchSets:
    """Enumerates the closed sets of query fields.

    Args:
        query_fields: indices of the fields that take part in retrieval.
        num_ids: M numbers of ids.
        determined: for a key field, the fields whose value it determines.

    Returns:
        The match sets, e.g. 26 of them for ML-1M's 6 fields instead of 63.
    """
    query = tuple(sorted(query_fields))
    rules = {field: frozenset(determined.get(field, ())) & frozenset(query) for field in query}
    closed = set()
    for size in range(1, len(query) + 1):
        for fields in itertools.combinations(query, size):
            closed.add(frozenset(fields).union(*(rules[field] for field in fields)))
    sets = sorted((tuple(sorted(fields)) for fields in closed), key=lambda fields: (len(fields), fields))
    generators = [
        tuple(field for field in fields if not any(field in rules[other] for other in fields if other != field))
        for fields in sets
    ]
    return MatchSets(tuple(sets), tuple(generators), tuple(int(count) for count in num_ids))
