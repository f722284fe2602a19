"""Eq. 14 against NumPy, and targets without neighbours."""

import numpy as np
import pytest

from tf_lift.layers.key_attention import KeyAttention

BATCH, CANDIDATES, NEIGHBOURS, WIDTH = 2, 3, 4, 5


def draw_inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    target = rng.normal(size=(BATCH, CANDIDATES, WIDTH)).astype(np.float32)
    neighbours = rng.normal(size=(BATCH, CANDIDATES, NEIGHBOURS, WIDTH)).astype(np.float32)
    scores = rng.random((BATCH, CANDIDATES, NEIGHBOURS)).astype(np.float32)
    mask = np.arange(NEIGHBOURS) < np.array([[4, 2, 0], [1, 3, 4]])[..., None]
    return target, neighbours, scores, mask


@pytest.mark.parametrize("score_bias", [True, False])
def test_weights_equal_the_masked_softmax(score_bias: bool) -> None:
    target, neighbours, scores, mask = draw_inputs()
    layer = KeyAttention(score_bias)
    layer(target, neighbours, scores, mask)
    if score_bias:
        layer.set_weights([layer.get_weights()[0], np.float32(0.7)])
    weights = layer(target, neighbours, scores, mask).numpy()
    kernel = layer.get_weights()[0]
    for batch, candidate in np.ndindex(BATCH, CANDIDATES):
        real = mask[batch, candidate]
        logits = neighbours[batch, candidate, real] @ (target[batch, candidate] @ kernel)
        logits = logits + (0.7 * scores[batch, candidate, real] if score_bias else 0.0)
        expected = np.exp(logits) / np.exp(logits).sum() if real.any() else []
        np.testing.assert_allclose(weights[batch, candidate, real], expected, rtol=1e-5)
        assert not weights[batch, candidate, ~real].any()


def test_a_target_without_neighbours_has_zeros() -> None:
    target, neighbours, scores, mask = draw_inputs()
    weights = KeyAttention(True)(target, neighbours, scores, np.zeros_like(mask)).numpy()
    np.testing.assert_array_equal(weights, np.zeros_like(scores))


def test_masked_neighbours_do_not_matter() -> None:
    target, neighbours, scores, mask = draw_inputs()
    layer = KeyAttention(True)
    expected = layer(target, neighbours, scores, mask)
    changed = np.where(mask[..., None], neighbours, 1e3).astype(np.float32)
    np.testing.assert_array_equal(layer(target, changed, np.where(mask, scores, 99.0), mask), expected)


@pytest.mark.parametrize("score_bias", [True, False])
def test_same_answer_after_config_and_weights(score_bias: bool) -> None:
    inputs = draw_inputs()
    layer = KeyAttention(score_bias)
    expected = layer(*inputs)
    copied = KeyAttention.from_config(layer.get_config())
    copied(*inputs)
    copied.set_weights(layer.get_weights())
    np.testing.assert_array_equal(copied(*inputs), expected)
    assert len(layer.get_weights()) == 1 + score_bias
