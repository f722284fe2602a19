"""FATE tells a value that training never saw from the rows that hold it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tf_lift.baselines.fate import FATE, FATESettings
from tf_lift.baselines.value_rows import ValueRows

NUM_USERS, NUM_OLD, NUM_NEW = 40, 200, 60
SMALL = {"embedding_dim": 8, "hidden_dims": (32,), "dropout_rate": 0.0, "l2": 0.0, "num_rows": 16}


@pytest.fixture(scope="module")
def two_tribes(plant: Callable[..., Any]) -> Any:
    """Even users have even items and odd users odd ones, whatever the label; a user likes the items of their own tribe.

    The new items appear after train: first with rows of their tribe, then as targets of both tribes.
    """
    rng = np.random.default_rng(9)

    def meetings(items: np.ndarray, count: int, share_own: float) -> tuple[np.ndarray, np.ndarray]:
        drawn = np.repeat(items, count)
        tribe = (drawn + (rng.random(len(drawn)) >= share_own)) % 2
        return 2 * rng.integers(0, NUM_USERS // 2, len(drawn)) + tribe, drawn

    old, new = np.arange(NUM_OLD), np.arange(NUM_OLD, NUM_OLD + NUM_NEW)
    parts = [meetings(old, 12, 1.0), meetings(old, 5, 0.5), meetings(new, 12, 1.0), meetings(new, 5, 0.5)]
    users, items = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    times = np.repeat(np.arange(4) * 10_000, [len(part[0]) for part in parts]) + rng.integers(0, 5_000, len(users))
    labels = (users % 2 == items % 2).astype(int)
    labels[: NUM_OLD * 12] = 1  # in the pool nothing but who has what tells the tribes apart
    return plant(users, items, times, labels, np.zeros(NUM_OLD + NUM_NEW, int), (10_000, 20_000, 30_000))


def test_unseen_items_are_extrapolated_from_their_rows(two_tribes: Any) -> None:
    model = two_tribes.build(FATE, FATESettings(**SMALL))
    two_tribes.fit(model, two_tribes.slates(two_tribes.rows_of("train")), epochs=10)
    test = two_tribes.slates(two_tribes.rows_of("test"))
    assert (test["fields"][..., 1].numpy() >= two_tribes.info.num_train_ids[1]).all()
    assert two_tribes.measure_auc(model, test) > 0.85
    early = dict(test) | {"time": tf.fill(test["time"].shape, tf.constant(20_000, tf.int64))}
    assert 0.35 < two_tribes.measure_auc(model, early) < 0.65  # before their rows nothing is known of them


def test_value_rows_are_the_newest_strictly_before() -> None:
    rng = np.random.default_rng(2)
    values, times = rng.integers(0, 6, 200), rng.integers(0, 40, 200)
    lookup = ValueRows(values, times.astype(np.int64))
    asked, as_of = rng.integers(0, 8, (50, 3)).astype(np.int32), rng.integers(-1, 42, 50)
    found = lookup.newest(tf.constant(asked), tf.constant(as_of, tf.int64), 5).numpy()
    for place, time in enumerate(as_of):
        for column, value in enumerate(asked[place]):
            rows = np.flatnonzero((values == value) & (times < time)) if value >= 2 else np.zeros(0, int)
            expected = rows[np.argsort(times[rows], kind="stable")][::-1][:5]
            assert found[place, column].tolist() == [*expected, *[-1] * (5 - len(expected))]


def test_a_row_says_nothing_of_the_value_that_it_is_asked_about(two_tribes: Any) -> None:
    """Only the message to the item, of rows whose users and category stay: their item's embedding must not matter."""
    model = two_tribes.build(FATE, FATESettings(**SMALL))
    train = two_tribes.slates(two_tribes.rows_of("train")[:8])
    model(train)
    items, users = train["fields"][..., 1], train["fields"][..., 0]
    before = [model.row_messages(1, items, train["time"]).numpy(), model.row_messages(0, users, train["time"]).numpy()]
    table = model.embedding.table.numpy()
    first = two_tribes.info.num_train_ids[0]
    table[first : first + two_tribes.info.num_train_ids[1]] += 1.0
    model.embedding.table.assign(table)
    np.testing.assert_array_equal(model.row_messages(1, items, train["time"]).numpy(), before[0])
    assert np.abs(model.row_messages(0, users, train["time"]).numpy() - before[1]).min() > 0.1


def test_settings_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="`hidden_rate` must be from 0.0 to 1.0. Received: 2.0"):
        FATESettings(hidden_rate=2.0)
