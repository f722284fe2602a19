"""What the predictor asks about a user's situation: tables of a data set as tensors."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_lift.data.dataset_files import Dataset
from tf_lift.datastore import Datastore
from tf_lift.situation.graph import TransitionGraph, build_transition_graph, make_constant
from tf_lift.situation.overlap import OverlapGraph, OverlapSettings, build_overlap_graph


class SituationGraphs(NamedTuple):
    """The tables that `[situation]` asks for.

    Attributes:
        transitions: what followed what; None where `relations` is "none".
        overlap: the neighbours of a situation; None where `overlap` is false.
    """

    transitions: TransitionGraph | None = None
    overlap: OverlapGraph | None = None


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
    if not section.overlap:
        return SituationGraphs(transitions)
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
    return SituationGraphs(transitions, overlap)
