"""Where the rows of a request's keys stand in the posting lists, in TensorFlow operations: `lookup.look_up` for all keys at once."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_lift.retrieval.graph_keys import FieldLanes, KeyPlan, Keys
from tf_lift.retrieval.match_sets import HASH_MULTIPLIER, HASH_SHIFT
from tf_lift.retrieval.posting_lists import PostingLists

_TAG_BITS, _TAG_MASK = 8, 0xFF
_MAX_INT32_PLACE = 1 << 30  # places and sums of two of them fit int32
_SEARCH_STEPS = (5, 10)  # lists of 2^10 rows and more are searched apart, down to that length; then those of 2^5
_PLACE_BITS, _PLACE_MASK = 5, 31  # a word has 32 entries' labels
_LABEL_BITS = 32  # and above them how many entries before it have label 1
_RANGE_BITS = 36  # `expand`: integers of its ranges; above them the range


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
        self._place_type = place_type
        tagged = np.append(np.int64(0), starts << _TAG_BITS | lists.tags[slots])
        self._tagged_starts = constant_variable(tagged, "tagged_starts")  # side by side: a lookup waits for memory
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
            self._labels = constant_variable(_label_words(lists.positive_words), "labels")
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
        spans, newest = self._find_all(keys)
        if not self._rolling:
            return spans
        bounds = tf.gather(tf.gather(visible, keys.element_slates), keys.elements)
        return spans._replace(stops=self._cut(spans.starts, spans.stops, newest, bounds))

    def _find_all(self, keys: Keys) -> tuple[Spans, tf.Tensor]:
        """The spans of keys with all of their rows, and int32 [T] the last of these, 0 where there is none."""
        hashes = hash_values(keys.values)
        tags = tf.bitcast(tf.bitwise.bitwise_and(hashes, tf.constant(_TAG_MASK, tf.uint64)), tf.int64)
        buckets = tf.bitcast(tf.bitwise.right_shift(hashes, tf.gather(self._shifts, keys.sets)), tf.int64)
        buckets += tf.gather(self._directory_starts, keys.sets)
        owners, slots = expand(tf.gather(self._directory, buckets), tf.gather(self._directory, buckets + 1))
        tagged = tf.gather(self._tagged_starts, slots)
        same_tag = tf.where(tf.bitwise.bitwise_and(tagged, _TAG_MASK) == tf.gather(tags, owners))[:, 0]
        owners, slots = tf.gather(owners, same_tag), tf.gather(slots, same_tag)
        starts, stops = self._untag(tf.gather(tagged, same_tag)), self._untag(tf.gather(self._tagged_starts, slots + 1))
        ranks = tf.gather(self.ranks, stops - 1)  # any of them has the slot's key, and the newest is read again
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
        num_keys = tf.size(keys.sets)
        slots, starts, stops, newest = (
            tf.math.unsorted_segment_sum(part * tf.cast(is_same, part.dtype), owners, num_keys)
            for part in (slots, starts, stops, ranks)  # at most one slot of a key is the same
        )
        return Spans(slots, starts, stops), newest

    def _untag(self, tagged: tf.Tensor) -> tf.Tensor:
        """The entries where slots start."""
        return tf.cast(tf.bitwise.right_shift(tagged, tf.constant(_TAG_BITS, tf.int64)), self._place_type)

    def _cut(self, starts: tf.Tensor, stops: tf.Tensor, newest: tf.Tensor, bounds: tf.Tensor) -> tf.Tensor:
        """Where the ranks below a bound end in each span, whose last rank is `newest`."""
        cut = tf.cast(tf.where((starts < stops) & (newest >= bounds))[:, 0], tf.int32)
        levels = sorted({0, self._num_steps, *(step for step in _SEARCH_STEPS if step < self._num_steps)})

        def search() -> tf.Tensor:
            first, ends = tf.gather(starts, cut) - 1, tf.gather(stops, cut) - 1
            passed = self._descend(first, ends, tf.gather(bounds, cut), levels) - ends
            return stops + tf.math.unsorted_segment_sum(passed, cut, tf.size(stops))

        return tf.cond(tf.size(cut) > 0, search, lambda: stops)  # a live request sees all rows

    def _descend(self, found: tf.Tensor, ends: tf.Tensor, bounds: tf.Tensor, levels: list[int]) -> tf.Tensor:
        """Last places whose rank is below the bound, by powers of two, the largest first; that at `ends` is not below.

        Args:
            found: [..] the places before the first.
            ends: [..] the last places.
            bounds: int32 [..].
            levels: exponents of two, ascending: what is longer than one of them is searched apart, down to that length.
        """
        if len(levels) > 2:
            long = tf.cast(tf.where(ends - found > 1 << levels[1])[:, 0], tf.int32)
            first = tf.gather(found, long)
            passed = self._descend(first, tf.gather(ends, long), tf.gather(bounds, long), levels[1:]) - first
            found += tf.math.unsorted_segment_sum(passed, long, tf.size(found))
        for step in reversed(range(*levels[:2])):
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
        before = self._positives_until(tf.stack([spans.stops[:num_counted], spans.starts[:num_counted]]))
        return before[0] - before[1]

    def _positives_until(self, places: tf.Tensor) -> tf.Tensor:
        """int32, how many of the entries before each place have label 1."""
        words = tf.gather(self._labels, tf.bitwise.right_shift(places, tf.constant(_PLACE_BITS, places.dtype)))
        bits = tf.cast(tf.bitwise.bitwise_and(places, tf.constant(_PLACE_MASK, places.dtype)), tf.int64)
        one = tf.constant(1, tf.int64)
        labels = tf.bitwise.bitwise_and(words, tf.bitwise.left_shift(one, bits) - one)
        before = tf.bitwise.right_shift(words, tf.constant(_LABEL_BITS, tf.int64))
        return tf.cast(before, tf.int32) + tf.cast(tf.raw_ops.PopulationCount(x=labels), tf.int32)


def _label_words(positive_words: np.ndarray) -> np.ndarray:
    """int64 [2 W] words of 32 entries' labels, above them how many entries before have label 1; from uint64 [W] labels."""
    labels = np.stack([positive_words & np.uint64(0xFFFFFFFF), positive_words >> np.uint64(32)], axis=1).reshape(-1)
    counts = np.bitwise_count(labels)
    before = np.cumsum(counts, dtype=np.int64) - counts
    return before << _LABEL_BITS | labels.astype(np.int64)


def hash_values(values: tf.Tensor) -> tf.Tensor:
    """uint64 [T], `match_sets.hash_values` of uint64 [G, T]. Zeros before a key's first value leave its hash as it is."""
    multiplier, shift = tf.constant(HASH_MULTIPLIER, tf.uint64), tf.constant(HASH_SHIFT, tf.uint64)
    mixed = tf.zeros_like(values[0])
    for value in tf.unstack(values):
        mixed = tf.bitwise.bitwise_xor(mixed, value) * multiplier
        mixed = tf.bitwise.bitwise_xor(mixed, tf.bitwise.right_shift(mixed, shift))
    return mixed * multiplier


def expand(starts: tf.Tensor, stops: tf.Tensor, descending: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
    """All integers of some ranges, range after range.

    Args:
        starts: int32 or int64 [R], from 0 to 2^36; R is below 2^27.
        stops: [R], not below the starts.
        descending: the last integer of each range first.

    Returns:
        int32 [E] which range each belongs to, and [E] the integers.
    """
    bits = tf.constant(_RANGE_BITS, tf.int64)
    owners = tf.bitwise.left_shift(tf.range(tf.size(starts, tf.int64)), bits)
    first, last = tf.cast(starts, tf.int64) + owners, tf.cast(stops, tf.int64) + owners
    step = 1
    if descending:
        first, last, step = last - 1, first - 1, -1
    deltas = tf.constant(step, tf.int64)
    both = tf.raw_ops.RaggedRange(starts=first, limits=last, deltas=deltas, Tsplits=tf.int32).rt_dense_values
    integers = tf.bitwise.bitwise_and(both, (1 << _RANGE_BITS) - 1)
    return tf.cast(tf.bitwise.right_shift(both, bits), tf.int32), tf.cast(integers, starts.dtype)


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


def make_constant(value: np.ndarray, name: str) -> tf.Tensor:
    """A constant, as tables are in training."""
    return tf.constant(value, name=name)
