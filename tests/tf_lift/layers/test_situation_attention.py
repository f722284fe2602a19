"""Attention over a history: how its weights begin, what they learn, and that padding counts for nothing."""

import numpy as np
import tensorflow as tf

from tf_lift.layers.situation_attention import SituationAttention


def make_inputs(seed: int = 0) -> dict[str, tf.Tensor]:
    rng = np.random.default_rng(seed)
    return {
        "weights": tf.constant(rng.random((3, 4, 5, 2)), tf.float32) * 0.1,
        "labels": tf.constant(rng.integers(0, 3, (3, 5)), tf.int32),
        "items": tf.constant(rng.normal(size=(3, 5, 6)), tf.float32),
        "mask": tf.sequence_mask([5, 3, 0], 5),
    }


def test_weights_begin_by_decaying_with_age() -> None:
    inputs = make_inputs()
    features, logit = SituationAttention(5, 3)(**inputs)
    decay = np.exp(-0.1 * np.arange(5)) * inputs["mask"].numpy()
    sums = np.einsum("bm,bcmr->bcr", decay, inputs["weights"].numpy())
    np.testing.assert_allclose(features, np.log1p(100 * sums) / 4, rtol=1e-5)
    assert not logit.numpy().any() and not features[2].numpy().any()


def test_padding_is_not_read() -> None:
    inputs, layer = make_inputs(), SituationAttention(5, 3)
    expected = layer(**inputs)[0]
    other = make_inputs(1)
    mask = inputs["mask"]
    changed = {
        "weights": tf.where(mask[:, None, :, None], inputs["weights"], other["weights"]),
        "labels": tf.where(mask, inputs["labels"], other["labels"]),
        "items": tf.where(mask[..., None], inputs["items"], other["items"]),
        "mask": mask,
    }
    np.testing.assert_array_equal(layer(**changed)[0], expected)


def test_it_learns_which_rows_and_relations_count() -> None:
    """The label is told by the second relation of rows with behaviour 1."""
    rng = np.random.default_rng(3)
    weights = (rng.random((400, 2, 5, 2)) < 0.3).astype(np.float32) * 0.1
    labels = rng.integers(0, 2, (400, 5)).astype(np.int32)
    truth = np.einsum("bcm,bm->bc", weights[..., 1], labels) > 0.05
    items, mask = tf.zeros([400, 5, 4]), tf.ones([400, 5], tf.bool)
    layer, bias = SituationAttention(5, 3), tf.Variable(0.0)
    optimizer = tf.keras.optimizers.Adam(0.02)

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            logit = layer(weights, labels, items, mask)[1] + bias
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(truth, tf.float32), logit))
        variables = [*layer.trainable_variables, bias]
        optimizer.apply_gradients(
            pair for pair in zip(tape.gradient(loss, variables), variables, strict=True) if pair[0] is not None
        )
        return loss

    losses = [float(step()) for _ in range(150)]
    assert losses[0] > 0.6 and losses[-1] < 0.25
