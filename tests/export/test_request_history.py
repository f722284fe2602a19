"""The window of a request's history against a plain loop, and behaviours as the log had them."""

import numpy as np
import pytest
import tensorflow as tf

from export.request_history import BehaviourTable, select_window
from tf_lift.config import Behaviour

UNKNOWN = 2  # num_classes: the encoder's label of it is MSK


@pytest.mark.parametrize("num_places", [0, 1, 3, 12])
def test_the_window_is_the_newest_interactions_before_the_time_oldest_first(num_places: int) -> None:
    rng = np.random.default_rng(num_places)
    batch, length = 40, 4
    fields = rng.integers(0, 99, (batch, num_places, 3)).astype(np.int32)
    behaviours = rng.integers(0, 2, (batch, num_places)).astype(np.int32)
    times = rng.integers(-3, 8, (batch, num_places))
    times[rng.random(times.shape) < 0.1] = np.iinfo(np.int64).min
    mask = rng.random((batch, num_places)) < 0.8
    as_of = rng.integers(-2, 9, batch)
    window = select_window(*map(tf.constant, (fields, behaviours, times, mask, as_of)), length)
    for place in range(batch):
        seen = [row for row in range(num_places) if mask[place, row] and times[place, row] < as_of[place]]
        rows = sorted(seen, key=lambda row: times[place, row])[-length:]
        assert window.num_rows[place] == len(rows)
        np.testing.assert_array_equal(window.mask[place], np.arange(length) < len(rows))
        np.testing.assert_array_equal(window.fields[place, : len(rows)], fields[place, rows])
        assert not window.fields[place, len(rows) :].numpy().any()
        np.testing.assert_array_equal(window.behaviours[place, : len(rows)], behaviours[place, rows])
        np.testing.assert_array_equal(window.times[place, : len(rows)], times[place, rows])


@pytest.mark.parametrize(
    ("behaviour", "texts", "classes"),
    [
        (
            Behaviour("column", "clicked"),
            ["1", "0", "1.0", "true", " False ", "", "2", "yes", "nan"],
            [1, 0, 1, 1, 0, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN],
        ),
        (
            Behaviour("threshold", "rating", threshold=4.0),
            ["4", "3.99", "5e0", "-7", "", "good", "inf"],
            [1, 0, 1, 0, UNKNOWN, UNKNOWN, UNKNOWN],
        ),
        (
            Behaviour("classes", "verb", classes={"view": 0, "look": 0, "buy": 1}),
            ["buy", "view", "look", "", "Buy"],
            [1, 0, 0, UNKNOWN, UNKNOWN],
        ),
        (Behaviour(), ["1", "", "0", "bought"], [1, 1, 0, UNKNOWN]),
    ],
)
def test_behaviours_are_read_as_the_log_had_them(behaviour: Behaviour, texts: list[str], classes: list[int]) -> None:
    np.testing.assert_array_equal(BehaviourTable(behaviour).lookup(tf.constant([texts])), [classes])
