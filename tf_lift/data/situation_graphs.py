"""What the predictor asks about a user's situation and of a candidate's recency: tables of a data set as tensors."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_lift.data.dataset_files import Dataset
from tf_lift.datastore import Datastore
from tf_lift.retrieval.graph_recency import RecencyGraph, build_recency_graph
from tf_lift.situation.graph import TransitionGraph, build_transition_graph, make_constant
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
    overlap = build_overlap_graph(
        log,
        _find_pool(dataset),
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
    """Makes the lists of the item's fields: of the pool's rows, but for drawn negatives.

    Args:
        dataset: the data set.
        days: lengths of the windows.
        make: makes a tensor of an array and a name.
    """
    sizes = {index: dataset.info.vocabularies[index].num_ids for index in dataset.config.schema.indices("item")}
    return build_recency_graph(dataset.log, _find_pool(dataset) & ~dataset.log.synthetic, sizes, days, make)


def _find_pool(dataset: Dataset) -> np.ndarray:
    """bool [N], the rows of the static pool, or all rows of a rolling one, which are known from their own time on."""
    if dataset.config.split.mode == "static":
        return dataset.log.time < dataset.info.boundaries.train_from
    return np.ones(len(dataset.log), bool)
