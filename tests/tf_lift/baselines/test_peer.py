"""The losses that all peers share, beside sums by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tf_lift.baselines.deepfm import DeepFM, DeepFMSettings
from tf_lift.baselines.peer import PeerSettings
from tf_lift.models.slate_losses import listwise_loss

NUM_ROWS = 400


@pytest.fixture(scope="module")
def log(plant: Callable[..., Any]) -> Any:
    rng = np.random.default_rng(1)
    users, items = rng.integers(0, 9, NUM_ROWS), rng.integers(0, 6, NUM_ROWS)
    return plant(users, items, np.arange(NUM_ROWS), rng.integers(0, 2, NUM_ROWS), np.zeros(6, int), (50, 300, 350))


def test_listwise_loss_is_the_cross_entropy_of_the_real_candidates() -> None:
    logits = np.array([[1.0, 2.0, 50.0], [0.5, 0.0, -1.0], [3.0, 9.0, 9.0], [1.0, 2.0, 3.0]], np.float32)
    labels = np.array([[1, 0, 0], [1, 0, 1], [1, 0, 0], [0, 0, 0]], np.float32)
    mask = np.array([[1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 1]], bool)
    losses = listwise_loss(tf.constant(logits), tf.constant(labels), tf.constant(mask))[0].numpy()
    total = np.exp([0.5, 0.0, -1.0]).sum()
    expected = [np.log1p(np.exp(1.0)), -(0.5 + -1.0) / 2 + np.log(total), 0.0, 0.0]
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-6)


def test_pointwise_loss_is_the_mean_over_real_candidates_and_l2(log: Any) -> None:
    slates = log.slates(log.rows_of("train")[:5], items=np.tile([2, 3, 4, 5], (5, 1)))
    mask = np.ones((5, 4), bool)
    mask[:2, 2:] = False
    slates["mask"] = tf.constant(mask)
    plain = log.build(DeepFM, DeepFMSettings(hidden_dims=(8,), dropout_rate=0.0, l2=0.0))
    logits, labels = plain(slates).numpy(), slates["label"].numpy()
    losses = np.logaddexp(0, logits) - labels * logits
    expected = sum(row[kept].mean() for row, kept in zip(losses, mask, strict=True)) / log.config.training.batch_size
    for training in (False, True):
        assert float(plain.compute_loss(slates, training=training)) == pytest.approx(expected, rel=1e-4)
    penalised = log.build(DeepFM, DeepFMSettings(hidden_dims=(8,), dropout_rate=0.0, l2=0.3))
    penalised(slates)
    kernels = [weight.numpy() for weight in penalised.trainable_weights if "kernel" in weight.name]
    assert len(kernels) == 2
    penalty = 0.3 * sum(np.square(kernel).sum() for kernel in kernels) / 2
    difference = penalised.compute_loss(slates, training=True) - penalised.compute_loss(slates, training=False)
    assert float(difference) == pytest.approx(penalty, rel=1e-4)


def test_embedding_l2_shrinks_what_candidates_hold(log: Any) -> None:
    slates = log.slates(log.rows_of("train"))
    norms = []
    for weight in (0.0, 1.0):
        model = log.build(DeepFM, DeepFMSettings(hidden_dims=(8,), embedding_l2=weight))
        log.fit(model, slates, epochs=3)
        norms.append(float(tf.norm(model.embedding(slates["fields"]))))
    assert norms[1] < 0.5 * norms[0]


def test_history_is_as_long_as_the_settings_say(log: Any) -> None:
    slates = log.slates(log.rows_of("test"))
    for length, expected in ((0, 8), (30, 30)):  # 8: the configuration's
        model = log.build(DeepFM, DeepFMSettings(context_length=length))
        assert int(tf.reduce_max(model.datastore.history(slates["history_position"]).num_rows)) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "pairwise"}, "`loss` must be 'pointwise' or 'listwise'. Received: 'pairwise'"),
        ({"num_epochs": 0}, "`num_epochs` must be from 1 to .* Received: 0"),
        ({"dropout_rate": -0.1}, "`dropout_rate` must be from 0.0 to 0.9. Received: -0.1"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PeerSettings(**settings)
