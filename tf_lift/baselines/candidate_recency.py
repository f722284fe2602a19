"""How often and how lately the pool met candidates' values, for all candidates of a split."""

import numpy as np
import tensorflow as tf

from tf_lift.baselines.no_learning import Candidates
from tf_lift.retrieval.graph_recency import RecencyGraph

_CANDIDATES_PER_BATCH = 65_536


def read_recency(graph: RecencyGraph, candidates: Candidates) -> tuple[np.ndarray, np.ndarray]:
    """Reads `graph` as of each candidate's time.

    Args:
        graph: of F fields and W spans.
        candidates: n candidates.

    Returns:
        int32 [n, F, W] rows within each span, and int64 [n, F] seconds since the newest (`Recency`).
    """
    counts, seconds = [], []
    for begin in range(0, len(candidates.times), _CANDIDATES_PER_BATCH):
        part = slice(begin, begin + _CANDIDATES_PER_BATCH)
        found = graph.read(tf.constant(candidates.fields[part, None]), tf.constant(candidates.times[part]))
        counts.append(found.counts.numpy()[:, 0])
        seconds.append(found.seconds.numpy()[:, 0])
    return np.concatenate(counts), np.concatenate(seconds)
