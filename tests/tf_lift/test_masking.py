"""What pretraining hides."""

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_lift.data.masking import PADDING_LABEL, choose_masked, label_ids, masked_label, rows_strictly_before

WINDOWS = st.lists(st.integers(0, 3), min_size=1, max_size=6)  # steps between times; 0: the same time


def test_labels_are_padding_then_classes_then_the_mask() -> None:
    labels = label_ids(tf.constant([[0, 1, 2, 1]]), tf.constant([[True, True, True, False]]))
    np.testing.assert_array_equal(labels, [[1, 2, 3, PADDING_LABEL]])
    assert masked_label(3) == 4


@settings(max_examples=60, deadline=None)
@given(WINDOWS, st.integers(0, 3), st.floats(0, 1), st.integers(0, 2**31))
def test_rows_of_one_time_are_hidden_together(steps: list[int], padding: int, ratio: float, seed: int) -> None:
    times = np.concatenate([np.cumsum(steps), np.zeros(padding, int)])[None]
    mask = np.arange(times.size)[None] < len(steps)
    noise = np.random.default_rng(seed).random(times.shape).astype(np.float32)
    hidden = choose_masked(tf.constant(noise), tf.constant(times), tf.constant(mask), ratio).numpy()
    assert not hidden[~mask].any()
    _, groups = np.unique(times[mask], return_inverse=True)
    by_group = [set(hidden[mask][groups == group]) for group in range(groups.max() + 1)]
    assert all(len(answers) == 1 for answers in by_group)
    group_noise = noise[0, : groups.max() + 1]
    expected = group_noise < np.float32(ratio)
    if ratio > 0:
        expected |= group_noise == group_noise.min()
    np.testing.assert_array_equal([answers.pop() for answers in by_group], expected)


def test_ratio_zero_hides_nothing_and_one_hides_all() -> None:
    noise, times, mask = tf.constant([[0.2, 0.9]]), tf.constant([[1, 2]]), tf.constant([[True, True]])
    np.testing.assert_array_equal(choose_masked(noise, times, mask, 0.0), [[False, False]])
    np.testing.assert_array_equal(choose_masked(noise, times, mask, 1.0), [[True, True]])


def test_share_of_hidden_groups_is_the_ratio() -> None:
    rng = np.random.default_rng(0)
    times = np.broadcast_to(np.arange(20), (500, 20))
    hidden = choose_masked(tf.constant(rng.random((500, 20))), tf.constant(times), tf.ones([500, 20], tf.bool), 0.3)
    assert abs(hidden.numpy().mean() - 0.3) < 0.02


@settings(max_examples=40, deadline=None)
@given(WINDOWS, st.integers(0, 3))
def test_rows_strictly_before_counts_earlier_times(steps: list[int], padding: int) -> None:
    times = np.concatenate([np.cumsum(steps), np.zeros(padding, int)])[None]
    mask = np.arange(times.size)[None] < len(steps)
    counts = rows_strictly_before(tf.constant(times), tf.constant(mask)).numpy()[0]
    assert counts.tolist() == [sum(t < time for t in times[mask]) for time in times[0]]
