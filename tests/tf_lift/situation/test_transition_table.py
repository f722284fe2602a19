"""Transition counts against a count by hand; as of a time; and the lookup in NumPy against the one in TensorFlow."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

from tf_lift.interactions import InteractionLog
from tf_lift.schema import FIRST_VALUE_ID, Field, Schema
from tf_lift.situation.graph import build_transition_graph
from tf_lift.situation.levels import VALUE_RADIX, check_num_ids, find_levels
from tf_lift.situation.snapshots import place_snapshots
from tf_lift.situation.transition_counts import (
    add_counts,
    count_transitions,
    keep_most_frequent,
    only_transitions,
    sum_last,
)
from tf_lift.situation.transition_table import TransitionTable, build_transition_table

NUM_USERS, NUM_ITEMS, NUM_CATEGORIES = 12, 9, 4
USER, CATEGORY, ITEM = range(3)
SCHEMA = Schema((Field("user", "user", key=True), Field("genre", "item"), Field("item", "item", key=True)))
LEVELS = find_levels(SCHEMA)
NUM_IDS = (NUM_USERS + FIRST_VALUE_ID, NUM_CATEGORIES + FIRST_VALUE_ID, NUM_ITEMS + FIRST_VALUE_ID)
TIMES = np.array([40, 55, 71])
WINDOW = 3


@dataclasses.dataclass(frozen=True)
class Labelled:
    """A log and the labels of its rows."""

    log: InteractionLog
    positive: np.ndarray


def random_log(seed: int, num_rows: int = 200) -> Labelled:
    """Rows at 0 to 99, many at equal times, some negative, some synthetic, some of an item without a category."""
    rng = np.random.default_rng(seed)
    users = np.sort(rng.integers(0, NUM_USERS, num_rows))
    times = rng.integers(0, 50, num_rows) * 2
    times = times[np.lexsort((times, users))]
    items = rng.integers(0, NUM_ITEMS, num_rows)
    fields = np.stack([users + FIRST_VALUE_ID, category_of(items), items + FIRST_VALUE_ID], axis=1).astype(np.int32)
    positive = rng.random(num_rows) < 0.8
    starts = np.searchsorted(users, np.arange(NUM_USERS + 1))
    log = InteractionLog(fields, times, positive.astype(np.int8), rng.random(num_rows) < 0.1, starts)
    return Labelled(log, positive)


def category_of(items: np.ndarray) -> np.ndarray:
    return np.where(items == 0, 0, items % NUM_CATEGORIES + FIRST_VALUE_ID)


def build_table(labelled: Labelled, times: np.ndarray = TIMES, max_followers: int = 100) -> TransitionTable:
    added = add_counts(count_transitions(labelled.log, labelled.positive, LEVELS, WINDOW, times))
    return build_transition_table(LEVELS, times, keep_most_frequent(added, max_followers), NUM_IDS)


def count_by_hand(labelled: Labelled, before: int, first: int, second: int) -> dict[tuple[int, int], int]:
    """The transitions between two fields whose second row is strictly before a time."""
    log, totals = labelled.log, {}
    for user in range(NUM_USERS):
        rows = [
            row
            for row in range(log.user_starts[user], log.user_starts[user + 1])
            if labelled.positive[row] and not log.synthetic[row]
        ]
        for place, row in enumerate(rows):
            following = [other for other in rows[place + 1 : place + 1 + WINDOW] if log.time[other] < before]
            for value in {int(log.fields[other, second]) for other in following}:
                pair = int(log.fields[row, first]), value
                if min(pair) >= FIRST_VALUE_ID:
                    totals[pair] = totals.get(pair, 0) + 1
    return totals


def rows_by_hand(labelled: Labelled, before: int, field: int, value: int) -> int:
    log = labelled.log
    counted = labelled.positive & ~log.synthetic & (log.time < before)
    return int((log.fields[counted, field] == value).sum())


def every_total(table: TransitionTable, level: int, time: int) -> dict[tuple[int, int], int]:
    first, second = LEVELS[level]
    pairs = [(a, b) for a in range(NUM_IDS[first]) for b in range(NUM_IDS[second])]
    snapshot = np.full(len(pairs), np.searchsorted(table.times, time, side="right") - 1)
    totals = table.totals(level, np.array(pairs)[:, 0], np.array(pairs)[:, 1], snapshot)
    return {pair: int(total) for pair, total in zip(pairs, totals, strict=True) if total}


@pytest.mark.parametrize("time", [39, 40, 54, 60, 71, 1000])
@pytest.mark.parametrize("level", range(3))
def test_totals_are_those_counted_by_hand(level: int, time: int) -> None:
    labelled = random_log(0)
    snapshots = TIMES[time >= TIMES]
    expected = count_by_hand(labelled, snapshots[-1], *LEVELS[level]) if len(snapshots) else {}
    assert (len(expected) > 9) == (time >= 40)
    assert every_total(build_table(labelled), level, time) == expected


def test_an_item_without_other_fields_has_its_own_level_alone() -> None:
    schema = Schema((SCHEMA.fields[USER], Field("channel", "context"), SCHEMA.fields[ITEM]))
    assert find_levels(schema) == ((2, 2),)
    assert LEVELS == ((ITEM, ITEM), (ITEM, CATEGORY), (CATEGORY, CATEGORY))


def test_what_happens_at_or_after_a_time_changes_nothing_before_it() -> None:
    labelled, other = random_log(1), random_log(2)
    for place, time in enumerate(TIMES):
        later = labelled.log.time >= time
        fields = np.where(later[:, None] & [False, True, True], other.log.fields, labelled.log.fields)
        changed = dataclasses.replace(labelled.log, fields=fields)
        positive = np.where(later, other.positive, labelled.positive)
        for max_followers in (2, 100):
            before = build_table(labelled, max_followers=max_followers)
            after = build_table(Labelled(changed, positive), max_followers=max_followers)
            for level in range(3):
                assert every_total(after, level, time) == every_total(before, level, time)
                if place < 2:
                    assert every_total(after, level, 999) != every_total(before, level, 999)
            for ours, theirs in zip(after.value_counts, before.value_counts, strict=True):
                np.testing.assert_array_equal(ours[:, : place + 1], theirs[:, : place + 1])


@pytest.mark.parametrize("level", range(3))
def test_the_most_frequent_followers_are_kept_at_each_snapshot(level: int) -> None:
    labelled = random_log(3)
    table = build_table(labelled, max_followers=2)
    for time in TIMES:
        expected: dict[tuple[int, int], int] = {}
        totals = count_by_hand(labelled, time, *LEVELS[level])
        for first in {pair[0] for pair in totals}:
            of_first = sorted((-total, pair) for pair, total in totals.items() if pair[0] == first)
            expected |= {pair: -negative for negative, pair in of_first[:2]}
        assert len(expected) < len(totals)
        assert every_total(table, level, time) == expected


def test_parts_of_users_add_up_and_the_cut_mass_is_told() -> None:
    labelled = random_log(4)
    whole = add_counts(count_transitions(labelled.log, labelled.positive, LEVELS, WINDOW, TIMES))
    parts = []
    for first, last in ((0, 5), (5, NUM_USERS)):
        edges = labelled.log.user_starts[first : last + 1]
        rows = slice(edges[0], edges[-1])
        log = labelled.log
        part = InteractionLog(
            log.fields[rows], log.time[rows], log.behaviour[rows], log.synthetic[rows], edges - edges[0]
        )
        parts += count_transitions(part, labelled.positive[rows], LEVELS, WINDOW, TIMES)
    for ours, theirs in zip(add_counts(parts[::-1]), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    by_hand = sum(sum(count_by_hand(labelled, TIMES[-1], *level).values()) for level in LEVELS)
    assert sum_last(only_transitions(keep_most_frequent(whole, 100), len(LEVELS))) == by_hand
    assert sum_last(only_transitions(keep_most_frequent(whole, 2), len(LEVELS))) < by_hand


def random_request(seed: int) -> dict[str, np.ndarray]:
    """Histories of four rows and five candidates, padding and unknown ids among them, at times from before the first snapshot on."""
    rng = np.random.default_rng(seed)
    sizes = np.array(NUM_IDS)
    return {
        "history": rng.integers(0, sizes, (6, 4, 3)).astype(np.int32),
        "mask": rng.random((6, 4)) < 0.8,
        "candidates": rng.integers(0, sizes, (6, 5, 3)).astype(np.int32),
        "times": np.array([0, 39, 40, 56, 71, 500]),
    }


def test_weights_are_totals_over_the_root_of_both_values_rows() -> None:
    labelled, request = random_log(5), random_request(0)
    weights = build_table(labelled).weights(**request, relations=("future", "past", "any"))
    assert weights.shape == (6, 5, 4, 9) and (weights > 0).mean() > 0.2
    for slate, time in enumerate(request["times"]):
        snapshots = TIMES[time >= TIMES]
        for level, (first, second) in enumerate(LEVELS):
            totals = count_by_hand(labelled, snapshots[-1], first, second) if len(snapshots) else {}
            for candidate, row in np.ndindex(5, 4):
                ours, theirs = request["candidates"][slate, candidate], request["history"][slate, row]
                future, past = (theirs[first], ours[second]), (ours[first], theirs[second])
                expected = []
                for pair in (future, past):
                    total = totals.get((int(pair[0]), int(pair[1])), 0) * request["mask"][slate, row]
                    rows = [
                        rows_by_hand(labelled, max(snapshots, default=0), *at)
                        for at in zip((first, second), pair, strict=True)
                    ]
                    expected.append(total / math.sqrt(rows[0] * rows[1]) if total else 0.0)
                found = weights[slate, candidate, row, 3 * level : 3 * level + 3]
                np.testing.assert_allclose(found, [*expected, sum(expected)], rtol=1e-6)


@pytest.mark.parametrize("relations", [("future",), ("past",), ("any",), ("future", "past"), ("future", "past", "any")])
@pytest.mark.parametrize("max_followers", [2, 100])
def test_the_graph_looks_up_what_the_reference_does(relations: tuple, max_followers: int) -> None:
    table = build_table(random_log(6), max_followers=max_followers)
    graph = build_transition_graph(table)
    for seed in range(3):
        request = random_request(seed)
        expected = table.weights(**request, relations=relations)
        tensors = {name: tf.constant(values) for name, values in request.items()}
        np.testing.assert_allclose(graph.weights(**tensors, relations=relations), expected, rtol=1e-6)
        assert expected.any()


def test_a_table_without_transitions_gives_zeros() -> None:
    labelled = random_log(7)
    table = build_table(Labelled(labelled.log, np.zeros(len(labelled.log), bool)))
    request = random_request(0)
    assert not table.weights(**request, relations=("future",)).any()
    tensors = {name: tf.constant(values) for name, values in request.items()}
    assert not build_transition_graph(table).weights(**tensors, relations=("future",)).numpy().any()


def test_snapshots_do_not_move_when_the_log_grows() -> None:
    np.testing.assert_array_equal(place_snapshots("static", 100, 200, 900, 4), [100])
    short, long = (place_snapshots("rolling", 100, 200, last, 4) for last in (260, 330))
    np.testing.assert_array_equal(short, [100, 125, 150, 175, 200, 225, 250, 261])
    np.testing.assert_array_equal(long[: len(short) - 1], short[:-1])
    many = place_snapshots("rolling", 0, 1000, 10**9, 32)
    assert len(many) == 64 and many[-1] == 10**9 + 1
    np.testing.assert_array_equal(place_snapshots("rolling", 5, 6, 7, 32), [5, 6, 8])  # seconds


def test_fields_of_too_many_ids_are_refused() -> None:
    check_num_ids(VALUE_RADIX)
    with pytest.raises(ValueError, match=r"at most 134,217,728 ids. Received: 134,217,729"):
        check_num_ids(VALUE_RADIX + 1)
