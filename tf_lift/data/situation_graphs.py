"""What the predictor asks about a user's situation and of a candidate's recency: tables of a data set as tensors."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_lift.data.dataset_files import Dataset
from tf_lift.datastore import Datastore
from tf_lift.retrieval.graph_recency import RecencyGraph, build_recency_graph
from tf_lift.retrieval.graph_spans import make_constant
from tf_lift.situation.graph import TransitionGraph, build_transition_graph
from tf_lift.situation.overlap import OverlapGraph, OverlapSettings, build_overlap_graph


class SituationGraphs(NamedTuple):
    """The tables that `[situation]` and `predictor.recency_days` ask for.

    Attributes:
        transitions: what followed what; None where `relations` is "none".
        overlap: the neighbours of a situation; None where `overlap` is false.
        recency: the rows of each item field's values; None where `recency_days` is empty.
    """

    transitions: TransitionGraph | None = None
    overlap: OverlapGraph | None = None
    recency: RecencyGraph | None = None


NO_SITUATION = SituationGraphs()


def build_situation_graphs(
    dataset: Dataset, datastore: Datastore, make: Callable[[np.ndarray, str], tf.Tensor] = make_constant
) -> SituationGraphs:
    """Makes the tables.

    Args:
        dataset: the data set.
        datastore: its log.
        make: makes a tensor of an array and a name.
    """
    config, log = dataset.config, dataset.log
    section, item = config.situation, config.schema.item_index
    transitions = build_transition_graph(dataset.transitions, make) if section.relation_names else None
    days = config.predictor.recency_days
    recency = build_item_recency(dataset, days, make) if days else None
    if not section.overlap:
        return SituationGraphs(transitions, recency=recency)
    is_static = config.split.mode == "static"
    in_pool = log.time < dataset.info.boundaries.train_from if is_static else np.ones(len(log), bool)
    overlap = build_overlap_graph(
        log,
        in_pool,
        dataset.positive & ~log.synthetic,
        item,
        dataset.info.vocabularies[item].num_ids,
        OverlapSettings(section.overlap_rows, section.overlap_neighbours, section.window),
        (datastore.times, datastore.user_indices),
        make,
    )
    return SituationGraphs(transitions, overlap, recency)


def build_item_recency(
    dataset: Dataset, days: Sequence[float], make: Callable[[np.ndarray, str], tf.Tensor] = make_constant
) -> RecencyGraph:
    """Makes the lists of the item's fields: of all rows but drawn negatives, each of which is known from its own time on.

    Args:
        dataset: the data set.
        days: lengths of the spans.
        make: makes a tensor of an array and a name.

    Raises:
        ValueError: the pool is static: it ends before train, and the spans of a test target would be empty.
    """
    if dataset.config.split.mode == "static":
        raise ValueError("Recency needs a rolling pool. Received: split.mode = 'static'. Empty `recency_days`.")
    sizes = {index: dataset.info.vocabularies[index].num_ids for index in dataset.config.schema.indices("item")}
    return build_recency_graph(dataset.log, ~dataset.log.synthetic, sizes, days, make)
