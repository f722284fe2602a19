"""Time ranks back to rows and positions of the log."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_lift.data.row_references import RowReferences, build_row_references
from tf_lift.interactions import NO_ROW, InteractionLog
from tf_lift.schema import FIRST_VALUE_ID

RANKS = ("rank", "history_rank", "neighbour_ranks")


def build_log(user_to_times: list[list[int]]) -> InteractionLog:
    times = [sorted(times) for times in user_to_times]
    counts = [len(own) for own in times]
    users = np.repeat(np.arange(len(counts)), counts) + FIRST_VALUE_ID
    return InteractionLog(
        users[:, None].astype(np.int32),
        np.concatenate(times).astype(np.int64),
        np.zeros(len(users), np.int8),
        np.zeros(len(users), bool),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )


LOG = build_log([[3, 5, 5], [0], [1, 5]])  # rows by time: 3, 4, 0, 1, 2, 5
LOGS = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=7), min_size=1, max_size=6).map(build_log)


def resolve(references: RowReferences, rank: object, history_rank: object, neighbours: object) -> dict[str, np.ndarray]:
    parsed = dict(
        zip(
            RANKS,
            (tf.constant(rank, tf.int64), tf.constant(history_rank, tf.int64), tf.constant(neighbours, tf.int32)),
            strict=True,
        )
    )
    resolved = tf.function(references.resolve)(parsed | {"label": tf.ones([2, 3])})
    return {name: value.numpy() for name, value in resolved.items()}


def test_ranks_of_a_small_log() -> None:
    found = resolve(build_row_references(LOG), [0, 5, -1], [4, 1, -1], [[[2, -1], [3, 0]]])
    assert found["row"].tolist() == [3, 5, NO_ROW]
    assert found["history_position"].tolist() == [4, 8, 0]  # all of user 0's rows, and one of user 2's
    assert found["neighbour_rows"].tolist() == [[[0, NO_ROW], [1, 3]]]


def test_names_and_types_are_the_models() -> None:
    found = resolve(build_row_references(LOG), [0], [-1], [[[0]]])
    assert {name: value.dtype for name, value in found.items()} == {
        "row": np.int64,
        "history_position": np.int64,
        "neighbour_rows": np.int32,
        "label": np.float32,
    }


def test_tables_may_be_variables() -> None:
    constants = build_row_references(LOG)
    variables = RowReferences(tf.Variable(constants.time_order), tf.Variable(constants.user_starts))
    asked = (np.arange(-1, 6), np.arange(-1, 6), np.arange(-1, 6).reshape(7, 1, 1))
    for name, expected in resolve(constants, *asked).items():
        np.testing.assert_array_equal(resolve(variables, *asked)[name], expected)


def test_ranks_beyond_the_log_are_an_error() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"= 6 is not in \[0, 6\)"):
        resolve(build_row_references(LOG), [6], [-1], [[[-1]]])


@settings(max_examples=40, deadline=None)
@given(LOGS)
def test_every_row_and_history_comes_back(log: InteractionLog) -> None:
    users = np.repeat(np.arange(log.num_users) + FIRST_VALUE_ID, 8)
    times = np.tile(np.arange(-1, 7), log.num_users)
    last = log.last_rows_before(users, times)
    history_ranks = np.where(last != NO_ROW, log.time_ranks[last], -1)
    found = resolve(build_row_references(log), log.time_ranks, history_ranks, log.time_ranks[None, :, None])
    assert found["row"].tolist() == found["neighbour_rows"].ravel().tolist() == list(range(len(log)))
    positions = np.where(last != NO_ROW, log.positions_at(users, times), 0)
    assert found["history_position"].tolist() == positions.tolist()
    # A position before a user's first row and position 0 both stand for no rows.
    for window, expected in zip(
        log.windows_at(found["history_position"], 3), log.windows_at(log.positions_at(users, times), 3), strict=True
    ):
        np.testing.assert_array_equal(window[last != NO_ROW], expected[last != NO_ROW])
    assert not log.windows_at(log.positions_at(users, times), 3)[1][last == NO_ROW].any()
