"""SIM and UBR find the one row that matters, far back in a long history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tf_lift.baselines.search_peer import SearchPeer, SearchSettings
from tf_lift.baselines.sim import SIM, SIMSettings
from tf_lift.baselines.ubr import UBR, UBRSettings
from tf_lift.datastore import Window

NUM_USERS, NUM_CATEGORIES, NUM_NOISE, ITEMS_EACH = 800, 3, 20, 20
PEERS = {"sim": (SIM, SIMSettings), "ubr": (UBR, UBRSettings)}
SMALL = {"embedding_dim": 8, "hidden_dims": (16,), "dropout_rate": 0.0, "num_hits": 2, "l2": 0.0}


@pytest.fixture(scope="module")
def tastes(plant: Callable[..., Any]) -> Any:
    """Users tell their taste of each category once, then 20 rows of another category follow, then a target of one category.

    Most users have their target in train, the others in test, so that a user's id tells nothing.
    """
    rng = np.random.default_rng(4)
    taste = rng.integers(0, 2, (NUM_USERS, NUM_CATEGORIES))
    asked = rng.integers(0, NUM_CATEGORIES, NUM_USERS)
    told = np.argsort(rng.random((NUM_USERS, NUM_CATEGORIES)), axis=1)
    category = np.concatenate([told, np.full((NUM_USERS, NUM_NOISE), NUM_CATEGORIES), asked[:, None]], axis=1)
    noise = rng.integers(0, 2, (NUM_USERS, NUM_NOISE))
    labels = np.concatenate(
        [np.take_along_axis(taste, told, 1), noise, np.take_along_axis(taste, asked[:, None], 1)], axis=1
    )
    items = category * ITEMS_EACH + rng.integers(0, ITEMS_EACH, category.shape)
    times = np.tile(np.arange(category.shape[1]) * 3600, (NUM_USERS, 1))
    times[:, -1] = np.where(np.arange(NUM_USERS) < NUM_USERS * 3 // 4, 100_000, 300_000)
    users = np.repeat(np.arange(NUM_USERS), category.shape[1])
    categories = np.arange((NUM_CATEGORIES + 1) * ITEMS_EACH) // ITEMS_EACH
    return plant(users, items.ravel(), times.ravel(), labels.ravel(), categories, (90_000, 200_000, 200_001))


@pytest.mark.parametrize("name", PEERS)
def test_one_relevant_row_far_back_is_found(tastes: Any, name: str) -> None:
    peer, cls = PEERS[name]
    measured = {}
    for length in (64, NUM_NOISE):
        model = tastes.build(peer, cls(**SMALL, search_length=length), name)
        tastes.fit(model, tastes.slates(tastes.rows_of("train")), epochs=15)
        measured[length] = tastes.measure_auc(model, tastes.slates(tastes.rows_of("test")))
    assert measured[64] > 0.9
    assert measured[NUM_NOISE] < 0.65  # what matters lies before the rows that are searched


class _Given(SearchPeer):
    """A peer whose relevance is given."""

    scores: tf.Tensor

    def relevance(self, fields: tf.Tensor, rows: Window) -> tf.Tensor:
        return self.scores


def test_best_rows_are_real_above_zero_and_of_equals_the_newest(tastes: Any) -> None:
    model = tastes.build(_Given, SearchSettings(num_hits=2, search_length=5))
    scores = tf.constant([[[1.0, 2.0, 1.0, 1.0, 9.0], [0.0, 1.0, 0.0, 0.0, 0.0], [3.0, 3.0, 3.0, 0.0, 0.0]]])
    mask = tf.constant([[True, True, True, True, False]])
    nothing = tf.zeros([1, 5], tf.int64)
    best = model.best_rows(scores, Window(nothing, nothing, nothing, mask, tf.constant([4])))
    assert best.numpy().astype(int).tolist() == [[[0, 1, 0, 1, 0], [0, 1, 0, 0, 0], [0, 1, 1, 0, 0]]]


def test_ubr_scores_are_bm25_of_the_pool(tastes: Any) -> None:
    model = tastes.build(UBR, UBRSettings(**SMALL, search_length=64))
    slates = tastes.slates(tastes.rows_of("test")[:6])
    rows = model._long_store.history(slates["history_position"])
    found = model.relevance(slates["fields"], rows).numpy()
    log = tastes.log
    pool = log.fields[log.time < tastes.info.boundaries.train_from]
    for place, fields in enumerate(slates["fields"].numpy()[:, 0]):
        number = int(rows.num_rows[place])
        expected = np.zeros(number)
        for column in (1, 2):
            count = np.sum(pool[:, column] == fields[column])
            idf = np.log(1 + (len(pool) - count + 0.5) / (count + 0.5))
            expected += idf * (rows.fields.numpy()[place, :number, column] == fields[column])
        np.testing.assert_allclose(found[place, 0, :number], expected, rtol=1e-5)


def test_a_user_without_rows_gets_a_finite_answer(tastes: Any) -> None:
    slates = tastes.slates(tastes.rows_of("test")[:3])
    slates["history_position"] = tf.zeros_like(slates["history_position"])
    for peer, cls in PEERS.values():
        assert np.isfinite(tastes.build(peer, cls(**SMALL))(slates).numpy()).all()


def test_settings_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="`num_hits` must be from 1 to 10. Received: 20"):
        SIMSettings(search_length=10)
