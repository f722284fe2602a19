"""RIM reads the labels of the neighbours that resemble the candidate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tf_lift.baselines.rim import RIM, RIMSettings

NUM_POOL, NUM_TARGETS, NUM_ITEMS = 600, 1200, 10
SETTINGS = RIMSettings(embedding_dim=8, hidden_dims=(16,), dropout_rate=0.0, l2=0.0)


@pytest.fixture(scope="module")
def chance(plant: Callable[..., Any]) -> Any:
    """Labels by chance: only the neighbours that a test gives can tell them."""
    rng = np.random.default_rng(6)
    total = NUM_POOL + NUM_TARGETS
    users, items = np.arange(total), rng.integers(0, NUM_ITEMS, total)
    times = np.arange(total)
    cut = NUM_POOL + NUM_TARGETS * 3 // 4
    return plant(users, items, times, rng.integers(0, 2, total), np.zeros(NUM_ITEMS, int), (NUM_POOL, cut, cut + 1))


def give_neighbours(planted: Any, rows: np.ndarray, flip: bool = False) -> np.ndarray:
    """One pool row of the target's item and label, at a place by chance among three of other items and any label."""
    rng = np.random.default_rng(7)
    log, pool = planted.log, planted.rows_of("pool")
    items, labels = log.fields[pool, 1], log.behaviour[pool]
    neighbours = np.zeros((len(rows), 4), int)
    for place, row in enumerate(rows):
        same = items == log.fields[row, 1]
        told = log.behaviour[row] ^ flip
        neighbours[place] = rng.permutation(
            [rng.choice(pool[same & (labels == told)]), *rng.choice(pool[~same], 3, replace=False)]
        )
    return neighbours[:, None]


def test_labels_of_similar_rows_are_read(chance: Any) -> None:
    train, test = chance.rows_of("train"), chance.rows_of("test")
    model = chance.build(RIM, SETTINGS)
    chance.fit(model, chance.slates(train, neighbours=give_neighbours(chance, train)), epochs=20)
    assert chance.measure_auc(model, chance.slates(test, neighbours=give_neighbours(chance, test))) > 0.95
    flipped = chance.slates(test, neighbours=give_neighbours(chance, test, flip=True))
    assert chance.measure_auc(model, flipped) < 0.05
    assert 0.4 < chance.measure_auc(model, chance.slates(test)) < 0.6  # without neighbours


def test_a_missing_neighbour_changes_nothing(chance: Any) -> None:
    rows = chance.rows_of("test")[:5]
    neighbours = give_neighbours(chance, rows)
    model = chance.build(RIM, SETTINGS)
    neighbours[..., 3] = -1
    some = chance.slates(rows, neighbours=neighbours)
    expected = model(some).numpy()
    fewer = some | {
        name: some[name][..., :3] for name in ("neighbour_rows", "neighbour_scores", "neighbour_num_future")
    }
    np.testing.assert_allclose(model(fewer).numpy(), expected, rtol=1e-5)
    neighbours[..., 3] = rows[0]
    assert np.abs(model(chance.slates(rows, neighbours=neighbours)).numpy() - expected).max() > 1e-6


def test_neighbours_are_told_apart_by_the_candidate(chance: Any) -> None:
    """Two candidates of one slate with the same neighbours get different mixtures of them."""
    rows = chance.rows_of("test")[:4]
    both = np.array([[2, 3]] * 4, np.int32)
    neighbours = np.repeat(give_neighbours(chance, rows), 2, axis=1)
    model = chance.build(RIM, SETTINGS)
    logits = model(chance.slates(rows, both, neighbours)).numpy()
    assert logits.shape == (4, 2)
    alone = model(chance.slates(rows, both[:, 1:], neighbours[:, 1:])).numpy()
    np.testing.assert_allclose(logits[:, 1:], alone, rtol=1e-5)
    assert tf.reduce_any(logits[:, 0] != logits[:, 1])
