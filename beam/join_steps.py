"""Steps that give targets their neighbours where posting lists are grouped by key and no worker holds them all."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from apache_beam.metrics import Metrics

from tf_lift.data.dataset_info import Boundaries
from tf_lift.retrieval.set_postings import merge_set_postings

from .build_examples import Candidates, ExampleBuilder
from .example_block import ExampleBlock
from .example_steps import serialize_slates
from .grouped_join import KeyAnswers, KeyQueries, answer_queries, build_queries, merge_answers
from .opened_dataset import open_builder
from .pipeline_inputs import PipelineInputs
from .posting_steps import HotKeys, merge_pieces, read_rank_to_row, route_keys

Batch = tuple[np.ndarray, np.ndarray]  # row ids and split numbers of targets

_query_bytes = Metrics.counter("retrieval", "query_bytes_shuffled")
_answer_bytes = Metrics.counter("retrieval", "answer_bytes_shuffled")


def name_batch(batch: Batch) -> tuple[int, Batch]:
    """A batch under its first row id."""
    return int(batch[0][0]), batch


def ask_keys(
    batch: Batch, inputs: PipelineInputs, boundaries: Boundaries, hot_keys: HotKeys
) -> Iterator[tuple[tuple[int, int, int, int], KeyQueries]]:
    """What the candidates of a batch ask of every part of the keys."""
    builder = open_builder(inputs, boundaries)
    candidates = builder.find_candidates(batch[0])
    visible, users = _visible_rows(inputs, builder, candidates)
    config = inputs.config
    for queries in build_queries(
        int(batch[0][0]),
        candidates.fields,
        visible,
        users,
        builder.dataset.info.match_sets,
        config.retrieval.num_neighbours,
        config.schema.user_index,
    ):
        slices = queries.visible // inputs.config.pipeline.pool_slice_rows
        for key, chosen in route_keys(queries.set_index, queries.values, inputs, hot_keys, slices):
            part = queries.select(chosen)
            _query_bytes.inc(part.num_bytes())
            yield key, part


def answer_part(
    key_and_groups: tuple[tuple[int, int, int, int], Mapping[str, Iterable[Any]]], inputs: PipelineInputs
) -> Iterator[tuple[int, KeyAnswers]]:
    """Answers all that batches ask of one part of the keys."""
    groups = key_and_groups[1]
    pieces, carried = list(groups["pieces"]), [state for _, state in groups["carried"]]
    if not pieces and not carried:
        return  # nobody has these keys
    parts = carried + ([merge_pieces(pieces, inputs)] if pieces else [])
    postings = merge_set_postings(parts, None)
    for queries in groups["queries"]:
        answers = answer_queries(postings, queries)
        if len(answers.places):
            _answer_bytes.inc(answers.num_bytes())
            yield queries.batch, answers


def build_joined_slates(
    batch_and_groups: tuple[int, Mapping[str, Iterable[Any]]], inputs: PipelineInputs, boundaries: Boundaries
) -> Iterator[tuple[tuple[int, int], ExampleBlock]]:
    """The serialized examples of a batch from the answers to all that it asked."""
    groups = batch_and_groups[1]
    (batch,) = groups["batch"]
    builder = open_builder(inputs, boundaries)
    candidates = builder.find_candidates(batch[0])
    visible, users = _visible_rows(inputs, builder, candidates)
    info, rank_to_row = builder.dataset.info, read_rank_to_row(inputs)
    found = merge_answers(
        sorted(groups["answers"], key=lambda answer: (answer.set_index, int(answer.places[0]))),
        candidates.fields,
        visible,
        users,
        info.match_sets,
        inputs.config.retrieval,
        rank_to_row,
        info.statistic_sets,
    )
    yield from serialize_slates(batch, builder, candidates, found, inputs)


def _visible_rows(
    inputs: PipelineInputs, builder: ExampleBuilder, candidates: Candidates
) -> tuple[np.ndarray, np.ndarray]:
    """int64 [n] rows of the pool's order that each candidate may see, and int32 [n] users to exclude, or none."""
    config, dataset = inputs.config, builder.dataset
    if config.split.mode == "rolling":
        visible = np.searchsorted(dataset.log.times_in_order, candidates.times, side="left")
    else:
        num_rows = len(read_rank_to_row(inputs))
        visible = np.full(len(candidates.times), num_rows, np.int64)
    users = candidates.fields[:, config.schema.user_index]
    return visible, users if config.retrieval.exclude_own_user else np.zeros(0, np.int32)
