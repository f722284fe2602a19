"""Every row of the input is accounted for, and bad input ends in a message that says what to do."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from beam import preprocess as preprocess_module
from tf_lift.workspace import Workspace

PROCESSES = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")


def write_lines(path, lines):
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def damage(log, folder):
    """The log's file with five bad rows, and their lines."""
    (path,) = log.write(folder)
    lines = [",".join(cells) for cells in (*[("user", "item", "brand", "channel", "rating", "time")], *log.cells())]
    bad = {
        10: "u1,i1",
        20: "",
        30: "u1,i1,b1,c1,5,noon",
        40: ",i1,b1,c1,5,1500000000",
        50: "u1,i1,b1,c1,good,1500000000",
    }
    for line, text in bad.items():
        lines.insert(line - 1, text)
    write_lines(path, lines)
    return path, bad


def test_counts_add_up_with_bad_left_out_sampled_and_new_rows(kit):
    log, _ = kit.base("rolling", "none")
    folder = kit.new_folder()
    path, bad = damage(log, folder / "input")
    config = kit.build_config(
        [path],
        folder / "workspace",
        source={"time_from": "2017-07-14T06:00:00Z", "time_until": "2017-07-23T00:00:00Z"},
        items={"required": True},
        split={"train_rate": 0.5, "test_rate": 0.7},
    )
    counts = kit.preprocess(config).manifest["counts"]
    early, late = 1_500_012_000, 1_500_768_000
    is_early, is_late, is_lacking = log.time < early, log.time >= late, log.item % 10 == 0
    kept = ~is_early & ~is_late & ~is_lacking
    assert counts["read"] == len(log) + len(bad)
    assert counts["rejected"] == len(bad)
    assert counts["left_out: before source.time_from"] == is_early.sum() > 0
    assert counts["left_out: at or after source.time_until"] == is_late.sum() > 0
    assert counts["left_out: item not in items.csv"] == (~is_early & ~is_late & is_lacking).sum() > 0
    assert counts["kept"] == counts["rows"] == kept.sum()
    assert counts["pool_window"] == (kept & (log.time < kit.train_from)).sum()
    assert counts["test_window"] == (kept & (log.time >= kit.test_from)).sum()
    for split in ("train", "validation", "test"):
        assert 0 < counts[f"{split}_not_sampled"] < counts[f"{split}_window"]
        assert counts[f"{split}_examples"] == counts[f"{split}_window"] - counts[f"{split}_not_sampled"]


def test_new_items_are_targets_or_counted(kit):
    log, base = kit.base("rolling", "honest")
    first = {item: log.time[log.item == item].min() for item in set(log.item.tolist())}
    is_new = [time == first[item] for item, time in zip(log.item.tolist(), log.time.tolist(), strict=True)]
    assert base.manifest["counts"]["test_new_item"] == ((log.time >= kit.test_from) & is_new).sum() > 0
    kept = kit.run(log, "rolling", "honest", negatives={"new_items": "keep", "repeats": "keep"}).manifest["counts"]
    assert kept["test_new_item"] == kept["test_repeat"] == 0
    assert kept["test_targets"] == kept["test_window"] == (log.time >= kit.test_from).sum()


def test_repeats_are_dropped_and_counted(kit):
    log, base = kit.base("rolling", "honest")
    rows = list(zip(log.user.tolist(), log.item.tolist(), log.time.tolist(), strict=True))
    repeats = [any(u == user and i == item and t < time for u, i, t in rows) for user, item, time in rows]
    assert base.manifest["counts"]["test_repeat"] == ((log.time >= kit.test_from) & repeats).sum() > 0


def test_rejected_rows_are_kept_with_line_and_reason(kit):
    log, _ = kit.base("rolling", "none")
    folder = kit.new_folder()
    path, bad = damage(log, folder / "input")
    output = kit.preprocess(kit.build_config([path], folder / "workspace"))
    lines = (output.dataset_dir / "rejected" / "00000-log-0.csv.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    assert {int(line): text for line, _, text in rows} == bad
    reasons = {int(line): reason for line, reason, _ in rows}
    assert reasons[20] == "empty line"
    assert reasons[30] == "time is not a number: 'noon'"
    assert reasons[40] == "user is empty"
    assert reasons[50] == "behaviour is not a number: 'good'"


@pytest.mark.parametrize("rows_per_batch", [7, 1000])
def test_rejected_attribute_rows_are_kept_and_counted(kit, rows_per_batch):
    log, _ = kit.base("rolling", "none")
    folder = kit.new_folder()
    paths = log.write(folder / "input")
    items = folder / "input" / "items.csv"
    items.write_text(items.read_text(encoding="utf-8") + "i1,g9\n,g1\ni2,g2\ni3\ni1,g8\n", encoding="utf-8")
    output = kit.preprocess(kit.build_config(paths, folder / "workspace", pipeline={"rows_per_batch": rows_per_batch}))
    rejected = (output.dataset_dir / "rejected" / "00002-items.csv.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t")[:2] for line in rejected]
    other_values = "its key stands earlier in the table with other values"
    assert rows == [
        ["272", other_values],
        ["273", "item is empty"],
        ["275", rows[2][1]],
        ["276", other_values],
    ]
    counts = output.manifest["counts"]
    assert counts["attribute_rows_rejected"] == 4
    assert counts["attribute_rows_read"] == 300 + 270 + 5
    assert {row[3] for row in output.row_contents if row[2] == "i1"} == {"g1"}


def test_a_table_without_usable_rows_stops_the_run(kit):
    log, _ = kit.base("rolling", "none")
    folder = kit.new_folder()
    paths = log.write(folder / "input")
    write_lines(folder / "input" / "items.csv", ["item,genre", "i1", "i2"])
    with pytest.raises(
        ValueError, match=r"must have usable rows. Received: .*items\.csv, whose 2 rows were rejected \(line 2"
    ):
        kit.preprocess(kit.build_config(paths, folder / "workspace"))


@pytest.mark.parametrize("beam_arguments", [(), PROCESSES], ids=["one-worker", "processes"])
@pytest.mark.usefixtures("in_repository")
def test_too_many_rejected_rows_stop_the_run_with_their_reasons(kit, beam_arguments):
    log, _ = kit.base("rolling", "none")
    folder = kit.new_folder()
    path, bad = damage(log, folder / "input")
    config = kit.build_config([path], folder / "workspace", source={"max_rejected_share": 0.001})
    with pytest.raises(
        ValueError,
        match=r"Received: 5 of 905, the first for this reason: line 10: expected 6 columns, received 2\.",
    ) as caught:
        kit.preprocess(config, *beam_arguments)
    assert "while running" not in str(caught.value)
    rejected = Workspace(config).root / "dataset.partial" / "rejected"
    assert str(rejected.resolve()) in str(caught.value)
    assert len((rejected / "00000-log-0.csv.tsv").read_text(encoding="utf-8").splitlines()) == len(bad)
    assert Workspace(config).read_manifest("dataset") is None


def test_a_fault_of_ours_is_not_shown_as_bad_input():
    trace = "Traceback (most recent call last):\n  File \"x.py\", line 1\nKeyError: 'user' [while running 'X']\n"
    assert preprocess_module._find_message(RuntimeError(trace)) == ""
    good = "ValueError: one\n\nDuring handling\n\nValueError: The rule. Received: Error: 3. [while running 'X']\n"
    assert preprocess_module._find_message(RuntimeError(good)) == "The rule. Received: Error: 3."
    assert preprocess_module._find_message(ValueError("The rule. [while running 'X']")) == "The rule."


def test_an_empty_pool_is_refused(kit):
    log, _ = kit.base("rolling", "none")
    with pytest.raises(
        ValueError, match=rf"must hold interactions before split.train_from. Received: none before {kit.begin};"
    ):
        kit.run(log, split={"train_from": float(kit.begin)})


def test_a_split_the_wrong_way_round_is_refused(kit):
    log, _ = kit.base("rolling", "none")
    with pytest.raises(ValueError, match="split.train_from must be before split.test_from. Received: "):
        kit.run(log, split={"train_from": float(kit.test_from), "test_from": float(kit.train_from)})


@pytest.mark.parametrize("late", [True, False])
def test_an_empty_window_is_refused(kit, late):
    log, _ = kit.base("rolling", "none")
    end = kit.begin + kit.num_ticks * kit.tick
    split = (
        {"test_from": float(end)}
        if late
        else {"train_from": float(kit.train_from + 1), "test_from": float(kit.train_from + 2)}
    )
    with pytest.raises(ValueError, match=r"Train and test must hold interactions. Received: \d+ from"):
        kit.run(log, split=split)


def test_a_log_without_usable_rows_is_refused(kit):
    log, _ = kit.base("rolling", "none")
    with pytest.raises(ValueError, match="The log must hold interactions. Received: none"):
        kit.run(log, source={"time_until": "2001-01-01"})


@pytest.mark.parametrize("name", ["log-0.csv", "items.csv"])
def test_a_missing_file_is_named(kit, name):
    log, _ = kit.base("rolling", "none")
    folder = kit.new_folder()
    config = kit.build_config(log.write(folder / "input"), folder / "workspace")
    os.remove(folder / "input" / name)
    with pytest.raises(ValueError, match=rf"must match at least one file. Received: '.*{name}'"):
        kit.preprocess(config)


def test_a_data_set_is_written_again_when_its_configuration_or_a_file_changed(kit):
    log, _ = kit.base("rolling", "none")
    folder = kit.new_folder()
    paths = log.write(folder / "input")
    config = kit.build_config(paths, folder / "workspace")

    def is_written_again(config, **arguments) -> bool:
        folder = Workspace(config).dataset_dir
        before = folder.stat().st_ino if folder.exists() else None
        kit.preprocess(config, **arguments)
        return folder.stat().st_ino != before

    assert is_written_again(config)
    assert not is_written_again(config)
    assert is_written_again(config, force=True)
    changed = kit.build_config(paths, folder / "workspace", retrieval={"num_neighbours": 5})
    assert is_written_again(changed)
    assert not is_written_again(changed)
    for path in (folder / "input" / "log-0.csv", folder / "input" / "users.csv"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("u1,", "u2,", 1), encoding="utf-8")  # of the same length
        assert path.stat().st_size == len(text)
        assert is_written_again(changed), path


def write_toml(kit, folder, log) -> str:
    """A configuration file of the random log: its path."""
    (path,) = log.write(folder / "input")
    fields = "".join(
        f'[[fields]]\nname = "{name}"\nentity = "{entity}"\nkey = {"true" if name == entity else "false"}\n'
        for name, entity in [("user", "user"), ("item", "item"), ("brand", "item"), ("channel", "context")]
    )
    text = (
        f'name = "small"\nworkspace = "{folder / "workspace"}"\n[source]\npaths = ["{path}"]\n{fields}'
        '[behaviour]\nkind = "threshold"\ncolumn = "rating"\nthreshold = 4.0\n'
        "[pipeline]\nnum_shards = 3\nrows_per_batch = 100\n[retrieval]\nnum_neighbours = 3\n"
    )
    (folder / "small.toml").write_text(text, encoding="utf-8")
    return str(folder / "small.toml")


@pytest.mark.usefixtures("in_repository")
def test_a_killed_run_leaves_no_data_set_and_the_next_one_finishes(kit):
    log, _ = kit.base("rolling", "none")
    folder = kit.new_folder()
    command = [sys.executable, "-m", "beam.preprocess", "--config", write_toml(kit, folder, log)]
    dataset_dir = folder / "workspace" / "small" / "dataset"
    partial = dataset_dir.with_name("dataset.partial")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not partial.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(random.Random().uniform(0.0, 1.0))  # any moment will do
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (dataset_dir.exists() and partial.exists())
    assert not (partial / "manifest.json").exists() or not dataset_dir.exists()
    is_whole = dataset_dir.exists()
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ("up to date" in finished.stderr) == is_whole
    assert (dataset_dir / "manifest.json").is_file()
    assert not partial.exists()


@pytest.mark.usefixtures("in_repository")
def test_the_command_says_what_is_wrong_in_one_line(kit):
    log, _ = kit.base("rolling", "none")
    folder = kit.new_folder()
    config = write_toml(kit, folder, log)
    write_lines(folder / "input" / "log-0.csv", ["user,item,brand,channel,rating,time", *["u1,i1"] * 10])
    finished = subprocess.run(
        [sys.executable, "-m", "beam.preprocess", "--config", config], capture_output=True, text=True
    )
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1].startswith("preprocess: At most 1.0% of the rows may be rejected")
    assert "Traceback" not in finished.stderr and "type hint" not in finished.stderr
