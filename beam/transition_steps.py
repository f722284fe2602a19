"""Steps from the finished log to transition tables: shards are counted, and keys grouped by part."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from apache_beam.metrics import Metrics

from tf_lift.config.situation_section import Transitions
from tf_lift.data.dataset_files import find_positive
from tf_lift.data.dataset_info import Boundaries
from tf_lift.data.log_files import read_log
from tf_lift.situation.levels import check_num_ids, find_levels, first_values
from tf_lift.situation.snapshots import place_snapshots
from tf_lift.situation.transition_counts import (
    KeyCounts,
    add_counts,
    count_transitions,
    keep_most_frequent,
    only_transitions,
    sum_last,
)
from tf_lift.situation.transition_files import SNAPSHOT_TIMES, part_name, write_part

from .pipeline_inputs import PipelineInputs

_num_pieces = Metrics.counter("situation", "transition_pieces")


def write_snapshot_times(
    times: tuple[np.ndarray, np.ndarray], inputs: PipelineInputs, boundaries: Boundaries
) -> np.ndarray:
    """Places the snapshots, int64 [S], by the distinct times of the log."""
    mode, settings = inputs.config.split.mode, settings_of(inputs)
    snapshots = place_snapshots(
        mode, boundaries.train_from, boundaries.test_from, int(times[0][-1]), settings.num_snapshots
    )
    with inputs.folder.writing(SNAPSHOT_TIMES) as path:
        np.save(path, snapshots)
    return snapshots


def settings_of(inputs: PipelineInputs) -> Transitions:
    """What the tables depend on, of a configuration that has them."""
    settings = inputs.config.transitions
    if settings is None:
        raise ValueError("Transitions are counted only where `situation` asks for them. Received: no tables.")
    return settings


def list_log_shards(_: None, inputs: PipelineInputs, log: Mapping[str, int]) -> Iterator[str]:
    """Names of the log's shards, once it stands (`log`, which is only waited for)."""
    del log
    yield from inputs.folder.list("interactions-*.tfrecord")


def count_shard(name: str, inputs: PipelineInputs, times: np.ndarray) -> Iterator[tuple[int, KeyCounts]]:
    """The transitions of a shard's users by part, in batches."""
    config = inputs.config
    log = read_log([inputs.folder.fetch(name)], len(config.schema))
    check_num_ids(int(log.fields.max(initial=0)) + 1)
    levels, num_parts = find_levels(config.schema), config.pipeline.key_parts
    positive = find_positive(config.behaviour, log.behaviour)
    for counts in count_transitions(log, positive, levels, settings_of(inputs).window, times):
        parts = first_values(counts.keys) % num_parts
        for part in np.unique(parts).tolist():
            _num_pieces.inc()
            yield part, counts.select(parts == part)


def write_transitions(part_and_counts: tuple[int, Iterable[KeyCounts]], inputs: PipelineInputs) -> dict[str, int]:
    """Adds up a part's counts, keeps the most frequent followers of each value, and writes them."""
    part, pieces = part_and_counts
    added = add_counts(pieces)
    kept = keep_most_frequent(added, settings_of(inputs).max_followers)
    with inputs.folder.writing(part_name(part)) as path:
        write_part(kept, path)
    num_levels = len(find_levels(inputs.config.schema))
    total = int(only_transitions(added, num_levels).counts.sum())
    return {
        "transitions": total,
        "transitions_cut": total - sum_last(only_transitions(kept, num_levels)),
        "transition_entries": len(kept.keys),
    }
