"""Rules that count the log up to each target's time, as a rolling pool lets a model do; those of `rules` stop where a split begins."""

import numpy as np

from tf_lift.baselines.candidate_recency import read_recency
from tf_lift.baselines.no_learning import Candidates
from tf_lift.baselines.transition_counts import score_with_table
from tf_lift.config import Relation
from tf_lift.data.dataset_files import Dataset
from tf_lift.retrieval.graph_recency import build_recency_graph

SPAN_DAYS = (7.0, 30.0, 90.0, 365.0)  # a week, a month, a season, a year
_ALWAYS_DAYS = 36_525.0  # longer than any log


def count_item_positives(dataset: Dataset, candidates: Candidates, days: tuple[float, ...]) -> list[np.ndarray]:
    """Logarithms of 1 + the item's positive rows within each of some spans before the target's time.

    Args:
        dataset: the data set; its pool is rolling.
        candidates: to score.
        days: lengths of the spans.

    Returns:
        for each span float64 [n].

    Raises:
        ValueError: the pool is static.
    """
    _check_rolling(dataset)
    item = dataset.config.schema.item_index
    graph = build_recency_graph(dataset.log, dataset.positive, {item: dataset.info.vocabularies[item].num_ids}, days)
    counts, _ = read_recency(graph, candidates)
    return list(np.log1p(counts[:, 0].astype(np.float64)).T)


def score_popularity_up_to_now(dataset: Dataset, candidates: Candidates) -> list[np.ndarray]:
    """`count_item_positives` over all time."""
    return count_item_positives(dataset, candidates, (_ALWAYS_DAYS,))


def score_recent_popularity(dataset: Dataset, candidates: Candidates) -> list[np.ndarray]:
    """`count_item_positives` within each of `SPAN_DAYS`."""
    return count_item_positives(dataset, candidates, SPAN_DAYS)


def score_transitions_up_to_now(dataset: Dataset, candidates: Candidates, direction: Relation) -> list[np.ndarray]:
    """`score_by_transitions` with the data set's own tables, which the predictor reads too: as of the newest snapshot, item to item.

    What was next lies within `situation.window` positives there, and an item keeps its `situation.max_followers` most frequent ones.

    Raises:
        ValueError: the pool is static, or the data set has no tables.
    """
    _check_rolling(dataset)
    if dataset.config.transitions is None:
        raise ValueError(
            "Transitions up to t are read from the data set's tables. Received: a data set without. Set `situation.tables = true` and "
            "preprocess again, or leave the rule out."
        )
    return [score_with_table(dataset, candidates, dataset.transitions, direction, candidates.times)]


def _check_rolling(dataset: Dataset) -> None:
    if dataset.config.split.mode != "rolling":
        raise ValueError(
            "A rule that counts up to each target's time needs a rolling pool. Received: split.mode = 'static', where the log is known up "
            "to train's start alone. Leave the rule out: its namesake without 'up to t' counts to the split's start."
        )
