"""What people went on to, counted from the log: a ranker without learning (DESIGN.md section 5, "Situation futures")."""

from typing import Literal

import numpy as np

from tf_lift.baselines.history_rows import read_history_rows
from tf_lift.baselines.no_learning import Candidates
from tf_lift.data.dataset_files import Dataset
from tf_lift.interactions import NO_ROW
from tf_lift.schema import FIRST_VALUE_ID

QUERY_ROWS = 20  # m, the newest rows of the user that are looked up
_DECAY = 0.1  # a row's weight falls by this power of e with each newer row
_SLATES_PER_BATCH = 4096

Direction = Literal["future", "past", "any"]


def score_by_transitions(dataset: Dataset, candidates: Candidates, until: int, direction: Direction) -> np.ndarray:
    """Scores candidates by what the people who had the user's newest items had next.

    T[h, c] is the number of positive rows with item h whose user's next L positives hold item c. The score of c is the sum of
    exp(-0.1 age) T[h, c] / sqrt(count(h) count(c)) over the positives h among the user's newest `QUERY_ROWS` rows, age in rows.

    Args:
        dataset: the data set; L is its `retrieval.context_length`.
        candidates: to score.
        until: only rows of the log before this time are counted, epoch seconds.
        direction: `future` reads T[h, c], `past` T[c, h], `any` both.

    Returns:
        float64 [n], 0 for an item that was not seen.
    """
    item_index = dataset.config.schema.item_index
    items = dataset.log.fields[:, item_index].astype(np.int64)
    num_items = dataset.info.vocabularies[item_index].num_ids
    is_counted = dataset.positive & ~dataset.log.synthetic & (dataset.log.time < until)
    counts = np.maximum(np.bincount(items[is_counted], minlength=num_items), 1)
    keys, values = count_transitions(dataset, is_counted, num_items)

    rows = read_history_rows(dataset, candidates, QUERY_ROWS)
    is_query = (rows != NO_ROW) & (dataset.positive & ~dataset.log.synthetic)[rows]
    targets = candidates.fields[:, item_index].astype(np.int64)
    scores = np.zeros(len(targets))
    for first in range(0, len(rows), _SLATES_PER_BATCH):
        part = np.flatnonzero((candidates.slates >= first) & (candidates.slates < first + _SLATES_PER_BATCH))
        slates = candidates.slates[part]
        heads, tails = items[rows[slates]], targets[part][:, None]  # [n', m], [n', 1]
        found = np.zeros(heads.shape)
        if direction in ("future", "any"):
            found += _look_up(keys, values, heads * num_items + tails)
        if direction in ("past", "any"):
            found += _look_up(keys, values, tails * num_items + heads)
        weights = is_query[slates] * np.exp(-_DECAY * np.arange(QUERY_ROWS)) / np.sqrt(counts[heads] * counts[tails])
        scores[part] = np.where(targets[part] >= FIRST_VALUE_ID, (weights * found).sum(axis=1), 0.0)
    return scores


def count_transitions(dataset: Dataset, is_counted: np.ndarray, num_items: int) -> tuple[np.ndarray, np.ndarray]:
    """T as a sparse table.

    Args:
        dataset: the data set.
        is_counted: bool [N] the positive rows to count.
        num_items: I, numbers of item ids.

    Returns:
        keys h I + c int64 [E], sorted, and their counts int64 [E].
    """
    rows = np.flatnonzero(is_counted)
    items = dataset.log.fields[rows, dataset.config.schema.item_index].astype(np.int64)
    users = dataset.log.user_indices()[rows]
    keys = []
    for lag in range(1, min(dataset.config.retrieval.context_length, len(rows) - 1) + 1):
        is_new = users[lag:] == users[:-lag]
        for earlier in range(1, lag):  # an item counts once for each row that it follows
            is_new &= items[lag:] != items[earlier : len(items) - lag + earlier]
        keys.append((items[:-lag] * num_items + items[lag:])[is_new])
    return np.unique(np.concatenate([np.zeros(0, np.int64), *keys]), return_counts=True)


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Counts of keys, of their shape; 0 for one that is not there."""
    if not len(keys):
        return np.zeros(wanted.shape)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0)
