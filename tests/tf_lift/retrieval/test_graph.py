"""The lookup in TensorFlow against `PostingLists.nearest`, which is checked against a scan of the pool."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_lift.config import Retrieval
from tf_lift.retrieval.bm25 import SCORE_UNITS
from tf_lift.retrieval.graph import PostingListGraph, listed_ranks, segment_lower_bound
from tf_lift.retrieval.graph_keys import FieldLanes
from tf_lift.retrieval.graph_spans import hash_values
from tf_lift.retrieval.match_sets import MatchSets, find_match_sets
from tf_lift.retrieval.match_sets import hash_values as numpy_hash_values
from tf_lift.retrieval.posting_lists import PoolRows, PostingLists, build_posting_lists, pool_order
from tf_lift.segments import segment_lower_bound as numpy_lower_bound

USER, ITEM = (
    0,
    2,
)  # fields of `draw_rows`; each is followed by an attribute that it determines, and the last is a context field
SHARED = (0, 1, 4)


class Log:
    """A pool of users and items with few values and attributes, of which some are missing, and slates that ask it."""

    def __init__(self, seed: int, num_rows: int, num_independent: int = 1) -> None:
        self._rng = rng = np.random.default_rng(seed)
        self._num_users, self._num_items = rng.integers(1, 8, 2)
        self._user_attributes, self._item_attributes = (
            _draw_attributes(rng, size) for size in (self._num_users + 3, 12)
        )
        self._num_independent = num_independent
        self.match_sets: MatchSets = find_match_sets(
            range(4 + num_independent), 4 + num_independent, {USER: [1], ITEM: [3]}
        )
        fields = self._draw(num_rows, 1)[:, 0]
        times = rng.integers(0, 50, num_rows)
        order = pool_order(times, np.arange(num_rows), np.zeros(num_rows, bool))
        self.pool = PoolRows(
            fields[order], times[order], fields[order, USER], rng.random(num_rows) < 0.5, order.astype(np.int32)
        )

    def _draw(self, num_slates: int, num_candidates: int) -> np.ndarray:
        rng, shape = self._rng, (num_slates, num_candidates)
        user = np.repeat(rng.integers(2, self._num_users + 2, (num_slates, 1)), num_candidates, axis=1)
        item = rng.integers(2, self._num_items + 2, shape)
        context = np.repeat(rng.integers(0, 4, (num_slates, 1, self._num_independent)), num_candidates, axis=1)
        known = [user, self._user_attributes[user], item, self._item_attributes[item]]
        return np.concatenate([np.stack(known, axis=-1), context], axis=-1).astype(np.int32)

    def slates(self, num_slates: int, num_candidates: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Fields [B, C, M], times [B] and own users [B]; some users and items are unknown, some candidates padding."""
        rng = self._rng
        fields = self._draw(num_slates, num_candidates)
        users = fields[:, 0, USER].copy()
        fields[rng.random(num_slates) < 0.2, :, USER : USER + 2] = 1
        fields[rng.random(num_slates) < 0.1, :, USER] = self._num_users + 2
        fields[rng.random((num_slates, num_candidates)) < 0.2, ITEM : ITEM + 2] = [1, 2]
        fields[rng.random((num_slates, num_candidates)) < 0.2, ITEM : ITEM + 2] = 0
        fields[rng.random((num_slates, num_candidates)) < 0.2] = 0
        return fields, rng.integers(0, 55, num_slates), users


def _draw_attributes(rng: np.random.Generator, size: int) -> np.ndarray:
    """What each of some ids determines; a quarter of them nothing (0)."""
    return rng.integers(2, 5, size) * (rng.random(size) < 0.75)


def check(lists: PostingLists, graph: PostingListGraph, retrieval: Retrieval, statistics, slates) -> None:
    """Compares the graph's answer with the kernel's."""
    fields, times, users = slates
    num_candidates = fields.shape[1]
    found = graph.nearest(tf.constant(fields), tf.constant(times), tf.constant(users))
    flat_times, flat_users = np.repeat(times, num_candidates), np.repeat(users, num_candidates)
    flat = fields.reshape(-1, fields.shape[2])
    expected = lists.nearest(flat, flat_times, retrieval, flat_users, tuple(statistics))
    for name in ("rows", "scores", "counts", "positives"):
        values, wanted = getattr(found, name).numpy(), getattr(expected, name)
        assert values.dtype == wanted.dtype
        np.testing.assert_array_equal(values, wanted.reshape(*fields.shape[:2], -1), err_msg=name)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1, 5, 60, 400]),
    st.sampled_from([1, 3, 10, 70]),
    st.sampled_from(["lucene", "paper"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([((), None), (SHARED, None), (SHARED, USER)]),
)
def test_equals_the_kernel(seed, num_rows, k, idf, rolling, exclude, columns):
    retrieval = Retrieval(num_neighbours=k, idf=idf, exclude_own_user=exclude)
    log = Log(seed, num_rows)
    lists = build_posting_lists(log.pool, log.match_sets, rolling, retrieval)
    statistics = range(0, len(log.match_sets), 2)
    graph = PostingListGraph(lists, retrieval, columns[0], statistics, columns[1])
    for shape in ((1, 1), (1, 20), (4, 6)):
        check(lists, graph, retrieval, statistics, log.slates(*shape))


def test_rows_that_cannot_be_retrieved_are_left_out() -> None:
    retrieval = Retrieval(num_neighbours=1)
    log = Log(2, 3000)
    lists = build_posting_lists(log.pool, log.match_sets, False, retrieval)
    is_listed = listed_ranks(lists)
    assert 0 < is_listed.sum() < 1000
    graph = PostingListGraph(lists, retrieval, SHARED, (0, 1), USER)
    (rows,) = (variable for variable in graph.variables if variable.name.startswith("rank_to_row"))
    np.testing.assert_array_equal(rows[:-1], lists.rank_to_row[is_listed])
    check(lists, graph, retrieval, (0, 1), log.slates(20, 20))


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["lucene", "paper"]), st.booleans(), st.booleans())
def test_equals_the_kernel_where_some_sets_have_no_lists(seed, idf, rolling, exclude):
    retrieval = Retrieval(num_neighbours=4, idf=idf, exclude_own_user=exclude)
    log = Log(seed, 300, num_independent=9)
    assert not log.match_sets.is_complete
    lists = build_posting_lists(log.pool, log.match_sets, rolling, retrieval)
    graph = PostingListGraph(lists, retrieval, (0, 1, *range(4, 13)), (0, 1), USER)
    check(lists, graph, retrieval, (0, 1), log.slates(2, 5))


def test_a_long_list_is_scanned_in_parts(monkeypatch):
    monkeypatch.setattr("tf_lift.retrieval.graph_scan._ENTRIES_AT_ONCE", 1)
    test_equals_the_kernel_where_some_sets_have_no_lists.hypothesis.inner_test(7, "paper", True, True)


@pytest.mark.parametrize("num_independent", [1, 9])
def test_places_beyond_32_bits(monkeypatch, num_independent):
    monkeypatch.setattr("tf_lift.retrieval.graph_spans._MAX_INT32_PLACE", 0)
    for exclude, rolling in ((False, False), (True, True)):
        retrieval = Retrieval(num_neighbours=3, exclude_own_user=exclude)
        log = Log(11, 200, num_independent)
        lists = build_posting_lists(log.pool, log.match_sets, rolling, retrieval)
        graph = PostingListGraph(lists, retrieval, (0, 1, *range(4, 4 + num_independent)), (0, 2), USER)
        check(lists, graph, retrieval, (0, 2), log.slates(2, 5))


def test_a_static_pool_is_hidden_from_requests_of_a_time_within_it():
    fields = np.array([[2, 2], [3, 2]], np.int32)
    pool = PoolRows(fields, np.array([5, 9]), fields[:, USER], np.ones(2, bool), np.arange(2, dtype=np.int32))
    retrieval = Retrieval(num_neighbours=2)
    lists = build_posting_lists(pool, find_match_sets([0, 1], 2, {}), False, retrieval)
    graph = PostingListGraph(lists, retrieval, (0,), (0, 1), pool_until=10)
    slates = tf.constant([[[2, 2]], [[2, 2]]])
    found = graph.nearest(slates, tf.constant([9, 10], tf.int64), tf.constant([7, 7]))
    assert found.rows.numpy().tolist() == [[[-1, -1]], [[0, 1]]]
    assert found.counts.numpy()[0].sum() == 0 < found.counts.numpy()[1].sum()


def test_a_missing_attribute_does_not_hide_its_users_rows():
    fields = np.array([[2, 0, 3, 2, 2], [3, 2, 3, 2, 2], [2, 0, 2, 2, 2]], np.int32)
    pool = PoolRows(fields, np.arange(3), fields[:, USER], np.ones(3, bool), np.arange(3, dtype=np.int32))
    match_sets = find_match_sets(range(3), 5, {USER: [1]})
    lists = build_posting_lists(pool, match_sets, True, Retrieval(num_neighbours=3))
    graph = PostingListGraph(lists, Retrieval(num_neighbours=3), SHARED)
    found = graph.nearest(tf.constant([[[2, 0, 2, 2, 2]]]), tf.constant([9], tf.int64), tf.constant([2]))
    assert found.rows.numpy().tolist() == [[[2, 0, -1]]]
    assert found.scores.numpy()[0, 0, 0] > found.scores.numpy()[0, 0, 1] > 0


def test_a_long_run_of_the_own_users_rows_is_read_through():
    match_sets = find_match_sets([0, 1], 2, {})
    fields = np.array([[3, 2]] * 5 + [[2, 2]] * 35, np.int32)  # user 2 had the item 35 times after user 3's last
    ranks = np.arange(40, dtype=np.int32)
    pool = PoolRows(fields, ranks.astype(np.int64), fields[:, 0], ranks >= 0, ranks)
    retrieval = Retrieval(num_neighbours=2, exclude_own_user=True)
    lists = build_posting_lists(pool, match_sets, True, retrieval)
    for user in (0, None):
        graph = PostingListGraph(lists, retrieval, (0,), (), user)
        for newest in range(41):
            found = graph.nearest(tf.constant([[[2, 2]]]), tf.constant([newest], tf.int64), tf.constant([2]))
            expected = list(range(min(newest, 5)))[::-1][:2]
            assert [row for row in found.rows[0, 0].numpy().tolist() if row >= 0] == expected


def test_fields_beyond_one_word_are_compared():
    lanes = FieldLanes(np.array([1 << 30, 1 << 20, 1 << 30, 5]))
    assert lanes.num_words == 2
    rows = np.array([[1 << 30, 7, 9, 2], [4, 1 << 20, 1 << 30, 5]], np.int32)
    columns = tf.unstack(lanes.values_of(tf.constant(rows)), axis=1)
    packed = np.stack([word.numpy() for word in lanes.pack_columns(range(4), columns)], axis=1)
    np.testing.assert_array_equal(packed, lanes.pack(rows))
    unknown = lanes.values_of(tf.constant([[(1 << 30) + 1, 1, 0, 6]])).numpy()
    np.testing.assert_array_equal(unknown[0], lanes.no_value)
    assert (lanes.no_value > [1 << 30, 1 << 20, 1 << 30, 5]).all()


def test_hashes_equal_numpys():
    values = np.random.default_rng(0).integers(0, 2**31, (50, 3))
    padded = tf.constant(np.pad(values, [[0, 0], [2, 0]]).T.astype(np.uint64))
    np.testing.assert_array_equal(hash_values(padded), numpy_hash_values(values))


def test_scores_fit_beside_a_rank_in_64_bits():
    most_fields, largest_idf = 32, np.log(2.0**32)
    assert most_fields * largest_idf * SCORE_UNITS < 2**31


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_segment_lower_bound_equals_numpy(dtype):
    rng = np.random.default_rng(3)
    starts = np.concatenate([[0, 0], np.sort(rng.integers(0, 60, 20)), [60]])
    values = np.concatenate([np.sort(rng.integers(0, 9, size)) for size in np.diff(starts)])
    segments = rng.integers(0, len(starts) - 1, 200)
    bounds = rng.integers(0, 10, 200)
    arguments = (starts[segments].astype(dtype), starts[segments + 1].astype(dtype), bounds)
    found = segment_lower_bound(tf.constant(values), *map(tf.constant, arguments), 6)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, numpy_lower_bound(values, *arguments))


def test_lists_must_suit_the_retrieval():
    log = Log(0, 20)
    lists = build_posting_lists(log.pool, log.match_sets, False, Retrieval(num_neighbours=3))
    with pytest.raises(ValueError, match="newest 3 rows of a key. Received: num_neighbours = 4"):
        PostingListGraph(lists, Retrieval(num_neighbours=4))
    with pytest.raises(ValueError, match="needs posting lists that were built for it"):
        PostingListGraph(lists, Retrieval(num_neighbours=3, exclude_own_user=True))
    with pytest.raises(ValueError, match=r"column must be shared. Received: user = 0, shared = \[1\]"):
        PostingListGraph(lists, Retrieval(num_neighbours=3), [1], (), 0)


RELOAD = """
import sys, numpy as np, tensorflow as tf
module = tf.saved_model.load(sys.argv[1])
asked = np.load(sys.argv[1] + "/asked.npz")
found = module.nearest(*(tf.constant(asked[name]) for name in ("fields", "times", "users")))
np.savez(sys.argv[1] + "/found.npz", **{name: value.numpy() for name, value in found._asdict().items()})
"""


@pytest.mark.parametrize("rolling", [True, False])
def test_a_saved_model_answers_alike_in_a_fresh_process(tmp_path, rolling):
    retrieval, log = Retrieval(num_neighbours=5), Log(5, 300)
    lists = build_posting_lists(log.pool, log.match_sets, rolling, retrieval)
    module = tf.Module()
    module.lists = PostingListGraph(lists, retrieval, SHARED, (0, 3), USER)
    specs = [tf.TensorSpec([None, None, 5], tf.int32), tf.TensorSpec([None], tf.int64), tf.TensorSpec([None], tf.int32)]
    module.nearest = tf.function(module.lists.nearest, input_signature=specs)
    tf.saved_model.save(module, str(tmp_path))
    fields, times, users = log.slates(3, 7)
    np.savez(tmp_path / "asked.npz", fields=fields, times=times, users=users)
    subprocess.run([sys.executable, "-c", RELOAD, str(tmp_path)], check=True, timeout=300)
    with np.load(tmp_path / "found.npz") as found:
        expected = module.nearest(tf.constant(fields), tf.constant(times), tf.constant(users))
        for name, value in expected._asdict().items():
            np.testing.assert_array_equal(found[name], value)
    check(lists, module.lists, retrieval, (0, 3), (fields, times, users))


def test_scores_that_do_not_fit_beside_a_rank_are_refused():
    num_fields = 250
    match_sets = find_match_sets(range(num_fields), num_fields, {})
    rows = np.full((6_000, num_fields), 2, np.int32)
    order = np.arange(len(rows))
    pool = PoolRows(rows, order, rows[:, 0], order > 0, order.astype(np.int32))
    lists = build_posting_lists(pool, match_sets, False, Retrieval(num_neighbours=2))
    with pytest.raises(ValueError, match=r"Scores must be below 2048 .*Received: 250 query fields and 6,000 pool rows"):
        PostingListGraph(lists, Retrieval(num_neighbours=2))
