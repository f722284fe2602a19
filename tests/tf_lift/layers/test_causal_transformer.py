"""The attention to a history against a NumPy loop, and what each place may see."""

import numpy as np
import tensorflow as tf

from tf_lift.layers.causal_transformer import HistoryAttention, TransformerBlock

BATCH, LENGTH, QUERIES, WIDTH, HEADS = 2, 5, 3, 8, 2


def build_visible(rng: np.random.Generator) -> np.ndarray:
    """Causal rows; each query sees some first rows, the first query none."""
    visible = np.zeros((BATCH, LENGTH + QUERIES, LENGTH), bool)
    visible[:, :LENGTH] = np.tri(LENGTH, k=-1, dtype=bool)
    counts = rng.integers(1, LENGTH, (BATCH, QUERIES))
    counts[:, 0] = 0
    visible[:, LENGTH:] = np.arange(LENGTH) < counts[..., None]
    return visible


def attend(layer: HistoryAttention, states: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """The oracle: one place and one head at a time."""
    kernel, bias, output_kernel, output_bias = layer.get_weights()
    query, key, value = np.split(states @ kernel + bias, 3, axis=-1)
    head_dim = WIDTH // HEADS
    result = np.zeros_like(states)
    for batch in range(len(states)):
        for place in range(states.shape[1]):
            seen = [*np.flatnonzero(visible[batch, place]), place]
            for head in range(HEADS):
                part = slice(head * head_dim, (head + 1) * head_dim)
                logits = key[batch, seen, part] @ query[batch, place, part] / np.sqrt(head_dim)
                weights = np.exp(logits - logits.max())
                result[batch, place, part] = (weights / weights.sum()) @ value[batch, seen, part]
    return result @ output_kernel + output_bias


def test_attention_equals_a_loop_over_places_and_heads() -> None:
    rng = np.random.default_rng(0)
    states, visible = rng.normal(size=(BATCH, LENGTH + QUERIES, WIDTH)).astype(np.float32), build_visible(rng)
    layer = HistoryAttention(HEADS, WIDTH)
    attended = layer(states, visible)
    assert attended.shape == states.shape
    np.testing.assert_allclose(attended, attend(layer, states, visible), atol=1e-5)


def test_places_see_only_what_is_visible() -> None:
    rng = np.random.default_rng(1)
    states, visible = rng.normal(size=(BATCH, LENGTH + QUERIES, WIDTH)).astype(np.float32), build_visible(rng)
    layer = TransformerBlock(HEADS, WIDTH, 0.0)
    before = layer(states, visible).numpy()
    for changed in range(LENGTH + QUERIES):
        other = states.copy()
        other[:, changed] += rng.normal(size=WIDTH)
        after = layer(other, visible).numpy()
        is_same = np.abs(after - before).max(axis=-1) < 1e-6  # [B, P]
        sees = visible[:, :, changed] if changed < LENGTH else np.zeros(is_same.shape, bool)
        sees = sees | (np.arange(LENGTH + QUERIES) == changed)
        np.testing.assert_array_equal(is_same, ~sees)


def test_what_is_asked_of_some_places_is_what_all_would_say() -> None:
    rng = np.random.default_rng(3)
    states, visible = rng.normal(size=(BATCH, LENGTH + QUERIES, WIDTH)).astype(np.float32), build_visible(rng)
    asked = np.array([[4, 0, 6], [7, 7, 1]], np.int32)
    for layer in (HistoryAttention(HEADS, WIDTH), TransformerBlock(HEADS, WIDTH, 0.0)):
        expected = np.take_along_axis(layer(states, visible).numpy(), asked[..., None], axis=1)
        seen = np.take_along_axis(visible, asked[..., None], axis=1)
        np.testing.assert_allclose(layer(states, seen, asked), expected, atol=1e-5)


def test_block_has_the_same_answer_after_config_and_weights() -> None:
    rng = np.random.default_rng(2)
    states, visible = rng.normal(size=(BATCH, LENGTH + QUERIES, WIDTH)).astype(np.float32), build_visible(rng)
    for layer in (HistoryAttention(HEADS, WIDTH), TransformerBlock(HEADS, WIDTH, 0.5)):
        expected = layer(states, visible)
        copied = type(layer).from_config(layer.get_config())
        copied(states, visible)
        copied.set_weights(layer.get_weights())
        np.testing.assert_array_equal(copied(states, visible), expected)


def test_dropout_is_on_in_training_alone() -> None:
    states = tf.ones([1, 2, WIDTH]) * tf.range(WIDTH, dtype=tf.float32)
    visible = tf.zeros([1, 2, 2], tf.bool)
    layer = TransformerBlock(HEADS, WIDTH, 0.5)
    np.testing.assert_array_equal(layer(states, visible, training=False), layer(states, visible, training=False))
    assert np.abs(layer(states, visible, training=True) - layer(states, visible, training=False)).max() > 0
