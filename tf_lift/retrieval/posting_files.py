"""Posting lists on disk: a file for each part of a set's keys, as the pipeline writes them."""

import dataclasses
import re
from pathlib import Path

import numpy as np

from tf_lift.config import Retrieval
from tf_lift.interactions import InteractionLog
from tf_lift.retrieval.match_sets import MatchSets
from tf_lift.retrieval.posting_lists import PostingLists, PostingListsBuilder
from tf_lift.retrieval.set_postings import SetPostings, merge_set_postings, read_set_postings

RANK_TO_ROW = "posting_lists/rank_to_row.npy"
_NAME = re.compile(r"set-(\d+)-part-(\d+)(?:-hot-(\d+)-slice-(\d+))?\.npz")


@dataclasses.dataclass(frozen=True, order=True)
class PartKey:
    """What is grouped by: some keys of one match set, those whose hash begins with the part's number.

    In rolling mode a hot key, one with very many rows, is a group of its own for every slice of the pool's order.

    Attributes:
        set_index: the match set.
        part: which part of its keys.
        hot: number of the hot key among the set's, -1 for all other keys.
        slice: slice of the pool's order, for a hot key; else -1.
    """

    set_index: int
    part: int
    hot: int = -1
    slice: int = -1

    @property
    def name(self) -> str:
        """Name of the file, within the data set's folder."""
        hot = f"-hot-{self.hot:03d}-slice-{self.slice:05d}" if self.hot >= 0 else ""
        return f"posting_lists/set-{self.set_index:03d}-part-{self.part:04d}{hot}.npz"


def list_parts(dataset_dir: Path) -> list[PartKey]:
    """The parts of a data set, in the order of their keys; a part's hot keys follow it."""
    matches = (_NAME.fullmatch(path.name) for path in (dataset_dir / "posting_lists").glob("set-*.npz"))
    return sorted(
        PartKey(*(-1 if group is None else int(group) for group in match.groups())) for match in matches if match
    )


def read_part(dataset_dir: Path, key: PartKey) -> SetPostings:
    """The lists of one part."""
    return read_set_postings(dataset_dir / key.name)


def read_posting_lists(
    dataset_dir: Path, match_sets: MatchSets, rolling: bool, retrieval: Retrieval, log: InteractionLog, user_field: int
) -> PostingLists:
    """Reads the posting lists of all match sets into memory.

    Args:
        dataset_dir: the folder that preprocessing wrote.
        match_sets: the S match sets.
        rolling: whether lists are cut at the target's time.
        retrieval: what the lists were built for.
        log: the interaction log.
        user_field: index of the user field.
    """
    rank_to_row = np.load(dataset_dir / RANK_TO_ROW)
    builder = PostingListsBuilder(match_sets, rolling, retrieval, len(rank_to_row))
    parts = list_parts(dataset_dir)
    for set_index in range(len(match_sets)):
        for part in sorted({key.part for key in parts if key.set_index == set_index}):
            pieces = [read_part(dataset_dir, key) for key in parts if (key.set_index, key.part) == (set_index, part)]
            builder.add(merge_set_postings(pieces, None))
        builder.end_set()
    fields = np.stack([log.fields[:, field][rank_to_row] for field in match_sets.query_fields()], axis=1)
    return builder.finish(rank_to_row, log.time[rank_to_row], fields, log.fields[:, user_field][rank_to_row])
