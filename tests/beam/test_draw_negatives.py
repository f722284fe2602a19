"""Sampled negatives: what may be drawn, how often, and that a draw depends on its row alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam.draw_negatives import NegativeSampler, Targets, draw_pool_negatives, pick_targets
from tf_lift.config import Negatives
from tf_lift.interactions import InteractionLog
from tf_lift.schema import FIRST_VALUE_ID, PADDING_ID


def build_log(users: np.ndarray, items: np.ndarray, times: np.ndarray) -> tuple[InteractionLog, np.ndarray]:
    """A log of fields (user, item), and the items' first times; ids must follow the first times."""
    order = np.lexsort((times, users))
    fields = np.stack([users, items], axis=1)[order].astype(np.int32)
    num_users, num_items = int(users.max()) - FIRST_VALUE_ID + 1, int(items.max()) - FIRST_VALUE_ID + 1
    first_times = np.full(num_items, np.iinfo(np.int64).max)
    np.minimum.at(first_times, items - FIRST_VALUE_ID, times)
    assert (np.diff(first_times) >= 0).all()
    starts = np.concatenate([[0], np.cumsum(np.bincount(fields[:, 0] - FIRST_VALUE_ID, minlength=num_users))])
    zeros = np.zeros(len(order), np.int8)
    return InteractionLog(fields, times[order].astype(np.int64), zeros + 1, zeros.astype(bool), starts), first_times


def random_log(seed: int, num_rows: int, num_users: int, num_items: int) -> tuple[InteractionLog, np.ndarray]:
    """Items appear one after the other and the low ids are popular; times are few, so that many are equal."""
    rng = np.random.default_rng(seed)
    times = rng.integers(0, 50, num_rows)
    known = np.maximum(1, (times + 1) * num_items // 50)
    items = (rng.random(num_rows) ** 2 * known).astype(np.int64)
    order = np.argsort(times, kind="stable")
    _, first = np.unique(items[order], return_index=True)  # renumbered by first appearance
    rank = np.empty(items.max() + 1, np.int64)
    rank[items[order][np.sort(first)]] = np.arange(len(first))
    users = np.unique(rng.integers(0, num_users, num_rows), return_inverse=True)[1]
    return build_log(users + FIRST_VALUE_ID, rank[items] + FIRST_VALUE_ID, times)


def targets_of(log: InteractionLog, rows: np.ndarray) -> Targets:
    users = log.fields[rows, 0]
    return Targets(rows, users, log.fields[rows, 1], log.time[rows], rows - log.user_starts[users - FIRST_VALUE_ID])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.sampled_from([0.0, 0.5, 1.0]))
def test_honest_negatives_are_distinct_known_items_that_the_user_never_had(seed, per_target, share):
    log, first_times = random_log(seed, 200, 8, 30)
    negatives = Negatives("honest", per_target=per_target, popularity_share=share)
    drawn = NegativeSampler(log, 1, first_times, None, negatives, seed).draw(targets_of(log, np.arange(len(log))))
    assert drawn.shape == (200, per_target) and drawn.dtype == np.int32
    for row, slate in enumerate(drawn):
        user, item, time = log.fields[row, 0], log.fields[row, 1], log.time[row]
        had = set(log.fields[(log.fields[:, 0] == user) & (log.time < time), 1].tolist())
        usable = set((np.flatnonzero(first_times < time) + FIRST_VALUE_ID).tolist()) - had - {item}
        real = slate[slate != PADDING_ID].tolist()
        assert len(real) == len(set(real)) == min(per_target, len(usable))
        assert set(real) <= usable


def test_a_short_catalogue_gives_all_its_items():
    log, first_times = build_log(np.array([2, 2, 3, 3]), np.array([2, 3, 4, 5]), np.array([0, 1, 2, 3]))
    drawn = NegativeSampler(log, 1, first_times, None, Negatives("honest", per_target=100), 1).draw(
        targets_of(log, np.arange(4))
    )
    assert [sorted(set(slate.tolist()) - {PADDING_ID}) for slate in drawn] == [[], [], [2, 3], [2, 3]]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_popular_negatives_follow_the_popularity_before_the_target(share):
    """Popularity halves from item to item before t = 1, and doubles after it."""
    counts = np.array([320, 160, 80, 40, 20, 10])
    items = np.concatenate([np.repeat(np.arange(6), counts), np.repeat(np.arange(6), counts[::-1])]) + FIRST_VALUE_ID
    users = np.full(1260, FIRST_VALUE_ID + 1)
    users[0] = FIRST_VALUE_ID  # the targets' user, who had item 0
    log, first_times = build_log(users, items, np.repeat([0, 5], 630))
    sampler = NegativeSampler(log, 1, first_times, None, Negatives("honest", per_target=1, popularity_share=share), 3)
    num = 40_000
    ones = np.ones(num, np.int64)
    targets = Targets(0 * ones, FIRST_VALUE_ID * ones, (FIRST_VALUE_ID + 1) * ones, ones, np.arange(num))
    observed = np.bincount(sampler.draw(targets)[:, 0] - FIRST_VALUE_ID, minlength=6)
    weights = counts[2:] if share else np.ones(4)  # without the user's item and the target's
    expected = weights / weights.sum() * num
    assert observed[:2].tolist() == [0, 0]
    assert ((observed[2:] - expected) ** 2 / expected).sum() < 21.1  # chi-square of 3 degrees of freedom at 1e-4


def test_a_share_of_the_slate_is_popular():
    """One item of a thousand makes up half of the log: every slate with popular places holds it, others seldom do."""
    items = np.concatenate([np.arange(1000), np.full(1000, 999)]) + FIRST_VALUE_ID
    log, first_times = build_log(np.full(2000, FIRST_VALUE_ID), items, np.zeros(2000, np.int64))
    ones = np.ones(2000, np.int64)
    targets = Targets(0 * ones, 3 * ones, 5 * ones, ones, np.arange(2000))  # of a user who had nothing
    for share, low, high in ((0.0, 0.0, 0.03), (0.5, 0.998, 1.0)):
        sampler = NegativeSampler(
            log, 1, first_times, None, Negatives("honest", per_target=20, popularity_share=share), 3
        )
        holds = (sampler.draw(targets) == 999 + FIRST_VALUE_ID).any(axis=1).mean()
        assert low <= holds <= high


def test_rim_negatives_are_uniform_but_for_the_users_own_pool_rows():
    log, first_times = random_log(5, 3000, 10, 200)
    negatives = Negatives("rim", per_target=40, own_share=0.25)
    pool_until = 30
    rows = np.flatnonzero(log.time >= pool_until)
    targets = targets_of(log, rows)
    drawn = NegativeSampler(log, 1, first_times, pool_until, negatives, 3).draw(targets)
    assert (drawn != targets.items[:, None]).all() and (drawn >= FIRST_VALUE_ID).all()
    for user in np.unique(targets.users):
        pool = log.fields[(log.fields[:, 0] == user) & (log.time < pool_until), 1]
        own = drawn[targets.users == user][:, :10]
        assert set(own.ravel().tolist()) <= set(pool.tolist())
        observed = np.bincount(own.ravel(), minlength=202) / own.size
        np.testing.assert_allclose(observed, np.bincount(pool, minlength=202) / len(pool), atol=0.04)
    others = np.bincount(drawn[:, 10:].ravel(), minlength=len(first_times) + 2)[2:]
    expected = others.sum() / len(first_times)
    chi_square = ((others - expected) ** 2 / expected).sum()
    assert chi_square < len(first_times) + 6 * np.sqrt(2 * len(first_times))
    assert len(set(drawn.max(axis=1).tolist())) > 1


def test_rim_gives_a_fractional_share_on_average_and_uniform_ones_to_a_user_without_pool_rows():
    users, items = np.array([2] * 3 + [3]), np.array([2, 2, 3, 4])
    log, first_times = build_log(users, items, np.array([0, 1, 9, 9]))
    sampler = NegativeSampler(
        log, 1, np.append(first_times, np.full(96, 9)), 5, Negatives("rim", per_target=3, own_share=0.5), 3
    )
    num = 4000
    ones = np.ones(num, np.int64)
    of_known = sampler.draw(Targets(2 * ones, 2 * ones, 3 * ones, 9 * ones, np.arange(num)))
    assert abs((of_known == 2).mean() - (0.5 + 0.5 / 99)) < 0.01
    of_new = sampler.draw(Targets(3 * ones, 3 * ones, 4 * ones, 9 * ones, np.arange(num)))
    assert abs((of_new == 2).mean() - 1 / 99) < 0.01


def test_rim_does_not_hang_on_a_user_whose_only_item_is_the_target():
    log, first_times = build_log(np.array([2, 2, 3]), np.array([2, 2, 3]), np.array([0, 9, 9]))
    sampler = NegativeSampler(log, 1, first_times, 5, Negatives("rim", per_target=6, own_share=1.0), 3)
    assert sampler.draw(targets_of(log, np.array([1]))).tolist() == [[3] * 6]


@pytest.mark.parametrize("protocol", ["honest", "rim"])
def test_draws_do_not_depend_on_the_batch(protocol):
    log, first_times = random_log(1, 300, 10, 25)
    negatives = Negatives(protocol, per_target=12, popularity_share=0.5 * (protocol == "honest"), own_share=0.3)
    sampler = NegativeSampler(log, 1, first_times, 25 if protocol == "rim" else None, negatives, 9)
    together = sampler.draw(targets_of(log, np.arange(300)))
    for rows in np.array_split(np.random.default_rng(0).permutation(300), 40):
        np.testing.assert_array_equal(sampler.draw(targets_of(log, rows)), together[rows])
    other = NegativeSampler(log, 1, first_times, 25 if protocol == "rim" else None, negatives, 10)
    assert (other.draw(targets_of(log, np.arange(300))) != together).any()


@pytest.mark.parametrize("mode", ["static", "rolling"])
def test_honest_slates_of_a_data_set_hold_no_item_that_the_user_had(kit, mode):
    log, output = kit.base(mode, "honest")
    rows = {(f"u{user}", f"i{item}", time) for user, item, time in zip(log.user, log.item, log.time, strict=True)}
    for (user, time, _), index in output.key_to_index().items():
        items = [output.value("item", value) for value in output.slates["fields"][index, :, 2] if value]
        assert items[0] != "(unknown)" and "(unknown)" not in items
        had = {item for other, item, then in rows if other == user and then < time}
        assert len(items) == 9 and not had & set(items)


def test_pool_negatives_are_uniform_over_the_other_items():
    num = 60_000
    items = np.arange(num) % 4 + FIRST_VALUE_ID
    drawn = draw_pool_negatives(np.full(num, 2), np.arange(num), items, 4, 5)
    assert (drawn != items).all() and drawn.dtype == np.int32
    for item in range(2, 6):
        shares = np.bincount(drawn[items == item], minlength=6)[2:] / (items == item).sum()
        np.testing.assert_allclose(shares, (np.arange(2, 6) != item) / 3, atol=0.02)
    with pytest.raises(ValueError, match="needs at least two items to draw a negative. Received: 1."):
        draw_pool_negatives(np.array([2]), np.array([0]), np.array([2]), 1, 5)


def test_picked_targets_are_a_share_and_nested():
    users, order = np.repeat(np.arange(200), 100), np.tile(np.arange(100), 200)
    few, many = pick_targets(users, order, 0.2, 3), pick_targets(users, order, 0.6, 3)
    assert abs(few.mean() - 0.2) < 0.01 and abs(many.mean() - 0.6) < 0.01
    assert (many | ~few).all()
    assert pick_targets(users, order, 1.0, 3).all() and not pick_targets(users, order, 0.0, 3).any()
    assert (pick_targets(users, order, 0.5, 4) != pick_targets(users, order, 0.5, 3)).any()
