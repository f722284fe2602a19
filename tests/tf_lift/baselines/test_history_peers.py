"""DIN finds the one row of a history that matters for the candidate; DIEN the newer of two that do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tf_lift.baselines.dien import DIEN, DIENSettings
from tf_lift.baselines.din import DIN, DINSettings

NUM_USERS, NUM_ITEMS, LENGTH = 1200, 6, 6
SMALL: dict[str, Any] = {"embedding_dim": 8, "hidden_dims": (32,), "dropout_rate": 0.0, "l2": 0.0}
SMALL["context_length"] = LENGTH


def plant_histories(plant: Callable[..., Any], evolving: bool) -> Any:
    """Users with six rows of items each by chance and a seventh, the target, whose label follows from some of the six.

    Args:
        plant: the fixture.
        evolving: False: what the user did with the one earlier row of the target's item; the others are noise. True: with the
            newer of the two earlier rows of that item, whose behaviours are by chance.
    """
    rng = np.random.default_rng(4)
    users, items, labels = [], [], []
    for user in range(NUM_USERS):
        wanted = rng.integers(NUM_ITEMS)
        others = rng.choice(np.delete(np.arange(NUM_ITEMS), wanted), LENGTH)
        places = np.sort(rng.choice(LENGTH, 2 if evolving else 1, replace=False))
        others[places] = wanted
        done = rng.integers(0, 2, LENGTH)
        users += [user] * (LENGTH + 1)
        items += [*others, wanted]
        labels += [*done, done[places[-1]]]
    num_rows = len(users)
    cut = num_rows // (LENGTH + 1) * 3 // 4 * (LENGTH + 1)
    cuts = (LENGTH + 1, cut, cut + LENGTH + 1)
    columns = (np.array(column) for column in (users, items, range(num_rows), labels))
    return plant(*columns, np.arange(NUM_ITEMS), cuts)


def targets_of(planted: Any, split: str) -> np.ndarray:
    """The last row of each user."""
    rows = planted.rows_of(split)
    return rows[np.isin(rows, planted.log.user_starts[1:] - 1)]


@pytest.fixture(scope="module")
def relevant(plant: Callable[..., Any]) -> Any:
    return plant_histories(plant, evolving=False)


@pytest.fixture(scope="module")
def evolving(plant: Callable[..., Any]) -> Any:
    return plant_histories(plant, evolving=True)


def test_din_finds_the_relevant_row_among_noise(relevant: Any) -> None:
    model = relevant.build(DIN, DINSettings(**SMALL))
    relevant.fit(model, relevant.slates(targets_of(relevant, "train")), epochs=15, learning_rate=0.02)
    slates = relevant.slates(targets_of(relevant, "test"))
    assert relevant.measure_auc(model, slates) > 0.95
    weights, _ = model.weigh(slates, model.datastore.history(slates["history_position"]))
    history = model.datastore.history(slates["history_position"])
    same = (history.fields[..., 1] == slates["fields"][:, :1, 1]).numpy()
    size = np.abs(weights.numpy()[:, 0])
    assert size[same].mean() > 3 * size[~same].mean()


def test_din_without_the_history_is_at_chance(relevant: Any) -> None:
    model = relevant.build(DIN, DINSettings(**SMALL))
    relevant.fit(model, relevant.slates(targets_of(relevant, "train")), epochs=5, learning_rate=0.01)
    slates = relevant.slates(targets_of(relevant, "test"))
    empty = slates | {"history_position": tf.zeros_like(slates["history_position"])}
    assert abs(relevant.measure_auc(model, empty) - 0.5) < 0.1


def test_dien_follows_the_newer_of_the_relevant_rows(evolving: Any) -> None:
    """A sum that knows no order has AUC .75, as it is right where both rows agree and ties elsewhere; this has .87."""
    model = evolving.build(DIEN, DIENSettings(**SMALL, auxiliary_weight=0.1))
    evolving.fit(model, evolving.slates(targets_of(evolving, "train")), epochs=25, learning_rate=0.02)
    assert evolving.measure_auc(model, evolving.slates(targets_of(evolving, "test"))) > 0.82


@pytest.mark.parametrize(("peer", "settings"), [(DIN, DINSettings(**SMALL)), (DIEN, DIENSettings(**SMALL))])
def test_a_candidate_is_ranked_alike_alone_and_in_a_slate(relevant: Any, peer: Any, settings: Any) -> None:
    rows = targets_of(relevant, "test")[:4]
    items = np.tile(np.arange(2, 2 + NUM_ITEMS), (4, 1))
    wide = relevant.slates(rows, items=items)
    model = relevant.build(peer, settings)
    together = model(wide, training=False).numpy()
    for place in range(NUM_ITEMS):
        alone = model(relevant.slates(rows, items=items[:, place : place + 1]), training=False).numpy()
        np.testing.assert_allclose(alone[:, 0], together[:, place], rtol=1e-4, atol=1e-5)


def test_auxiliary_loss_teaches_the_next_item(relevant: Any) -> None:
    model = relevant.build(DIEN, DIENSettings(**SMALL))
    slates = relevant.slates(targets_of(relevant, "train")[:64])
    model(slates)
    history = model.datastore.history(slates["history_position"])
    optimizer = tf.keras.optimizers.Adam(0.02)
    before = float(model.auxiliary_loss(history))
    for _ in range(60):
        with tf.GradientTape() as tape:
            loss = model.auxiliary_loss(history)
        weights = [weight for weight in model.trainable_weights if "extractor" in weight.name or "table" in weight.name]
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
    assert before == pytest.approx(2 * np.log(2), abs=0.1)  # two logits near 0
    assert float(loss) < 0.7 * before
    assert float(model.compute_loss(slates, training=True)) > float(loss) > 0  # eq. 7 has both parts
