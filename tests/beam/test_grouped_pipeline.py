"""Targets that meet posting lists by key, through the pipeline: the same bytes as where every worker holds all lists."""

from __future__ import annotations

import csv
import dataclasses
import logging
import re

import numpy as np
import pytest

from beam import preprocess
from tf_lift.config import Behaviour, Config, Negatives, Pipeline, Retrieval, Source, Split
from tf_lift.data.dataset_files import open_dataset
from tf_lift.interactions import NO_ROW
from tf_lift.retrieval.posting_lists import Neighbours, PoolRows, build_posting_lists
from tf_lift.schema import Field
from tf_lift.workspace import Workspace

THREADS = ("--direct_num_workers=2", "--direct_running_mode=multi_threading")
BROADCAST = {"num_shards": 3, "example_shards": 2, "join": "broadcast", "pool_slice_rows": 300, "hot_key_rows": 50}
GROUPED = BROADCAST | {"join": "grouped"}


def rerun(kit, output, *beam_arguments, pipeline=GROUPED, **sections):
    """The data set of the same files in another workspace."""
    config = kit.build_config(
        output.config.source.paths, kit.new_folder(), output.config.split.mode, pipeline=pipeline, **sections
    )
    return kit.preprocess(config, *beam_arguments)


def assert_same(output, expected, but=()) -> None:
    """Compares all files except the manifest, which knows the configuration, and those of some folders."""
    folders = ("manifest.json", *but)
    ours, theirs = (
        {name: data for name, data in each.files().items() if not name.startswith(folders)}
        for each in (output, expected)
    )
    assert ours.keys() == theirs.keys() and any(name.startswith("examples/") for name in ours)
    assert [name for name in ours if ours[name] != theirs[name]] == []


@pytest.fixture(scope="module")
def broadcast(kit):
    """The random log's data set with hot keys, made once for each mode and exclusion."""
    made = {}

    def make(mode, exclude=False):
        if (mode, exclude) not in made:
            made[mode, exclude] = kit.run(
                kit.random_log(), mode, retrieval={"exclude_own_user": exclude}, pipeline=BROADCAST
            )
        return made[mode, exclude]

    return make


@pytest.mark.parametrize(
    ("mode", "exclude"), [("rolling", False), ("rolling", True), ("static", False), ("static", True)]
)
def test_grouped_and_broadcast_give_the_same_bytes(kit, broadcast, mode, exclude):
    expected = broadcast(mode, exclude)
    output = rerun(kit, expected, retrieval={"exclude_own_user": exclude})
    assert_same(output, expected)
    assert output.manifest["counts"] == expected.manifest["counts"]
    hot_files = [name for name in output.files() if "-hot-" in name]
    if mode == "rolling":
        assert output.manifest["counts"]["hot_keys"] >= 10 and len(hot_files) > output.manifest["counts"]["hot_keys"]
    else:  # there no list is long
        assert output.manifest["counts"]["hot_keys"] == 0 == len(hot_files)


def test_grouped_and_broadcast_give_the_same_slates(kit):
    log = kit.random_log()
    expected = kit.run(log, "rolling", "honest", pipeline=BROADCAST)
    config = kit.build_config(
        expected.config.source.paths,
        kit.new_folder(),
        "rolling",
        "honest",
        pipeline=GROUPED | {"targets_per_batch": 50},
    )
    assert_same(kit.preprocess(config), expected)


@pytest.mark.parametrize(
    "cuts",
    [
        {"key_parts": 1, "targets_per_batch": 17},
        {"key_parts": 8, "pool_slice_rows": 150, "hot_key_rows": 30},
        {"pool_slice_rows": 450, "hot_key_rows": 5},
        {"pool_slice_rows": 262_144, "hot_key_rows": 4_000_000},
    ],
    ids=["batches", "small slices", "many hot keys", "default"],
)
def test_cuts_do_not_change_an_example(kit, broadcast, cuts):
    expected = broadcast("rolling", True)
    output = rerun(kit, expected, pipeline=GROUPED | cuts, retrieval={"exclude_own_user": True})
    assert_same(output, expected, but=("posting_lists/set-",))
    totals = (output.manifest["counts"], expected.manifest["counts"])
    assert all(totals[0][name] == totals[1][name] for name in ("posting_keys", "posting_entries"))
    assert (totals[0]["hot_keys"] > 0) is (cuts.get("hot_key_rows", 50) < 900)


def test_threads_do_not_change_a_byte(kit, broadcast):
    expected = broadcast("rolling")
    assert_same(rerun(kit, expected, *THREADS), expected)


def read_counters(caplog) -> dict[str, int]:
    """The counters that a run logs at its end."""
    (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("retrieval: ")]
    counters = {}
    for part in line.removeprefix("retrieval: ").split(", "):
        match = re.fullmatch(r"(\w+) (\d{1,3}(?:,\d{3})*)", part)
        assert match, line
        counters[match[1]] = int(match[2].replace(",", ""))
    return counters


def test_counters_are_logged_and_static_rows_are_combined_before_the_shuffle(kit, caplog):
    log, k, sizes = kit.random_log(num_rows=3000, num_users=4, num_items=4), 2, {}
    cuts = GROUPED | {"pool_slice_rows": 1500, "hot_key_rows": 400}
    for mode in ("rolling", "static"):
        caplog.clear()
        with caplog.at_level(logging.INFO, "beam.preprocess"):
            output = kit.run(log, mode, pipeline=cuts, retrieval={"num_neighbours": k})
        counters, counts = read_counters(caplog), output.manifest["counts"]
        for name in ("posting_bytes_shuffled", "query_bytes_shuffled", "answer_bytes_shuffled"):
            assert counters[name] > 0
        assert counters.get("hot_keys", 0) == counts["hot_keys"]
        assert counters["keys"] == counts["posting_keys"] > 0
        sizes[mode] = counters["posting_bytes_shuffled"]
    # Of the one slice no key sends more than its values (4 fields at most), three numbers, and K rows of a rank and a label.
    assert counts["pool_window"] <= cuts["pool_slice_rows"]
    most = counts["posting_keys"] * (4 * 4 + 3 * 4 + k * 5)
    assert sizes["static"] <= most < sizes["rolling"] / 2


def test_auto_takes_the_lists_size_into_account(kit, broadcast, caplog):
    expected = broadcast("rolling")
    for gib, is_grouped in ((4.0, False), (0.0, True)):
        caplog.clear()
        with caplog.at_level(logging.INFO, "beam.preprocess"):
            output = rerun(kit, expected, pipeline=BROADCAST | {"join": "auto", "broadcast_gib": gib})
        assert ("query_bytes_shuffled" in read_counters(caplog)) is is_grouped
        assert_same(output, expected)


NUM_CONTEXTS = 8


def build_wide_config(folder, **pipeline) -> Config:
    """A log of ten independent fields, which have more sets than posting lists are made for."""
    rng = np.random.default_rng(0)
    contexts = tuple(Field(f"c{number}", "context") for number in range(NUM_CONTEXTS))
    fields = (Field("user", "user", key=True), Field("item", "item", key=True), *contexts)
    path = folder / "wide.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*(field.name for field in fields), "rating", "time"])
        for hour in range(250):
            values = [f"v{value}" for value in rng.integers(0, (9, 9, *[3] * NUM_CONTEXTS))]
            writer.writerow([*values, rng.integers(1, 6), 1_500_000_000 + 3600 * hour])
    return Config(
        "wide",
        Source((str(path),)),
        fields,
        Split(mode="rolling"),
        Behaviour("threshold", "rating", 4.0),
        Negatives(),
        Retrieval(num_neighbours=3, context_length=4),
        pipeline=Pipeline(
            num_shards=1, example_shards=1, pool_slice_rows=100, key_parts=2, hot_key_rows=60, **pipeline
        ),
        workspace=str(folder / "workspace"),
    )


def test_grouping_needs_lists_for_all_sets(tmp_path):
    config = build_wide_config(tmp_path, join="grouped")
    message = (
        r'needs posting lists for all sets of query fields. Received: 10 query fields.*Use "broadcast", or set `query'
    )
    with pytest.raises(ValueError, match=message):
        preprocess.run(config)
    assert not Workspace(config).dataset_dir.exists()


def test_without_lists_for_all_sets_auto_broadcasts(tmp_path, caplog):
    config = build_wide_config(tmp_path, join="auto", broadcast_gib=0.0)
    with caplog.at_level(logging.INFO, "beam.preprocess"):
        preprocess.run(config)
    assert "query_bytes_shuffled" not in read_counters(caplog)
    dataset = open_dataset(Workspace(config))
    log, match_sets = dataset.log, dataset.info.match_sets
    assert not match_sets.is_complete
    order, user = log.time_order, config.schema.user_index
    pool = PoolRows(log.fields[order], log.time[order], log.fields[order, user], dataset.positive[order], order)
    written = dataset.posting_lists.nearest(log.fields, log.time, config.retrieval, statistics=(0, 20))
    built = build_posting_lists(pool, match_sets, True, config.retrieval).nearest(
        log.fields, log.time, config.retrieval, statistics=(0, 20)
    )
    for field in dataclasses.fields(Neighbours):
        np.testing.assert_array_equal(getattr(written, field.name), getattr(built, field.name))
    assert (written.rows[200:] != NO_ROW).all()


def test_without_lists_for_all_sets_static_mode_lists_every_row(tmp_path):
    config = dataclasses.replace(build_wide_config(tmp_path, join="broadcast"), split=Split(mode="static"))
    preprocess.run(config)
    dataset = open_dataset(Workspace(config))
    log, lists = dataset.log, dataset.posting_lists
    rows = lists.rank_to_row
    user = log.fields[:, config.schema.user_index]
    pool = PoolRows(log.fields[rows], log.time[rows], user[rows], dataset.positive[rows], rows)
    built = build_posting_lists(pool, dataset.info.match_sets, False, config.retrieval)
    assert lists.rule is None and len(rows) > 100
    np.testing.assert_array_equal(lists.ranks, built.ranks)
