"""Nothing at or after a target's time influences its example (DESIGN.md section 7).

Draws of protocol "rim" come from the items of the whole log, as the paper's do. Its logs here show every item before
train begins and its changes add none, so that the items are the same by construction and whole slates are compared.
"""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

NUM_ITEMS = 40
MODES = ("static", "rolling")
PROTOCOLS = ("none", "honest", "rim")
SPLITS = ("train", "validation", "test")


def choose_target(kit, log, output, split: str, place: int) -> int:
    """Index in the log of a target of a split, at this place among its user's rows of one time; the user is not new."""
    boundaries = output.dataset.info.boundaries
    number = boundaries.split_of(log.time)
    keys = output.key_to_index()
    places = log.places()
    found = []
    for row in np.flatnonzero(number == SPLITS.index(split) + 1):
        same = (log.user == log.user[row]) & (log.time == log.time[row])
        is_known = bool(((log.user == log.user[row]) & (log.time < log.time[row])).any())
        if places[row] == place and same.sum() > 1 and is_known and key_of(log, row) in keys:
            found.append(row)
    assert found, "the random log has no such target"
    return int(found[len(found) // 2])


def key_of(log, row: int) -> tuple[str, int, int]:
    return f"u{log.user[row]}", int(log.time[row]), int(log.places()[row])


def without_rank(serialized: bytes) -> bytes:
    """An example without the number that names its target."""
    example = tf.train.Example.FromString(serialized)
    del example.features.feature["rank"]
    return example.SerializeToString(deterministic=True)


def scramble(kit, log, kept: int, has_late_items: bool, rng: np.random.Generator):
    """The log with other items, behaviours and times, not before the kept row's, in every other row at or after it.

    The kept user's other rows of that time stay there and no row of that user joins them: an example names its row by
    its place among them.
    """
    cut, end = log.time[kept], kit.begin + kit.num_ticks * kit.tick
    later = log.time >= cut
    later[kept] = False
    own = log.user == log.user[kept]
    time = rng.integers(np.where(own, cut + 1, cut), end, len(log))
    time = np.where(own & (log.time == cut), cut, time)
    return log.replace(
        item=np.where(later, rng.integers(0, NUM_ITEMS + 20 * has_late_items, len(log)), log.item),
        channel=np.where(later, rng.integers(0, 9, len(log)), log.channel),
        rating=np.where(later, rng.integers(1, 6, len(log)), log.rating),
        time=np.where(later, time, log.time),
    )


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("mode", MODES)
def test_other_interactions_from_then_on_leave_an_example_as_it_is(kit, mode, protocol, split):
    log, base = kit.base(mode, protocol)
    kept = choose_target(kit, log, base, split, place=1)
    other = kit.run(scramble(kit, log, kept, protocol != "rim", np.random.default_rng(kept)), mode, protocol)
    cut = log.time[kept]
    before, after = base.key_to_index(), other.key_to_index()
    compared = {key for key in before if key[1] < cut} | {key_of(log, kept)}
    assert {key for key in after if key[1] < cut} == compared - {key_of(log, kept)}
    for key in compared:
        compare = without_rank if key == key_of(log, kept) else bytes  # rows of its own time may take places before it
        assert compare(other.serialized[after[key]]) == compare(base.serialized[before[key]]), key
    changed = set(other.serialized) - set(base.serialized)
    assert len(changed) > 20  # the change was a change


def replace_future(kit, log, kept: int, has_late_items: bool, rng: np.random.Generator):
    """The log with rows of new users, and of new items where wanted, in place of all others at or after the kept row."""
    cut, end = int(log.time[kept]), kit.begin + kit.num_ticks * kit.tick
    rows = (log.time < cut) | (np.arange(len(log)) == kept)
    num_new = 120
    new = kit.RawLog(
        rng.integers(60, 90, num_new),
        rng.integers(0, NUM_ITEMS + 40 * has_late_items, num_new),
        rng.integers(0, 9, num_new),
        rng.integers(1, 6, num_new),
        np.where(np.arange(num_new) < 10, cut, rng.integers(cut, end, num_new)),
    )
    return new.join(log.take(rows))


def describe(output, index: int) -> dict[str, Any]:
    """All that an example says, with every pointer followed."""
    dataset, slates, rows = output.dataset, output.slates, output.row_contents
    log, length = dataset.log, output.config.retrieval.context_length
    users = log.user_indices()

    def window(position) -> list[tuple[Any, ...]]:
        first, count = (int(part) for part in log.windows_at(np.array(position), length))
        return rows[first : first + count]

    real = slates["mask"][index]
    neighbours = []
    for row, score, num_future in zip(
        slates["neighbour_rows"][index][real].ravel(),
        slates["neighbour_scores"][index][real].ravel(),
        slates["neighbour_num_future"][index][real].ravel(),
        strict=True,
    ):
        if row < 0:
            neighbours.append(None)
            continue
        history = window(log.positions_of_rows(row, users[row]))
        neighbours.append((rows[row], float(score), history, rows[row + 1 : row + 1 + num_future]))
    return {
        "time": int(slates["time"][index]),
        "target": rows[slates["row"][index]],
        "history": window(slates["history_position"][index]),
        "fields": slates["fields"][index][real].tolist(),
        "values": [
            [output.value(name, value) for name, value in zip(output.config.schema.names, ids, strict=True)]
            for ids in slates["fields"][index][real].tolist()
        ],
        "label": slates["label"][index][real].tolist(),
        "neighbours": neighbours,
        "match_counts": slates["match_counts"][index][real].tolist(),
        "match_positives": slates["match_positives"][index][real].tolist(),
    }


@pytest.mark.parametrize(
    ("mode", "protocol", "split"),
    [
        ("static", "none", "train"),
        ("static", "honest", "test"),
        ("static", "rim", "train"),
        ("rolling", "none", "test"),
        ("rolling", "honest", "train"),
        ("rolling", "rim", "test"),
    ],
)
def test_another_future_with_new_users_and_items_leaves_what_an_example_says(kit, mode, protocol, split):
    log, base = kit.base(mode, protocol)
    kept = choose_target(kit, log, base, split, place=0)
    other = kit.run(replace_future(kit, log, kept, protocol != "rim", np.random.default_rng(kept)), mode, protocol)
    before, after = base.key_to_index(), other.key_to_index()
    compared = {key for key in before if key[1] < log.time[kept]} | {key_of(log, kept)}
    assert compared <= after.keys()
    chosen = [key_of(log, kept), *sorted(compared)[:: len(compared) // 100 + 1]]
    for key in chosen:
        expected = describe(base, before[key])
        assert describe(other, after[key]) == expected
        for neighbour in filter(None, expected["neighbours"]):
            row, _, history, future = neighbour
            assert max(content[6] for content in [row, *history, *future]) < key[1]
    assert any(len(describe(base, before[key])["history"]) > 1 for key in chosen)


@pytest.mark.parametrize("mode", MODES)
def test_a_planted_future_row_is_never_a_neighbour(kit, mode):
    log, base = kit.base(mode, "none")
    target = choose_target(kit, log, base, "test", place=0)
    log = log.replace(channel=np.where(np.arange(len(log)) == target, 99, log.channel))  # a value that no other row has
    twin = 200 + log.user[target] % 5  # a user of the same age
    cut = log.time[target]

    def plant(*times: int):
        """Neighbours' users of the target, best first, if a twin of it has rows at these times."""
        ones = np.ones(len(times), np.int64)
        rows = kit.RawLog(twin * ones, log.item[target] * ones, 99 * ones, 5 * ones, np.array(times))
        output = kit.run(log.join(rows), mode)
        slates, contents = output.slates, output.row_contents
        found = {}
        for key, index in output.key_to_index().items():
            found[key] = [contents[row][0] for row in slates["neighbour_rows"][index, 0] if row >= 0]
        return found

    planted = f"u{twin}"
    in_time = plant(kit.train_from - 1)
    assert in_time[key_of(log, target)][0] == planted  # what the row would be if it leaked
    too_late = plant(cut, cut + 1, *([kit.train_from] if mode == "static" else []))
    leaks = {key: users for key, users in too_late.items() if planted in users and (mode == "static" or key[1] <= cut)}
    assert not leaks
