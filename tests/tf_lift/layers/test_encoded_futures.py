"""Attention over encoded futures, beside loops."""

import numpy as np
import pytest
import tensorflow as tf

from tf_lift.layers.encoded_futures import EncodedFutures

BATCH, CANDIDATES, ROWS, KEPT, WIDTH = 3, 4, 2, 5, 6


@pytest.fixture
def inputs() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    target = rng.normal(size=(BATCH, CANDIDATES, 7)).astype(np.float32)
    states = rng.normal(size=(BATCH, ROWS, KEPT, WIDTH)).astype(np.float32)
    overlaps = rng.random((BATCH, ROWS, KEPT)).astype(np.float32) * 5
    mask = rng.random((BATCH, ROWS, KEPT)) < 0.6
    mask[2] = False  # a user without neighbours
    return target, states, overlaps, mask


def test_means_are_those_of_loops(inputs: tuple[np.ndarray, ...]) -> None:
    target, states, overlaps, mask = inputs
    layer = EncodedFutures(ROWS, WIDTH)
    layer(*inputs)
    slope = next(weight for weight in layer.weights if "slope" in weight.name)
    slope.assign(0.3)
    features, logit = (value.numpy() for value in layer(*inputs))
    kernel = next(weight for weight in layer.weights if "query" in weight.name).numpy()
    for b in range(BATCH):
        for c in range(CANDIDATES):
            query = target[b, c] @ kernel
            weights = {
                (m, k): np.exp(query @ states[b, m, k] / np.sqrt(WIDTH) - 0.03 * m) * (1 + overlaps[b, m, k])
                for m, k in np.argwhere(mask[b])
            }
            mean = sum((weight * states[b, m, k] for (m, k), weight in weights.items()), np.zeros(WIDTH))
            mean = mean / max(sum(weights.values()), 1e-9)
            np.testing.assert_allclose(features[b, c], [*mean, *(query * mean)], rtol=1e-4, atol=1e-5)
            assert logit[b, c] == pytest.approx(10 * 0.3 * (query @ mean) / np.sqrt(WIDTH), rel=1e-4, abs=1e-5)
    assert not features[2].any() and not logit[2].any()


def test_the_candidate_chooses_among_futures_and_all_weights_are_trained(inputs: tuple[np.ndarray, ...]) -> None:
    layer = EncodedFutures(ROWS, WIDTH)
    layer(*inputs)
    slope = next(weight for weight in layer.weights if "slope" in weight.name)
    slope.assign(0.1)
    with tf.GradientTape() as tape:
        features, logit = layer(*inputs)
        loss = tf.reduce_sum(features**2) + tf.reduce_sum(logit**2)
    assert np.ptp(features[0, :, :WIDTH].numpy(), axis=0).max() > 1e-2
    gradients = tape.gradient(loss, layer.trainable_weights)
    assert len(gradients) == 4 and all(float(tf.reduce_max(tf.abs(gradient))) > 0 for gradient in gradients)


def test_same_answer_from_config(inputs: tuple[np.ndarray, ...]) -> None:
    layer = EncodedFutures(ROWS, WIDTH)
    layer(*inputs)
    twin = EncodedFutures.from_config(layer.get_config())
    twin(*inputs)
    twin.set_weights(layer.get_weights())
    np.testing.assert_array_equal(twin(*inputs)[0], layer(*inputs)[0])
