"""The log's pointers against a scan of its rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_lift.data.log_files import read_log, write_log_shard
from tf_lift.data.windows import read_windows, write_windows
from tf_lift.interactions import NO_ROW, InteractionLog
from tf_lift.schema import FIRST_VALUE_ID
from tf_lift.segments import segment_lower_bound


@st.composite
def logs(draw):
    """A log of a few users, each with at least one row, and many equal times."""
    counts = draw(st.lists(st.integers(1, 7), min_size=1, max_size=6))
    times = [sorted(draw(st.lists(st.integers(0, 5), min_size=count, max_size=count))) for count in counts]
    users = np.repeat(np.arange(len(counts)), counts) + FIRST_VALUE_ID
    num_rows = len(users)
    return InteractionLog(
        np.stack([users, np.arange(num_rows)], axis=1).astype(np.int32),
        np.concatenate(times).astype(np.int64),
        np.arange(num_rows).astype(np.int8),
        np.arange(num_rows) % 3 == 0,
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )


def own_rows(log, user_id):
    return np.flatnonzero(log.fields[:, 0] == user_id).tolist()


@settings(max_examples=200, deadline=None)
@given(logs(), st.integers(1, 8))
def test_positions_equal_a_scan(log, length):
    users = np.repeat(np.arange(0, log.num_users + 5), 8)  # padding, unknown and users beyond the log among them
    times = np.tile(np.arange(-1, 7), log.num_users + 5)
    ends, positions = log.rows_before(users, times), log.positions_at(users, times)
    last = log.last_rows_before(users, times)
    first, count = log.windows_at(positions, length)
    for index, (user, time) in enumerate(zip(users.tolist(), times.tolist(), strict=True)):
        own = own_rows(log, user)
        before = [row for row in own if log.time[row] < time]
        assert last[index] == (before[-1] if before else NO_ROW)
        if not own:
            assert (ends[index], positions[index]) == (0, 0)
        else:
            assert ends[index] == own[0] + len(before)
            assert positions[index] == own[0] + len(before) + user - FIRST_VALUE_ID + 1
        window = list(range(first[index], first[index] + count[index]))
        assert window == before[-length:]
    assert log.num_positions == len(log) + log.num_users + 1


@settings(max_examples=200, deadline=None)
@given(logs(), st.integers(1, 8))
def test_visible_futures_equal_a_scan(log, length):
    rows = np.repeat(np.arange(len(log)), 8)
    times = np.tile(np.arange(-1, 7), len(log))
    users = log.user_indices()
    assert (users == log.fields[:, 0] - FIRST_VALUE_ID).all()
    found = log.num_visible_future(rows, users[rows], times, length)
    assert found.dtype == np.int32
    for row, time, count in zip(rows.tolist(), times.tolist(), found.tolist(), strict=True):
        later = [other for other in own_rows(log, log.fields[row, 0]) if other > row]
        assert count == sum(log.time[other] < time for other in later[:length])


@settings(max_examples=100, deadline=None)
@given(logs(), st.integers(1, 8), st.data())
def test_positions_around_rows_are_those_that_contexts_point_at(log, length, data):
    rows = np.array(data.draw(st.lists(st.integers(0, len(log) - 1), unique=True)), np.int64)
    users = log.user_indices()
    needed = np.zeros(log.num_positions, bool)
    for time in range(-1, 8):
        futures = log.num_visible_future(rows, users[rows], np.full(len(rows), time), length)
        before = log.positions_of_rows(rows, users[rows])
        needed[before] = needed[(before + 1 + futures)[futures > 0]] = True
    around = log.positions_around(rows, length)
    assert not (needed & ~around).any()
    places = {
        row + user + 1 + step
        for row in rows
        for user in [users[row]]
        for step in range(length + 2)
        if row + step <= log.user_starts[user + 1]
    }
    assert set(np.flatnonzero(around)) == places


@settings(max_examples=100, deadline=None)
@given(logs(), st.integers(1, 8))
def test_the_position_before_a_row_is_its_history(log, length):
    rows = np.arange(len(log))
    positions = log.positions_of_rows(rows, log.user_indices())
    assert len(set(positions.tolist())) == len(rows) and positions.min() > 0
    first, count = log.windows_at(positions, length)
    for row in rows.tolist():
        before = [other for other in own_rows(log, log.fields[row, 0]) if other < row]
        assert list(range(first[row], first[row] + count[row])) == before[-length:]
    last = log.user_starts[1:] + np.arange(log.num_users) + 1
    first, count = log.windows_at(last, length)
    assert (first + count).tolist() == log.user_starts[1:].tolist()


@settings(max_examples=200, deadline=None)
@given(logs())
def test_time_order_is_by_time_then_row(log):
    assert log.time_order.tolist() == sorted(range(len(log)), key=lambda row: (log.time[row], row))
    assert log.time_ranks[log.time_order].tolist() == list(range(len(log)))
    assert log.time_order.dtype == log.time_ranks.dtype == np.int32


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=6), st.integers(-1, 10))
def test_segment_lower_bound_equals_searchsorted(segments, bound):
    segments = [sorted(segment) for segment in segments]
    stops = np.cumsum([len(segment) for segment in segments])
    starts = np.concatenate([[0], stops[:-1]])
    values = np.concatenate([np.array(segment, np.int64) for segment in segments])
    found = segment_lower_bound(values, starts, stops, np.full(len(segments), bound))
    assert (found - starts).tolist() == [int(np.searchsorted(segment, bound)) for segment in segments]


@settings(max_examples=20, deadline=None)
@given(logs(), st.integers(1, 3))
def test_shards_read_back_as_the_log(tmp_path_factory, log, num_shards):
    folder = tmp_path_factory.mktemp("log")
    edges = np.linspace(0, log.num_users, num_shards + 1).astype(int)
    for shard in range(num_shards):
        rows = slice(log.user_starts[edges[shard]], log.user_starts[edges[shard + 1]])
        columns = {name: getattr(log, name)[rows] for name in ("fields", "time", "behaviour", "synthetic")}
        write_log_shard(
            folder / f"{shard}.tfrecord", columns, np.diff(log.user_starts)[edges[shard] : edges[shard + 1]]
        )
    read = read_log(sorted(folder.iterdir()), 2)
    for name in ("fields", "time", "behaviour", "synthetic", "user_starts"):
        np.testing.assert_array_equal(getattr(read, name), getattr(log, name))
        assert getattr(read, name).dtype == getattr(log, name).dtype


@pytest.mark.parametrize("num_rows", [0, 1, 65_537])
def test_large_and_empty_logs_and_windows_read_back(tmp_path, num_rows):
    columns = {
        "fields": np.arange(3 * num_rows, dtype=np.int32).reshape(-1, 3),
        "time": np.arange(num_rows, dtype=np.int64),
        "behaviour": (np.arange(num_rows) % 5).astype(np.int8),
        "synthetic": np.arange(num_rows) % 2 == 1,
    }
    write_log_shard(tmp_path / "log.tfrecord", columns, np.array([num_rows]))
    read = read_log([tmp_path / "log.tfrecord"], 3)
    for name, values in columns.items():
        np.testing.assert_array_equal(getattr(read, name), values)
    write_windows(tmp_path / "windows.tfrecord", columns["time"], columns["time"] + 1)
    first, count = read_windows(tmp_path / "windows.tfrecord")
    np.testing.assert_array_equal(first, columns["time"])
    np.testing.assert_array_equal(count, columns["time"] + 1)
