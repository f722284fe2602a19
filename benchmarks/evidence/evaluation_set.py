"""The candidates that all rankers of a table are judged on."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from tf_lift.baselines.no_learning import Candidates, hash_candidates
from tf_lift.baselines.value_rows import ValueRows
from tf_lift.data.dataset import read_examples
from tf_lift.data.dataset_files import Dataset, open_dataset
from tf_lift.data.examples import build_example_spec
from tf_lift.evaluate import describe_protocol, read_candidates
from tf_lift.evaluation_slices import slice_masks
from tf_lift.interactions import NO_ROW
from tf_lift.workspace import Workspace

POOLED = "pooled"
_GAPS = ("at most 60 s", "60 s to 6 h", "over 6 h")
_DAY = 86_400
_NUM_AGES = 4  # quarters of the targets
_ITEM_ROWS = (5, 50)  # edges of the columns by an item's rows


def slice_by_gap(dataset: Dataset, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Heading -> bool [S], the target rows, int64 [S], by the gap since their user's last event."""
    masks = slice_masks(dataset, rows)
    return {words: masks[f"gap {words}"] for words in _GAPS}


def slice_by_start(dataset: Dataset, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Heading -> bool [S], the target rows, int64 [S], where a session starts: who comes back, and who is there for the first time."""
    masks = slice_masks(dataset, rows)
    is_first = masks["no earlier event"]
    return {"back after 6 h": masks[f"gap {_GAPS[-1]}"] & ~is_first, "no earlier event": is_first}


def slice_by_age(dataset: Dataset, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Heading -> bool [S], the target rows, int64 [S], by the time from the last row that pretraining read: quarters of the targets."""
    ages = (dataset.log.time[rows] - dataset.info.boundaries.train_from) / _DAY
    edges = np.quantile(ages, np.arange(1, _NUM_AGES) / _NUM_AGES)
    quarter = np.searchsorted(edges, ages, side="left")
    masks = {place: quarter == place for place in np.unique(quarter).tolist()}
    return {
        f"quarter {place + 1}: {ages[chosen].min():.1f} to {ages[chosen].max():.1f} days": chosen
        for place, chosen in masks.items()
    }


def slice_by_item_rows(dataset: Dataset, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Heading -> bool [S], the target rows, int64 [S], by how many real rows have their item strictly before their time."""
    log, item_index = dataset.log, dataset.config.schema.item_index
    few, many = _ITEM_ROWS
    real = ~log.synthetic
    items = ValueRows(log.fields[real, item_index], log.time[real])
    newest = items.newest(tf.constant(log.fields[rows, item_index, None]), tf.constant(log.time[rows]), many)
    counts = np.count_nonzero(newest.numpy()[:, 0] != NO_ROW, axis=1)  # no more than `many`: enough to tell the columns
    return {
        f"under {few} rows": counts < few,
        f"{few} to {many - 1} rows": (counts >= few) & (counts < many),
        f"{many} rows and more": counts >= many,
    }


@dataclasses.dataclass(frozen=True)
class Slicing:
    """What the columns of a table are.

    Attributes:
        heading: one word, of the column that names them.
        words: what the targets are told apart by.
        note: what to know when reading it.
        make: heading -> bool [S] of a data set's target rows, int64 [S].
    """

    heading: str
    words: str
    note: str
    make: Callable[[Dataset, np.ndarray], Mapping[str, np.ndarray]]


BY_GAP = Slicing(
    "gap",
    "the gap since the user's last event",
    "A short gap may be a site's display order; a session starts where it is long, or with a user's first event, which counts as over 6 h.",
    slice_by_gap,
)
BY_AGE = Slicing(
    "age",
    "the time since the end of what pretraining read",
    "In rolling mode retrieval goes on after that end.",
    slice_by_age,
)
BY_ITEM_ROWS = Slicing(
    "item rows",
    "the rows that the target's item had before",
    "All users' rows are counted, whether the pool holds them or not; drawn negatives are not.",
    slice_by_item_rows,
)
BY_START = Slicing(
    "start",
    "who starts a session",
    'Both are in the column "over 6 h" of the tables by gap.',
    slice_by_start,
)
SLICINGS: Mapping[str, Slicing] = {"gap": BY_GAP, "start": BY_START, "age": BY_AGE, "item_rows": BY_ITEM_ROWS}


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """The test split of a data set, and the validation split that settings are chosen on.

    Attributes:
        labels: float64 [n], of the real candidates, flat, in file order.
        slates: int64 [n], ascending: which slate each belongs to.
        users: int64 [S], dense number of each slate's user, from 0.
        columns: heading -> bool [S], which slates count in a column of the tables; POOLED holds all.
        validation: its m candidates; with their labels scores are turned into probabilities.
        protocol: one sentence to print beside every number.
        candidates_hash: sha256 of the test candidates' fields and labels.
        slicing: what `columns` are.
        learnt_from: what tells the targets that rankers learn and choose from: the number of train's, and a sha256 of validation's
            candidates.
    """

    labels: np.ndarray
    slates: np.ndarray
    users: np.ndarray
    columns: Mapping[str, np.ndarray]
    validation: Candidates
    protocol: str
    candidates_hash: str
    slicing: Slicing = BY_GAP
    learnt_from: tuple[int, str] = (0, "")

    @property
    def num_users(self) -> int:
        """U."""
        return int(self.users.max()) + 1


def read_evaluation_set(workspace: Workspace, slicing: Slicing = BY_GAP) -> EvaluationSet:
    """Reads the test candidates of a data set.

    Args:
        workspace: the configuration's folders.
        slicing: the columns beside the pooled one; empty ones are left out.

    Raises:
        ValueError: the data set is missing or stale.
    """
    dataset = open_dataset(workspace)
    config = workspace.config
    spec = build_example_spec(config, len(dataset.info.statistic_sets))
    test, validation = (read_candidates(dataset, spec, split) for split in ("test", "validation"))
    batches = read_examples(dataset, "test", spec, config.training.batch_size)
    rows = np.concatenate([batch["row"].numpy() for batch in batches])
    masks = {POOLED: np.ones(len(rows), bool), **slicing.make(dataset, rows)}
    _, users = np.unique(dataset.log.user_indices()[rows], return_inverse=True)
    return EvaluationSet(
        test.labels.astype(np.float64),
        test.slates,
        users.astype(np.int64),
        {heading: chosen for heading, chosen in masks.items() if chosen.any()},
        validation,
        describe_protocol(config),
        hash_candidates(test),
        slicing,
        (dataset.num_examples("train"), hash_candidates(validation)),
    )
