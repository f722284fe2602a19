"""The log on disk comes back as it was, from any number of shards."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_lift.data import log_files
from tf_lift.data.log_files import read_log, write_log_shard


def draw_columns(num_rows: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "fields": rng.integers(0, 2**31 - 1, (num_rows, 3)).astype(np.int32),
        "time": rng.integers(-(2**40), 2**40, num_rows),
        "behaviour": rng.integers(0, 100, num_rows).astype(np.int8),
        "synthetic": rng.random(num_rows) < 0.5,
    }


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), max_size=4), max_size=4), st.integers(0, 2**31))
def test_shards_join_to_the_log(tmp_path_factory: pytest.TempPathFactory, shards: list[list[int]], seed: int) -> None:
    """`shards`: the numbers of rows of each shard's users, who may be none."""
    folder = tmp_path_factory.mktemp("log")
    counts = [count for shard in shards for count in shard]
    columns, first, paths = draw_columns(sum(counts), seed), 0, []
    for number, shard in enumerate(shards):
        part = {name: column[first : first + sum(shard)] for name, column in columns.items()}
        paths.append(folder / f"interactions-{number}.tfrecord")
        write_log_shard(paths[-1], part, np.array(shard, np.int64))
        first += sum(shard)
    log = read_log(paths, 3)
    for name, column in columns.items():
        read = getattr(log, name)
        np.testing.assert_array_equal(read, column)
        assert read.dtype == column.dtype
    np.testing.assert_array_equal(log.user_starts, np.cumsum([0, *counts]))
    assert len(log) == sum(counts) and log.num_users == len(counts)


def test_long_shards_are_cut_into_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_files, "_ROWS_PER_RECORD", 7)
    columns = draw_columns(20, 0)
    write_log_shard(tmp_path / "log", columns, np.array([5, 15]))
    np.testing.assert_array_equal(read_log([tmp_path / "log"], 3).fields, columns["fields"])
