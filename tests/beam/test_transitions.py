"""The transition tables that the pipeline writes: those of the log, the same bytes whatever the workers, and only when asked for."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from beam.preprocess import run
from tf_lift.data.dataset_files import Dataset
from tf_lift.situation.levels import find_levels
from tf_lift.situation.snapshots import place_snapshots
from tf_lift.situation.transition_counts import add_counts, count_transitions, keep_most_frequent, only_transitions
from tf_lift.situation.transition_table import TransitionTable, build_transition_table

SITUATION = {"relations": "all", "window": 3, "max_followers": 4, "num_snapshots": 5}
THREADS = ("--direct_num_workers=2", "--direct_running_mode=multi_threading")


def tables_in_memory(dataset: Dataset) -> TransitionTable:
    """The tables of a data set's log, without the pipeline."""
    config, boundaries, log = dataset.config, dataset.info.boundaries, dataset.log
    levels = find_levels(config.schema)
    times = place_snapshots(
        config.split.mode, boundaries.train_from, boundaries.test_from, int(log.time.max()), SITUATION["num_snapshots"]
    )
    added = add_counts(count_transitions(log, dataset.positive, levels, SITUATION["window"], times))
    num_ids = [vocabulary.num_ids for vocabulary in dataset.info.vocabularies]
    return build_transition_table(levels, times, keep_most_frequent(added, SITUATION["max_followers"]), num_ids)


@pytest.mark.parametrize(("mode", "protocol"), [("rolling", "none"), ("static", "rim")])
def test_tables_are_those_of_the_log(kit, mode, protocol):
    log = kit.random_log(has_late_items=protocol != "rim")
    output = kit.run(log, mode, protocol, situation=SITUATION)
    dataset, expected = output.dataset, tables_in_memory(output.dataset)
    ours = dataset.transitions
    assert len(ours.times) == (1 if mode == "static" else 9) and len(ours.levels) == 3
    assert len(expected.keys) > 100
    for name in ("times", "keys", "counts"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(expected, name))
    for ours_counts, expected_counts in zip(ours.value_counts, expected.value_counts, strict=True):
        np.testing.assert_array_equal(ours_counts, expected_counts)
    counts = output.manifest["counts"]
    every = count_transitions(dataset.log, dataset.positive, ours.levels, SITUATION["window"], ours.times)
    assert counts["transitions"] == only_transitions(add_counts(every), 3).counts.sum()
    assert 0 < counts["transitions_cut"] < counts["transitions"]


@pytest.mark.usefixtures("in_repository")
def test_workers_and_shards_do_not_change_a_byte(kit):
    log = kit.random_log()
    expected = transition_files(kit.run(log, situation=SITUATION))
    assert len(expected) == 5
    folder, pipeline = kit.new_folder(), {"num_shards": 7, "rows_per_batch": 37}
    config = kit.build_config(log.write(folder / "input"), folder / "workspace", situation=SITUATION, pipeline=pipeline)
    assert transition_files(kit.preprocess(config, *THREADS)) == expected


def transition_files(output) -> dict[str, bytes]:
    return {name: data for name, data in output.files().items() if name.startswith("transitions/")}


def test_appending_equals_reading_all_at_once(kit):
    log, folder = kit.random_log(), kit.new_folder()
    log.write(folder / "log")  # for its tables
    cut = kit.begin + 210 * kit.tick

    def config(name):
        return kit.build_config((f"{folder}/log/part-*.csv",), folder / name, situation=SITUATION)

    for number, rows in enumerate((log.time < cut, log.time >= cut)):
        (path,) = log.take(np.flatnonzero(rows)).write(folder / f"part{number}")
        added = shutil.copy(path, folder / "log" / f"part-{number}.csv")
        run(config("grown"), append=[str(added)] if number else [])
    run(config("whole"))
    grown, whole = (transition_files(kit.Output(config(name), {})) for name in ("grown", "whole"))
    assert len(whole) == 5 and grown == whole


def test_nothing_is_built_unless_asked_for(kit):
    log, base = kit.base("rolling", "none")
    assert not transition_files(base) and not [name for name in base.manifest["counts"] if "transition" in name]
    output = kit.run(log, situation={"relations": "none", "tables": True})
    assert transition_files(output)
    assert output.serialized == base.serialized
