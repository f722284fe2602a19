"""Transition tables on disk: a file for each part of the first values, as the pipeline writes them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tf_lift.situation.levels import Level
from tf_lift.situation.transition_counts import KeyCounts, add_counts
from tf_lift.situation.transition_table import TransitionTable, build_transition_table

SNAPSHOT_TIMES = "transitions/times.npy"


def part_name(part: int) -> str:
    """Name of a part's file, within the data set's folder."""
    return f"transitions/part-{part:04d}.npz"


def write_part(totals: KeyCounts, path: Path) -> None:
    """Writes the totals of one part."""
    np.savez(path, keys=totals.keys, counts=totals.counts)


def read_transition_table(dataset_dir: Path, levels: tuple[Level, ...], num_ids: Sequence[int]) -> TransitionTable:
    """Reads the tables of a data set.

    Args:
        dataset_dir: the folder that preprocessing wrote.
        levels: what was counted.
        num_ids: M numbers of ids.
    """
    parts = []
    for path in sorted((dataset_dir / "transitions").glob("part-*.npz")):
        with np.load(path) as file:
            parts.append(KeyCounts(file["keys"], file["counts"]))
    return build_transition_table(levels, np.load(dataset_dir / SNAPSHOT_TIMES), add_counts(parts), num_ids)
