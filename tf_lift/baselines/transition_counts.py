"""What people went on to, counted from the log: a ranker without learning (DESIGN.md section 5, "Situation futures")."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from tf_lift.baselines.history_rows import read_history_rows
from tf_lift.baselines.no_learning import Candidates
from tf_lift.config import Relation
from tf_lift.data.dataset_files import Dataset
from tf_lift.interactions import NO_ROW
from tf_lift.situation.levels import Level
from tf_lift.situation.transition_counts import add_counts, count_transitions
from tf_lift.situation.transition_table import TransitionTable, build_transition_table

QUERY_ROWS = 20  # m, the newest rows of the user that are looked up
_DECAY = 0.1  # a row's weight falls by this power of e with each newer row
_SLATES_PER_BATCH = 1024


def score_by_transitions(dataset: Dataset, candidates: Candidates, until: int, direction: Relation) -> np.ndarray:
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
    as_of = np.full(len(candidates.times), until)
    return score_with_table(dataset, candidates, count_until(dataset, until), direction, as_of)


def score_with_table(
    dataset: Dataset, candidates: Candidates, table: TransitionTable, direction: Relation, as_of: np.ndarray
) -> np.ndarray:
    """Scores candidates as `score_by_transitions` does, with a table that is there.

    Args:
        dataset: the data set.
        candidates: to score.
        table: the counts, of which the first level is read.
        direction: as there.
        as_of: int64 [n], when each candidate's counts are read.

    Returns:
        float64 [n].
    """
    rows = read_history_rows(dataset, candidates, QUERY_ROWS)
    is_query = (rows != NO_ROW) & (dataset.positive & ~dataset.log.synthetic)[rows]
    scores, dated = np.zeros(len(candidates.fields)), dataclasses.replace(candidates, times=as_of)
    for part, weights in read_weights(dataset, dated, table, rows, is_query, (direction,)):
        scores[part] = decay_by_age(weights)[:, 0]
    return scores


def read_weights(
    dataset: Dataset,
    candidates: Candidates,
    table: TransitionTable,
    rows: np.ndarray,
    is_query: np.ndarray,
    relations: Sequence[Relation],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Looks the rows of histories up with their slates' candidates, as of `candidates.times`.

    Args:
        dataset: the data set.
        candidates: n candidates of S slates.
        table: the counts.
        rows: int64 [S, m] row ids, the newest first.
        is_query: bool [S, m], which of them are looked up.
        relations: of each level of the table.

    Yields:
        int64 [p], which candidates, and float32 [p, m, R], their weights (`TransitionTable.weights`).
    """
    for first in range(0, len(rows), _SLATES_PER_BATCH):
        part = np.flatnonzero((candidates.slates >= first) & (candidates.slates < first + _SLATES_PER_BATCH))
        slates = candidates.slates[part]
        history, targets = dataset.log.fields[rows[slates]], candidates.fields[part][:, None]
        yield part, table.weights(history, is_query[slates], targets, candidates.times[part], relations)[:, 0]


def decay_by_age(weights: np.ndarray) -> np.ndarray:
    """Sums over m rows, the newest first, each weighing e^-0.1 of the row before it: float64 [n, R] of float32 [n, m, R]."""
    decays = np.exp(-_DECAY * np.arange(weights.shape[1]))
    return np.asarray((weights * decays[:, None]).sum(axis=1))


def count_until(dataset: Dataset, until: int) -> TransitionTable:
    """The transitions between items before a time, as the one snapshot of a table."""
    item_index = dataset.config.schema.item_index
    levels, times = (Level(item_index, item_index),), np.array([until])
    window = dataset.config.retrieval.context_length
    counts = add_counts(count_transitions(dataset.log, dataset.positive, levels, window, times))
    return build_transition_table(levels, times, counts, [names.num_ids for names in dataset.info.vocabularies])
