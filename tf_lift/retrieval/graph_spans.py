"""Where the rows of a request's keys stand in the posting lists, in TensorFlow operations: `lookup._look_up` for all keys at once."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_lift.retrieval.graph_keys import FieldLanes, KeyPlan, Keys
from tf_lift.retrieval.match_sets import HASH_MULTIPLIER, HASH_SHIFT
from tf_lift.retrieval.posting_lists import PostingLists

_TAG_MASK = 0xFF
_MAX_INT32_PLACE = 1 << 30  # places and sums of two of them fit int32
_SHORT_STEPS = 10  # lists of 1,024 rows and more are searched apart, down to that length
_PLACE_BITS, _PLACE_MASK = 6, 63  # 64 entries a word of labels


class Spans(NamedTuple):
    """What T keys have: entries `starts` to `stops` of `ranks`, in which no row is at or after the key's time."""

    slots: tf.Tensor  # int32 [T]: 0 where the key has no rows
    starts: tf.Tensor  # [T], int32 or, in lists of 2^31 entries and more, int64
    stops: tf.Tensor  # [T] of the same type


class SpanTables(tf.Module):
    """The directory, the slots and the entries of posting lists as variables.

    Slots are numbered anew, in the order that sets have in `Keys`, and slot 0 is that of a key without rows. Static mode's counts
    are kept for the counted sets alone, which come first.

    Args:
        lists: the posting lists.
        plan: how requests become keys.
        num_counted: how many of the sets are counted.
        lanes: how fields are packed.
    """

    def __init__(self, lists: PostingLists, plan: KeyPlan, num_counted: int, lanes: FieldLanes) -> None:
        super().__init__(name="spans")
        order = plan.set_order()
        self._rolling, self._lanes = lists.rolling, lanes
        slot_stops = np.append(lists.slot_starts[1:], len(lists.tags))
        sizes = (slot_stops - lists.slot_starts)[order]
        first_slots = 1 + np.cumsum(sizes) - sizes
        slots = np.concatenate([np.arange(lists.slot_starts[index], slot_stops[index]) for index in order])
        place_type = np.int32 if len(lists.ranks) <= _MAX_INT32_PLACE else np.int64
        starts = lists.starts[slots] + np.repeat(lists.rank_starts[order], sizes)
        if len(slots) >= np.iinfo(np.int32).max:
            raise ValueError(
                f"A SavedModel's posting lists may have 2^31 - 2 keys. Received: {len(slots)}. Set `query = false` on some fields."
            )
        self._tags = constant_variable(np.append(np.uint8(0), lists.tags[slots]), "tags")
        self._starts = constant_variable(np.append(0, starts).astype(place_type), "starts")
        directories = [
            lists.directory[first : first + (1 << int(bits)) + 1]
            for first, bits in zip(lists.directory_starts[order], lists.directory_bits[order], strict=True)
        ]
        lengths = np.array([len(directory) for directory in directories])
        directory = np.concatenate(directories) + np.repeat(first_slots, lengths)
        self._directory = constant_variable(directory.astype(np.int32), "directory")
        self._directory_starts = (np.cumsum(lengths) - lengths).astype(np.int64)
        self._shifts = np.uint64(64) - lists.directory_bits[order].astype(np.uint64)
        self._generator_masks = lanes.masks(plan.generators())  # [S, W]
        self.ranks = constant_variable(lists.ranks if len(lists.ranks) else np.zeros(1, np.int32), "ranks")
        words = lanes.pack(lists.rank_to_fields)
        self.words = [
            constant_variable(
                np.ascontiguousarray(words[:, word]) if len(words) else np.zeros(1, np.int64), f"fields_{word}"
            )
            for word in range(lanes.num_words)
        ]
        if lists.rolling:
            self._positive_words = constant_variable(lists.positive_words, "positive_words")
            self._positives_before = constant_variable(lists.positives_before, "positives_before")
            longest = max((np.diff(part).max(initial=0) for part in np.split(starts, np.cumsum(sizes)[:-1])), default=0)
            self._num_steps = int(longest).bit_length()
        else:
            counted = slots[: int(sizes[:num_counted].sum())]
            self._counts = constant_variable(np.append(np.int32(0), lists.counts[counted]), "counts")
            self._positives = constant_variable(np.append(np.int32(0), lists.positives[counted]), "positives")

    def find(self, keys: Keys, visible: tf.Tensor) -> Spans:
        """The spans of keys.

        Args:
            keys: T keys.
            visible: int32 [B + 1] how many rows of the pool's order each slate may see.
        """
        slots = self._find_slots(keys)
        starts, stops = tf.gather(self._starts, slots), tf.gather(self._starts, slots + 1)
        stops = tf.where(slots > 0, stops, starts)
        if self._rolling:
            bounds = tf.gather(tf.gather(visible, keys.element_slates), keys.elements)
            stops = self._cut(starts, stops, bounds)
        return Spans(slots, starts, stops)

    def _find_slots(self, keys: Keys) -> tf.Tensor:
        """int32 [T] each key's slot, 0 where no row has it."""
        hashes = hash_values(keys.values)
        tags = tf.cast(tf.bitwise.bitwise_and(hashes, tf.constant(_TAG_MASK, tf.uint64)), tf.uint8)
        buckets = tf.bitcast(tf.bitwise.right_shift(hashes, tf.gather(self._shifts, keys.sets)), tf.int64)
        buckets += tf.gather(self._directory_starts, keys.sets)
        owners, slots = expand(tf.gather(self._directory, buckets), tf.gather(self._directory, buckets + 1))
        same_tag = tf.where(tf.gather(self._tags, slots) == tf.gather(tags, owners))[:, 0]
        owners, slots = tf.gather(owners, same_tag), tf.gather(slots, same_tag)
        ranks = tf.gather(self.ranks, tf.gather(self._starts, slots))
        elements, sets = tf.gather(keys.elements, owners), tf.gather(keys.sets, owners)
        differences = [
            tf.bitwise.bitwise_and(
                tf.bitwise.bitwise_xor(tf.gather(pool, ranks), tf.gather(own, elements)),
                tf.gather(self._generator_masks[:, word], sets),
            )
            for word, (pool, own) in enumerate(zip(self.words, keys.element_words, strict=True))
        ]
        is_same = differences[0] == 0
        for difference in differences[1:]:
            is_same &= difference == 0
        found = slots * tf.cast(is_same, tf.int32)
        return tf.math.unsorted_segment_sum(found, owners, tf.size(keys.sets))  # at most one slot of a key is the same

    def _cut(self, starts: tf.Tensor, stops: tf.Tensor, bounds: tf.Tensor) -> tf.Tensor:
        """Where the ranks below a bound end in each span. Most steps of a search are for the few long lists alone."""
        last = tf.gather(self.ranks, tf.maximum(stops - 1, 0))
        cut = tf.cast(tf.where((starts < stops) & (last >= bounds))[:, 0], tf.int32)
        found, ends, bounds = tf.gather(starts, cut) - 1, tf.gather(stops, cut) - 1, tf.gather(bounds, cut)
        num_low = min(self._num_steps, _SHORT_STEPS)
        if self._num_steps > num_low:
            long = tf.cast(tf.where(ends - found > 1 << num_low)[:, 0], tf.int32)
            first = tf.gather(found, long)
            steps = range(num_low, self._num_steps)
            passed = self._descend(first, tf.gather(ends, long), tf.gather(bounds, long), steps) - first
            found += tf.math.unsorted_segment_sum(passed, long, tf.size(found))
        found = self._descend(found, ends, bounds, range(num_low))
        return stops + tf.math.unsorted_segment_sum(found - ends, cut, tf.size(stops))

    def _descend(self, found: tf.Tensor, ends: tf.Tensor, bounds: tf.Tensor, steps: range) -> tf.Tensor:
        """Last places whose rank is below the bound, by powers of two, the largest first; the rank at `ends` is not below it."""
        for step in reversed(steps):
            tried = found + (1 << step)
            found = tf.where(tf.gather(self.ranks, tf.minimum(tried, ends)) < bounds, tried, found)
        return found

    def count(self, spans: Spans, num_counted: tf.Tensor) -> tf.Tensor:
        """int32 [num_counted] visible rows of the first keys."""
        if self._rolling:
            return tf.cast(spans.stops[:num_counted] - spans.starts[:num_counted], tf.int32)
        return tf.gather(self._counts, spans.slots[:num_counted])

    def count_positives(self, spans: Spans, num_counted: tf.Tensor) -> tf.Tensor:
        """int32 [num_counted] how many of them have label 1."""
        if not self._rolling:
            return tf.gather(self._positives, spans.slots[:num_counted])
        return self._positives_until(spans.stops[:num_counted]) - self._positives_until(spans.starts[:num_counted])

    def _positives_until(self, places: tf.Tensor) -> tf.Tensor:
        """How many of the entries before each place have label 1."""
        words = tf.bitwise.right_shift(places, tf.constant(_PLACE_BITS, places.dtype))
        bits = tf.cast(tf.bitwise.bitwise_and(places, tf.constant(_PLACE_MASK, places.dtype)), tf.uint64)
        one = tf.constant(1, tf.uint64)
        below = tf.bitwise.left_shift(one, bits) - one
        labels = tf.bitwise.bitwise_and(tf.gather(self._positive_words, words), below)
        return tf.gather(self._positives_before, words) + tf.cast(tf.raw_ops.PopulationCount(x=labels), tf.int32)


def hash_values(values: tf.Tensor) -> tf.Tensor:
    """uint64 [T], `match_sets.hash_values` of uint64 [G, T]. Zeros before a key's first value leave its hash as it is."""
    multiplier, shift = tf.constant(HASH_MULTIPLIER, tf.uint64), tf.constant(HASH_SHIFT, tf.uint64)
    mixed = tf.zeros_like(values[0])
    for value in tf.unstack(values):
        mixed = tf.bitwise.bitwise_xor(mixed, value) * multiplier
        mixed = tf.bitwise.bitwise_xor(mixed, tf.bitwise.right_shift(mixed, shift))
    return mixed * multiplier


def expand(starts: tf.Tensor, stops: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """All integers of some ranges, range after range.

    Args:
        starts: int32 or int64 [R].
        stops: [R], not below the starts.

    Returns:
        int32 [E] which range each belongs to, and [E] the integers.
    """
    ranges = tf.raw_ops.RaggedRange(starts=starts, limits=stops, deltas=tf.ones([], starts.dtype), Tsplits=tf.int32)
    size = tf.size(ranges.rt_dense_values)
    # How many ranges end before each integer; a range that ends after the last is in the place beyond.
    ends = tf.math.unsorted_segment_sum(tf.ones_like(starts, tf.int32), ranges.rt_nested_splits[1:], size + 1)
    return tf.cumsum(ends[:size]), ranges.rt_dense_values


def segment_lower_bound(
    values: tf.Tensor, starts: tf.Tensor, stops: tf.Tensor, bounds: tf.Tensor, num_steps: int
) -> tf.Tensor:
    """First position of each segment whose value is not below a bound, as `segments.segment_lower_bound`.

    Args:
        values: [N], ascending inside every segment; N is at least 1.
        starts: int32 or int64 [..] first position of each segment.
        stops: [..] one past its last.
        bounds: integers [..].
        num_steps: enough for the longest segment, ceil(log2(length + 1)).

    Returns:
        [..] of the starts' type.
    """
    found, ends = starts - 1, stops - 1  # the last place whose value is below the bound, and the segment's last
    safe_ends = tf.maximum(ends, 0)
    for step in reversed(range(num_steps)):
        tried = found + (1 << step)
        is_below = tf.cast(tf.gather(values, tf.minimum(tried, safe_ends)), bounds.dtype) < bounds
        found = tf.where(is_below & (tried <= ends), tried, found)
    return found + 1


def constant_variable(value: object, name: str) -> tf.Variable:
    """A variable that is never trained: restored from the SavedModel's variable files, not embedded in its graph."""
    return tf.Variable(value, trainable=False, name=name)
