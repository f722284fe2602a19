"""Pointers into the log against slices of it, user by user."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tf_lift.data.dataset_files import Dataset
from tf_lift.data.masking import label_ids
from tf_lift.datastore import Datastore, build_datastore, quantise_states, select_states
from tf_lift.encode import encode_positions
from tf_lift.pretrain import build_pretrainer

LENGTH = 6


@pytest.fixture(scope="module")
def dataset(tiny: Any) -> Dataset:
    return tiny.dataset()


@pytest.fixture(scope="module")
def store(dataset: Dataset) -> Datastore:
    states = np.arange(dataset.log.num_positions, dtype=np.float32)[:, None] % 2039 / 8  # exact in float16
    return build_datastore(dataset.log, np.repeat(states, 2, axis=1).astype(np.float16), LENGTH)


def all_positions(dataset: Dataset) -> list[tuple[int, int, int]]:
    """(position, first row of its user, rows of the user before it) of every position but 0."""
    starts = dataset.log.user_starts
    return [
        (row + user + 1, int(starts[user]), row - int(starts[user]))
        for user in range(dataset.log.num_users)
        for row in range(int(starts[user]), int(starts[user + 1]) + 1)
    ]


def test_histories_are_the_last_rows_before_a_position(dataset: Dataset, store: Datastore) -> None:
    places = all_positions(dataset)
    assert [position for position, _, _ in places] == list(range(1, dataset.log.num_positions))
    window = store.history(tf.range(dataset.log.num_positions))
    assert window.num_rows[0] == 0 and not window.mask[0].numpy().any()
    arrays = [value.numpy() for value in window]
    for position, start, count in places:
        rows = np.arange(start + max(0, count - LENGTH), start + count)
        fields, behaviours, times, mask, num_rows = (array[position] for array in arrays)
        assert num_rows == len(rows)
        np.testing.assert_array_equal(mask, np.arange(LENGTH) < len(rows))
        np.testing.assert_array_equal(fields[: len(rows)], dataset.log.fields[rows])
        assert not fields[len(rows) :].any()
        np.testing.assert_array_equal(behaviours[: len(rows)], dataset.log.behaviour[rows])
        np.testing.assert_array_equal(times[: len(rows)], dataset.log.time[rows])


def test_states_before_and_after_rows_are_those_of_their_positions(dataset: Dataset, store: Datastore) -> None:
    log = dataset.log
    states, users = store.states.numpy()[:, 0].astype(np.float32), log.user_indices()
    rows = np.concatenate([np.arange(len(log)), [-1]]).astype(np.int32)
    before = store.states_before(tf.constant(rows)).numpy()[:, 0]
    np.testing.assert_array_equal(before[:-1], states[np.arange(len(log)) + users + 1])
    assert before[-1] == 0
    for num_future in (0, 1, LENGTH):
        valid = np.flatnonzero(np.arange(len(log)) + num_future < log.user_starts[users + 1])
        asked = np.concatenate([valid, [-1]]).astype(np.int32)
        after = store.states_after(tf.constant(asked), tf.fill([len(asked)], num_future)).numpy()[:, 0]
        # After row r and n more rows of its user stands the position before row r + n + 1.
        np.testing.assert_array_equal(
            after[:-1], states[valid + num_future + 1 + users[valid] + 1] if num_future else 0.0
        )
        assert after[-1] == 0


def test_the_window_of_a_full_future_is_the_future(dataset: Dataset, store: Datastore) -> None:
    log = dataset.log
    row = next(row for row in range(len(log)) if log.user_starts[log.user_indices()[row] + 1] > row + LENGTH)
    position = row + LENGTH + 1 + log.user_indices()[row] + 1
    fields = store.history(tf.constant([position])).fields[0]
    np.testing.assert_array_equal(fields, log.fields[row + 1 : row + 1 + LENGTH])


@pytest.mark.parametrize("kind", ["causal", "bidirectional", "gru"])
def test_encoded_positions_equal_encoded_slices(tiny: Any, kind: str) -> None:
    dataset = tiny.dataset()
    object.__setattr__(
        dataset, "config", tiny.load(*tiny.overrides(), "pretraining.enabled=false", f"encoder.kind={kind}")
    )
    log = dataset.log
    store = build_datastore(log, None, LENGTH)
    model = build_pretrainer(dataset, store)
    states = encode_positions(model, log, store)
    assert states.dtype == np.float16 and states.shape == (log.num_positions, 8)
    window = store.history(tf.range(log.num_positions))
    labels = label_ids(window.behaviours, window.mask)
    rows = model.encoder.encode_rows(window.fields, labels, window.mask, training=False)
    np.testing.assert_allclose(states, model.encoder.last_states(rows, window.num_rows), atol=3e-3)
    num_rows = window.num_rows.numpy()
    assert not states[num_rows == 0].any() and {0, 1, LENGTH} <= set(num_rows.tolist())
    for position, start, count in all_positions(dataset)[::97]:
        shown = np.arange(start + max(0, count - LENGTH), start + count)
        np.testing.assert_array_equal(window.fields[position, : len(shown)], log.fields[shown])


def test_selected_states_stay_and_the_others_are_zeros(dataset: Dataset, store: Datastore) -> None:
    log = dataset.log
    is_needed = np.random.default_rng(3).random(log.num_positions) < 0.4
    rows = np.arange(len(log), dtype=np.int32)
    selected = select_states(store, is_needed)
    assert len(selected.states) == is_needed.sum() + 1
    kept = is_needed[log.positions_of_rows(rows, log.user_indices())]
    expected = np.where(kept[:, None], store.states_before(rows), 0)
    np.testing.assert_array_equal(selected.states_before(rows), expected)
    assert expected[kept].any()


@pytest.mark.parametrize("is_selected", [False, True])
def test_int8_states_are_within_half_a_step(dataset: Dataset, is_selected: bool) -> None:
    log = dataset.log
    states = np.random.default_rng(4).normal(size=(log.num_positions, 3)).astype(np.float16) * np.float16([1, 20, 0])
    states[0] = 0
    store = build_datastore(log, states, LENGTH)
    rows = np.arange(-1, len(log), dtype=np.int32)
    exact = store.states_before(rows).numpy()
    quantised = quantise_states(store)
    assert quantised.states.dtype == tf.int8
    if is_selected:
        quantised = select_states(quantised, np.ones(log.num_positions, bool))
    answers = quantised.states_before(rows).numpy()
    steps = np.abs(states.astype(np.float32)).max(axis=0) / 127
    assert (np.abs(answers - exact) <= steps / 2 * 1.001).all() and not answers[0].any()


def test_states_of_another_log_are_refused(dataset: Dataset) -> None:
    with pytest.raises(ValueError, match=r"one state a position. Received: 3 for \d+ positions"):
        build_datastore(dataset.log, np.zeros((3, 2), np.float16), LENGTH)
