"""What crosses a state: the bucket of the gap, whose edges belong to the bucket below and which says nothing before training; the user."""

import numpy as np
import pytest
import tensorflow as tf

from tf_lift.layers.latent_cross import GAP_EDGES, LatentCross

STATE_DIM = 3
STATES = np.array([[1.0, -2.0, 0.5]] * 4, np.float32)
NOBODY = np.zeros((4, 2, 5), np.float32)


def build(reads_gap: bool = True, user_dropout: float | None = None) -> LatentCross:
    layer = LatentCross(STATE_DIM, reads_gap, user_dropout)
    layer(STATES, np.zeros(4, np.int64), NOBODY)
    return layer


def test_without_a_user_it_begins_as_the_state() -> None:
    seconds = np.array([0, 30, 100_000, np.iinfo(np.int64).max])
    np.testing.assert_array_equal(build()(STATES, seconds, NOBODY), STATES)


@pytest.mark.parametrize("edge", range(len(GAP_EDGES)))
def test_a_gap_of_an_edge_belongs_to_the_bucket_below(edge: int) -> None:
    layer = build()
    scales, shifts = layer.weights
    scales.assign(np.arange(scales.shape[0], dtype=np.float32)[:, None] * [1.0, 0.0, 0.0])
    shifts.assign(np.arange(scales.shape[0], dtype=np.float32)[:, None] * [0.0, 10.0, 0.0])
    at = GAP_EDGES[edge]
    crossed = layer(STATES[:2], np.array([at, at + 1]), NOBODY[:2])
    expected = [[1.0 + edge, -2.0 + 10 * edge, 0.5], [2.0 + edge, 8.0 + 10 * edge, 0.5]]
    np.testing.assert_allclose(crossed, expected)


@pytest.mark.parametrize("reads_gap", [False, True])
def test_the_user_is_added_and_dropped_in_training_alone(reads_gap: bool) -> None:
    tf.keras.utils.set_random_seed(1)
    layer, users = build(reads_gap, 0.5), np.ones((4, 2, 5), np.float32)
    (kernel,) = [weight for weight in layer.weights if "project_user" in weight.name]
    kernel.assign(tf.ones_like(kernel))
    assert len(layer.weights) == (3 if reads_gap else 1)
    seconds = np.zeros(4, np.int64)
    np.testing.assert_allclose(layer(STATES, seconds, users, training=False), STATES + 10.0)
    added = layer(STATES, seconds, users, training=True) - STATES
    assert (added.numpy() != 10.0).any()
    np.testing.assert_allclose(added % 2.0, 0.0, atol=1e-5)  # numbers that are kept count twice
