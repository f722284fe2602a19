"""The lookup in TensorFlow against the one in NumPy, which is checked against brute force."""

import numpy as np
import pytest
import tensorflow as tf

from tf_lift.config import Retrieval
from tf_lift.retrieval.bm25 import SCORE_UNITS
from tf_lift.retrieval.graph import PostingListGraph
from tf_lift.retrieval.match_sets import find_match_sets
from tf_lift.retrieval.posting_lists import PostingLists, build_set_postings, join_postings, pool_order


def random_log(seed: int, num_rows: int, rolling: bool) -> tuple[PostingLists, np.ndarray, np.ndarray, np.ndarray]:
    """Posting lists of a log of users and items with attributes, the user at each rank, and targets with their times."""
    rng = np.random.default_rng(seed)
    users, items = 2 + 2 * rng.integers(1, 12), 2 + rng.integers(1, 20)
    user_attributes, item_attributes = rng.integers(0, 5, users), rng.integers(0, 6, items)

    def rows(count: int) -> np.ndarray:
        user, item = rng.integers(0, users, count), rng.integers(0, items, count)
        return np.stack([user, user_attributes[user], item, item_attributes[item]], axis=1).astype(np.int32)

    match_sets = find_match_sets(range(4), [users, 6, items, 6], {0: [1], 2: [3]})
    pool, times = rows(num_rows), rng.integers(0, 50, num_rows)
    order = pool_order(times, np.arange(num_rows), rng.random(num_rows) < (0.0 if rolling else 0.5))
    positive = rng.random(num_rows) < 0.5
    ranks = np.arange(num_rows, dtype=np.int32)
    postings = [
        build_set_postings(match_sets.keys(pool[order], index), ranks, positive[order])
        for index in range(len(match_sets))
    ]
    lists = join_postings(match_sets, rolling, postings, order.astype(np.int32), times[order])
    return lists, pool[order, 0], rows(64), rng.integers(0, 55, 64)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("rolling", [True, False])
@pytest.mark.parametrize("exclude", [True, False])
@pytest.mark.parametrize("idf", ["lucene", "paper"])
def test_equals_numpy(seed, rolling, exclude, idf):
    retrieval = Retrieval(num_neighbours=[1, 3, 10, 100][seed % 4], idf=idf, exclude_own_user=exclude)
    lists, rank_to_user, targets, times = random_log(seed, [3, 40, 400][seed % 3], rolling)
    expected = lists.nearest(targets, times, retrieval, targets[:, 0], rank_to_user)
    graph = PostingListGraph(lists, retrieval, rank_to_user)
    found = tf.function(graph.nearest)(tf.constant(targets), tf.constant(times), tf.constant(targets[:, 0]))
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.counts, expected.counts)
    np.testing.assert_array_equal(found.positives, expected.positives)
    assert (expected.rows >= 0).any()


def test_scores_fit_beside_a_rank_in_64_bits():
    most_fields, largest_idf = 32, np.log(2.0**32)
    assert most_fields * largest_idf * SCORE_UNITS < 2**31


def test_a_long_run_of_the_own_users_rows_is_read_through():
    match_sets = find_match_sets([0, 1], [4, 3], {})
    pool = np.array([[3, 2]] * 5 + [[2, 2]] * 35, np.int32)  # user 2 had the item 35 times after user 3's last
    ranks = np.arange(40, dtype=np.int32)
    postings = [build_set_postings(match_sets.keys(pool, index), ranks, ranks >= 0) for index in range(len(match_sets))]
    lists = join_postings(match_sets, True, postings, ranks, ranks.astype(np.int64))
    graph = PostingListGraph(lists, Retrieval(num_neighbours=2, exclude_own_user=True), pool[:, 0])
    for newest in range(41):
        found = graph.nearest(tf.constant([[2, 2]]), tf.constant([newest], tf.int64), tf.constant([2]))
        expected = [row for row in range(min(newest, 5))][::-1][:2]
        assert [row for row in found.rows[0].numpy().tolist() if row >= 0] == expected
