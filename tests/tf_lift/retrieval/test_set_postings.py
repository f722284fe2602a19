"""The lists of one match set: whatever the cuts, slices merge to the whole, and no row that a target needs is dropped."""

import dataclasses
import pickle
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_lift.config import Retrieval
from tf_lift.retrieval import set_postings
from tf_lift.retrieval.match_sets import find_match_sets, hash_values
from tf_lift.retrieval.set_postings import (
    NewestRule,
    SetPostings,
    build_set_postings,
    merge_set_postings,
    newest_rule,
    read_set_postings,
    write_set_postings,
)
from tf_lift.schema import FIRST_VALUE_ID

STRANGER = 1 << 20  # a user who has no rows
HASHES = {
    "distinct": hash_values,
    "all equal": lambda values: np.zeros(len(values), np.uint64),
    "last bits": lambda values: (values.astype(np.int64) @ [100, 1]).astype(np.uint64),
    "few": lambda values: (values.astype(np.int64).sum(axis=1) % 3).astype(np.uint64),
}


@dataclasses.dataclass(frozen=True)
class Rows:
    """Pool rows in their order, as `build_set_postings` takes them."""

    values: np.ndarray
    ranks: np.ndarray
    positive: np.ndarray
    users: np.ndarray

    def build(
        self, rule: NewestRule | None, begin: int = 0, end: int | None = None, has_users: bool = False
    ) -> SetPostings:
        """The lists of all rows, or of a slice; with users if the rule or the caller needs them."""
        part = slice(begin, end)
        has_users = has_users or (rule is not None and rule.exclude_own_user)
        users = self.users[part] if has_users else np.zeros(0, np.int32)
        return build_set_postings(self.values[part], self.ranks[part], self.positive[part], users, rule)

    def build_slices(self, rule: NewestRule | None, cuts: list[int], has_users: bool = False) -> list[SetPostings]:
        edges = [0, *cuts, len(self.ranks)]
        return [self.build(rule, *edge, has_users) for edge in zip(edges[:-1], edges[1:], strict=True)]

    def places_of_keys(self) -> dict[tuple[int, ...], list[int]]:
        """The rows of every key, oldest first."""
        places = defaultdict(list)
        for place, value in enumerate(self.values.tolist()):
            if min(value) >= FIRST_VALUE_ID:
                places[tuple(value)].append(place)
        return places

    def newest(self, places: list[int], excluded: int | None, count: int) -> list[int]:
        """Ranks of the newest rows of others among some rows, newest first."""
        return [int(self.ranks[place]) for place in reversed(places) if self.users[place] != excluded][:count]


def draw_rows(seed: int, num_rows: int, num_values: int, num_generators: int, num_users: int) -> Rows:
    rng = np.random.default_rng(seed)
    values = rng.integers(1, num_values + FIRST_VALUE_ID, (num_rows, num_generators))
    users = rng.integers(2, num_users + 2, num_rows) * rng.integers(0, 2, num_rows) + 2  # one user has half of them
    ranks = np.sort(rng.choice(4 * num_rows + 1, num_rows, replace=False))
    return Rows(values.astype(np.int32), ranks.astype(np.int32), rng.random(num_rows) < 0.5, users.astype(np.int32))


rows_strategy = st.builds(
    draw_rows, st.integers(0, 2**32 - 1), st.integers(0, 80), st.integers(1, 6), st.integers(1, 3), st.integers(1, 5)
)
rule_strategy = st.one_of(st.none(), st.builds(NewestRule, st.integers(1, 5), st.booleans()))


@st.composite
def cut_rows(draw):
    """Rows and where they are cut, with empty slices too."""
    rows = draw(rows_strategy)
    return rows, sorted(draw(st.lists(st.integers(0, len(rows.ranks)), max_size=6)))


def lists_of(postings: SetPostings) -> dict[tuple[int, ...], list[int]]:
    """The listed ranks of every key."""
    ends = np.cumsum(postings.lengths)
    assert len(postings.ranks) == len(postings.positive) == (ends[-1] if len(ends) else 0)
    return {
        tuple(value): postings.ranks[end - length : end].tolist()
        for value, length, end in zip(postings.values.tolist(), postings.lengths, ends, strict=True)
    }


def assert_same(postings: SetPostings, expected: SetPostings) -> None:
    for field in dataclasses.fields(SetPostings):
        ours, theirs = getattr(postings, field.name), getattr(expected, field.name)
        np.testing.assert_array_equal(ours, theirs, err_msg=field.name)
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), field.name


@settings(max_examples=100, deadline=None)
@given(rows_strategy)
def test_a_key_lists_its_rows(rows):
    postings, places = rows.build(None), rows.places_of_keys()
    assert lists_of(postings) == {key: rows.ranks[of_key].tolist() for key, of_key in places.items()}
    of_keys = [places[tuple(value)] for value in postings.values.tolist()]
    assert postings.counts.tolist() == postings.lengths.tolist() == [len(of_key) for of_key in of_keys]
    assert postings.positives.tolist() == [int(rows.positive[of_key].sum()) for of_key in of_keys]
    assert postings.positive.tolist() == [bool(rows.positive[place]) for of_key in of_keys for place in of_key]
    order = list(zip(hash_values(postings.values).tolist(), postings.values.tolist(), strict=True))
    assert order == sorted(order) and len(set(places)) == len(order)


@settings(max_examples=200, deadline=None)
@given(cut_rows(), rule_strategy)
def test_merged_slices_equal_the_whole(rows_and_cuts, rule):
    rows, cuts = rows_and_cuts
    whole, slices = rows.build(rule), rows.build_slices(rule, cuts)
    assert_same(merge_set_postings(slices, rule), whole)
    state = slices[0]  # and one by one, as a hot key's slices are
    for piece in slices[1:]:
        state = merge_set_postings([state, piece], rule)
    assert_same(state, whole)
    counted = [int(piece.counts.sum()) for piece in slices]
    assert sum(counted) == whole.counts.sum() == sum(map(len, rows.places_of_keys().values()))


@settings(max_examples=100, deadline=None)
@given(cut_rows(), st.integers(1, 5), st.booleans())
def test_a_rule_may_be_applied_late(rows_and_cuts, k, exclude):
    rows, cuts = rows_and_cuts
    rule = NewestRule(k, exclude)
    assert_same(merge_set_postings(rows.build_slices(None, cuts, exclude), rule), rows.build(rule))
    assert_same(merge_set_postings([rows.build(None, has_users=exclude)], rule), rows.build(rule))


@settings(max_examples=200, deadline=None)
@given(cut_rows(), st.integers(1, 5), st.booleans())
def test_no_row_that_a_target_needs_is_dropped(rows_and_cuts, k, exclude):
    rows, cuts = rows_and_cuts
    rule = NewestRule(k, exclude)
    kept = merge_set_postings(rows.build_slices(rule, cuts), rule)
    of_keys, lists, places = kept.counts.tolist(), lists_of(kept), rows.places_of_keys()
    assert lists.keys() == places.keys()
    assert of_keys == [len(places[tuple(value)]) for value in kept.values.tolist()]
    users_of = dict(zip(rows.ranks.tolist(), rows.users.tolist(), strict=True))
    for key, listed in lists.items():
        assert len(listed) <= (2 * k if exclude else k)
        for excluded in {None, STRANGER, *rows.users.tolist()} if exclude else {None}:
            others = [rank for rank in reversed(listed) if users_of[rank] != excluded]
            assert others[:k] == rows.newest(places[key], excluded, k)
    if exclude:
        assert kept.users.tolist() == [users_of[rank] for rank in kept.ranks.tolist()]


def test_the_rows_of_one_busy_user_leave_room_for_others():
    users = np.array([2] * 3 + [3] * 50, np.int32)
    rows = Rows(np.full((53, 1), 2, np.int32), np.arange(53, dtype=np.int32), np.ones(53, bool), users)
    assert rows.build(NewestRule(2, True)).ranks.tolist() == [1, 2, 51, 52]
    assert rows.build(NewestRule(2, False)).ranks.tolist() == [51, 52]


@pytest.mark.parametrize("rule", [None, NewestRule(3, False), NewestRule(2, True)], ids=str)
@pytest.mark.parametrize("name", ["all equal", "last bits", "few"])
def test_keys_of_one_hash_stay_apart(monkeypatch, name, rule):
    rows = draw_rows(0, 300, 5, 2, 4)
    expected = rows.build(rule)
    monkeypatch.setattr(set_postings, "hash_values", HASHES[name])
    postings = rows.build(rule)
    assert lists_of(postings) == lists_of(expected)
    by_key = dict(zip(map(tuple, expected.values.tolist()), expected.counts.tolist(), strict=True))
    assert [by_key[tuple(value)] for value in postings.values.tolist()] == postings.counts.tolist()
    assert postings.positives.sum() == expected.positives.sum()
    order = list(zip(HASHES[name](postings.values).tolist(), postings.values.tolist(), strict=True))
    assert order == sorted(order) and len(order) == 25
    assert_same(merge_set_postings(rows.build_slices(rule, [40, 40, 111, 250]), rule), postings)


@pytest.mark.parametrize("exclude", [False, True])
def test_select_takes_the_lists_of_keys(exclude):
    rows = draw_rows(1, 200, 4, 2, 3)
    postings = rows.build(NewestRule(2, exclude))
    chosen = np.arange(len(postings.values)) % 3 == 1
    part, rest = postings.select(chosen), postings.select(~chosen)
    assert lists_of(part) | lists_of(rest) == lists_of(postings) and len(part.values) == chosen.sum()
    assert part.users.shape == (part.ranks.shape if exclude else (0,))
    assert_same(merge_set_postings([part, rest], None), postings)
    empty = postings.select(np.zeros(len(chosen), bool))
    assert_same(merge_set_postings([empty, postings, empty], NewestRule(2, exclude)), postings)
    assert empty.num_bytes() == 0 < max(part.num_bytes(), rest.num_bytes()) < postings.num_bytes()


@pytest.mark.parametrize("num_rows", [0, 1, 7, 8, 200])
@pytest.mark.parametrize("rule", [None, NewestRule(2, False), NewestRule(2, True), NewestRule(300, True)], ids=str)
def test_what_is_written_or_sent_is_read(tmp_path, num_rows, rule):
    rows = draw_rows(2, num_rows, 4, 2, 3)
    rows.users[rows.users == 3] = 2**31 - 1  # ids of all widths
    rows.values[:, 1] *= 1 + 70_000 * (num_rows == 200)
    postings = rows.build(rule)
    sent = pickle.dumps(postings)
    assert sent == pickle.dumps(postings)
    assert_same(pickle.loads(sent), postings)
    assert postings.num_bytes() <= sum(getattr(postings, field.name).nbytes for field in dataclasses.fields(postings))
    assert len(sent) <= postings.num_bytes() + 1024
    paths = [tmp_path / name for name in ("one.npz", "other.npz")]
    for path in paths:
        write_set_postings(postings, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert_same(read_set_postings(paths[0]), postings)


def test_what_is_sent_is_less_than_two_thirds_of_what_is_written():
    rng = np.random.default_rng(0)
    values = rng.integers(2, [5000, 7, 20], (20_000, 3)).astype(np.int32)
    postings = build_set_postings(
        values, np.arange(20_000, dtype=np.int32), rng.random(20_000) < 0.5, np.zeros(0, np.int32), None
    )
    sent = pickle.dumps(postings)
    assert len(sent) < postings.num_bytes() * 2 / 3
    assert_same(pickle.loads(sent), postings)


def test_the_rule_of_a_configuration():
    retrieval = Retrieval(num_neighbours=4, exclude_own_user=True)
    some, many = find_match_sets(range(3), 3, {}), find_match_sets(range(9), 9, {})
    assert newest_rule(some, False, retrieval) == NewestRule(4, True)
    assert newest_rule(some, True, retrieval) is None
    assert newest_rule(many, False, retrieval) is None
