"""The softmax over all items."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import softmax_loss as benchmark
from tf_lift.layers.softmax_loss import softmax_cross_entropy


@pytest.mark.parametrize("scale", [0.1, 1.0, 60.0])
def test_loss_and_gradients_are_those_of_tensorflows_operation(scale: float) -> None:
    rng = np.random.default_rng(3)
    states = tf.constant(rng.normal(size=(9, 4)) * scale, tf.float32)
    embedded = tf.constant(rng.normal(size=(6, 4)), tf.float32)
    bias = tf.constant(rng.normal(size=6), tf.float32)
    items = tf.constant(rng.integers(0, 6, 9), tf.int32)

    def differentiate(loss):
        with tf.GradientTape() as tape:
            tape.watch([states, embedded, bias])
            value = loss()
        return [value, *map(tf.convert_to_tensor, tape.gradient(value, [states, embedded, bias]))]

    def reference():
        logits = tf.matmul(states, embedded, transpose_b=True) + bias
        return tf.nn.sparse_softmax_cross_entropy_with_logits(items, logits)

    ours = differentiate(lambda: softmax_cross_entropy(states, items, embedded, bias))
    expected = differentiate(reference)
    for value, reference in zip(ours, expected, strict=True):
        assert np.isfinite(value).all()
        np.testing.assert_allclose(value, reference, rtol=1e-4, atol=1e-5 * max(1.0, scale))


def test_benchmark_measures_both() -> None:
    seconds = benchmark.measure(num_states=20, num_items=7, width=3, repeats=2)
    assert {name: values.shape for name, values in seconds.items()} == {benchmark.OURS: (2,), benchmark.PEER: (2,)}
