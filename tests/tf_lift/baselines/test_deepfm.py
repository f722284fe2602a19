"""DeepFM learns what only a pair of fields tells, and its factorization machine is the sum over pairs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tf_lift.baselines.deepfm import DeepFM, DeepFMSettings

NUM_ROWS, NUM_USERS, NUM_ITEMS = 4000, 24, 20


@pytest.fixture(scope="module")
def parity(plant: Callable[..., Any]) -> Any:
    """A label is 1 where user and item are of one kind: neither of the two tells anything alone."""
    rng = np.random.default_rng(3)
    users, items = rng.integers(0, NUM_USERS, NUM_ROWS), rng.integers(0, NUM_ITEMS, NUM_ROWS)
    labels = (users + items) % 2
    return plant(
        users, items, np.arange(NUM_ROWS), labels, np.zeros(NUM_ITEMS, int), (NUM_ROWS // 8, NUM_ROWS // 2, 3000)
    )


@pytest.mark.parametrize("hidden_dims", [(), (32,)])
def test_product_of_two_fields_is_learnt(parity: Any, hidden_dims: tuple[int, ...]) -> None:
    settings = DeepFMSettings(embedding_dim=8, hidden_dims=hidden_dims, dropout_rate=0.0, l2=0.0)
    model = parity.build(DeepFM, settings)
    parity.fit(model, parity.slates(parity.rows_of("train")), epochs=15, learning_rate=0.03)
    assert parity.measure_auc(model, parity.slates(parity.rows_of("test"))) > 0.95


def test_machine_is_the_sum_over_pairs_of_fields(parity: Any) -> None:
    model = parity.build(DeepFM, DeepFMSettings(embedding_dim=4, hidden_dims=()))
    slates = parity.slates(parity.rows_of("test")[:5])
    before = model(slates).numpy()[:, 0]
    embedded = model.embedding(slates["fields"]).numpy()[:, 0]  # [n, M, w]
    pairs = sum(np.sum(embedded[:, i] * embedded[:, j], axis=-1) for i, j in itertools.combinations(range(3), 2))
    for weight in model.trainable_weights:
        if "mlp" in weight.name or "weights" in weight.name:
            weight.assign(weight * 0)
    assert np.abs(before - pairs).max() > 1e-4
    np.testing.assert_allclose(model(slates).numpy()[:, 0], pairs, rtol=1e-4, atol=1e-6)
