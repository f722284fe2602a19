"""DERT finds rows by their vectors, in the pool alone, and reads their labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tf_lift.baselines.dert import DERT, DERTSettings

NUM_USERS, NUM_ITEMS, NUM_TARGETS = 20, 30, 600
SMALL = {"embedding_dim": 8, "hidden_dims": (16,), "dropout_rate": 0.0, "l2": 0.0, "num_neighbours": 3}


@pytest.fixture(scope="module")
def repeats(plant: Callable[..., Any]) -> Any:
    """Every pair of user and item is in the pool once, with a label by chance; targets repeat pairs and their labels."""
    rng = np.random.default_rng(8)
    users, items = np.divmod(rng.permutation(NUM_USERS * NUM_ITEMS), NUM_ITEMS)
    labels = rng.integers(0, 2, len(users))
    again = rng.permutation(len(users))[:NUM_TARGETS]
    total = len(users) + NUM_TARGETS
    cuts = (len(users), len(users) + NUM_TARGETS // 2, len(users) + NUM_TARGETS // 2 + 1)
    columns = [np.concatenate([column, column[again]]) for column in (users, items)]
    return plant(*columns, np.arange(total), np.concatenate([labels, labels[again]]), np.arange(NUM_ITEMS) % 3, cuts)


class _Planted(tf.keras.layers.Layer):
    """Vectors that tell users and items apart, the category not at all."""

    def call(self, fields: tf.Tensor) -> tf.Tensor:
        user, item, _ = tf.unstack(fields, axis=-1)
        return tf.concat([tf.one_hot(user, NUM_USERS + 2), 2.0 * tf.one_hot(item, NUM_ITEMS + 2)], axis=-1)


def test_neighbours_are_the_nearest_rows_of_the_pool(repeats: Any) -> None:
    model = repeats.build(DERT, DERTSettings(**SMALL, searches_per_step=7))
    model.row_encoder = _Planted()
    slates = repeats.slates(repeats.rows_of("test")[:40])
    halves = [{name: value[part] for name, value in slates.items()} for part in (slice(0, 16), slice(16, 40))]
    rows, neighbours = model.find_neighbours(halves)
    assert rows.tolist() == slates["row"].numpy().tolist() and neighbours.shape == (40, 1, 3)
    log = repeats.log
    assert (log.time[neighbours] < repeats.info.boundaries.train_from).all()
    same = log.fields[neighbours] == log.fields[rows][:, None, None]
    assert same[:, 0, 0].all()  # the pair itself
    assert same[:, 0, 1:, 1].all()  # then others of the item, which weighs more
    model.remember(rows, neighbours)
    np.testing.assert_array_equal(model.neighbour_rows(slates).numpy(), neighbours)
    others = repeats.slates(repeats.rows_of("train")[:2])
    assert (model.neighbour_rows(others).numpy() == -1).all()


def test_padded_candidates_have_no_neighbours(repeats: Any) -> None:
    model = repeats.build(DERT, DERTSettings(**SMALL))
    both = np.array([[2, 3], [4, 5]], np.int32)
    slates = repeats.slates(repeats.rows_of("test")[:2], both) | {"mask": tf.constant([[True, True], [True, False]])}
    _, neighbours = model.find_neighbours([slates])
    assert (neighbours[1, 1] == -1).all() and (neighbours[0] >= 0).all() and (neighbours[1, 0] >= 0).all()


def test_learnt_vectors_find_the_pair_whose_label_repeats(repeats: Any, tmp_path: Path) -> None:
    settings = DERTSettings(**SMALL, learning_rate=0.01, pretraining_batch_size=64, pretraining_epochs=20, patience=5)
    model = repeats.build(DERT, settings)
    train, test = repeats.slates(repeats.rows_of("train")), repeats.slates(repeats.rows_of("test"))
    model(train)
    model.learn_rows(tmp_path, tmp_path)
    rows, neighbours = model.find_neighbours([train, test])
    log = repeats.log
    assert np.mean((log.fields[neighbours[:, 0, 0]] == log.fields[rows]).all(axis=1)) > 0.9
    model.remember(rows, neighbours)
    repeats.fit(model, train, epochs=25)
    assert repeats.measure_auc(model, test) > 0.85
    model.remember(rows[:0], neighbours[:0])
    assert repeats.measure_auc(model, test) < 0.65


def test_settings_say_what_is_wrong(repeats: Any) -> None:
    with pytest.raises(ValueError, match="`max_pool_rows` must be from 10 to .* Received: 5"):
        DERTSettings(max_pool_rows=5)
    with pytest.raises(ValueError, match="must hold `num_neighbours` rows. Received: 600 rows before train for 700"):
        repeats.build(DERT, DERTSettings(**SMALL | {"num_neighbours": 700}))
