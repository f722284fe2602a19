"""Targets that meet posting lists by key: the same answers as a scan."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam import grouped_join
from beam.grouped_join import KeyQueries, answer_queries, build_queries, find_distinct_keys, merge_answers
from tf_lift.config import Retrieval
from tf_lift.interactions import NO_ROW
from tf_lift.retrieval import set_postings
from tf_lift.retrieval.match_sets import MatchSets, find_match_sets
from tf_lift.retrieval.posting_lists import Neighbours, PoolRows, build_posting_lists
from tf_lift.retrieval.set_postings import NewestRule, SetPostings, build_set_postings, merge_set_postings
from tf_lift.schema import FIRST_VALUE_ID


@dataclasses.dataclass(frozen=True)
class Pool:
    """N rows in the pool's order, in which a row's time is its rank; the user is field 0."""

    fields: np.ndarray
    positive: np.ndarray

    def __len__(self) -> int:
        return len(self.fields)

    def build(self, generators, exclude: bool, rule: NewestRule | None, begin: int = 0, end: int | None = None):
        """The posting lists of a slice for one set."""
        part = self.fields[begin:end]
        ranks = np.arange(begin, begin + len(part), dtype=np.int32)
        users = part[:, 0] if exclude else np.zeros(0, np.int32)
        return build_set_postings(part[:, list(generators)], ranks, self.positive[begin:end], users, rule)

    def rows(self) -> PoolRows:
        ranks = np.arange(len(self))
        return PoolRows(self.fields, ranks, self.fields[:, 0], self.positive, ranks.astype(np.int32))


@dataclasses.dataclass(frozen=True)
class Candidates:
    """n candidates that ask."""

    fields: np.ndarray
    visible: np.ndarray
    exclude: bool

    @property
    def users(self) -> np.ndarray:
        return self.fields[:, 0] if self.exclude else np.zeros(0, np.int32)


def draw_pool(rng: np.random.Generator, num_rows: int, num_fields: int = 4) -> Pool:
    """Rows of which field 0 determines field 1, which some lack; half of the rows are of one user."""
    fields = rng.integers(1, 6, (num_rows, num_fields)).astype(np.int32)
    fields[rng.random(num_rows) < 0.5, 0] = 3
    fields[:, 1] = np.where(fields[:, 0] % 3, fields[:, 0] + 1, 0)
    return Pool(fields, rng.random(num_rows) < 0.5)


def draw_candidates(rng: np.random.Generator, pool: Pool, exclude: bool, rolling: bool, count: int = 25) -> Candidates:
    fields = np.concatenate([pool.fields[rng.integers(0, len(pool), count)] if len(pool) else pool.fields] * 2)
    fields[count:, 2:] = rng.integers(
        0, 7, fields[count:, 2:].shape
    )  # the others of the slates, some of values without rows
    fields[rng.random(len(fields)) < 0.1, :2] = 1  # users whom nobody has met
    visible = np.tile(rng.integers(0, len(pool) + 1, count), 2)[: len(fields)]
    return Candidates(fields, visible if rolling else np.full(len(fields), len(pool)), exclude)


def scan(pool: Pool, queries: KeyQueries, index: int, generators, k: int) -> tuple[int, int, list[int]]:
    """Visible rows of a key, how many have label 1, and the newest of others' among them."""
    seen = np.arange(len(pool)) < queries.visible[index]
    for field, value in zip(generators, queries.values[index], strict=True):
        seen &= pool.fields[:, field] == value
    others = seen & (pool.fields[:, 0] != queries.users[index]) if len(queries.users) else seen
    return int(seen.sum()), int(pool.positive[seen].sum()), np.flatnonzero(others)[::-1][:k].tolist()


def check_answers(pool: Pool, postings: SetPostings, queries: KeyQueries, generators, k: int) -> int:
    """Compares what lists answer with a scan of the pool; returns the number of keys that have rows."""
    answers = answer_queries(postings, queries)
    ends = np.cumsum(answers.lengths)
    found = {
        int(place): (int(count), int(positives), answers.ranks[end - length : end].tolist())
        for place, count, positives, length, end in zip(
            answers.places, answers.counts, answers.positives, answers.lengths, ends, strict=True
        )
    }
    assert answers.set_index == queries.set_index and len(found) == len(answers.places)
    expected = {int(place): scan(pool, queries, index, generators, k) for index, place in enumerate(queries.places)}
    assert found == {place: answer for place, answer in expected.items() if answer[0]}
    assert len(answers.ranks) == sum(len(ranks) for _, _, ranks in found.values())
    return len(found)


def match_sets_of(pool: Pool) -> MatchSets:
    num_fields = pool.fields.shape[1]
    return find_match_sets(range(num_fields), num_fields, {0: [1]})


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 150), st.integers(1, 5), st.booleans(), st.booleans())
def test_answers_equal_a_scan(seed, num_rows, k, exclude, rolling):
    rng = np.random.default_rng(seed)
    pool = draw_pool(rng, num_rows)
    candidates, match_sets = draw_candidates(rng, pool, exclude, rolling), match_sets_of(pool)
    rule = None if rolling else NewestRule(k, exclude)
    for queries in build_queries(7, candidates.fields, candidates.visible, candidates.users, match_sets, k, -1):
        generators = match_sets.generators[queries.set_index]
        assert queries.batch == 7 and queries.places.tolist() == list(range(len(queries.places)))
        check_answers(pool, pool.build(generators, exclude, rule), queries, generators, k)


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("size", [20, 75, 200])
def test_a_slice_and_what_is_carried_to_it_answer_for_all_rows(exclude, size):
    rng = np.random.default_rng(size)
    pool, k = draw_pool(rng, 300), 3
    rule, match_sets, num_found = NewestRule(k, exclude), match_sets_of(pool), 0
    candidates = draw_candidates(rng, pool, exclude, True, 60)
    candidates.visible[::5] = 300 - rng.integers(0, 2, len(candidates.visible[::5]))
    for queries in build_queries(0, candidates.fields, candidates.visible, candidates.users, match_sets, k, -1):
        generators = match_sets.generators[queries.set_index]
        slices = queries.visible // size
        state = pool.build(generators, exclude, rule, 0, 0)
        for number in range(300 // size + 1):
            piece = pool.build(generators, exclude, None, number * size, (number + 1) * size)
            postings = merge_set_postings([state, piece], None)
            num_found += check_answers(pool, postings, queries.select(slices == number), generators, k)
            state = merge_set_postings([state, merge_set_postings([piece], rule)], rule)
            assert (state.lengths <= (2 * k if exclude else k)).all()
        assert (state.counts > state.lengths).any() or len(generators) > 1
    assert num_found > 300


@pytest.mark.parametrize("at_once", [1 << 22, 40])
def test_exclusion_reads_past_a_long_run_of_the_own_user(monkeypatch, at_once):
    monkeypatch.setattr(grouped_join, "_PLACES_AT_ONCE", at_once)
    fields = np.full((500, 2), 2, np.int32)
    fields[:4, 0] = [4, 5, 4, 6]
    pool = Pool(fields, np.ones(500, bool))
    queries = KeyQueries(
        0,
        0,
        np.arange(3, dtype=np.int32),
        np.full((3, 1), 2, np.int32),
        np.array([500, 500, 3]),
        np.array([2, 9, 4]),
        3,
    )
    postings = pool.build([1], True, None)
    assert check_answers(pool, postings, queries, [1], 3) == 3
    assert answer_queries(postings, queries).ranks.tolist() == [3, 2, 1, 499, 498, 497, 1]


def test_distinct_keys_are_asked_once():
    fields = np.array([[2, 2], [2, 2], [2, 3], [2, 2], [0, 2], [1, 2], [2, 2]], np.int32)
    visible, users = np.array([5, 5, 5, 6, 5, 5, 5]), np.array([3, 3, 3, 3, 3, 3, 4], np.int32)
    nobody = np.zeros(0, np.int32)
    both = find_distinct_keys(fields, visible, nobody, (0, 1))
    assert both.inverse[[4, 5]].tolist() == [-1, -1]  # padding and unknown values have no rows
    assert len(both.first) == 3 and both.inverse[0] == both.inverse[1] == both.inverse[6]
    known = both.inverse >= 0
    np.testing.assert_array_equal(fields[both.first[both.inverse[known]]], fields[known])
    np.testing.assert_array_equal(visible[both.first[both.inverse[known]]], visible[known])
    assert len(find_distinct_keys(fields, visible, nobody, (0,)).first) == 2
    assert len(find_distinct_keys(fields, visible, users, (0,)).first) == 3
    queries = build_queries(0, fields, visible, users, find_match_sets([0, 1], 2, {}), 6, 0)
    assert [query.num_wanted for query in queries] == [0, 6, 0]  # the excluded user's own keys have no other rows
    assert [len(query.places) for query in queries] == [3, 4, 4]


def ask_parts(pool: Pool, candidates: Candidates, rule: NewestRule | None, k: int, rng: np.random.Generator):
    """Answers to all that candidates ask, in parts and in no order."""
    match_sets, answers = match_sets_of(pool), []
    for queries in build_queries(0, candidates.fields, candidates.visible, candidates.users, match_sets, k, -1):
        parts = rng.integers(0, 3, len(queries.places))
        postings = pool.build(match_sets.generators[queries.set_index], candidates.exclude, rule)
        answers += [answer_queries(postings, queries.select(parts == part)) for part in range(3)]
    return [answers[index] for index in rng.permutation(len(answers))]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 120),
    st.builds(
        Retrieval,
        num_neighbours=st.integers(1, 6),
        idf=st.sampled_from(["lucene", "paper"]),
        exclude_own_user=st.booleans(),
    ),
    st.booleans(),
)
def test_merged_answers_are_those_of_the_posting_lists(seed, num_rows, retrieval, rolling):
    rng = np.random.default_rng(seed)
    pool, k = draw_pool(rng, num_rows, 5), retrieval.num_neighbours
    candidates, match_sets = draw_candidates(rng, pool, retrieval.exclude_own_user, rolling), match_sets_of(pool)
    rank_to_row = rng.permutation(num_rows).astype(np.int32)
    rule = None if rolling else NewestRule(k, candidates.exclude)
    statistics = tuple(rng.permutation(len(match_sets))[:5].tolist())
    merged = merge_answers(
        ask_parts(pool, candidates, rule, k, rng),
        candidates.fields,
        candidates.visible,
        candidates.users,
        match_sets,
        retrieval,
        rank_to_row,
        statistics,
    )
    lists = build_posting_lists(pool.rows()._replace(row=rank_to_row), match_sets, rolling, retrieval)
    expected = lists.nearest(candidates.fields, candidates.visible, retrieval, candidates.users, statistics)
    for field in dataclasses.fields(Neighbours):
        np.testing.assert_array_equal(getattr(merged, field.name), getattr(expected, field.name), err_msg=field.name)
        assert getattr(merged, field.name).dtype == getattr(expected, field.name).dtype


def test_batches_that_nobody_answers_have_no_neighbours():
    fields = np.full((3, 4), 2, np.int32)
    match_sets, nobody = find_match_sets(range(4), 4, {}), np.zeros(0, np.int32)
    retrieval = Retrieval(num_neighbours=2)
    found = merge_answers(
        [], fields, np.full(3, 9), nobody, match_sets, retrieval, np.arange(9, dtype=np.int32), (0, 3)
    )
    assert found.rows.tolist() == [[NO_ROW] * 2] * 3
    assert not found.scores.any() and not found.counts.any() and found.positives.shape == (3, 2)


@pytest.mark.parametrize("exclude", [False, True])
def test_keys_of_one_hash_stay_apart(monkeypatch, exclude):
    rng = np.random.default_rng(0)
    pool, k = draw_pool(rng, 200), 3
    candidates, match_sets = draw_candidates(rng, pool, exclude, True), match_sets_of(pool)
    for module in (grouped_join, set_postings):
        monkeypatch.setattr(module, "hash_values", lambda values: np.zeros(len(values), np.uint64))
    for queries in build_queries(0, candidates.fields, candidates.visible, candidates.users, match_sets, k, -1):
        generators = match_sets.generators[queries.set_index]
        assert check_answers(pool, pool.build(generators, exclude, None), queries, generators, k)
        keys = find_distinct_keys(candidates.fields, candidates.visible, candidates.users, generators)
        known = keys.inverse >= 0
        asked = candidates.fields[:, list(generators)]
        np.testing.assert_array_equal(queries.values[keys.inverse[known]], asked[known])
        np.testing.assert_array_equal(known, (asked >= FIRST_VALUE_ID).all(axis=1))
