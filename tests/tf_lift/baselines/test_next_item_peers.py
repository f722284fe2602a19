"""SASRec, GRU4Rec and BERT4Rec find the order that was planted, and read nothing but the past."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tf_lift.baselines import next_item_peer
from tf_lift.baselines.bert4rec import BERT4Rec, BERT4RecSettings
from tf_lift.baselines.gru4rec import GRU4Rec, GRU4RecSettings
from tf_lift.baselines.item_sequences import ItemSequences, build_item_sequences
from tf_lift.baselines.sasrec import SASRec, SASRecSettings

NUM_USERS, NUM_STEPS, NUM_ITEMS = 150, 24, 12
PEERS = {
    "sasrec": (SASRec, SASRecSettings),
    "gru4rec": (GRU4Rec, GRU4RecSettings),
    "bert4rec": (BERT4Rec, BERT4RecSettings),
}
SMALL = {
    "embedding_dim": 16,
    "context_length": 4,
    "search_length": 12,
    "dropout_rate": 0.0,
    "hidden_dims": (16,),
    "learning_rate": 0.01,
    "pretraining_epochs": 20,
    "pretraining_batch_size": 64,
}


@pytest.fixture(scope="module")
def ring(plant: Callable[..., Any]) -> Any:
    """Positives go round a ring of items, one step of 10 s each; rows with label 0 between them name items by chance."""
    rng = np.random.default_rng(3)
    users = np.repeat(np.arange(NUM_USERS), NUM_STEPS)
    steps = np.tile(np.arange(NUM_STEPS), NUM_USERS)
    labels = (rng.random(len(users)) < 0.7).astype(int)
    turns = (labels.reshape(NUM_USERS, -1).cumsum(axis=1) + rng.integers(0, NUM_ITEMS, (NUM_USERS, 1))).ravel()
    items = np.where(labels == 1, turns % NUM_ITEMS, rng.integers(0, NUM_ITEMS, len(users)))
    return plant(users, items, 10 * steps, labels, np.arange(NUM_ITEMS) % 3, (160, 200, 220))


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where first stages are kept: one that another test ran is read, not run again."""
    return tmp_path_factory.mktemp("stages")


def slates_of(ring: Any, split: str) -> dict[str, tf.Tensor]:
    """Slates of all items at a split's positives."""
    rows = ring.rows_of(split)
    rows = rows[ring.log.behaviour[rows] == 1]
    return ring.slates(rows, np.tile(np.arange(2, 2 + NUM_ITEMS, dtype=np.int32), (len(rows), 1)))


def pretrained(ring: Any, name: str, folder: Path, **settings: Any) -> Any:
    peer, cls = PEERS[name]
    model = ring.build(peer, cls(**SMALL | settings), name)
    model(slates_of(ring, "test"))
    model.pretrain(ring.dataset, folder, folder)
    return model


@pytest.mark.parametrize("name", PEERS)
def test_the_planted_next_item_ranks_first(ring: Any, stages: Path, name: str) -> None:
    model = pretrained(ring, name, stages / name)
    if name == "bert4rec":  # its answer is the second stage's
        ring.fit(model, slates_of(ring, "train"), epochs=3)
    assert ring.share_first(model, slates_of(ring, "test")) > 0.9


def test_second_stage_of_an_inner_product_learns_the_scale_alone(ring: Any, stages: Path) -> None:
    model = pretrained(ring, "sasrec", stages / "sasrec")
    test = slates_of(ring, "test")
    before, table = model(test).numpy(), model.item_embedding.table.numpy()
    ring.fit(model, slates_of(ring, "train"), epochs=3)
    after = model(test).numpy()
    np.testing.assert_array_equal(model.item_embedding.table.numpy(), table)
    slope, offset = np.polyfit(before.ravel(), after.ravel(), 1)
    np.testing.assert_allclose(after, slope * before + offset, atol=1e-4)
    assert abs(offset) > 0.01

    tuned = pretrained(ring, "sasrec", stages / "sasrec", tune_all=True)  # the first stage is read, not run again
    np.testing.assert_array_equal(tuned.item_embedding.table.numpy(), table)
    ring.fit(tuned, slates_of(ring, "train"), epochs=1)
    assert np.abs(tuned.item_embedding.table.numpy() - table).max() > 1e-4


@pytest.mark.parametrize("name", PEERS)
def test_only_positives_strictly_before_are_read(ring: Any, name: str) -> None:
    peer, cls = PEERS[name]
    model = ring.build(peer, cls(**SMALL), name)
    test = slates_of(ring, "test")
    items, mask = model.newest_positives(test, 4)
    log = ring.log
    for place, row in enumerate(test["row"].numpy()):
        user = log.fields[:, 0] == log.fields[row, 0]
        seen = log.fields[user & (log.time < log.time[row]) & (log.behaviour == 1), 1][-4:]
        assert items.numpy()[place][mask.numpy()[place]].tolist() == seen.tolist()
        assert mask.numpy()[place].tolist() == [False] * (4 - len(seen)) + [True] * len(seen)


def test_bert4rec_tells_the_newest_item_from_rows_strictly_before(ring: Any) -> None:
    model = ring.build(BERT4Rec, BERT4RecSettings(**SMALL), "bert4rec")
    model(slates_of(ring, "test"))
    places = SMALL["context_length"] + 1
    items = np.arange(2, 2 + places, dtype=np.int32)[None] % NUM_ITEMS + 2
    mask, earlier = np.ones((1, places), bool), np.arange(-1, places - 1, dtype=np.int32)[None]
    earlier[0, -2] = earlier[0, -1] = places - 3  # the two newest have one time

    def tell(items: np.ndarray) -> np.ndarray:
        states, truth = model.learning_states(ItemSequences(items, mask, earlier), training=False)
        assert truth.numpy().tolist() == items[:, -1].tolist()
        return states.numpy()

    other, older = items.copy(), items.copy()
    other[0, -2] += 1
    older[0, -3] += 1
    np.testing.assert_array_equal(tell(other), tell(items))
    assert np.abs(tell(older) - tell(items)).max() > 1e-3


def test_item_sequences_cover_each_positive_once_as_a_target(plant: Callable[..., Any]) -> None:
    """User 0 has 6 positives before the end, two of them at one time; user 1 has one, user 2 none."""
    users = np.array([0, 0, 0, 0, 0, 0, 0, 1, 2, 0])
    times = np.array([1, 2, 3, 3, 4, 5, 6, 1, 2, 90])
    labels = np.array([1, 1, 1, 1, 0, 1, 1, 1, 0, 1])
    planted = plant(users, np.arange(10), times, labels, np.arange(10), (50, 60, 70))
    sequences = build_item_sequences(planted.dataset, 50, 4)
    ids = planted.info.vocabularies[1].ids(["0", "1", "2", "3", "5", "6"]).tolist()
    assert sequences.items.tolist() == [ids[2:], [0, *ids[:3]]]
    assert sequences.mask.tolist() == [[True] * 4, [False, True, True, True]]
    assert sequences.last_before.tolist() == [[-1, -1, 1, 2], [-1, -1, 1, 2]]
    with pytest.raises(ValueError, match="users with two positives or more. Received: none"):
        build_item_sequences(planted.dataset, 2, 4)


def test_the_first_stage_ends_with_a_learning_rate_of_nothing(
    ring: Any, tmp_path: Path, check_decay: Callable[..., None]
) -> None:
    settings = {"pretraining_learning_rate_decay": "cosine", "pretraining_epochs": 2, "pretraining_patience": 1}
    check_decay(next_item_peer, lambda: pretrained(ring, "sasrec", tmp_path, **settings), SMALL["learning_rate"])


def test_settings_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="`learn_until` must be 'pool' or 'train'. Received: 'test'"):
        SASRecSettings(learn_until="test")
    with pytest.raises(
        ValueError, match="`pretraining_learning_rate_decay` must be 'none' or 'cosine'. Received: 'linear'"
    ):
        SASRecSettings(pretraining_learning_rate_decay="linear")
    with pytest.raises(ValueError, match="heads that divide its width. Received: num_layers 2, num_heads 3"):
        SASRecSettings(num_heads=3)
    with pytest.raises(ValueError, match="`search_length` must be from 50"):
        GRU4RecSettings(search_length=10)
