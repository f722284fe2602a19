"""Retrieval against a brute-force scan that knows nothing of match sets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_lift.config import Retrieval
from tf_lift.retrieval.bm25 import SCORE_UNITS, idf_units, score_from_units
from tf_lift.retrieval.match_sets import NO_KEY, MatchSets, find_match_sets
from tf_lift.retrieval.posting_lists import PostingLists, build_set_postings, join_postings, pool_order
from tf_lift.schema import FIRST_VALUE_ID


def build(fields, times, positive, match_sets: MatchSets, rolling: bool, preferred=None) -> PostingLists:
    order = pool_order(times, np.arange(len(times)), np.zeros(len(times), bool) if preferred is None else preferred)
    ranks = np.arange(len(times), dtype=np.int32)
    postings = [
        build_set_postings(match_sets.keys(fields[order], index), ranks, positive[order])
        for index in range(len(match_sets))
    ]
    return join_postings(match_sets, rolling, postings, order.astype(np.int32), times[order])


def brute_force(pool, times, query, time, retrieval, query_fields, rolling, own_user=None, preferred=None):
    """Rows and unit scores of the top K by a dense scan, one target at a time."""
    seen = times < time if rolling else np.ones(len(times), bool)
    match = (pool == query) & (query >= FIRST_VALUE_ID)
    units = np.zeros(len(pool), np.int64)
    for field in query_fields:
        matches = int((match[:, field] & seen).sum())
        if matches:
            units += match[:, field] * int(idf_units(int(seen.sum()), matches, retrieval.idf))
    eligible = seen & match[:, list(query_fields)].any(axis=1)
    if own_user is not None:
        eligible &= pool[:, 0] != own_user
    preferred = np.zeros(len(pool), bool) if preferred is None else preferred
    rows = sorted(np.flatnonzero(eligible), key=lambda row: (units[row], preferred[row], times[row], row), reverse=True)
    return [(int(row), int(units[row])) for row in rows[: retrieval.num_neighbours]]


@st.composite
def logs(draw):
    """A log of users and items with attributes, few values and many ties."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_rows, num_targets = draw(st.integers(0, 60)), 12
    num_users, num_items = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    user_attributes = rng.integers(0, 4, (num_users + 2, draw(st.integers(0, 2))))
    item_attributes = rng.integers(0, 4, (num_items + 2, draw(st.integers(0, 2))))
    context = draw(st.integers(0, 1))

    def rows(count):
        users, items = rng.integers(2, num_users + 2, count), rng.integers(2, num_items + 2, count)
        parts = [users[:, None], user_attributes[users], items[:, None], item_attributes[items]]
        return np.concatenate([*parts, rng.integers(0, 4, (count, context))], axis=1).astype(np.int32)

    num_user_fields = 1 + user_attributes.shape[1]
    item = num_user_fields
    num_fields = item + 1 + item_attributes.shape[1] + context
    determined = {0: range(1, num_user_fields), item: range(item + 1, item + 1 + item_attributes.shape[1])}
    skipped = draw(st.sets(st.integers(0, num_fields - 1), max_size=2))
    query_fields = [field for field in range(num_fields) if field not in skipped] or [0]
    num_ids = [max(num_users, num_items, 4) + 2] * num_fields
    return (
        rows(num_rows),
        rng.integers(0, draw(st.sampled_from([2, 10, 1000])), num_rows),
        rows(num_targets),
        rng.integers(0, 12, num_targets),
        find_match_sets(query_fields, num_ids, determined),
        query_fields,
        rng.random(num_rows) < 0.5,
    )


@settings(max_examples=300, deadline=None)
@given(
    logs(),
    st.integers(1, 12),
    st.sampled_from(["lucene", "paper"]),
    st.booleans(),
    st.booleans(),
)
def test_equals_brute_force(log, k, idf, rolling, exclude):
    pool, times, targets, target_times, match_sets, query_fields, flags = log
    preferred = None if rolling else flags
    lists = build(pool, times, flags, match_sets, rolling, preferred)
    retrieval = Retrieval(num_neighbours=k, idf=idf, exclude_own_user=exclude)
    rank_to_user = pool[lists.rank_to_row, 0]
    answer = lists.nearest(targets, target_times, retrieval, targets[:, 0], rank_to_user)
    for index, (query, time) in enumerate(zip(targets, target_times, strict=True)):
        own = query[0] if exclude else None
        expected = brute_force(pool, times, query, time, retrieval, query_fields, rolling, own, preferred)
        found = [int(row) for row in answer.rows[index] if row >= 0]
        assert found == [row for row, _ in expected]
        units = np.array([units for _, units in expected], np.int64)
        np.testing.assert_array_equal(answer.scores[index, : len(found)], score_from_units(units))
        assert not answer.scores[index, len(found) :].any()
        seen = times < time if rolling else np.ones(len(times), bool)
        for set_index, generators in enumerate(match_sets.generators):
            usable = bool((query[list(generators)] >= FIRST_VALUE_ID).all())
            match = seen & (pool[:, list(generators)] == query[list(generators)]).all(axis=1) & usable
            assert answer.counts[index, set_index] == match.sum()
            assert answer.positives[index, set_index] == (match & flags).sum()


def test_ml_1m_has_26_closed_sets():
    assert len(find_match_sets(range(6), [5] * 6, {0: [1, 2, 3], 4: [5]})) == 26


def test_keys_never_collide_and_unknown_values_have_none():
    match_sets = find_match_sets([0, 1, 2], [5, 4, 6], {0: [1]})
    grid = np.stack(np.meshgrid(range(5), range(4), range(6), indexing="ij"), -1).reshape(-1, 3)
    values_of_key = {}
    for index, generators in enumerate(match_sets.generators):
        for key, row in zip(match_sets.keys(grid, index).tolist(), grid, strict=True):
            values = (index, *row[list(generators)].tolist())
            if min(values[1:]) < FIRST_VALUE_ID:
                assert key == NO_KEY
            else:
                assert values_of_key.setdefault(key, values) == values
    assert NO_KEY not in values_of_key


def test_keys_beyond_63_bits_are_refused():
    with pytest.raises(ValueError, match="63 bits. Received: match sets"):
        find_match_sets(range(4), [1 << 20] * 4, {})


def test_paper_idf_is_clamped_and_lucene_is_positive():
    assert idf_units(np.array(10), np.array(9), "paper") == 0
    assert idf_units(np.array(10), np.array(9), "lucene") > 0
    assert idf_units(np.array(100), np.array(1), "paper") == round(np.log(99.5 / 1.5) * SCORE_UNITS)


def test_excluding_needs_users():
    lists = build(
        np.full((1, 2), 2, np.int32), np.zeros(1, np.int64), np.ones(1, bool), find_match_sets([0, 1], [3, 3], {}), True
    )
    with pytest.raises(ValueError, match="needs `own_users`"):
        lists.nearest(np.full((1, 2), 2, np.int32), np.ones(1, np.int64), Retrieval(exclude_own_user=True))
