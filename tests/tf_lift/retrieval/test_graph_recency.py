"""How often and how lately values were met, against loops over a small log; as of a time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tf_lift.interactions import InteractionLog
from tf_lift.retrieval.graph_recency import NEVER, Recency, RecencyGraph, build_recency_graph
from tf_lift.schema import FIRST_VALUE_ID

DAY = 86_400
NUM_VALUES = {1: 5, 2: 3}  # of the two item fields
DAYS = (0.5, 2.0, 10.0)
TIMES = (0, 3 * DAY, 12 * DAY + DAY // 2, 30 * DAY)


def random_log(seed: int, num_rows: int = 150) -> InteractionLog:
    rng = np.random.default_rng(seed)
    users = np.sort(rng.integers(0, 6, num_rows))
    times = rng.integers(0, 50, num_rows) * (DAY // 2)  # with ties, and rows exactly at a window's edge
    times = times[np.lexsort((times, users))]
    values = [rng.integers(-1, size, num_rows) for size in NUM_VALUES.values()]  # -1: unknown
    fields = np.stack([users, *values], axis=1) + FIRST_VALUE_ID
    starts = np.searchsorted(users, np.arange(7))
    return InteractionLog(fields.astype(np.int32), times, np.ones(num_rows, np.int8), np.zeros(num_rows, bool), starts)


def build(log: InteractionLog, in_pool: np.ndarray | None = None) -> RecencyGraph:
    sizes = {field: size + FIRST_VALUE_ID for field, size in NUM_VALUES.items()}
    return build_recency_graph(log, np.ones(len(log), bool) if in_pool is None else in_pool, sizes, DAYS)


def candidates() -> np.ndarray:
    """int32 [C, M]: each item value beside each other one, padding and the unknown id among them."""
    sizes = [range(size + FIRST_VALUE_ID) for size in NUM_VALUES.values()]
    return np.array([[2, item, category] for item in sizes[0] for category in sizes[1]], np.int32)


def read(graph: RecencyGraph) -> Recency:
    fields = np.tile(candidates(), (len(TIMES), 1, 1))
    return graph.read(tf.constant(fields), tf.constant(TIMES, tf.int64))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("is_static", [False, True])
def test_counts_and_gaps_are_those_of_loops(seed: int, is_static: bool) -> None:
    log = random_log(seed)
    in_pool = log.time < 10 * DAY if is_static else np.ones(len(log), bool)
    counts, seconds = (part.numpy() for part in read(build(log, in_pool)))
    assert counts.any() and (seconds == NEVER).any() and (seconds > NEVER).any()
    for b, time in enumerate(TIMES):
        for c, candidate in enumerate(candidates()):
            for place, field in enumerate(NUM_VALUES):
                value = candidate[field]
                met = [
                    int(log.time[row])
                    for row in range(len(log))
                    if in_pool[row]
                    and log.time[row] < time
                    and log.fields[row, field] == value
                    and value >= FIRST_VALUE_ID
                ]
                within = [sum(when >= time - days * DAY for when in met) for days in DAYS]
                np.testing.assert_array_equal(counts[b, c, place], within)
                assert seconds[b, c, place] == (time - max(met) if met else NEVER)


def test_what_happens_from_the_time_on_changes_nothing() -> None:
    log = random_log(5)
    time, rng = TIMES[2], np.random.default_rng(6)
    later = log.time >= time
    fields = log.fields.copy()
    fields[later, 1:] = rng.integers(0, 3, (later.sum(), 2)) + FIRST_VALUE_ID
    before, after = read(build(log)), read(build(dataclasses.replace(log, fields=fields)))
    known = np.array(TIMES) <= time
    for was, became in zip(before, after, strict=True):
        np.testing.assert_array_equal(was.numpy()[known], became.numpy()[known])
        assert (was.numpy()[~known] != became.numpy()[~known]).any()


def test_an_empty_pool_was_never_met() -> None:
    log = random_log(1)
    counts, seconds = read(build(log, np.zeros(len(log), bool)))
    np.testing.assert_array_equal(counts, 0)
    np.testing.assert_array_equal(seconds, NEVER)
