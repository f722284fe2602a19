"""The next item's logits: whose embeddings they read, what an unknown item gets, and that samples stand for all items."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tf_lift.layers.interaction_embedding import InteractionEmbedding
from tf_lift.layers.next_item_head import NextItemHead
from tf_lift.schema import UNKNOWN_ID

NUM_IDS, FIELD, STATE_DIM = (5, 12, 4), 1, 6
NUM_ITEMS = NUM_IDS[FIELD]
ALL_ITEMS = np.arange(NUM_ITEMS, dtype=np.int32)


def build(embedding_dim: int = STATE_DIM, unknown_rate: float = 0.25, seed: int = 4) -> NextItemHead:
    """A head with drawn weights, and its encoder's embedding built."""
    embedding = InteractionEmbedding(NUM_IDS, embedding_dim)
    embedding(np.zeros((1, 3), np.int32))
    head = NextItemHead(embedding, FIELD, STATE_DIM, unknown_rate)
    head(np.zeros((1, STATE_DIM), np.float32), ALL_ITEMS[None])
    rng = np.random.default_rng(seed)
    for weight in (*embedding.weights, *head.weights):
        weight.assign(rng.normal(size=weight.shape))
    return head


def draw_states(count: int = 7) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, STATE_DIM)).astype(np.float32)


@pytest.mark.parametrize("embedding_dim", [STATE_DIM, 3])
def test_logits_are_products_with_the_encoders_embeddings_where_the_widths_agree(embedding_dim: int) -> None:
    head, states = build(embedding_dim), draw_states()
    is_tied = embedding_dim == STATE_DIM
    (bias,) = [weight for weight in head.weights if weight.shape == (NUM_ITEMS,)]
    (table,) = [weight for weight in head.weights if weight.shape.rank == 2]
    assert table.shape == (sum(NUM_IDS) if is_tied else NUM_ITEMS, STATE_DIM)
    vectors = table.numpy()[5:17] if is_tied else table.numpy()
    items = np.array([[2, 11, 3]] * len(states), np.int32)
    expected = np.einsum("bv,bcv->bc", states, vectors[items]) + bias.numpy()[items]
    np.testing.assert_allclose(head(states, items), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("embedding_dim", [STATE_DIM, 3])
def test_loss_is_the_softmax_over_all_items(embedding_dim: int) -> None:
    head, states = build(embedding_dim, unknown_rate=0.0), draw_states()
    items = np.array([2, 3, 11, 5, 2, 9, 10], np.int32)
    logits = head(states, np.tile(ALL_ITEMS, (len(states), 1))).numpy()
    expected = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(items)), items]
    np.testing.assert_allclose(head.cross_entropy(states, items), expected, rtol=1e-4)


def test_unknown_item_gets_one_share_of_what_the_unknown_id_stands_for() -> None:
    head, states = build(unknown_rate=0.25), draw_states(1)
    plain = build(unknown_rate=0.0)
    items = np.array([[UNKNOWN_ID, NUM_ITEMS, NUM_ITEMS + 40, 2]], np.int32)
    logits = head(states, items).numpy()[0]
    assert logits[0] == logits[1] == logits[2] != logits[3]
    np.testing.assert_allclose(plain(states, items).numpy()[0] - logits, [np.log(3.0)] * 3 + [0], atol=1e-5)


def test_many_samples_give_the_loss_over_all_items_whatever_the_rates() -> None:
    head, states = build(), draw_states()
    items = np.array([2, 3, 11, 5, 2, 9, UNKNOWN_ID], np.int32)
    rng = np.random.default_rng(2)
    rates = rng.uniform(1.0, 5.0, NUM_ITEMS)
    rates /= rates.sum()
    samples = rng.choice(NUM_ITEMS, 40_000, p=rates).astype(np.int32)
    rates = rates.astype(np.float32)
    sampled = head.sampled_cross_entropy(states, items, samples, rates)
    np.testing.assert_allclose(sampled, head.cross_entropy(states, items), atol=0.05)
    few = head.sampled_cross_entropy(states, items, samples[:2], rates)
    assert np.abs(few - head.cross_entropy(states, items)).max() > 0.1


def test_same_answer_after_saving_and_reading(tmp_path: Path) -> None:
    head, other, states = build(), build(seed=5), draw_states()
    items = np.tile(ALL_ITEMS, (len(states), 1))
    assert np.abs(head(states, items) - other(states, items)).max() > 0.1
    tf.train.Checkpoint(head=head).write(str(tmp_path / "weights"))
    tf.train.Checkpoint(head=other).read(str(tmp_path / "weights")).assert_consumed()
    np.testing.assert_array_equal(head(states, items), other(states, items))
