"""Retrieval against a scan of the pool that knows nothing of match sets."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_lift.config import Retrieval
from tf_lift.interactions import NO_ROW
from tf_lift.retrieval import posting_lists
from tf_lift.retrieval.bm25 import SCORE_UNITS, idf_units, score_from_units
from tf_lift.retrieval.match_sets import MatchSets, find_match_sets
from tf_lift.retrieval.posting_lists import (
    Neighbours,
    PoolRows,
    PostingLists,
    build_posting_lists,
    pool_order,
)
from tf_lift.schema import FIRST_VALUE_ID

UNKNOWN_ID = FIRST_VALUE_ID - 1
STRANGER = 1 << 20  # a user who is in no pool


@dataclasses.dataclass(frozen=True)
class Case:
    """A pool, and n targets that ask it. The user is field 0."""

    pool: PoolRows
    fields: np.ndarray
    times: np.ndarray
    users: np.ndarray
    match_sets: MatchSets

    def build(self, rolling: bool, retrieval: Retrieval) -> PostingLists:
        return build_posting_lists(self.pool, self.match_sets, rolling, retrieval)

    def ask(self, rolling: bool, retrieval: Retrieval) -> Neighbours:
        everything = tuple(range(len(self.match_sets)))
        return self.build(rolling, retrieval).nearest(self.fields, self.times, retrieval, self.users, everything)

    def check(self, rolling: bool, retrieval: Retrieval) -> Neighbours:
        """Compares every target's answer with the scan's."""
        answer, k = self.ask(rolling, retrieval), retrieval.num_neighbours
        for index in range(len(self.fields)):
            rows, units = self.scan(index, rolling, retrieval)
            padding = k - len(rows)
            assert answer.rows[index].tolist() == [*rows.tolist(), *[NO_ROW] * padding]
            scores = np.append(score_from_units(units), np.zeros(padding, np.float32))
            np.testing.assert_array_equal(answer.scores[index], scores)
            for set_index, generators in enumerate(self.match_sets.generators):
                matches = self.visible(index, rolling)
                for field in generators:
                    matches &= self.matches(index, field)
                assert answer.counts[index, set_index] == matches.sum()
                assert answer.positives[index, set_index] == (matches & self.pool.positive).sum()
        return answer

    def visible(self, index: int, rolling: bool) -> np.ndarray:
        return self.pool.time < self.times[index] if rolling else np.ones(len(self.pool.time), bool)

    def matches(self, index: int, field: int) -> np.ndarray:
        value = self.fields[index, field]
        return (self.pool.fields[:, field] == value) & (value >= FIRST_VALUE_ID)

    def scan(self, index: int, rolling: bool, retrieval: Retrieval) -> tuple[np.ndarray, np.ndarray]:
        """Rows and scores in units of a target's top K, by eq. 12 for every row of the pool."""
        visible = self.visible(index, rolling)
        units, eligible = np.zeros(len(visible), np.int64), np.zeros(len(visible), bool)
        for field in self.match_sets.query_fields():
            matches = self.matches(index, field) & visible
            if matches.any():
                units += matches * int(idf_units(visible.sum(), matches.sum(), retrieval.idf))
                eligible |= matches
        if retrieval.exclude_own_user:
            eligible &= self.pool.user != self.users[index]
        ranks = np.flatnonzero(eligible)
        best = ranks[np.lexsort((-ranks, -units[ranks]))][: retrieval.num_neighbours]
        return self.pool.row[best], units[best]


def build_pool(fields: np.ndarray, times: np.ndarray, positive: np.ndarray, preferred: np.ndarray) -> PoolRows:
    """Rows in the pool's order; a row's id is its place in the arguments."""
    order = pool_order(times, np.arange(len(times)), preferred)
    return PoolRows(fields[order], times[order], fields[order, 0], positive[order], order.astype(np.int32))


def draw_pool(rng: np.random.Generator, fields: np.ndarray, prefers: bool = False) -> PoolRows:
    num_rows = len(fields)
    times = rng.integers(0, rng.choice([2, 10, 1000]), num_rows)
    preferred = (rng.random(num_rows) < 0.5) & prefers
    return build_pool(fields, times, rng.random(num_rows) < 0.5, preferred)


@st.composite
def dependent_cases(draw):
    """Users and items with attributes that they determine, some of them missing or unknown; few values and many ties."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_users, num_items = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    user_attributes = rng.integers(0, 4, (num_users + 2, draw(st.integers(0, 2))))
    item_attributes = rng.integers(0, 4, (num_items + 2, draw(st.integers(0, 1))))
    context = draw(st.integers(0, 1))

    def draw_rows(count):
        users, items = rng.integers(2, num_users + 2, count), rng.integers(2, num_items + 2, count)
        parts = [users[:, None], user_attributes[users], items[:, None], item_attributes[items]]
        return np.concatenate([*parts, rng.integers(0, 4, (count, context))], axis=1).astype(np.int32)

    item = 1 + user_attributes.shape[1]
    num_fields = item + 1 + item_attributes.shape[1] + context
    determined = {0: range(1, item), item: range(item + 1, item + 1 + item_attributes.shape[1])}
    left_out = draw(st.sets(st.integers(0, num_fields - 1), max_size=2))
    query = [field for field in range(num_fields) if field not in left_out] or [0]
    pool = draw_pool(rng, draw_rows(draw(st.integers(0, 60))), draw(st.booleans()))
    fields = draw_rows(12)
    users = fields[:, 0].copy()
    new = rng.random(12) < 0.2  # users and items that nobody has met: their ids are unknown as of the target's time
    fields[new, : item if draw(st.booleans()) else None] = UNKNOWN_ID
    times = np.repeat(rng.integers(0, 12, 6), 2)  # candidates of one slate share the time
    return Case(pool, fields, times, users, find_match_sets(query, num_fields, determined))


@settings(max_examples=200, deadline=None)
@given(dependent_cases(), st.integers(1, 12), st.sampled_from(["lucene", "paper"]), st.booleans(), st.booleans())
def test_equals_a_scan_with_dependent_fields(case, k, idf, rolling, exclude):
    if rolling:  # the order prefers no row there
        pool = case.pool
        order = np.lexsort((pool.row, pool.time))
        case = dataclasses.replace(case, pool=PoolRows(*(column[order] for column in pool)))
    assert case.match_sets.is_complete
    case.check(rolling, Retrieval(num_neighbours=k, idf=idf, exclude_own_user=exclude))


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(9, 12),
    st.integers(1, 8),
    st.sampled_from(["lucene", "paper"]),
    st.booleans(),
    st.booleans(),
)
def test_equals_a_scan_with_more_fields_than_have_all_sets(seed, num_fields, k, idf, rolling, exclude):
    rng = np.random.default_rng(seed)
    num_values = rng.integers(1, 7, num_fields)
    fields = rng.integers(0, num_values + FIRST_VALUE_ID, (150, num_fields)).astype(np.int32)
    targets = rng.integers(0, num_values + FIRST_VALUE_ID, (12, num_fields)).astype(np.int32)
    targets[6:] = fields[rng.integers(0, 150, 6)]  # these match many fields at once
    case = Case(
        draw_pool(rng, fields),
        targets,
        rng.integers(0, 12, 12),
        targets[:, 0],
        find_match_sets(range(num_fields), num_fields, {}),
    )
    assert not case.match_sets.is_complete
    case.check(rolling, Retrieval(num_neighbours=k, idf=idf, exclude_own_user=exclude))


def test_many_fields_and_dependencies_equal_a_scan():
    rng = np.random.default_rng(3)
    fields = rng.integers(1, 6, (400, 12)).astype(np.int32)
    fields[:, 1], fields[:, 2] = fields[:, 0] % 3 + 2, fields[:, 0] % 2 + 2
    match_sets = find_match_sets(range(12), 12, {0: [1, 2]})
    case = Case(draw_pool(rng, fields), fields[::20], rng.integers(0, 1000, 20), fields[::20, 0], match_sets)
    assert not match_sets.is_complete
    for rolling in (False, True):
        case.check(rolling, Retrieval(num_neighbours=5))


@pytest.mark.parametrize("rolling", [False, True])
def test_a_row_whose_attribute_is_missing_is_found_by_its_key(rolling):
    fields = np.array([[2, 0], [2, 0], [3, 4]], np.int32)  # user 2 has no age
    pool = build_pool(fields, np.arange(3), np.ones(3, bool), np.zeros(3, bool))
    case = Case(pool, fields[:1], np.array([9]), fields[:1, 0], find_match_sets([0, 1], 2, {0: [1]}))
    assert case.check(rolling, Retrieval(num_neighbours=3)).rows.tolist() == [[1, 0, NO_ROW]]


@pytest.mark.parametrize("rolling", [False, True])
@pytest.mark.parametrize("value", [0, UNKNOWN_ID, 7, 1 << 30], ids=["padding", "unknown", "between", "beyond"])
def test_values_that_no_row_has_find_nothing(rolling, value):
    rng = np.random.default_rng(0)
    fields = rng.choice([0, 1, 2, 3, 8], (100, 3)).astype(np.int32)
    target = np.full((1, 3), value, np.int32)
    case = Case(draw_pool(rng, fields), target, np.array([2000]), target[:, 0], find_match_sets(range(3), 3, {}))
    answer = case.check(rolling, Retrieval(num_neighbours=4))
    assert (answer.rows == NO_ROW).all()
    assert not answer.scores.any() and not answer.counts.any() and not answer.positives.any()


@pytest.mark.parametrize("num_fields", [3, 9])
@pytest.mark.parametrize("rolling", [False, True])
def test_an_empty_pool_answers_nothing(rolling, num_fields):
    nobody = np.zeros((0, num_fields), np.int32)
    pool = build_pool(nobody, np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0, bool))
    targets = np.full((2, num_fields), 2, np.int32)
    case = Case(pool, targets, np.array([0, 9]), targets[:, 0], find_match_sets(range(num_fields), num_fields, {}))
    answer = case.check(rolling, Retrieval(num_neighbours=4))
    assert answer.rows.tolist() == [[NO_ROW] * 4] * 2


def test_a_pool_that_no_target_sees_yet_answers_nothing():
    fields = np.full((5, 2), 2, np.int32)
    pool = build_pool(fields, np.full(5, 10), np.ones(5, bool), np.zeros(5, bool))
    case = Case(pool, fields[:2], np.array([10, 11]), fields[:2, 0], find_match_sets([0, 1], 2, {}))
    answer = case.check(True, Retrieval(num_neighbours=2))
    assert answer.rows.tolist() == [[NO_ROW, NO_ROW], [4, 3]]  # "before t" is strict
    assert answer.counts.tolist() == [[0, 0, 0], [5, 5, 5]]


def test_no_targets_get_no_answers():
    rng = np.random.default_rng(0)
    pool = draw_pool(rng, rng.integers(2, 5, (50, 3)).astype(np.int32))
    lists = build_posting_lists(pool, find_match_sets(range(3), 3, {}), True, Retrieval())
    answer = lists.nearest(np.zeros((0, 3), np.int32), np.zeros(0, np.int64), Retrieval(num_neighbours=4))
    assert answer.rows.shape == (0, 4) and answer.counts.shape == (0, 0)


def test_ties_go_to_the_newest_row_and_then_to_the_highest_id():
    fields = np.full((6, 1), 2, np.int32)
    times = np.array([5, 3, 5, 1, 3, 9])
    none, some = np.zeros(6, bool), np.arange(6) == 3
    match_sets = find_match_sets([0], 1, {})
    targets = fields[:1], np.array([9]), fields[:1, 0], match_sets
    assert Case(build_pool(fields, times, none, none), *targets).check(
        True, Retrieval(num_neighbours=4)
    ).rows.tolist() == [[2, 0, 4, 1]]
    assert Case(build_pool(fields, times, none, some), *targets).check(
        False, Retrieval(num_neighbours=4)
    ).rows.tolist() == [[3, 5, 2, 0]]


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("rolling", [False, True])
def test_lists_much_longer_than_k(rolling, exclude):
    rng = np.random.default_rng(1)
    num_rows = 6000
    fields = np.stack([rng.integers(2, 5, num_rows), np.full(num_rows, 2), rng.integers(2, 4, num_rows)], axis=1)
    fields[2000:, 0] = 2  # the newest 4,000 rows of every key are of one user
    pool = build_pool(
        fields.astype(np.int32), np.arange(num_rows) // 3, rng.random(num_rows) < 0.5, np.zeros(num_rows, bool)
    )
    targets = np.array([[2, 2, 2], [2, 2, 3], [3, 2, 2], [STRANGER, 2, 2]], np.int32)
    match_sets = find_match_sets(range(3), 3, {})
    case = Case(pool, np.tile(targets, (3, 1)), np.repeat([100, 1500, 3000], 4), np.tile(targets[:, 0], 3), match_sets)
    for k in (1, 7):
        case.check(rolling, Retrieval(num_neighbours=k, exclude_own_user=exclude))


def test_ids_that_fill_more_than_16_bits_are_found():
    rng = np.random.default_rng(2)
    values = rng.integers(2, 1 << 20, 40)
    fields = values[rng.integers(0, 40, (1500, 3))].astype(np.int32)
    case = Case(draw_pool(rng, fields), fields[:60], np.full(60, 500), fields[:60, 0], find_match_sets(range(3), 3, {}))
    case.check(True, Retrieval(num_neighbours=3))


@pytest.mark.parametrize("num_fields", [4, 9])
@pytest.mark.parametrize("rolling", [False, True])
def test_chunks_of_targets_change_no_answer(monkeypatch, rolling, num_fields):
    rng = np.random.default_rng(4)
    fields = rng.integers(1, 6, (200, num_fields)).astype(np.int32)
    pool = draw_pool(rng, fields)
    match_sets = find_match_sets(range(num_fields), num_fields, {})
    case = Case(pool, fields[:50], rng.integers(0, 12, 50), fields[:50, 0], match_sets)
    retrieval = Retrieval(num_neighbours=4, exclude_own_user=True)
    whole = case.ask(rolling, retrieval)
    monkeypatch.setattr(posting_lists, "_TARGETS_AT_ONCE", 7)
    chunked = case.ask(rolling, retrieval)
    for field in dataclasses.fields(Neighbours):
        np.testing.assert_array_equal(getattr(chunked, field.name), getattr(whole, field.name))
        assert getattr(chunked, field.name).dtype == getattr(whole, field.name).dtype
    assert (whole.rows != NO_ROW).any()


@pytest.mark.parametrize("rolling", [False, True])
def test_statistics_are_of_the_chosen_sets_in_their_order(rolling):
    rng = np.random.default_rng(5)
    fields = rng.integers(1, 5, (200, 4)).astype(np.int32)
    case = Case(
        draw_pool(rng, fields), fields[:30], rng.integers(0, 12, 30), fields[:30, 0], find_match_sets(range(4), 4, {})
    )
    retrieval = Retrieval(num_neighbours=2)
    whole = case.ask(rolling, retrieval)
    chosen = (9, 0, 9, 3)
    some = case.build(rolling, retrieval).nearest(case.fields, case.times, retrieval, statistics=chosen)
    np.testing.assert_array_equal(some.counts, whole.counts[:, chosen])
    np.testing.assert_array_equal(some.positives, whole.positives[:, chosen])
    assert whole.counts.any()


def test_fewer_neighbours_than_the_lists_hold_are_the_first_of_them():
    rng = np.random.default_rng(6)
    fields = rng.integers(1, 5, (200, 3)).astype(np.int32)
    case = Case(
        draw_pool(rng, fields), fields[:30], np.full(30, 2000), fields[:30, 0], find_match_sets(range(3), 3, {})
    )
    lists = case.build(False, Retrieval(num_neighbours=8))
    few, many = (lists.nearest(case.fields, case.times, Retrieval(num_neighbours=k)) for k in (3, 8))
    np.testing.assert_array_equal(few.rows, many.rows[:, :3])
    np.testing.assert_array_equal(few.scores, many.scores[:, :3])


def test_more_neighbours_than_the_lists_hold_are_refused():
    fields = np.full((20, 2), 2, np.int32)
    pool = build_pool(fields, np.arange(20), np.ones(20, bool), np.zeros(20, bool))
    match_sets = find_match_sets([0, 1], 2, {})
    lists = build_posting_lists(pool, match_sets, False, Retrieval(num_neighbours=3))
    with pytest.raises(ValueError, match="hold the newest 3 rows of a key. Received: num_neighbours = 4. Build them"):
        lists.nearest(fields[:1], np.array([99]), Retrieval(num_neighbours=4))
    rolling = build_posting_lists(pool, match_sets, True, Retrieval(num_neighbours=3))  # holds all rows
    assert (rolling.nearest(fields[:1], np.array([99]), Retrieval(num_neighbours=9)).rows >= 0).all()


@pytest.mark.parametrize("rolling", [False, True])
def test_excluding_needs_users(rolling):
    fields = np.full((20, 2), 2, np.int32)
    pool = build_pool(fields, np.arange(20), np.ones(20, bool), np.zeros(20, bool))
    match_sets, excluding = find_match_sets([0, 1], 2, {}), Retrieval(num_neighbours=3, exclude_own_user=True)
    with pytest.raises(ValueError, match="needs `own_users`. Received: None"):
        build_posting_lists(pool, match_sets, rolling, excluding).nearest(fields[:1], np.array([99]), excluding)
    lists = build_posting_lists(pool, match_sets, rolling, Retrieval(num_neighbours=3))
    with pytest.raises(
        ValueError, match="built for it. Received: lists of a configuration with exclude_own_user = false"
    ):
        lists.nearest(fields[:1], np.array([99]), excluding, fields[:1, 0])


def test_a_false_dependency_is_refused():
    fields = np.array([[2, 2], [1, 4], [3, 2], [1, 5], [2, 3]], np.int32)
    pool = build_pool(fields, np.arange(5), np.ones(5, bool), np.zeros(5, bool))
    message = r"Field 0 must determine field 1.*Received: id 2 with 2 in row 0 and 3 in row 4.*entity `context`"
    with pytest.raises(ValueError, match=message):
        build_posting_lists(pool, find_match_sets([0, 1], 2, {0: [1]}), True, Retrieval())
    whole = build_pool(fields[:4], np.arange(4), np.ones(4, bool), np.zeros(4, bool))  # unknown ids determine nothing
    build_posting_lists(whole, find_match_sets([0, 1], 2, {0: [1]}), True, Retrieval())


def test_num_bytes_counts_every_array():
    rng = np.random.default_rng(7)
    fields = rng.integers(2, 4, (5000, 3)).astype(np.int32)
    pool, match_sets = draw_pool(rng, fields), find_match_sets(range(3), 3, {})
    rolling, static = (
        build_posting_lists(pool, match_sets, mode, Retrieval(num_neighbours=5)) for mode in (True, False)
    )
    for lists in (rolling, static):
        arrays = [value for value in vars(lists).values() if isinstance(value, np.ndarray)]
        assert lists.num_bytes() == sum(array.size * array.itemsize for array in arrays)
    num_keys = sum(2 ** len(generators) for generators in match_sets.generators)
    assert len(rolling.ranks) == 7 * 5000 and len(static.ranks) == 5 * num_keys
    assert rolling.num_bytes() - static.num_bytes() > 4 * (len(rolling.ranks) - len(static.ranks))


def test_paper_idf_is_clamped_and_lucene_is_positive():
    assert idf_units(np.array(10), np.array(9), "paper") == 0
    assert idf_units(np.array(10), np.array(9), "lucene") > 0
    assert idf_units(np.array(100), np.array(1), "paper") == round(np.log(99.5 / 1.5) * SCORE_UNITS)


def test_rows_out_of_the_order_of_time_are_refused():
    fields, order = np.full((3, 1), 2, np.int32), np.arange(3, dtype=np.int32)
    pool = PoolRows(fields, np.array([5, 4, 6]), fields[:, 0], order > 0, order)
    with pytest.raises(
        ValueError, match=r"in the order of their times in rolling mode\. Received: 5 before 4 at rank 0"
    ):
        build_posting_lists(pool, find_match_sets([0], 1, {}), True, Retrieval())
