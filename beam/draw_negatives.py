"""Sampled negatives: protocols "rim" and "honest" (a function of the row and the seed, not of the worker)."""

import dataclasses

import numpy as np

from tf_lift.config import Negatives
from tf_lift.interactions import InteractionLog
from tf_lift.schema import FIRST_VALUE_ID, PADDING_ID

from .hashing import below, draw, uniform

_MAX_ROUNDS = 64  # draws of each item; what a slate still lacks then is taken from the list of all usable items
_POOL, _UNIFORM, _KIND, _SOURCE_ROW, _TARGET, _REST = range(6)  # each purpose draws from its own sequence


@dataclasses.dataclass(frozen=True)
class Targets:
    """n targets of logs of positives only.

    Attributes:
        rows: int64 [n] row ids.
        users: int32 [n] user ids.
        items: int32 [n] item ids.
        times: int64 [n] epoch seconds.
        order: int64 [n] which of its user's rows each is: with the user, what draws are seeded by.
    """

    rows: np.ndarray
    users: np.ndarray
    items: np.ndarray
    times: np.ndarray
    order: np.ndarray


def draw_pool_negatives(
    users: np.ndarray, order: np.ndarray, items: np.ndarray, num_items: int, seed: int
) -> np.ndarray:
    """One uniform negative for each pool row (protocol rim): another item of the log, never checked against the user.

    Args:
        users: int32 [n] user ids.
        order: int64 [n] which of its user's rows each is.
        items: int32 [n] item ids.
        num_items: items of the log.
        seed: the data seed.

    Returns:
        int32 [n] item ids.
    """
    if num_items < 2:
        raise ValueError(f"Protocol 'rim' needs at least two items to draw a negative. Received: {num_items}.")
    drawn = below(draw(seed, _POOL, users, order), np.full(len(users), num_items - 1)) + FIRST_VALUE_ID
    return (drawn + (drawn >= items)).astype(np.int32)


class NegativeSampler:
    """Draws the negatives of targets."""

    def __init__(
        self,
        log: InteractionLog,
        item_field: int,
        item_first_times: np.ndarray,
        pool_until: int | None,
        negatives: Negatives,
        seed: int,
    ) -> None:
        """Prepares the draws.

        Args:
            log: the interaction log.
            item_field: index of the item field.
            item_first_times: int64 [I] ascending first times of the item vocabulary.
            pool_until: protocol rim: only rows before this time count as the user's own; None: all before the target.
            negatives: the configuration's section.
            seed: the data seed.
        """
        self._negatives, self._seed = negatives, seed
        self._item_first_times = item_first_times
        real = np.flatnonzero(~log.synthetic)
        if pool_until is not None:
            real = real[log.time[real] < pool_until]
        self._user_starts = np.searchsorted(real, log.user_starts)
        self._own_items = log.fields[real, item_field]
        self._own_times = log.time[real]
        pairs = self._pair_keys(log.user_indices()[real] + FIRST_VALUE_ID, self._own_items)
        order = np.lexsort((self._own_times, pairs))
        self._pairs, first = np.unique(pairs[order], return_index=True)
        self._pair_times = self._own_times[order][first]
        shown = np.flatnonzero(~log.synthetic)
        by_time = shown[np.argsort(log.time[shown], kind="stable")]
        self._times_in_order, self._items_in_order = log.time[by_time], log.fields[by_time, item_field]

    def draw(self, targets: Targets) -> np.ndarray:
        """Negatives of each target.

        Args:
            targets: n targets.

        Returns:
            int32 [n, per_target] item ids; padding at the places for which too few items exist.
        """
        width = self._negatives.per_target
        result = np.full((len(targets.rows), width), PADDING_ID, np.int32)
        rim = self._negatives.protocol == "rim"
        for turn in range(_MAX_ROUNDS):
            short = np.flatnonzero((result == PADDING_ID).any(axis=1))
            if not len(short):
                break
            part = Targets(*(getattr(targets, field.name)[short] for field in dataclasses.fields(Targets)))
            drawn = self._draw_rim(part, turn) if rim else self._draw_honest(part, turn)
            usable = (drawn != part.items[:, None]) & (drawn != PADDING_ID)
            if not rim:
                usable &= ~self._is_own(part, drawn)
            result[short] = _fill(result[short], np.where(usable, drawn, PADDING_ID), distinct=not rim)
        if not rim:
            for index in np.flatnonzero((result == PADDING_ID).any(axis=1)).tolist():
                result[index] = self._fill_from_all(result[index], targets, index)
        return result

    def _fill_from_all(self, slate: np.ndarray, targets: Targets, index: int) -> np.ndarray:
        """A slate that draws left short, filled with other usable items, in an order drawn for the target."""
        one = Targets(*(getattr(targets, field.name)[index : index + 1] for field in dataclasses.fields(Targets)))
        items = np.arange(np.searchsorted(self._item_first_times, one.times[0])) + FIRST_VALUE_ID
        rest = items[(items != one.items) & ~self._is_own(one, items[None])[0] & ~np.isin(items, slate)]
        rest = rest[np.argsort(draw(self._seed, _REST, one.users, one.order, rest))]
        filled = slate.copy()
        places = np.flatnonzero(slate == PADDING_ID)[: len(rest)]
        filled[places] = rest[: len(places)]
        return filled

    def _draw_rim(self, targets: Targets, turn: int) -> np.ndarray:
        """Any item of the log; a share of the slate from the user's own pool rows where there are some."""
        places = np.arange(self._negatives.per_target)
        users, order = targets.users[:, None], targets.order[:, None]
        drawn = draw(self._seed, _UNIFORM, users, order, places, np.array(turn))
        items = below(drawn, np.full(drawn.shape, len(self._item_first_times))) + FIRST_VALUE_ID
        share = self._negatives.own_share * self._negatives.per_target
        num_own = np.floor(share + uniform(draw(self._seed, _KIND, targets.users, targets.order)))
        starts = self._user_starts[targets.users - FIRST_VALUE_ID]
        counts = self._user_starts[targets.users - FIRST_VALUE_ID + 1] - starts
        own = (places < num_own[:, None]) & (counts[:, None] > 0)
        if (
            not own.any() or turn * 2 >= _MAX_ROUNDS
        ):  # a user whose only item is the target's gets uniform ones in the end
            return items
        source = starts[:, None] + below(
            draw(self._seed, _SOURCE_ROW, users, order, places, np.array(turn)), np.maximum(counts, 1)[:, None]
        )
        return np.where(own, self._own_items[np.where(own, source, 0)], items)

    def _draw_honest(self, targets: Targets, turn: int) -> np.ndarray:
        """Items seen before the target's time, uniformly or by how often they were."""
        places = np.arange(self._negatives.per_target)
        keys = (targets.users[:, None], targets.order[:, None], places, np.array(turn))
        known = np.searchsorted(self._item_first_times, targets.times)
        items = below(draw(self._seed, _UNIFORM, *keys), np.maximum(known, 1)[:, None]) + FIRST_VALUE_ID
        num_popular = round(self._negatives.popularity_share * self._negatives.per_target)
        if num_popular:
            seen = np.searchsorted(self._times_in_order, targets.times)
            popular = self._items_in_order[below(draw(self._seed, _SOURCE_ROW, *keys), np.maximum(seen, 1)[:, None])]
            items = np.where(places >= self._negatives.per_target - num_popular, popular, items)
        return np.where(known[:, None] > 0, items, PADDING_ID)

    def _is_own(self, targets: Targets, items: np.ndarray) -> np.ndarray:
        """Whether the user had each item before the target's time."""
        if not len(self._pairs):
            return np.zeros(items.shape, bool)
        keys = self._pair_keys(targets.users[:, None], items)
        index = np.minimum(np.searchsorted(self._pairs, keys), len(self._pairs) - 1)
        return (self._pairs[index] == keys) & (self._pair_times[index] < targets.times[:, None])

    def _pair_keys(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        return users.astype(np.int64) * (len(self._item_first_times) + FIRST_VALUE_ID) + items


def _fill(slates: np.ndarray, drawn: np.ndarray, distinct: bool) -> np.ndarray:
    """Puts drawn items at the places that are still empty; with `distinct`, an item that stands already is dropped."""
    filled = np.where(slates == PADDING_ID, drawn, slates)
    if not distinct:
        return filled
    is_new = slates == PADDING_ID
    order = np.lexsort((np.broadcast_to(np.arange(filled.shape[1]), filled.shape), is_new, filled), axis=1)
    ranked = np.take_along_axis(filled, order, 1)
    repeated = np.zeros(filled.shape, bool)
    np.put_along_axis(repeated, order[:, 1:], ranked[:, 1:] == ranked[:, :-1], 1)
    return np.where(repeated, PADDING_ID, filled)


def pick_targets(users: np.ndarray, order: np.ndarray, rate: float, seed: int) -> np.ndarray:
    """Which rows become targets.

    Args:
        users: int32 [n] user ids.
        order: int64 [n] which of its user's rows each is.
        rate: the share to pick.
        seed: the data seed.

    Returns:
        bool [n].
    """
    return uniform(draw(seed, _TARGET, users, order)) < rate
