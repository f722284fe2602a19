"""The interaction log: its order, its entities' attributes, and the pool's negatives of protocol rim."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam.build_log import shard_of_users, write_shard
from beam.interaction_batch import EncodedBatch, build_entity_table, distinct_tuples
from tf_lift.config import Behaviour, Config, Negatives, Pipeline, Source
from tf_lift.data.dataset_info import Boundaries
from tf_lift.data.log_files import read_log
from tf_lift.schema import FIRST_VALUE_ID, Field

FIELDS = (Field("item", "item", key=True), Field("genre", "item"), Field("user", "user", key=True))
ITEM_TABLE = np.array([[2, 5, 0], [3, 6, 0], [4, 5, 0]], np.int32)
USER_TABLE = np.array([[0, 0, 2], [0, 0, 3], [0, 0, 4]], np.int32)
BOUNDARIES = Boundaries(50, 60, 70)


def build_config(**negatives) -> Config:
    return Config(
        "small",
        Source(("log.csv",)),
        FIELDS,
        behaviour=Behaviour() if negatives else Behaviour("column", "label"),
        negatives=Negatives(**negatives),
        pipeline=Pipeline(num_shards=2),
    )


def random_batch(seed: int, num_rows: int) -> EncodedBatch:
    rng = np.random.default_rng(seed)
    item, user = rng.integers(2, 5, num_rows), rng.integers(2, 4, num_rows)
    fields = np.stack([item, np.where(item == 3, 6, 5), user], axis=1).astype(np.int32)
    return EncodedBatch(
        fields,
        rng.integers(0, 9, num_rows) * 10,
        rng.integers(0, 2, num_rows).astype(np.int8),
        rng.integers(0, 3, num_rows).astype(np.int32),
        rng.permutation(num_rows).astype(np.int64),
    )


def cut(batch: EncodedBatch, seed: int, num_parts: int) -> list[EncodedBatch]:
    """The rows in another order and in several batches."""
    rows = np.array_split(np.random.default_rng(seed).permutation(len(batch.time)), num_parts)
    return [
        EncodedBatch(
            batch.fields[part], batch.time[part], batch.behaviour[part], batch.file_index[part], batch.line[part]
        )
        for part in rows
    ]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 40), st.integers(1, 5))
def test_rows_are_sorted_by_user_time_file_and_line_whatever_the_batches(tmp_path_factory, seed, num_rows, num_parts):
    path = tmp_path_factory.mktemp("log") / "0.tfrecord"
    batch = random_batch(seed, num_rows)
    tables = {"item": ITEM_TABLE, "user": USER_TABLE}
    counts = write_shard(0, cut(batch, seed, num_parts), build_config(), BOUNDARIES, tables, path)
    assert counts == {"rows": num_rows, "synthetic": 0, "conflicts": 0}
    log = read_log([path], 3)
    order = sorted(
        range(num_rows), key=lambda row: (batch.fields[row, 2], batch.time[row], batch.file_index[row], batch.line[row])
    )
    np.testing.assert_array_equal(log.fields, batch.fields[order])
    np.testing.assert_array_equal(log.time, batch.time[order])
    np.testing.assert_array_equal(log.behaviour, batch.behaviour[order])
    assert np.diff(log.user_starts).tolist() == [(batch.fields[:, 2] == user).sum() for user in (2, 3)]  # shard 0 of 2


def test_the_log_of_a_data_set_is_the_file_sorted(kit):
    log, output = kit.base("rolling", "none")
    first = {}
    for user, time in zip(log.user.tolist(), log.time.tolist(), strict=True):
        first[user] = min(first.get(user, time), time)
    order = sorted(range(len(log)), key=lambda row: (first[log.user[row]], f"u{log.user[row]}", log.time[row], row))
    expected = [
        (f"u{log.user[row]}", f"i{log.item[row]}", f"c{log.channel[row]}", log.time[row], int(log.rating[row] >= 4))
        for row in order
    ]
    assert [(row[0], row[2], row[5], row[6], row[7]) for row in output.row_contents] == expected


@pytest.mark.parametrize("per_pool_row", [1, 2])
def test_pool_negatives_stand_beside_their_row_in_a_drawn_order(kit, per_pool_row):
    log, output = kit.base("static", "rim")
    if per_pool_row != 1:
        output = kit.run(log, "static", "rim", negatives={"per_pool_row": per_pool_row})
    rows = output.row_contents
    is_pool = log.time < kit.train_from
    assert output.manifest["counts"]["synthetic"] == is_pool.sum() * per_pool_row == sum(row[8] for row in rows)
    width, first_places = per_pool_row + 1, []
    pool = [row for row in rows if row[6] < kit.train_from]
    for group in zip(*[iter(pool)] * width, strict=True):
        (real,) = (row for row in group if not row[8])
        drawn = [row for row in group if row[8]]
        first_places.append(group.index(real))
        assert {(row[0], row[1], row[5], row[6]) for row in group} == {(real[0], real[1], real[5], real[6])}
        assert real[7] == 1 and all(row[7] == 0 and row[2] != real[2] for row in drawn)
        for row in drawn:  # its own attributes, not its row's
            item = int(row[2].removeprefix("i"))
            assert (row[3], row[4]) == (f"g{item % 4}" if item % 10 else "", f"b{item % 7}")
    shares = np.bincount(first_places, minlength=width) / len(first_places)
    np.testing.assert_allclose(shares, 1 / width, atol=0.1)
    real = [row[:8] for row in rows if not row[8]]
    assert len(real) == len(log)
    order = np.lexsort((log.time, log.user))
    assert sorted((row[0], row[6], row[2]) for row in real) == sorted(
        (f"u{log.user[row]}", log.time[row], f"i{log.item[row]}") for row in order
    )


@pytest.mark.parametrize(("mode", "per_pool_row", "join"), [("static", 1, "broadcast"), ("rolling", 2, "grouped")])
def test_dropped_rows_leave_the_candidates_as_they_are(kit, mode, per_pool_row, join):
    log, _ = kit.base(mode, "rim")
    negatives = {"per_pool_row": per_pool_row}
    others = {"split": {"train_rate": 0.7, "test_rate": 0.6}, "pipeline": {"join": join}}
    kept, dropped = (
        kit.run(log, mode, "rim", negatives=negatives | {"drawn_rows": rows}, **others) for rows in ("keep", "drop")
    )
    for name in ("fields", "label", "mask", "time"):
        np.testing.assert_array_equal(dropped.slates[name], kept.slates[name])
    assert (kept.slates["match_counts"] != dropped.slates["match_counts"]).any()
    assert [row for row in kept.row_contents if not row[8]] == dropped.row_contents
    counts = dropped.manifest["counts"]
    assert counts["synthetic"] == 0 and counts["rows"] == counts["kept"] == len(log)
    assert not dropped.config.has_classes and kept.config.has_classes


def test_conflicting_attributes_are_settled_to_the_earliest_and_counted(kit):
    log, _ = kit.base("rolling", "none")
    folder = kit.new_folder()
    paths = log.write(folder / "input")
    cells = [list(row) for row in log.cells()]
    item = next(
        item
        for item in range(1, 20)
        if (log.item == item).sum() > 3 and (log.time[log.item == item] == log.time[log.item == item].min()).sum() == 1
    )
    rows = np.flatnonzero(log.item == item)
    earliest = rows[np.argmin(log.time[rows])]
    for row in rows:
        cells[row][2] = "early" if row == earliest else f"late{row % 2}"
    kit.write_csv(paths[0], kit.columns, cells)
    output = kit.preprocess(kit.build_config(paths, folder / "workspace"))
    counts = output.manifest["counts"]
    assert counts["items_with_conflicting_attributes"] == 1
    assert counts["conflicts"] == len(rows) - 1
    assert {row[4] for row in output.row_contents if row[2] == f"i{item}"} == {"early"}


@given(
    st.lists(
        st.tuples(st.integers(2, 5), st.integers(0, 4), st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=30
    ),
    st.randoms(use_true_random=False),
)
def test_entity_tables_take_the_earliest_row_whatever_the_order(rows, random):
    shuffled = rows.copy()
    random.shuffle(shuffled)
    tables = []
    for part in (rows, shuffled):
        table = np.array(part)
        tuples, first = distinct_tuples(table[:, :3].astype(np.int32), table[:, 3], (0, 1, 2))
        tables.append(build_entity_table(tuples, first, (1, 0, 3), 4, 4))
    (table, in_conflict), (other, others_in_conflict) = tables
    np.testing.assert_array_equal(table, other)
    np.testing.assert_array_equal(in_conflict, others_in_conflict)
    assert in_conflict.tolist() == [key for key in range(2, 6) if len({row[:3] for row in rows if row[0] == key}) > 1]
    for key in range(2, 6):
        own = [row for row in rows if row[0] == key]
        if own:
            earliest = min((row[3], row[1], row[2]) for row in own)
            assert table[key - FIRST_VALUE_ID].tolist() == [earliest[1], key, 0, earliest[2]]


@given(st.integers(1, 300), st.integers(1, 40))
def test_shards_are_runs_of_users_of_nearly_equal_size(num_users, num_shards):
    shards = shard_of_users(np.arange(num_users, dtype=np.int32), num_users, num_shards)
    assert (np.diff(shards) >= 0).all() and shards.min() == 0 and shards.max() < num_shards
    sizes = np.bincount(shards, minlength=num_shards)
    assert sizes.max() - sizes.min() <= 1


def test_one_item_leaves_nothing_to_draw(tmp_path):
    config = build_config(protocol="rim", per_pool_row=1)
    tables = {"item": ITEM_TABLE[:1], "user": USER_TABLE}
    batch = EncodedBatch(
        np.array([[2, 5, 2]], np.int32),
        np.zeros(1, np.int64),
        np.ones(1, np.int8),
        np.zeros(1, np.int32),
        np.ones(1, np.int64),
    )
    with pytest.raises(ValueError, match="needs at least two items to draw a negative. Received: 1."):
        write_shard(0, [batch], config, BOUNDARIES, tables, tmp_path / "0.tfrecord")
