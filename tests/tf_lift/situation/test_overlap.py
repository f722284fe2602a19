"""Neighbours by overlap and their features against loops over a small log; as of a time."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

from tf_lift.interactions import InteractionLog
from tf_lift.schema import FIRST_VALUE_ID
from tf_lift.situation.overlap import OverlapGraph, OverlapSettings, build_overlap_graph

NUM_USERS, NUM_ITEMS = 10, 7
ITEM = 1
NUM_IDS = NUM_ITEMS + FIRST_VALUE_ID
SETTINGS = OverlapSettings(num_rows=6, num_neighbours=3, length=4)


def random_log(seed: int, num_rows: int = 160) -> tuple[InteractionLog, np.ndarray]:
    rng = np.random.default_rng(seed)
    users = np.sort(rng.integers(0, NUM_USERS, num_rows))
    times = rng.integers(0, 60, num_rows)
    times = times[np.lexsort((times, users))]
    fields = np.stack([users, rng.integers(0, NUM_ITEMS, num_rows)], axis=1) + FIRST_VALUE_ID
    positive = rng.random(num_rows) < 0.8
    starts = np.searchsorted(users, np.arange(NUM_USERS + 1))
    log = InteractionLog(fields.astype(np.int32), times, positive.astype(np.int8), np.zeros(num_rows, bool), starts)
    return log, positive


def build(log: InteractionLog, positive: np.ndarray, in_pool: np.ndarray | None = None) -> OverlapGraph:
    pool = np.ones(len(log), bool) if in_pool is None else in_pool
    columns = (tf.constant(log.time), tf.constant(log.user_indices()))
    return build_overlap_graph(log, pool, positive, ITEM, NUM_IDS, SETTINGS, columns)


def features_by_hand(log, positive, in_pool, items, user, time, candidates) -> np.ndarray:
    """The definition in loops, for one slate; `items` newest first."""
    num_pool = sum(in_pool[row] and positive[row] and log.time[row] < time for row in range(len(log)))
    lists = {}
    for item in items:
        rows = [
            row
            for row in range(len(log))
            if in_pool[row] and positive[row] and log.time[row] < time and log.fields[row, ITEM] == item
        ]
        lists[item] = sorted(rows, key=lambda row: (log.time[row], row), reverse=True)
    shares: dict[int, float] = {}
    for age, item in enumerate(items):
        num_rows = len(lists[item])
        idf = math.log1p((num_pool - num_rows + 0.5) / (num_rows + 0.5))
        shares[item] = max(shares.get(item, 0.0), idf * 0.9**age)
    sums = np.zeros((len(candidates), 4))
    for age, item in enumerate(items):
        scored = []
        for row in lists[item][: SETTINGS.num_rows]:
            if log.fields[row, 0] == user:
                continue
            overlap = sum(shares.get(other, 0.0) for _, other in around(log, positive, row, -1, time))
            scored.append((-overlap, len(scored), row))
        for overlap, _, row in sorted(scored)[: SETTINGS.num_neighbours]:
            for place, column in enumerate(candidates):
                for step, other in around(log, positive, row, 1, time):
                    weight = 0.97**age * 0.9 ** (step - 1)
                    sums[place, [0, 1, 3]] += np.array([weight, -overlap * weight, 1.0]) * (other == column)
                for step, other in around(log, positive, row, -1, time):
                    sums[place, 2] += 0.97**age * 0.9 ** (step - 1) * (other == column)
    return sums


def around(log, positive, row, sign, time):
    """(steps, item) of the positive rows of the same user up to `length` rows after or before one."""
    for step in range(1, SETTINGS.length + 1):
        other = row + sign * step
        if not 0 <= other < len(log) or log.fields[other, 0] != log.fields[row, 0]:
            return
        if log.time[other] < time and positive[other]:
            yield step, int(log.fields[other, ITEM])


def ask(graph: OverlapGraph, items, user, time, candidates) -> np.ndarray:
    """Two slates at once, the second empty: it must not change the first."""
    width = len(items)
    times = tf.constant([time, 0], tf.int64)
    near = graph.neighbours(
        tf.constant([items, [0] * width], tf.int32),
        tf.constant([[True] * width, [False] * width]),
        tf.constant([user, 1], tf.int32),
        times,
    )
    found = graph.features(near, times, tf.constant([candidates, candidates], tf.int32)).numpy()
    np.testing.assert_array_equal(found[1], 0.0)
    return found[0]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("is_static", [False, True])
def test_features_are_those_of_loops(seed, is_static):
    log, positive = random_log(seed)
    in_pool = log.time < 30 if is_static else np.ones(len(log), bool)
    graph = build(log, positive, in_pool)
    rng = np.random.default_rng(seed)
    for time in (0, 12, 45, 100):
        items = (rng.integers(0, NUM_ITEMS, 3) + FIRST_VALUE_ID).tolist()
        candidates = [*range(FIRST_VALUE_ID, NUM_IDS), 1, 0, FIRST_VALUE_ID]  # unknown, padding, one twice
        expected = features_by_hand(log, positive, in_pool, items, 5, time, candidates)
        np.testing.assert_allclose(ask(graph, items, 5, time, candidates), expected, rtol=1e-4, atol=1e-5)


def test_what_happens_from_the_time_on_changes_nothing():
    log, positive = random_log(3)
    time = 35
    rng = np.random.default_rng(4)
    later = log.time >= time
    fields = log.fields.copy()
    fields[later, ITEM] = rng.integers(0, NUM_ITEMS, later.sum()) + FIRST_VALUE_ID
    changed = dataclasses.replace(log, fields=fields)
    items, candidates = [2, 3, 4], list(range(FIRST_VALUE_ID, NUM_IDS))
    before = ask(build(log, positive), items, 3, time, candidates)
    after = ask(build(changed, np.where(later, ~positive, positive)), items, 3, time, candidates)
    assert before.any()
    np.testing.assert_array_equal(before, after)


def test_an_item_that_nobody_had_says_nothing():
    log, positive = random_log(1)
    graph = build(log, positive, np.zeros(len(log), bool))
    np.testing.assert_array_equal(ask(graph, [2, 3], 4, 90, [2, 3, 4]), 0.0)
