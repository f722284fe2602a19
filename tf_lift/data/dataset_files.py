"""Opens a data set that preprocessing wrote."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tf_lift.config import Behaviour, Config
from tf_lift.data.dataset_info import DatasetInfo, read_dataset_info
from tf_lift.data.log_files import read_log
from tf_lift.data.row_references import RowReferences, build_row_references
from tf_lift.interactions import InteractionLog
from tf_lift.retrieval.posting_files import read_posting_lists
from tf_lift.retrieval.posting_lists import PostingLists
from tf_lift.schema import UNKNOWN_ID
from tf_lift.situation.levels import find_levels
from tf_lift.situation.transition_files import read_transition_table
from tf_lift.situation.transition_table import TransitionTable
from tf_lift.workspace import Workspace


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set's folder, read as it is needed.

    Attributes:
        config: the configuration.
        dataset_dir: the folder.
        info: vocabularies, split and match sets.
        counts: what preprocessing counted; empty while it runs.
    """

    config: Config
    dataset_dir: Path
    info: DatasetInfo
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def log(self) -> InteractionLog:
        """The interaction log."""
        return read_log(self.log_paths, len(self.config.schema))

    @functools.cached_property
    def posting_lists(self) -> PostingLists:
        """The posting lists."""
        config = self.config
        rolling = config.split.mode == "rolling"
        user_field = config.schema.user_index
        return read_posting_lists(
            self.dataset_dir, self.info.match_sets, rolling, config.retrieval, self.log, user_field
        )

    @functools.cached_property
    def transitions(self) -> TransitionTable:
        """The transition tables, if `[situation]` has them built."""
        num_ids = [vocabulary.num_ids for vocabulary in self.info.vocabularies]
        return read_transition_table(self.dataset_dir, find_levels(self.config.schema), num_ids)

    @functools.cached_property
    def row_references(self) -> RowReferences:
        """What resolves the examples' time ranks."""
        return build_row_references(self.log)

    @property
    def log_paths(self) -> list[Path]:
        """The log's shards, in the order of users."""
        return sorted(self.dataset_dir.glob("interactions-*.tfrecord"))

    def example_pattern(self, split: str) -> str:
        """Glob of a split's TFRecords."""
        return str(self.dataset_dir / "examples" / f"{split}-*.tfrecord")

    def num_examples(self, split: str) -> int:
        """The number of a split's slates."""
        return self.counts[f"{split}_examples"]

    @functools.cached_property
    def positive(self) -> np.ndarray:
        """bool [N], the label of each row of the log."""
        return find_positive(self.config.behaviour, self.log.behaviour)

    def known_as_of(self, fields: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Ids as of a time: a value that had not appeared strictly before it becomes UNKNOWN_ID.

        Args:
            fields: int32 [n, M].
            times: int64 [n].

        Returns:
            int32 [n, M].
        """
        known = np.stack([vocabulary.num_ids_at(times) for vocabulary in self.info.vocabularies], axis=1)
        return np.where(fields < known, fields, UNKNOWN_ID).astype(np.int32)


def find_positive(behaviour: Behaviour, classes: np.ndarray) -> np.ndarray:
    """bool [N], the label of each of the classes, int8 [N]."""
    return np.array([behaviour.is_positive(value) for value in range(behaviour.num_classes)])[classes]


def open_dataset(workspace: Workspace) -> Dataset:
    """Opens the data set of a configuration.

    Raises:
        ValueError: it is not there, or stale.
    """
    manifest = workspace.check_fresh("dataset")
    info = read_dataset_info(workspace.dataset_dir, workspace.config, manifest)
    return Dataset(workspace.config, workspace.dataset_dir, info, manifest["counts"])
