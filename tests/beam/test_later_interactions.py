"""Interactions that are all later than a log leave its examples as they are: bytes, files and order.

Rolling mode; protocol rim draws from the items of the whole log, and is no part of this.
"""

import numpy as np
import pytest
import tensorflow as tf

PROTOCOLS = ("none", "honest")
SPLITS = ("train", "validation", "test")
LATER_FROM = 215  # ticks: inside the test window, before the last users and items appear


@pytest.fixture(scope="module")
def outputs(kit):
    """protocol -> the data sets of the random log without its last part, and of all of it."""
    cut = kit.begin + LATER_FROM * kit.tick
    made = {}
    for protocol in PROTOCOLS:
        log, whole = kit.base("rolling", protocol)
        made[protocol] = kit.run(log.take(np.flatnonzero(log.time < cut)), "rolling", protocol), whole
    return made


def time_of(serialized: bytes) -> int:
    return tf.train.Example.FromString(serialized).features.feature["time"].int64_list.value[0]


def read_examples(output) -> dict[str, list[bytes]]:
    """File -> its examples, in order."""
    paths = sorted((output.dataset_dir / "examples").iterdir())
    return {path.name: list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()) for path in paths}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_later_interactions_leave_bytes_files_and_order_of_examples(kit, outputs, protocol):
    part, whole = outputs[protocol]
    cut = kit.begin + LATER_FROM * kit.tick
    assert part.dataset.info.boundaries == whole.dataset.info.boundaries
    before, after = read_examples(part), read_examples(whole)
    assert before.keys() == after.keys() and len(before) == 6 and all(before.values())
    for name, examples in before.items():
        assert [example for example in after[name] if time_of(example) < cut] == examples, name
    later = [example for examples in after.values() for example in examples if time_of(example) >= cut]
    assert len(later) > 20


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_same_bytes_say_the_same_of_the_longer_log(outputs, protocol):
    part, whole = outputs[protocol]
    places = {serialized: index for index, serialized in enumerate(whole.serialized)}
    index = np.array([places[serialized] for serialized in part.serialized])
    ours, theirs = part.slates, {name: values[index] for name, values in whole.slates.items()}
    # Later rows of users shift what follows them: with row ids in its place, no file could stay as it is.
    for name in ("row", "history_position", "neighbour_rows"):
        assert (ours[name] != theirs[name]).mean() > 0.5
    assert len(whole.dataset.info.vocabularies[0].values) > len(part.dataset.info.vocabularies[0].values)
    assert_same_rows(part, ours["row"], whole, theirs["row"])
    real = ours["neighbour_rows"] >= 0
    np.testing.assert_array_equal(theirs["neighbour_rows"] >= 0, real)
    assert_same_rows(part, ours["neighbour_rows"][real], whole, theirs["neighbour_rows"][real])
    length = part.config.retrieval.context_length
    first, count = part.dataset.log.windows_at(ours["history_position"], length)
    other_first, other_count = whole.dataset.log.windows_at(theirs["history_position"], length)
    np.testing.assert_array_equal(count, other_count)
    assert count.max() == length and count.min() == 0
    for place in range(length):
        inside = place < count
        assert_same_rows(part, first[inside] + place, whole, other_first[inside] + place)


def assert_same_rows(part, rows, whole, other_rows) -> None:
    assert [part.row_contents[row] for row in rows] == [whole.row_contents[row] for row in other_rows]
