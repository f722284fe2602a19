"""The rankers that count the log: transitions and item cosine, beside the sums that define them."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tf_lift.baselines.history_rows import read_history_rows
from tf_lift.baselines.item_cosine import score_by_cosine
from tf_lift.baselines.no_learning import Candidates
from tf_lift.baselines.transition_counts import count_until, score_by_transitions
from tf_lift.interactions import NO_ROW

NUM_ROWS, NUM_ITEMS, LENGTH = 500, 9, 8  # LENGTH is the planted configuration's context_length
CUTS = (300, 400, 450)


@pytest.fixture(scope="module")
def noisy(plant: Callable[..., Any]) -> Any:
    rng = np.random.default_rng(8)
    users, items = rng.integers(0, 12, NUM_ROWS), rng.integers(0, NUM_ITEMS, NUM_ROWS)
    return plant(users, items, np.arange(NUM_ROWS), rng.integers(0, 2, NUM_ROWS), np.zeros(NUM_ITEMS, int), CUTS)


@pytest.fixture(scope="module")
def ordered(plant: Callable[..., Any]) -> Any:
    """Users who go from each item to the next number, round and round."""
    users = np.repeat(np.arange(50), 12)
    items = (np.tile(np.arange(12), 50) + users) % NUM_ITEMS
    times = np.tile(np.arange(12), 50) * 50 + users
    return plant(users, items, times, np.ones(600, int), np.zeros(NUM_ITEMS, int), CUTS)


def candidates_at(planted: Any, rows: np.ndarray) -> Candidates:
    """A slate of all items at each row."""
    num_items = planted.info.vocabularies[1].num_ids - 2
    fields = np.repeat(planted.log.fields[rows], num_items, axis=0)
    own = fields[:, 1].copy()
    fields[:, 1] = np.tile(np.arange(2, 2 + num_items), len(rows))
    slates = np.repeat(np.arange(len(rows)), num_items)
    none = np.zeros((len(fields), 0), np.int32)
    return Candidates(
        fields, (fields[:, 1] == own).astype(np.float32), slates, planted.log.time[rows][slates], none, none
    )


def test_histories_are_the_newest_rows_that_were_not_drawn(noisy: Any) -> None:
    rng = np.random.default_rng(3)
    drawn = rng.random(NUM_ROWS) < 0.6
    log = dataclasses.replace(noisy.log, synthetic=drawn)
    dataset = SimpleNamespace(log=log, config=noisy.dataset.config)
    candidates = candidates_at(noisy, noisy.rows_of("test"))
    found = read_history_rows(dataset, candidates, 5)
    _, first = np.unique(candidates.slates, return_index=True)
    lengths = set()
    for rows, user, time in zip(found, candidates.fields[first, 0] - 2, candidates.times[first], strict=True):
        own = np.arange(log.user_starts[user], log.user_starts[user + 1])
        expected = own[(log.time[own] < time) & ~drawn[own]][::-1][:5]
        np.testing.assert_array_equal(rows[: len(expected)], expected)
        assert (rows[len(expected) :] == NO_ROW).all()
        lengths.add(len(expected))
    assert 5 in lengths


def positive_items(planted: Any, user: int, until: int) -> list[tuple[int, int, bool]]:
    """Time, item and label of a user's rows before a time, oldest first."""
    log = planted.log
    rows = range(log.user_starts[user], log.user_starts[user + 1])
    return [(log.time[row], log.fields[row, 1], log.behaviour[row] == 1) for row in rows if log.time[row] < until]


def count_by_hand(planted: Any, until: int) -> tuple[Counter[tuple[int, int]], Counter[int]]:
    pairs: Counter[tuple[int, int]] = Counter()
    singles: Counter[int] = Counter()
    for user in range(planted.log.num_users):
        liked = [item for _, item, is_liked in positive_items(planted, user, until) if is_liked]
        singles.update(liked)
        for place, head in enumerate(liked):
            pairs.update((head, tail) for tail in set(liked[place + 1 : place + 1 + LENGTH]))
    return pairs, singles


def test_transitions_are_those_counted_by_hand(noisy: Any) -> None:
    until = CUTS[1]
    heads, tails = np.indices([noisy.info.vocabularies[1].num_ids] * 2)
    counts = count_until(noisy.dataset, until).totals(0, heads, tails, np.zeros_like(heads))
    table = {(head, tail): counts[head, tail] for head, tail in np.argwhere(counts).tolist()}
    assert table == dict(count_by_hand(noisy, until)[0])


@pytest.mark.parametrize("direction", ["future", "past", "any"])
def test_scores_are_the_sums_that_define_them(noisy: Any, direction: Any) -> None:
    until, rows = CUTS[1], noisy.rows_of("test")
    pairs, singles = count_by_hand(noisy, until)
    candidates = candidates_at(noisy, rows)
    scores = score_by_transitions(noisy.dataset, candidates, until, direction)
    for place in range(0, len(scores), 7):
        user, tail, time = (*candidates.fields[place, :2], candidates.times[place])
        expected = 0.0
        for age, (_, head, is_liked) in enumerate(positive_items(noisy, user - 2, time)[::-1][:20]):
            found = pairs[head, tail] * (direction != "past") + pairs[tail, head] * (direction != "future")
            expected += (
                is_liked * math.exp(-0.1 * age) * found / math.sqrt(max(singles[head], 1) * max(singles[tail], 1))
            )
        assert scores[place] == pytest.approx(expected)


def test_cosines_are_those_of_the_dense_matrix(noisy: Any) -> None:
    until, rows = CUTS[1], noisy.rows_of("test")
    matrix = np.zeros((noisy.log.num_users, noisy.info.vocabularies[1].num_ids))
    for user in range(noisy.log.num_users):
        matrix[user, [item for _, item, is_liked in positive_items(noisy, user, until) if is_liked]] = 1
    norms = np.maximum(np.sqrt(matrix.sum(axis=0)), 1)
    cosines = matrix.T @ matrix / norms[:, None] / norms
    candidates = candidates_at(noisy, rows)
    expected = [
        sum(cosines[head, item] for _, head, is_liked in positive_items(noisy, user - 2, time)[-20:] if is_liked)
        for (user, item, _), time in zip(candidates.fields, candidates.times, strict=True)
    ]
    np.testing.assert_allclose(score_by_cosine(noisy.dataset, candidates, until), expected, atol=1e-12)


def test_the_future_ranks_the_planted_next_item_above_the_one_before(ordered: Any) -> None:
    rows = ordered.rows_of("test")
    candidates = candidates_at(ordered, rows)
    of_direction = {
        direction: score_by_transitions(ordered.dataset, candidates, CUTS[0], direction).reshape(len(rows), -1)
        for direction in ("future", "past")
    }
    labels = candidates.labels.reshape(len(rows), -1).astype(bool)
    before = np.roll(ordered.log.fields[:, 1], 2)[rows]  # the item of two rows ago: just before the newest
    is_before = candidates.fields[:, 1].reshape(labels.shape) == before[:, None]
    future, past = of_direction["future"], of_direction["past"]
    assert (future[labels] > future[is_before]).all()
    assert (past[labels] < past[is_before]).all()


def test_rows_at_or_after_the_limit_count_for_nothing(noisy: Any) -> None:
    candidates = candidates_at(noisy, noisy.rows_of("validation")[:5])
    for score in (score_by_cosine, lambda *arguments: score_by_transitions(*arguments, "any")):
        assert score(noisy.dataset, candidates, CUTS[0]).any()
        assert not score(noisy.dataset, candidates, 0).any()
