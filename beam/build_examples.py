"""From the log's target rows to serialized examples."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from tf_lift.config import Config
from tf_lift.data.dataset_files import Dataset
from tf_lift.data.dataset_info import SPLITS, Boundaries
from tf_lift.data.examples import NO_RANK, ExampleSpec, build_example_spec
from tf_lift.interactions import NO_ROW
from tf_lift.retrieval.posting_lists import Neighbours
from tf_lift.schema import FIRST_VALUE_ID, PADDING_ID

from .draw_negatives import NegativeSampler, Targets, pick_targets
from .hashing import draw

_EXAMPLE_ORDER = 200  # purpose of the draw that orders the examples of a file


@dataclasses.dataclass(frozen=True)
class TargetRows:
    """The rows that become examples: row ids, split numbers (1 train, 2 validation, 3 test), and counts of all rows."""

    rows: np.ndarray
    splits: np.ndarray
    counts: dict[str, int]


def find_target_rows(dataset: Dataset, boundaries: Boundaries) -> TargetRows:
    """Picks the targets of every split.

    Args:
        dataset: the data set, of which the log stands.
        boundaries: the split.

    Returns:
        The targets in the order of rows. Its counts say where every row of the log is: `pool_window`, and for each
        split `<split>_window`, of which `<split>_targets`, `<split>_not_sampled`, `<split>_new_item` and
        `<split>_repeat`.
    """
    config, log = dataset.config, dataset.log
    splits = boundaries.split_of(log.time)
    users = log.fields[:, config.schema.user_index]
    first_order = count_dropped(dataset, boundaries) - log.user_starts[:-1]
    order = np.arange(len(log)) + first_order[users - FIRST_VALUE_ID]
    counts = {"synthetic": int(log.synthetic.sum()), "pool_window": int(((splits == 0) & ~log.synthetic).sum())}
    chosen = np.zeros(len(log), bool)
    new_item = np.zeros(len(log), bool)
    if config.negatives.protocol == "honest" and config.negatives.new_items == "drop":
        item = config.schema.item_index
        new_item = log.fields[:, item] >= dataset.info.vocabularies[item].num_ids_at(log.time)
    repeat = np.zeros(len(log), bool)
    if config.negatives.protocol == "honest" and config.negatives.repeats == "drop":
        repeat = find_repeats(users, log.fields[:, config.schema.item_index], log.time) & ~new_item
    for number, split in enumerate(SPLITS, start=1):
        inside = splits == number
        rate = config.split.test_rate if split == "test" else config.split.train_rate
        sampled = inside & pick_targets(users, order, rate, config.data_seed)
        is_target = sampled & ~new_item & ~repeat
        chosen |= is_target
        counts[f"{split}_window"] = int(inside.sum())
        counts[f"{split}_not_sampled"] = int((inside & ~sampled).sum())
        counts[f"{split}_new_item"] = int((sampled & new_item).sum())
        counts[f"{split}_repeat"] = int((sampled & repeat).sum())
        counts[f"{split}_targets"] = int(is_target.sum())
        if not is_target.any():
            raise ValueError(
                f"Every split must have targets. Received: none for {split}, of {counts[f'{split}_window']:,} rows in its window "
                f"({counts[f'{split}_not_sampled']:,} not sampled, {counts[f'{split}_new_item']:,} of new items, "
                f"{counts[f'{split}_repeat']:,} repeats). Move the split, or raise split.train_rate or split.test_rate."
            )
    rows = np.flatnonzero(chosen)
    return TargetRows(rows, splits[rows], counts)


def count_dropped(dataset: Dataset, boundaries: Boundaries) -> np.ndarray:
    """How many rows of each user were drawn for its pool rows and dropped (`negatives.drawn_rows`), int64 [U].

    Targets are numbered as if they were there, before them: so their draws are those of a log that keeps them.
    """
    log, dropped = dataset.log, dataset.config.negatives.dropped_per_pool_row
    if not dropped:
        return np.zeros(log.num_users, np.int64)
    users = np.arange(log.num_users) + FIRST_VALUE_ID
    stops = log.rows_before(users, np.full(log.num_users, boundaries.train_from))
    return dropped * (stops - log.user_starts[:-1])


def find_repeats(users: np.ndarray, items: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Which rows are of an item that their user had strictly before.

    Args:
        users: int32 [n] user ids.
        items: int32 [n] item ids.
        times: int64 [n] epoch seconds.

    Returns:
        bool [n].
    """
    _, pair = np.unique(users.astype(np.int64) << 32 | items, return_inverse=True)
    first = np.full(pair.max(initial=-1) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, pair.reshape(-1), times)
    return times > first[pair.reshape(-1)]


@dataclasses.dataclass(frozen=True)
class Candidates:
    """The candidates of T targets, C each.

    Attributes:
        rows: int64 [T] row ids of the targets.
        fields: int32 [T * C, M] ids as of the targets' times.
        times: int64 [T * C] their times.
        labels: int64 [T, C].
        mask: bool [T, C], False at the places for which too few negatives exist.
    """

    rows: np.ndarray
    fields: np.ndarray
    times: np.ndarray
    labels: np.ndarray
    mask: np.ndarray


class ExampleBuilder:
    """Builds the slates of target rows: candidates, history, neighbours and match statistics.

    Attributes:
        dataset: the data set, of which the log stands.
        spec: the example's definition.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        config: Config = dataset.config
        self.spec: ExampleSpec = build_example_spec(config, len(dataset.info.statistic_sets))
        self._user_indices = dataset.log.user_indices()
        num_dropped = count_dropped(dataset, dataset.info.boundaries)
        self._first_order = num_dropped - dataset.log.user_starts[:-1]
        self._total_dropped = int(num_dropped.sum())
        self._sampler: NegativeSampler | None = None
        if config.negatives.protocol != "none":
            item = config.schema.item_index
            self._sampler = NegativeSampler(
                dataset.log,
                item,
                dataset.info.vocabularies[item].first_times,
                dataset.info.boundaries.train_from if config.negatives.protocol == "rim" else None,
                config.negatives,
                config.data_seed,
            )

    def find_candidates(self, rows: np.ndarray) -> Candidates:
        """The candidates of target rows: the logged one first, then its negatives."""
        fields, labels = self._candidates(rows)
        times = np.repeat(self.dataset.log.time[rows], fields.shape[1])
        known = self.dataset.known_as_of(fields.reshape(-1, fields.shape[2]), times)
        return Candidates(rows, known, times, labels, fields[:, :, self.dataset.config.schema.item_index] != PADDING_ID)

    def look_up(self, candidates: Candidates) -> Neighbours:
        """The neighbours of candidates, by the posting lists of the whole pool."""
        config = self.dataset.config
        users = candidates.fields[:, config.schema.user_index]
        return self.dataset.posting_lists.nearest(
            candidates.fields, candidates.times, config.retrieval, users, self.dataset.info.statistic_sets
        )

    def build(self, candidates: Candidates, found: Neighbours) -> Iterator[dict[str, np.ndarray]]:
        """The slates of targets, with the names of `ExampleSpec.serialize`."""
        log, rows, real = self.dataset.log, candidates.rows, candidates.mask
        users = log.fields[rows, self.dataset.config.schema.user_index]
        ranks = self._time_ranks_of(rows)
        history_ranks = self._time_ranks_of(log.last_rows_before(users, log.time[rows]))
        columns = {
            "fields": candidates.fields,
            "neighbour_ranks": self._time_ranks_of(found.rows),
            "neighbour_scores": found.scores,
            "neighbour_num_future": self._count_visible_future(found.rows, candidates.times),
            "match_counts": found.counts,
            "match_positives": found.positives,
        }
        slates = {name: values.reshape(*real.shape, -1) for name, values in columns.items()}
        for index in range(len(rows)):
            kept = {name: values[index][real[index]] for name, values in slates.items()}
            yield kept | {
                "time": log.time[rows[index]],
                "rank": ranks[index],
                "history_rank": history_ranks[index],
                "label": candidates.labels[index][real[index]],
            }

    def place_examples(self, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `example_key`, of int64 [n] time ranks of targets, which all dropped rows would precede."""
        return example_key(ranks + self._total_dropped, self.dataset.config)

    def _count_visible_future(self, neighbour_rows: np.ndarray, times: np.ndarray) -> np.ndarray:
        """int32 [n, K] visible rows of each neighbour's future; 0 where there is no neighbour."""
        retrieval = self.dataset.config.retrieval
        real = neighbour_rows != NO_ROW
        rows = np.where(real, neighbour_rows, 0).reshape(-1)
        num_future = self.dataset.log.num_visible_future(
            rows, self._user_indices[rows], np.repeat(times, retrieval.num_neighbours), retrieval.context_length
        )
        return np.where(real, num_future.reshape(real.shape), 0).astype(np.int32)

    def _time_ranks_of(self, rows: np.ndarray) -> np.ndarray:
        """int32 time ranks of row ids; NO_RANK for NO_ROW."""
        return np.where(rows != NO_ROW, self.dataset.log.time_ranks[np.maximum(rows, 0)], NO_RANK).astype(np.int32)

    def _candidates(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """int32 [n, C, M] fields and int64 [n, C] labels: the logged row first, then its negatives."""
        dataset, schema = self.dataset, self.dataset.config.schema
        own = dataset.log.fields[rows][:, None]
        labels = dataset.positive[rows].astype(np.int64)[:, None]
        if self._sampler is None:
            return own, labels
        users = dataset.log.fields[rows, schema.user_index]
        order = rows + self._first_order[users - FIRST_VALUE_ID]
        items = self._sampler.draw(
            Targets(rows, users, dataset.log.fields[rows, schema.item_index], dataset.log.time[rows], order)
        )
        table = np.concatenate([np.zeros((FIRST_VALUE_ID, len(schema)), np.int32), dataset.info.entity_fields["item"]])
        item_fields = list(schema.indices("item"))
        negatives = np.repeat(own, items.shape[1], axis=1)
        negatives[:, :, item_fields] = table[items][:, :, item_fields]
        return np.concatenate([own, negatives], axis=1), np.concatenate(
            [labels, np.zeros(items.shape, np.int64)], axis=1
        )


def example_key(ranks: np.ndarray, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """The file of each example, and its place in it: both drawn, so that a file read in order is shuffled already.

    Args:
        ranks: [n] time ranks of the targets, so that later interactions move no example.
        config: the configuration.

    Returns:
        int64 [n] file numbers and uint64 [n] sort keys.
    """
    drawn = draw(config.data_seed, _EXAMPLE_ORDER, ranks)
    return (drawn % np.uint64(config.pipeline.example_shards)).astype(np.int64), drawn


def find_windows(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Pretraining windows: each user's pool rows cut into pieces of at most L, counted from the newest.

    Returns:
        first row int64 [W] and number of rows int64 [W]; windows of one row are left out, as nothing precedes it.
    """
    log, length = dataset.log, dataset.config.retrieval.context_length
    users = np.arange(log.num_users) + FIRST_VALUE_ID
    ends = log.rows_before(users, np.full(len(users), dataset.info.boundaries.train_from))
    firsts, counts = [], []
    remaining = np.flatnonzero(ends > log.user_starts[:-1])
    stops = ends[remaining]
    while len(remaining):
        first = np.maximum(stops - length, log.user_starts[remaining])
        firsts.append(first)
        counts.append(stops - first)
        more = first > log.user_starts[remaining]
        remaining, stops = remaining[more], first[more]
    if not firsts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    first, count = np.concatenate(firsts), np.concatenate(counts)
    order = np.argsort(first)
    first, count = first[order], count[order]
    return first[count > 1], count[count > 1]
