"""Numbers about a candidate that trees can split on."""

from collections.abc import Sequence

import numpy as np

from tf_lift.baselines.candidate_recency import read_recency
from tf_lift.baselines.history_rows import read_history_rows
from tf_lift.baselines.no_learning import Candidates
from tf_lift.baselines.transition_counts import decay_by_age, read_weights
from tf_lift.config import Relation
from tf_lift.data.dataset_files import Dataset
from tf_lift.data.situation_graphs import build_item_recency
from tf_lift.interactions import NO_ROW
from tf_lift.schema import FIRST_VALUE_ID

_RATE_STRENGTH = 3.0  # rows of the average kind that a rate is smoothed with
_SLATES_PER_BATCH = 4096


def build_features(
    dataset: Dataset,
    candidates: Candidates,
    length: int,
    recency_days: Sequence[float] = (),
    relations: Sequence[Relation] = (),
) -> tuple[np.ndarray, list[int]]:
    """Features of candidates, all of them as of the slate's time.

    For each match set of the examples: how many pool rows agree, and their smoothed rate of positives. For each item field: how many
    of the user's last rows agree, and their smoothed rate. Rows in the history, their rate, and the seconds since the last. For
    each item field: pool rows within each of the spans, and the seconds since the newest. For each relation at each level of the
    transition tables: the weights of the history's positives, summed with less for older rows, and the newest row's alone. The
    ids of the fields that are no keys.

    Args:
        dataset: the data set.
        candidates: n candidates.
        length: L, rows of the history that are read.
        recency_days: lengths of the spans; none: nothing of how lately values were met.
        relations: what is read of the transition tables.

    Returns:
        float32 [n, D], and the columns that hold ids.

    Raises:
        ValueError: recency of a static pool, or relations of a data set without tables.
    """
    schema = dataset.config.schema
    prior = float(np.mean(dataset.positive[dataset.log.time < dataset.info.boundaries.train_from]))
    rows = read_history_rows(dataset, candidates, length)
    columns = [
        np.log1p(candidates.match_counts),
        _smooth(candidates.match_positives, candidates.match_counts, prior),
        _of_histories(dataset, candidates, rows, prior),
    ]
    if recency_days:
        columns.append(_of_recency(dataset, candidates, recency_days))
    if relations:
        columns.append(_of_transitions(dataset, candidates, rows, relations))
    plain = [index for index in range(len(schema)) if index not in (schema.user_index, schema.item_index)]
    width = sum(column.shape[1] for column in columns)
    columns.append(candidates.fields[:, plain])
    return np.concatenate(columns, axis=1).astype(np.float32), list(range(width, width + len(plain)))


def _smooth(positives: np.ndarray, counts: np.ndarray, prior: float) -> np.ndarray:
    return (positives + _RATE_STRENGTH * prior) / (counts + _RATE_STRENGTH)


def _of_histories(dataset: Dataset, candidates: Candidates, rows: np.ndarray, prior: float) -> np.ndarray:
    """float64 [n, 3 + 2 item fields]."""
    log, item_fields = dataset.log, list(dataset.config.schema.indices("item"))
    is_real = rows != NO_ROW
    is_positive = is_real & dataset.positive[rows]
    _, first = np.unique(candidates.slates, return_index=True)
    gaps = np.where(rows[:, 0] != NO_ROW, candidates.times[first] - log.time[rows[:, 0]], -1)
    counts = is_real.sum(axis=1)
    of_slates = np.stack([counts, _smooth(is_positive.sum(axis=1), counts, prior), gaps], axis=1)

    features = np.zeros((len(candidates.labels), 3 + 2 * len(item_fields)))
    features[:, :3] = of_slates[candidates.slates]
    for begin in range(0, len(rows), _SLATES_PER_BATCH):
        part = np.flatnonzero((candidates.slates >= begin) & (candidates.slates < begin + _SLATES_PER_BATCH))
        slates = candidates.slates[part]
        for place, field in enumerate(item_fields):
            values = candidates.fields[part, field]
            agrees = (log.fields[rows[slates], field] == values[:, None]) & (values >= FIRST_VALUE_ID)[:, None]
            found, liked = ((agrees & chosen[slates]).sum(axis=1) for chosen in (is_real, is_positive))
            features[part, 3 + 2 * place] = found
            features[part, 4 + 2 * place] = _smooth(liked, found, prior)
    return features


def _of_recency(dataset: Dataset, candidates: Candidates, days: Sequence[float]) -> np.ndarray:
    """int64 [n, item fields x (spans + 1)], as the predictor reads them."""
    counts, seconds = read_recency(build_item_recency(dataset, days), candidates)
    return np.concatenate([counts.reshape(len(counts), -1), seconds], axis=1)


def _of_transitions(
    dataset: Dataset, candidates: Candidates, rows: np.ndarray, relations: Sequence[Relation]
) -> np.ndarray:
    """float64 [n, 2 x levels x relations], of the tables that the predictor reads, and of the positives among the rows."""
    if dataset.config.transitions is None:
        raise ValueError(
            f"Relations need the transition tables. Received: relations {list(relations)} with situation.relations = 'none' and "
            "situation.tables = false. Set `situation.tables = true`."
        )
    table, is_row = dataset.transitions, (rows != NO_ROW) & dataset.positive[rows]
    features = np.zeros((len(candidates.labels), 2 * len(table.levels) * len(relations)))
    for part, weights in read_weights(dataset, candidates, table, rows, is_row, relations):
        features[part] = np.concatenate([decay_by_age(weights), weights[:, 0]], axis=1)
    return features
