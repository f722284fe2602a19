"""Steps from the finished log to pretraining windows and examples."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import tensorflow as tf

from tf_lift.data.dataset_info import SPLITS, Boundaries
from tf_lift.data.windows import write_windows as write_window_file
from tf_lift.retrieval.posting_lists import Neighbours

from . import build_examples
from .example_block import ExampleBlock, build_example_block
from .opened_dataset import open_builder, open_log
from .pipeline_inputs import PipelineInputs, write_fact_file


def write_windows(_: None, inputs: PipelineInputs, boundaries: Boundaries, log: Mapping[str, int]) -> None:
    """Writes the pretraining windows, once the log stands."""
    del log
    first, count = build_examples.find_windows(open_log(inputs, boundaries))
    with inputs.folder.writing("windows.tfrecord") as path:
        write_window_file(path, first, count)
    write_fact_file(inputs, "windows", {"pretraining_windows": len(first)})


def list_target_batches(
    _: None, inputs: PipelineInputs, boundaries: Boundaries, postings: Mapping[str, int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cuts the targets that have no example yet into batches, once the posting lists stand (`postings`, only waited for)."""
    del postings
    targets, is_new = _find_targets(inputs, boundaries)
    write_fact_file(inputs, "targets", targets.counts)
    rows, splits = targets.rows[is_new], targets.splits[is_new]
    size = inputs.config.pipeline.targets_per_batch
    for first in range(0, len(rows), size):
        yield rows[first : first + size], splits[first : first + size]


def list_kept_targets(
    _: None, inputs: PipelineInputs, boundaries: Boundaries, log: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Time ranks, ascending, and split numbers of the targets that have an example, once the log stands (`log`, only waited for)."""
    del log
    targets, is_new = _find_targets(inputs, boundaries)
    ranks = open_log(inputs, boundaries).log.time_ranks[targets.rows[~is_new]]
    order = np.argsort(ranks)
    return ranks[order], targets.splits[~is_new][order]


def _find_targets(inputs: PipelineInputs, boundaries: Boundaries) -> tuple[build_examples.TargetRows, np.ndarray]:
    """The targets, and bool [n] which of them the previous data set has no example of."""
    dataset = open_log(inputs, boundaries)
    targets = build_examples.find_target_rows(dataset, boundaries)
    if inputs.previous is None:
        return targets, np.ones(len(targets.rows), bool)
    before = build_examples.find_target_rows(dataset, inputs.previous.boundaries).rows
    before = before[dataset.log.time_ranks[before] < inputs.previous.counts["rows"]]
    return targets, ~np.isin(targets.rows, before)


def build_slates(
    batch: tuple[np.ndarray, np.ndarray], inputs: PipelineInputs, boundaries: Boundaries
) -> Iterator[tuple[tuple[int, int], ExampleBlock]]:
    """The serialized examples of a batch of targets, by split and file."""
    builder = open_builder(inputs, boundaries)
    candidates = builder.find_candidates(batch[0])
    yield from serialize_slates(batch, builder, candidates, builder.look_up(candidates), inputs)


def serialize_slates(
    batch: tuple[np.ndarray, np.ndarray],
    builder: build_examples.ExampleBuilder,
    candidates: build_examples.Candidates,
    found: Neighbours,
    inputs: PipelineInputs,
) -> Iterator[tuple[tuple[int, int], ExampleBlock]]:
    """As `build_slates`, once the neighbours are found."""
    rows, splits = batch
    serialized: list[bytes] = []
    ranks, num_candidates = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    for index, slate in enumerate(builder.build(candidates, found)):
        serialized.append(builder.spec.serialize(slate))
        ranks[index], num_candidates[index] = slate["rank"], len(slate["label"])
    files, keys = builder.place_examples(ranks)
    for split, file in np.unique(np.stack([splits, files], axis=1), axis=0).tolist():
        chosen = np.flatnonzero((splits == split) & (files == file))
        examples = [serialized[index] for index in chosen]
        yield (split, file), build_example_block(keys[chosen], examples, int(num_candidates[chosen].sum()))
    inputs.report_progress(f"targets-{int(rows[0])}", len(rows))


def write_examples(
    file_and_blocks: tuple[tuple[int, int], Iterable[ExampleBlock]], inputs: PipelineInputs
) -> dict[str, int]:
    """Writes one TFRecord file of examples, in the order of their keys."""
    (split, file), blocks = file_and_blocks[0], list(file_and_blocks[1])
    keys = np.concatenate([block.keys for block in blocks])
    examples = [example for block in blocks for example in block.examples()]
    name = SPLITS[split - 1]
    path_name = f"examples/{name}-{file:05d}-of-{inputs.config.pipeline.example_shards:05d}.tfrecord"
    with inputs.folder.writing(path_name) as path, tf.io.TFRecordWriter(str(path)) as writer:
        for index in np.argsort(keys):
            writer.write(examples[index])
    return {
        f"{name}_examples": len(examples),
        f"{name}_candidates": sum(block.num_candidates for block in blocks),
    }
