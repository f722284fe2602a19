"""The embedding of ids, each field in its own rows of one table."""

import numpy as np

from tf_lift.layers.interaction_embedding import InteractionEmbedding

NUM_IDS = (4, 3, 6)


def test_each_field_reads_its_own_rows_of_the_table() -> None:
    layer = InteractionEmbedding(NUM_IDS, 2)
    fields = np.array([[0, 0, 0], [3, 2, 5], [1, 1, 1]], np.int32)
    layer(fields)
    table = np.arange(2 * sum(NUM_IDS), dtype=np.float32).reshape(-1, 2)
    layer.set_weights([table])
    embedded = layer(fields[None]).numpy()
    assert embedded.shape == (1, 3, 3, 2)
    np.testing.assert_array_equal(embedded[0], table[fields + [0, 4, 7]])


def test_ids_beyond_the_vocabulary_are_unknown() -> None:
    layer = InteractionEmbedding(NUM_IDS, 3)
    np.testing.assert_array_equal(layer(np.array([[4, 3, 60]], np.int32)), layer(np.array([[1, 1, 1]], np.int32)))


def test_known_rows_are_copied_and_others_stay() -> None:
    pool, train = InteractionEmbedding((3, 4), 2), InteractionEmbedding((5, 4), 2)
    ids = np.zeros((1, 2), np.int32)
    pool(ids), train(ids)
    before = train.get_weights()[0]
    train.copy_known(pool)
    after, source = train.get_weights()[0], pool.get_weights()[0]
    np.testing.assert_array_equal(after[:3], source[:3])
    np.testing.assert_array_equal(after[3:5], before[3:5])
    np.testing.assert_array_equal(after[5:], source[3:])


def test_same_answer_after_config_and_weights() -> None:
    layer = InteractionEmbedding(NUM_IDS, 3)
    fields = np.array([[2, 2, 2]], np.int32)
    expected = layer(fields)
    copied = InteractionEmbedding.from_config(layer.get_config())
    copied(fields)
    copied.set_weights(layer.get_weights())
    np.testing.assert_array_equal(copied(fields), expected)
