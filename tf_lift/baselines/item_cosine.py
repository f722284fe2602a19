"""Items that the same people liked: a ranker without learning."""

import numpy as np
from tqdm import tqdm

from tf_lift.baselines.history_rows import read_history_rows
from tf_lift.baselines.no_learning import Candidates
from tf_lift.data.dataset_files import Dataset
from tf_lift.interactions import NO_ROW
from tf_lift.schema import FIRST_VALUE_ID

QUERY_ROWS = 20  # the newest rows of the user that are looked up


def score_by_cosine(dataset: Dataset, candidates: Candidates, until: int) -> np.ndarray:
    """The sum of the cosines of a candidate and the positives among the user's newest `QUERY_ROWS` rows.

    The cosine of two items is that of their columns in the 0/1 matrix of users and positive items: n(i and j) / sqrt(n(i) n(j)).

    Args:
        dataset: the data set.
        candidates: to score.
        until: only rows of the log before this time are counted, epoch seconds.

    Returns:
        float64 [n], 0 for an item that was not seen.
    """
    log, item_index = dataset.log, dataset.config.schema.item_index
    num_items = dataset.info.vocabularies[item_index].num_ids
    is_positive = dataset.positive & ~log.synthetic
    counted = np.flatnonzero(is_positive & (log.time < until))
    pairs = np.unique(log.fields[counted, item_index].astype(np.int64) * log.num_users + log.user_indices()[counted])
    users = pairs % log.num_users  # of all items, one after another
    starts = np.searchsorted(pairs, np.arange(num_items + 1) * log.num_users)
    norms = np.sqrt(np.maximum(np.diff(starts), 1))

    history = read_history_rows(dataset, candidates, QUERY_ROWS)
    is_query = (history != NO_ROW) & is_positive[history]
    targets = candidates.fields[:, item_index]
    slate_stops = np.searchsorted(candidates.slates, np.arange(len(history)), side="right")
    scores = np.zeros(len(targets))
    user_weights = np.zeros(log.num_users)  # sum over the query's items of [the user had it] / norm
    first = 0
    for slate, stop in enumerate(tqdm(slate_stops, desc="item cosine", unit="slate", leave=False, mininterval=1.0)):
        heads = log.fields[history[slate][is_query[slate]], item_index]
        for head in heads:
            user_weights[users[starts[head] : starts[head + 1]]] += 1.0 / norms[head]
        for place in range(first, stop) if len(heads) else ():
            item = targets[place]
            if item >= FIRST_VALUE_ID:
                scores[place] = user_weights[users[starts[item] : starts[item + 1]]].sum() / norms[item]
        for head in heads:
            user_weights[users[starts[head] : starts[head + 1]]] = 0.0
        first = stop
    return scores
