"""The interaction log: every interaction of every user in one table, sorted by user, time and input order."""

import dataclasses
import functools

import numpy as np

from tf_lift.schema import FIRST_VALUE_ID
from tf_lift.segments import segment_lower_bound

NO_ROW = -1  # in the place of a row id where there is no row


@dataclasses.dataclass(frozen=True)
class InteractionLog:
    """All interactions, one row each; the row's number is its id (DESIGN.md section 3).

    Users are numbered by first appearance, so the rows of user index u (id u + FIRST_VALUE_ID) are
    `user_starts[u]:user_starts[u + 1]`. A position is a place between rows: position p of user u stands for "the rows of u
    before row r", and is numbered r + u + 1; position 0 is nobody's and stands for no rows at all.

    A row's time rank is its place in the order of (time, row id). Interactions that are all later than the log's shift row ids and
    positions, for they stand among the rows of their users; time ranks stay, so that what is kept on disk names rows by them.

    Attributes:
        fields: [N, M] int32 ids.
        time: [N] int64 epoch seconds.
        behaviour: [N] int8 class.
        synthetic: [N] bool, True for a sampled negative of the pool (protocol rim).
        user_starts: [U + 1] int64.
    """

    fields: np.ndarray
    time: np.ndarray
    behaviour: np.ndarray
    synthetic: np.ndarray
    user_starts: np.ndarray

    def __len__(self) -> int:
        return len(self.time)

    @property
    def num_users(self) -> int:
        """U."""
        return len(self.user_starts) - 1

    @property
    def num_positions(self) -> int:
        """Number of positions, the empty one among them."""
        return len(self) + self.num_users + 1

    def user_indices(self) -> np.ndarray:
        """int32 [N], the user index of every row."""
        return np.repeat(np.arange(self.num_users, dtype=np.int32), np.diff(self.user_starts))

    @functools.cached_property
    def time_order(self) -> np.ndarray:
        """int32 [N], the row id at each time rank."""
        return np.argsort(self.time, kind="stable").astype(np.int32)

    @functools.cached_property
    def times_in_order(self) -> np.ndarray:
        """int64 [N], the time at each time rank."""
        return self.time[self.time_order]

    @functools.cached_property
    def time_ranks(self) -> np.ndarray:
        """int32 [N], the time rank of each row: the inverse of `time_order`."""
        ranks = np.empty(len(self), np.int32)
        ranks[self.time_order] = np.arange(len(self), dtype=np.int32)
        return ranks

    def rows_before(self, user_ids: np.ndarray, times: np.ndarray) -> np.ndarray:
        """The end of each user's rows strictly before a time.

        Args:
            user_ids: [n] ids of the user field.
            times: [n] int64 epoch seconds.

        Returns:
            int64 [n], one past the user's last row before the time; 0 for a user without rows in the log.
        """
        known = (user_ids >= FIRST_VALUE_ID) & (user_ids < self.num_users + FIRST_VALUE_ID)
        index = np.where(known, user_ids - FIRST_VALUE_ID, 0)
        stops = np.where(known, self.user_starts[index + 1], self.user_starts[index])
        ends = segment_lower_bound(self.time, self.user_starts[index], stops, times)
        return np.where(known, ends, 0)

    def last_rows_before(self, user_ids: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Each user's last row strictly before a time: the end of its history.

        Args:
            user_ids: [n] ids of the user field.
            times: [n] int64 epoch seconds.

        Returns:
            int64 [n] row ids; NO_ROW for a user without rows before the time.
        """
        known = (user_ids >= FIRST_VALUE_ID) & (user_ids < self.num_users + FIRST_VALUE_ID)
        starts = self.user_starts[np.where(known, user_ids - FIRST_VALUE_ID, 0)]
        ends = self.rows_before(user_ids, times)
        return np.where(known & (ends > starts), ends - 1, NO_ROW)

    def positions_at(self, user_ids: np.ndarray, times: np.ndarray) -> np.ndarray:
        """The position of each user's history strictly before a time.

        Args:
            user_ids: [n] ids of the user field.
            times: [n] int64 epoch seconds.

        Returns:
            int64 [n]; 0 for a user without rows in the log.
        """
        known = (user_ids >= FIRST_VALUE_ID) & (user_ids < self.num_users + FIRST_VALUE_ID)
        return np.where(known, self.rows_before(user_ids, times) + user_ids - FIRST_VALUE_ID + 1, 0)

    def num_visible_future(
        self, rows: np.ndarray, user_indices: np.ndarray, times: np.ndarray, max_rows: int
    ) -> np.ndarray:
        """How many rows of its user follow each row and lie strictly before a time (the as-of rule, DESIGN.md section 4).

        Args:
            rows: [n] row ids.
            user_indices: [n] user index of each.
            times: [n] int64 as-of times.
            max_rows: L.

        Returns:
            int32 [n], from 0 to L.
        """
        first = rows.astype(np.int64) + 1
        stops = np.minimum(first + max_rows, self.user_starts[user_indices + 1])
        return (segment_lower_bound(self.time, first, stops, times) - first).astype(np.int32)

    def positions_of_rows(self, rows: np.ndarray, user_indices: np.ndarray) -> np.ndarray:
        """int64 [n], the position just before each row: its history."""
        return rows.astype(np.int64) + user_indices + 1

    def positions_around(self, rows: np.ndarray, length: int) -> np.ndarray:
        """Which positions the contexts of some rows may point at, whatever the as-of time.

        Args:
            rows: [n] row ids, of the retrieval pool.
            length: L.

        Returns:
            bool [P]: the position just before each row, and those just after its first to L-th next row of the same user.
        """
        user = np.searchsorted(self.user_starts, rows, side="right") - 1
        first = self.positions_of_rows(rows, user)
        stops = np.minimum(first + length + 1, self.user_starts[user + 1] + user + 1) + 1
        edges = np.bincount(first, minlength=self.num_positions + 1) - np.bincount(
            stops, minlength=self.num_positions + 1
        )
        return np.cumsum(edges)[:-1] > 0

    def windows_at(self, positions: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows that a position's state encodes.

        Args:
            positions: [n] positions.
            length: L.

        Returns:
            first row int64 [n] and number of rows int64 [n], at most L.
        """
        boundaries = self.user_starts[:-1] + np.arange(self.num_users) + 1  # each user's first position
        user = np.maximum(np.searchsorted(boundaries, positions, side="right") - 1, 0)
        stop = positions - user - 1
        first = np.maximum(stop - length, self.user_starts[user])
        return np.where(positions > 0, first, 0), np.where(positions > 0, stop - first, 0)
